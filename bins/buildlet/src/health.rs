//! Whether the machine is well, and a port that says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use buildlet_proto::ApiError;
use buildlet_proto::api::Unhealthy;
use buildlet_proto::hijack::{Limits, serve_connection, service};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::disk;
use crate::root::Root;
use crate::stream::blocking;

/// What tells whether the machine should get work.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    root: Root,
    /// Bytes of free disk below which it should not.
    low_disk: u64,
    /// Whether there was less of it when that was found out last.
    was_low: Arc<AtomicBool>,
}

impl Health {
    pub(crate) fn new(root: Root, low_disk: u64) -> Self {
        Self {
            root,
            low_disk,
            was_low: Arc::default(),
        }
    }

    /// What is wrong, if anything is. A disk that does not answer in a second is as it was: who asks for the status wants to
    /// know that somebody lives.
    pub(crate) async fn check(&self) -> Option<Unhealthy> {
        if self.low_disk == 0 {
            return None;
        }
        let root = self.root.clone();
        let free = blocking(move || {
            let dir = root.open().map_err(|error| {
                ApiError::internal("cannot open the work directory").because(error)
            })?;
            disk::free(dir)
        });
        match tokio::time::timeout(PATIENCE, free).await {
            Ok(Ok(free)) => self.was_low.store(free < self.low_disk, Ordering::Relaxed),
            Ok(Err(error)) => tracing::warn!(%error, "the free space of the disk is not known"),
            Err(_) => tracing::warn!("the disk does not tell how much of it is free"),
        }
        let is_low = self.was_low.load(Ordering::Relaxed);
        is_low.then_some(Unhealthy::LowDisk)
    }
}

/// A port on which anybody may ask whether the machine is well, and nothing else.
pub(crate) struct HealthPort(TcpListener);

impl HealthPort {
    pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address} for --health-addr"))?;
        tracing::info!(address = %listener.local_addr()?, "GET /healthz is answered");
        Ok(Self(listener))
    }

    /// Answers for ever.
    pub(crate) async fn run(self, health: Health) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = self.0.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let Ok((tcp, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let health = health.clone();
            connections.spawn(async move {
                let answer = service(|request| answer(&health, request));
                let limits = Limits::with_header_timeout(HEADER_TIME);
                // A watchdog that leaves early has heard enough.
                let _ = serve_connection(tcp, answer, limits).await;
                drop(slot);
            });
        }
    }
}

async fn answer(health: &Health, request: Request<Incoming>) -> Response<String> {
    let (status, text) = match (request.uri().path(), request.method()) {
        ("/healthz", &Method::GET | &Method::HEAD) => match health.check().await {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        ("/healthz", _) => (StatusCode::BAD_REQUEST, "requires GET method\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response
}

const PATIENCE: Duration = Duration::from_secs(1);
/// Watchdogs are few, and nobody else has business here.
const MAX_CONNECTIONS: usize = 16;
const HEADER_TIME: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
