//! `GET /reverse`: a machine dials in, and the connection is reversed.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use buildlet_proto::hijack::{Hijack, HijackedStream};
use revdial::handshake::Dialect;
use revdial::{Config, Dialer};
use tracing::{info, warn};

use crate::coordinator::Coordinator;
use crate::lease::MachineId;
use crate::machine::Link;
use crate::pool::Occupied;
use crate::secret::Secret;

use super::Peer;
use super::error::WebError;

/// Checks who the machine is, answers 101, and keeps the connection as the machine's link until it ends.
pub(super) async fn register(
    State(coordinator): State<Arc<Coordinator>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(hijack): Extension<Hijack>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response<Body>, WebError> {
    if method != Method::GET {
        return Err(WebError::bad_request("requires GET method"));
    }
    let machine = identify(&coordinator, &headers, peer)?;
    require_v3(&headers)?;
    if let Some(present) = coordinator.pool.link(&machine) {
        make_way(present).await?;
    }
    hijack.take_over(move |stream| Box::pin(serve(coordinator, machine, peer, stream)));
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "revdial")
        .header(X_REVDIAL_VERSION, "3");
    Ok(response
        .body(Body::empty())
        .expect("constant headers are valid"))
}

/// Finds out which machine it is, with the texts and codes of Go's coordinator.
fn identify(
    coordinator: &Coordinator,
    headers: &HeaderMap,
    peer: SocketAddr,
) -> Result<MachineId, WebError> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
            .unwrap_or_default()
    };
    if headers.contains_key("x-go-builder-type") {
        return Err(WebError::bad_request(
            "X-Go-Builder-Type is not understood; register with X-Go-Host-Type",
        ));
    }
    let host_type = text("x-go-host-type");
    if host_type.is_empty() {
        return Err(WebError::bad_request(
            "missing X-Go-Host-Type; old buildlet binary?",
        ));
    }
    let hostname = text("x-go-builder-hostname");
    if hostname.is_empty() {
        return Err(WebError::bad_request(
            "missing X-Go-Builder-Hostname header",
        ));
    }
    if !is_hostname(hostname) {
        return Err(WebError::bad_request(
            "X-Go-Builder-Hostname: letters, digits, '-', '_' and '.', at most 64",
        ));
    }
    let machine = MachineId {
        host_type: host_type.to_owned(),
        hostname: hostname.to_owned(),
    };
    let key = Secret::presented(text("x-go-builder-key"));
    coordinator
        .access()
        .machine(&machine, &key)
        .map_err(|reason| {
            warn!(%peer, %machine, %reason, "refused a machine");
            // One answer for both reasons: a stranger does not learn which host types there are.
            WebError::new(
                StatusCode::PRECONDITION_FAILED,
                format!("bad key for mode {host_type:?}"),
            )
        })?;
    Ok(machine)
}

fn require_v3(headers: &HeaderMap) -> Result<(), WebError> {
    match Dialect::from_headers(headers) {
        Ok(Dialect::V3) => Ok(()),
        Ok(_) => Err(WebError::bad_request(
            "buildlet binary is too old: this coordinator speaks X-Revdial-Version 3",
        )),
        Err(_) => Err(WebError::bad_request(
            "unknown revdial version: this coordinator speaks X-Revdial-Version 3",
        )),
    }
}

/// A machine whose connection was cut registers again before we know that the old link is dead. One that answers is
/// another machine under the same name.
async fn make_way(present: Arc<Link>) -> Result<(), WebError> {
    if present.is_alive().await {
        let message = format!(
            "a machine named {:?} of host type {:?} is connected from {}; stop it, or give this one another name",
            present.id.hostname, present.id.host_type, present.peer
        );
        return Err(WebError::new(StatusCode::CONFLICT, message));
    }
    present.close();
    Ok(())
}

/// Keeps a machine in the pool as long as its link lives.
async fn serve(
    coordinator: Arc<Coordinator>,
    machine: MachineId,
    peer: SocketAddr,
    stream: HijackedStream,
) {
    let dialer = Dialer::new(stream, Config::default());
    let link = match Link::establish(machine.clone(), peer, dialer.clone()).await {
        Ok(link) => Arc::new(link),
        Err(error) => {
            warn!(%peer, %machine, %error, "a machine registered but does not serve");
            dialer.close();
            return;
        }
    };
    if let Err(reason) = admit(&coordinator, &link).await {
        warn!(%peer, %machine, %reason, "a machine registered but was not admitted");
        link.close();
        return;
    }
    info!(%machine, version = link.version, "machine joined");
    tokio::select! {
        reason = link.closed() => info!(%machine, %reason, "machine left"),
        () = coordinator.shutdown.cancelled() => link.close(),
    }
    coordinator.pool.leave(&link);
}

async fn admit(coordinator: &Coordinator, link: &Arc<Link>) -> anyhow::Result<()> {
    let lease = coordinator.instances.of_machine(&link.id).await?;
    let name = lease.map(|lease| lease.name);
    if let Err(Occupied(present)) = coordinator.pool.join(link.clone(), name.clone()) {
        // It was asked before the 101 and was dead, or it registered since; either way it has to prove itself.
        anyhow::ensure!(
            !present.is_alive().await,
            "a machine of that name is connected from {}",
            present.peer
        );
        coordinator.pool.leave(&present);
        present.close();
        coordinator
            .pool
            .join(link.clone(), name)
            .map_err(|_| anyhow::anyhow!("another of that name was faster"))?;
    }
    Ok(())
}

/// A host name is shown in pages and logs and is part of a machine's identity.
fn is_hostname(name: &str) -> bool {
    name.len() <= 64
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

const X_REVDIAL_VERSION: &str = "x-revdial-version";
