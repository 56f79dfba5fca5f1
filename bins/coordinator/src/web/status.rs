//! `GET /`: what there is at the moment, on a page that needs no script.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use askama::Template;
use axum::extract::State;
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::lease::Lease;
use crate::pool::{Counts, MachineStatus, PresenceStatus, Snapshot, Usage};

use super::error::WebError;

/// Renders the page. It is for anybody who can reach the port, as Go's was, so it names instances and machines but shows
/// no address, key or token.
pub(super) async fn page(
    State(coordinator): State<Arc<Coordinator>>,
) -> Result<Response, WebError> {
    let leases = coordinator.instances.list(None).await?;
    let now = SystemTime::now();
    let html = StatusPage::new(&coordinator, &leases, &coordinator.pool.snapshot(), now)
        .render()
        .expect("the template writes to a string");
    let policy = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((policy, Html(html)).into_response())
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    version: &'static str,
    up: String,
    instances: Vec<InstanceRow>,
    pools: Vec<PoolRow>,
    machines: Vec<MachineRow>,
}

struct InstanceRow {
    name: String,
    age: String,
    left: String,
}

struct PoolRow {
    host_type: String,
    counts: Counts,
}

struct MachineRow {
    hostname: String,
    host_type: String,
    state: String,
}

impl StatusPage {
    fn new(coordinator: &Coordinator, leases: &[Lease], pool: &Snapshot, now: SystemTime) -> Self {
        let instances = leases.iter().map(|lease| InstanceRow {
            name: lease.name.clone(),
            age: rounded(now.duration_since(lease.created)),
            left: rounded(lease.expires.duration_since(now)),
        });
        let config = coordinator.config();
        let pools = config.host_types.keys().map(|host_type| PoolRow {
            host_type: host_type.clone(),
            counts: pool.counts(host_type),
        });
        let mut machines: Vec<MachineRow> = pool
            .machines
            .iter()
            .map(|machine| MachineRow::new(machine, now))
            .collect();
        machines.extend(missing(&config, pool));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            up: rounded(now.duration_since(coordinator.started)),
            instances: instances.collect(),
            pools: pools.collect(),
            machines,
        }
    }
}

impl MachineRow {
    fn new(machine: &MachineStatus, now: SystemTime) -> Self {
        let usage = match &machine.usage {
            Usage::Idle => "idle".to_owned(),
            Usage::Leased(name) => format!("leased as {name}"),
            Usage::Reserved => "being made ready".to_owned(),
            Usage::Unfit(reason) => format!("set aside because {reason},"),
        };
        let since = rounded(now.duration_since(machine.since));
        let state = match machine.presence {
            PresenceStatus::Linked(link) => {
                let connected = rounded(now.duration_since(link.connected));
                format!(
                    "version {}, connected {connected}, {usage} for {since}",
                    link.version
                )
            }
            PresenceStatus::Away => format!("away for {since}, {usage}"),
            PresenceStatus::Standing => format!("no buildlet, {usage} for {since}"),
        };
        Self {
            hostname: machine.id.hostname.clone(),
            host_type: machine.id.host_type.clone(),
            state,
        }
    }
}

/// Machines that the configuration expects and that are not there.
fn missing(config: &Config, pool: &Snapshot) -> Vec<MachineRow> {
    let mut rows = Vec::new();
    for (host_type, expected) in &config.host_types {
        for hostname in expected.machines.keys() {
            if !pool
                .machines
                .iter()
                .any(|m| m.id.host_type == *host_type && m.id.hostname == *hostname)
            {
                let state = "missing".to_owned();
                rows.push(MachineRow {
                    hostname: hostname.clone(),
                    host_type: host_type.clone(),
                    state,
                });
            }
        }
    }
    rows
}

/// A duration to the second. A clock that went back makes it nothing.
fn rounded(duration: Result<Duration, std::time::SystemTimeError>) -> String {
    humantime::format_duration(Duration::from_secs(duration.unwrap_or_default().as_secs()))
        .to_string()
}
