//! Requests with `X-Buildlet-Proxy`: forwarded to the machine of the instance, both ways as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use buildlet_proto::coordinator::X_BUILDLET_PROXY;
use buildlet_proto::hijack::{self, Hijack};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::coordinator::Coordinator;
use crate::lease::Lease;
use crate::machine::Link;

use super::environment;
use super::error::WebError;

/// Forwards a request to the machine of the instance that it names.
pub(super) async fn forward(
    coordinator: &Arc<Coordinator>,
    request: Request,
) -> Result<Response, WebError> {
    let user = coordinator.access().user(request.headers())?;
    let name = request
        .headers()
        .get(X_BUILDLET_PROXY)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let lease = coordinator.instances.use_by(&user, name).await?;
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/halt") => {
            coordinator.instances.destroy(&lease.name).await?;
            Ok(StatusCode::OK.into_response())
        }
        (_, "/tcpproxy") => Err(WebError::bad_request(format!(
            "unsupported non-VM host type {:?}",
            lease.machine.host_type
        ))),
        _ => {
            let link = coordinator.instances.link(&lease)?;
            let end = coordinator.instances.end_of(&lease.name);
            let env = coordinator.config().env_of(&lease.builder_type);
            let request = environment::add(&env, request).await?;
            pass_on(&lease, &link, end, request).await
        }
    }
}

async fn pass_on(
    lease: &Lease,
    link: &Link,
    end: CancellationToken,
    mut request: Request,
) -> Result<Response, WebError> {
    let hijack = request.extensions_mut().remove::<Hijack>();
    let gateway_error = |error: &dyn std::fmt::Display| {
        debug!(instance = %lease.name, %error, "proxying failed");
        WebError::new(
            StatusCode::BAD_GATEWAY,
            format!("the machine of {} did not answer: {error}", lease.name),
        )
    };
    let conn = link.dial().await.map_err(|e| gateway_error(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(conn))
        .await
        .map_err(|e| gateway_error(&e))?;
    // Owned by the reply: when the client goes away, so does the connection to the machine, and with it what it runs.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "a proxied connection ended");
        }
    }));
    let response = tokio::select! {
        response = sender.send_request(outgoing(request, &lease.machine.hostname)) => response.map_err(|e| gateway_error(&e))?,
        () = end.cancelled() => return Err(gateway_error(&"the lease has ended")),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let hijack =
            hijack.ok_or_else(|| gateway_error(&"this connection cannot be taken over"))?;
        return Ok(upgraded(hijack, response, connection, end));
    }
    let (mut head, body) = response.into_parts();
    remove_hop_by_hop(&mut head.headers);
    let body = TiedBody {
        body,
        ended: Box::pin(end.cancelled_owned()),
        _connection: connection,
    };
    Ok(Response::from_parts(head, Body::new(body)))
}

/// The request as the machine sees it: without what identifies the user, and with what makes it send trailers.
fn outgoing(request: Request, hostname: &str) -> Request {
    let (mut head, body) = request.into_parts();
    let upgrade = head.headers.get(header::UPGRADE).cloned();
    remove_hop_by_hop(&mut head.headers);
    for name in [
        header::AUTHORIZATION,
        header::COOKIE,
        HeaderName::from_static(X_BUILDLET_PROXY),
    ] {
        head.headers.remove(name);
    }
    head.headers
        .insert(header::TE, HeaderValue::from_static("trailers"));
    let host =
        HeaderValue::from_str(hostname).unwrap_or_else(|_| HeaderValue::from_static("buildlet"));
    head.headers.insert(header::HOST, host);
    if let Some(protocol) = upgrade {
        head.headers.insert(header::UPGRADE, protocol);
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    // Between us and the machine the request has no scheme and no authority, whatever form the client used.
    head.uri = head
        .uri
        .path_and_query()
        .map_or_else(|| "/".parse(), |path| path.as_str().parse())
        .unwrap_or_default();
    head.version = Version::HTTP_11;
    Request::from_parts(head, body)
}

/// RFC 9110 §7.6.1: what belongs to one connection goes no further, nor does what `Connection` names. `Trailer` stays,
/// because it tells the next hop which trailers to let through.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in &named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Joins the client's stream with the machine's, until both directions or the lease are at their end.
fn upgraded(
    hijack: Hijack,
    mut response: hyper::Response<Incoming>,
    connection: AbortOnDropHandle<()>,
    end: CancellationToken,
) -> Response {
    let machine = hyper::upgrade::on(&mut response);
    hijack.take_over(move |client| {
        Box::pin(async move {
            let copy = async {
                let machine = TokioIo::new(machine.await.map_err(std::io::Error::other)?);
                hijack::join(client, machine).await
            };
            tokio::select! {
                copied = copy => debug!(?copied, "a proxied stream ended"),
                () = end.cancelled() => debug!("a proxied stream was cut at the end of the lease"),
            }
            drop(connection);
        })
    });
    let (head, _) = response.into_parts();
    Response::from_parts(head, Body::empty())
}

/// A body that is cut when the lease ends, and that takes its connection with it.
struct TiedBody {
    body: Incoming,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _connection: AbortOnDropHandle<()>,
}

impl HttpBody for TiedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other(
                "the lease has ended",
            )))));
        }
        Pin::new(&mut this.body)
            .poll_frame(cx)
            .map_err(axum::Error::new)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_identifies_the_user_goes_no_further() {
        let request = Request::builder()
            .uri("https://coordinator/exec?x=1")
            .header("authorization", "Basic c2VjcmV0")
            .header("cookie", "session=1")
            .header("x-buildlet-proxy", "user-al-t-0")
            .header("connection", "x-private, close")
            .header("x-private", "1")
            .header("content-type", "text/plain")
            .body(Body::empty())
            .unwrap();
        let request = outgoing(request, "machine-1");
        assert_eq!(request.uri(), "/exec?x=1");
        let mut headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        headers.sort();
        assert_eq!(
            headers,
            [
                "content-type: \"text/plain\"",
                "host: \"machine-1\"",
                "te: \"trailers\""
            ]
        );
    }

    #[test]
    fn an_upgrade_is_passed_on() {
        let request = Request::builder()
            .method("POST")
            .uri("/connect-ssh")
            .header("connection", "Upgrade")
            .header("upgrade", "ssh")
            .body(Body::empty())
            .unwrap();
        let request = outgoing(request, "m");
        assert_eq!(request.headers()["upgrade"], "ssh");
        assert_eq!(request.headers()["connection"], "Upgrade");
    }
}
