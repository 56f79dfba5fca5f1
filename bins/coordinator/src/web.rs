//! Everything that is served over HTTPS: machines that dial in, gomote, the proxy to instances, the status page.

mod environment;
mod error;
mod gomote;
mod proxy;
mod reverse;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use buildlet_proto::coordinator::X_BUILDLET_PROXY;

use crate::coordinator::Coordinator;

use error::WebError;

/// The routes of one connection, which comes from `peer`.
pub fn router(coordinator: Arc<Coordinator>, peer: SocketAddr) -> Router {
    let proxied = coordinator.clone();
    Router::new()
        .route("/", get(status::page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/reverse", any(reverse::register))
        .route(reverse::PICK_UP_PATH, any(reverse::pick_up))
        .route("/buildlet/create", any(gomote::create))
        .route("/buildlet/list", any(gomote::list))
        .route("/buildlet/types", any(gomote::types))
        .fallback(|| async { WebError::not_found() })
        .layer(middleware::from_fn(move |request, next| {
            proxy_or_route(proxied.clone(), request, next)
        }))
        .layer(axum::Extension(Peer(peer)))
        .with_state(coordinator)
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

/// A request that names an instance goes to its machine, whatever its path is.
async fn proxy_or_route(coordinator: Arc<Coordinator>, request: Request, next: Next) -> Response {
    let named = request
        .headers()
        .get(X_BUILDLET_PROXY)
        .is_some_and(|name| !name.is_empty());
    if named {
        proxy::forward(&coordinator, request).await.into_response()
    } else {
        next.run(request).await
    }
}
