//! `GET /reverse`: a machine dials in, and the connection is reversed. `GET /revdial`: a machine of dialect v2 brings a
//! connection that we asked it for.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use buildlet_proto::ApiError;
use buildlet_proto::hijack::{Hijack, HijackedStream};
use revdial::handshake::Dialect;
use revdial::v2::{PickUp, Tls};
use revdial::{Config, Dialer};
use tokio::sync::oneshot;
use tokio_util::io::InspectReader;
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
    let dialect = Dialect::from_headers(&headers).map_err(|_| unknown_dialect())?;
    if let Some(present) = coordinator.pool.link(&machine) {
        make_way(present).await?;
    }
    let process = headers.get(PROCESS).and_then(|value| value.to_str().ok());
    let registered = Registered {
        machine,
        peer,
        dialect,
        process: process.and_then(|process| process.parse().ok()),
    };
    let mut config = Config::default();
    config.heed_window(&headers);
    hijack.take_over(move |stream| {
        Box::pin(async move {
            let dialer = dialer(&coordinator, dialect, config, stream);
            serve(coordinator, registered, dialer).await;
        })
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "revdial");
    if let Some(version) = dialect.header_value() {
        response = response.header(Dialect::HEADER, version);
    }
    Ok(response
        .body(Body::empty())
        .expect("constant headers are valid"))
}

/// Checks that a dial waits for the connection, answers 101, and keeps the connection's slot until the dial is done with
/// it: a connection that a machine brings counts like one that a user opens.
pub(super) async fn pick_up(
    State(coordinator): State<Arc<Coordinator>>,
    Extension(Peer(peer)): Extension<Peer>,
    Extension(hijack): Extension<Hijack>,
    request: Request,
) -> Response<Body> {
    // This server speaks TLS and nothing else.
    match coordinator.pick_ups.begin_request(&request, Tls::Present) {
        Ok(mut pick_up) => {
            pick_up.set_peer_addr(peer);
            let response = pick_up.response().map(Body::from);
            hijack.take_over(move |stream| Box::pin(hand_over(pick_up, stream)));
            response
        }
        Err(refusal) => refusal.response().map(Body::from),
    }
}

/// Gives the dial its connection, and waits until it is done with it.
async fn hand_over(pick_up: PickUp, stream: HijackedStream) {
    let (in_use, done) = oneshot::channel::<()>();
    pick_up.complete(InspectReader::new(stream, move |_| {
        let _ = &in_use;
    }));
    // It is dropped with the stream, never sent.
    let _ = done.await;
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

fn unknown_dialect() -> WebError {
    WebError::bad_request(
        "unknown revdial version: this coordinator speaks X-Revdial-Version 3 and 2, and Go's first dialect without the header",
    )
}

/// Makes the registered connection the machine's link.
fn dialer(
    coordinator: &Coordinator,
    dialect: Dialect,
    mut config: Config,
    stream: HijackedStream,
) -> Dialer {
    match dialect {
        Dialect::V1 => {
            config.max_outbound_streams = MAX_GO_STREAMS;
            Dialer::v1(stream, config)
        }
        Dialect::V2 => {
            config.max_outbound_streams = MAX_GO_STREAMS;
            let path = PathAndQuery::from_static(PICK_UP_PATH);
            Dialer::v2(stream, &coordinator.pick_ups, path, config)
        }
        Dialect::V3 | _ => Dialer::new(stream, config),
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

/// A machine that was told to reverse its connection.
struct Registered {
    machine: MachineId,
    peer: SocketAddr,
    dialect: Dialect,
    process: Option<u64>,
}

/// Keeps a machine in the pool as long as its link lives.
async fn serve(coordinator: Arc<Coordinator>, registered: Registered, dialer: Dialer) {
    let Registered {
        machine,
        peer,
        dialect,
        process,
    } = registered;
    let link = Link::establish(machine.clone(), peer, process, dialer.clone()).await;
    let link = match join(&coordinator, link).await {
        Ok(link) => link,
        Err(reason) => {
            warn!(%peer, %machine, "a machine registered but was not admitted: {reason:#}");
            dialer.close();
            return;
        }
    };
    info!(%machine, version = link.version, ?dialect, "machine joined");
    tokio::select! {
        reason = link.closed() => info!(%machine, %reason, "machine left"),
        () = coordinator.shutdown.cancelled() => link.abort(),
    }
    coordinator.pool.leave(&link);
}

/// Takes a machine into the pool that serves.
async fn join(
    coordinator: &Coordinator,
    link: Result<Link, ApiError>,
) -> anyhow::Result<Arc<Link>> {
    let link = Arc::new(link.context("it does not serve")?);
    admit(coordinator, &link).await?;
    Ok(link)
}

async fn admit(coordinator: &Coordinator, link: &Arc<Link>) -> anyhow::Result<()> {
    let lease = coordinator.instances.of_machine(&link.id).await?;
    let name = lease.map(|lease| lease.name);
    if name.is_none() {
        // Every lease ends with the link, so this is where what the last user left running ends.
        link.forget_jobs().await?;
    }
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

/// A random number, the same for as long as the buildlet's process lives.
const PROCESS: &str = "x-buildlet-process";
/// Where machines of dialect v2 bring their connections, as in Go's coordinator.
pub(super) const PICK_UP_PATH: &str = "/revdial";
/// Streams that may be open at once to a machine of Go's dialects. In v1 each may hold 512 KiB that nobody reads, in v2
/// each is a connection of its own: 64 MiB, or 128 descriptors.
const MAX_GO_STREAMS: usize = 128;
