//! `/buildlet/create` and `/buildlet/list`: leasing machines, in the protocol of Go's gomote; `/buildlet/types`: what there is to
//! lease.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use axum::response::IntoResponse;
use buildlet_proto::coordinator::{BuilderType, Instance};
use futures_util::stream;
use serde::Serialize;
use tokio::time::Instant;

use crate::coordinator::Coordinator;
use crate::lease::Lease;
use crate::pool::{Counts, Ticket};

use super::error::WebError;

/// Leases a machine, after waiting for one where none is idle.
pub(super) async fn create(
    State(coordinator): State<Arc<Coordinator>>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, WebError> {
    let user = coordinator.access().user(&headers)?;
    if method != Method::POST {
        return Err(WebError::bad_request("POST required"));
    }
    let form = CreateForm::parse(&body)?;
    let host_type = coordinator
        .config()
        .builder_types
        .get(&form.builder_type)
        .map(|builder| builder.host_type.clone())
        .ok_or_else(|| unknown_builder_type(&coordinator))?;
    let waiting = Waiting {
        ticket: coordinator.pool.queue(&host_type),
        coordinator,
        user,
        builder_type: form.builder_type,
    };
    if form.streams_status {
        return Ok(stream_status(waiting));
    }
    let lease = waiting.lease().await?;
    Ok(pretty(&lease.to_instance()))
}

/// Lists what the caller holds.
pub(super) async fn list(
    State(coordinator): State<Arc<Coordinator>>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response<Body>, WebError> {
    let user = reader(&coordinator, &method, &headers)?;
    let leases = coordinator.instances.list(Some(&user)).await?;
    let shown = |lease: &Lease| {
        let restarted = coordinator.pool.restarted(&lease.machine);
        lease.to_instance().with_restart(restarted)
    };
    let instances: Vec<Instance> = leases.iter().map(shown).collect();
    Ok(pretty(&instances))
}

/// Lists what there is to lease, and how busy it is.
pub(super) async fn types(
    State(coordinator): State<Arc<Coordinator>>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response<Body>, WebError> {
    reader(&coordinator, &method, &headers)?;
    let pool = coordinator.pool.snapshot();
    let config = coordinator.config();
    let types = config.builder_types.iter().map(|(name, builder)| {
        let counts = pool.counts(&builder.host_type);
        let mut of_type = BuilderType::new(name, &builder.host_type);
        of_type.machines = counts.there as u64;
        of_type.idle = counts.idle as u64;
        of_type.waiting = counts.waiting as u64;
        of_type
    });
    Ok(pretty(&types.collect::<Vec<_>>()))
}

/// The user who asks to read something.
fn reader(
    coordinator: &Coordinator,
    method: &Method,
    headers: &HeaderMap,
) -> Result<String, WebError> {
    let user = coordinator.access().user(headers)?;
    if method != Method::GET {
        return Err(WebError::bad_request("GET required"));
    }
    Ok(user)
}

/// JSON as Go's coordinator writes it.
fn pretty(value: &impl Serialize) -> Response<Body> {
    let json = serde_json::to_string_pretty(value).expect("what is listed is JSON");
    ([(header::CONTENT_TYPE, JSON)], format!("{json}\n")).into_response()
}

/// A user in the queue.
struct Waiting {
    coordinator: Arc<Coordinator>,
    user: String,
    builder_type: String,
    ticket: Ticket,
}

impl Waiting {
    async fn lease(&self) -> Result<Lease, WebError> {
        Ok(self
            .coordinator
            .instances
            .create(&self.user, &self.builder_type, &self.ticket)
            .await?)
    }
}

/// The form of 2019: one JSON object a line, a status every five seconds until there is an instance or an error.
fn stream_status(waiting: Waiting) -> Response<Body> {
    let first_status = Instant::now() + STATUS_INTERVAL;
    let lines = stream::try_unfold(Some((waiting, first_status)), |state| async move {
        let Some((waiting, next_status)) = state else {
            return Ok::<_, io::Error>(None);
        };
        let (line, state) = tokio::select! {
            biased;
            lease = waiting.lease() => {
                let line = match lease {
                    Ok(lease) => CreateLine::Buildlet(lease.to_instance()),
                    Err(error) => CreateLine::Error(error.message().to_owned()),
                };
                (line, None)
            }
            () = tokio::time::sleep_until(next_status) => {
                let status = CreateStatus {
                    message: "",
                    ahead: waiting.ticket.ahead(),
                    reason: why(waiting.ticket.counts()),
                };
                (CreateLine::Status(status), Some((waiting, next_status + STATUS_INTERVAL)))
            }
        };
        let json = serde_json::to_string(&line).map_err(io::Error::other)?;
        Ok(Some((Bytes::from(format!("{json}\n")), state)))
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), JSON),
        (X_SUPPORTED_VERSION, STREAMING_VERSION),
    ];
    (StatusCode::OK, headers, Body::from_stream(lines)).into_response()
}

/// Why there is nothing to lease.
fn why(counts: Counts) -> String {
    match counts {
        Counts {
            there: 0,
            in_use: 0,
            ..
        } => "no machine of this kind is connected".to_owned(),
        Counts { there, in_use, .. } => format!("machines connected: {there}, in use: {in_use}"),
    }
}

struct CreateForm {
    builder_type: String,
    streams_status: bool,
}

impl CreateForm {
    fn parse(body: &[u8]) -> Result<Self, WebError> {
        let mut form = RawForm::default();
        for (key, value) in form_urlencoded::parse(body) {
            match key.as_ref() {
                "builderType" => form.builder_type = value.into_owned(),
                "version" => form.version = value.into_owned(),
                _ => {}
            }
        }
        if form.version.as_str() < OLDEST_VERSION {
            let message = format!(
                "gomote client version {:?} is too old; predates server version {OLDEST_VERSION:?}",
                form.version
            );
            return Err(WebError::bad_request(message));
        }
        if form.builder_type.is_empty() {
            return Err(WebError::bad_request("missing 'builderType' parameter"));
        }
        Ok(Self {
            streams_status: form.version.as_str() >= STREAMING_VERSION,
            builder_type: form.builder_type,
        })
    }
}

#[derive(Default)]
struct RawForm {
    version: String,
    builder_type: String,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum CreateLine {
    Buildlet(Instance),
    Error(String),
    Status(CreateStatus),
}

#[derive(Serialize)]
struct CreateStatus {
    /// Go's gomote shows this in the place of the queue.
    message: &'static str,
    ahead: usize,
    reason: String,
}

/// The line of Go's coordinator, and what there is to choose from.
fn unknown_builder_type(coordinator: &Coordinator) -> WebError {
    let config = coordinator.config();
    let known: Vec<_> = config.builder_types.keys().map(String::as_str).collect();
    let message = format!(
        "unknown builder type in 'builderType' parameter; there are: {}",
        known.join(", ")
    );
    WebError::bad_request(message)
}

/// What Go's servers say.
const JSON: &str = "application/json; charset=utf-8";
/// The first version whose requests look like this (Go's coordinator compares them as text).
const OLDEST_VERSION: &str = "20160922";
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// The first version that reads a status line a time.
const STREAMING_VERSION: &str = "20191119";
const X_SUPPORTED_VERSION: &str = "x-supported-version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_why() {
        let why = |there, in_use| {
            let (idle, waiting) = (0, 1);
            why(Counts {
                there,
                idle,
                in_use,
                waiting,
            })
        };
        assert_eq!(why(0, 0), "no machine of this kind is connected");
        // One that is leased may be away.
        assert_eq!(why(0, 1), "machines connected: 0, in use: 1");
        assert_eq!(why(3, 2), "machines connected: 3, in use: 2");
    }
}
