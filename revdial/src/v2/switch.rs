//! The listening side's HTTP exchange: it asks for a connection, and gets it.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, LOCATION, UPGRADE};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::pickup::PROTOCOL;
use crate::handshake::{self, HandshakeError, Upgraded};

/// Why a connection was not handed over. The texts are for the Dialer, in Go's words where Go has some.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwitchError {
    #[error("switch failed: the path is not the path of a URL")]
    BadPath,
    #[error("switch failed: a redirect leads elsewhere than to a path of the same server")]
    BadLocation,
    #[error(
        "switch failed: the body of a redirect has no length, or is longer than it or {BODY_MAX} bytes"
    )]
    EndlessBody,
    #[error("switch failed: {0}")]
    Handshake(#[from] HandshakeError),
    #[error(
        "switch failed: want HTTP status 101 or 307; got {status}:\n\t{body}",
        body = String::from_utf8_lossy(.body).trim_end()
    )]
    Refused { status: StatusCode, body: Bytes },
    #[error("too many redirects")]
    TooManyRedirects,
}

/// Asks for the connection at `conn_path`, and follows one redirect on the way.
pub(crate) async fn switch<T>(mut transport: T, conn_path: &str) -> Result<Upgraded<T>, SwitchError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut path = parse_path(conn_path).ok_or(SwitchError::BadPath)?;
    for _ in 0..REQUESTS_MAX {
        let request = pick_up_request(path);
        let (response, rest) = handshake::exchange(&mut transport, &request).await?;
        match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                return Ok(Upgraded::new(rest.freeze(), transport));
            }
            StatusCode::TEMPORARY_REDIRECT => {
                path = location(&response).ok_or(SwitchError::BadLocation)?;
                skip_body(&mut transport, &response, rest).await?;
            }
            status => {
                let error = handshake::refused(transport, &response, rest).await;
                return Err(if let HandshakeError::Refused { body, .. } = error {
                    SwitchError::Refused { status, body }
                } else {
                    error.into()
                });
            }
        }
    }
    Err(SwitchError::TooManyRedirects)
}

/// The request for a connection. Go's has no headers but an empty `Host`; ours asks for an upgrade as well, without which
/// hyper and proxies do not give a connection away.
fn pick_up_request(path: PathAndQuery) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from(path);
    let headers = request.headers_mut();
    headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, http::HeaderValue::from_static(PROTOCOL));
    request
}

/// A path on the same server.
fn parse_path(text: &str) -> Option<PathAndQuery> {
    if !text.starts_with('/') || text.starts_with("//") {
        return None;
    }
    text.parse().ok()
}

fn location(response: &Response<()>) -> Option<PathAndQuery> {
    parse_path(response.headers().get(LOCATION)?.to_str().ok()?)
}

/// Takes the body of a redirect, of which `received` is a part, off the connection.
async fn skip_body<T: AsyncRead + Unpin>(
    transport: &mut T,
    response: &Response<()>,
    received: BytesMut,
) -> Result<(), SwitchError> {
    // What is behind the body answers a request that was not made.
    let rest = handshake::header::<usize>(response.headers(), &CONTENT_LENGTH)
        .filter(|length| *length <= BODY_MAX)
        .and_then(|length| length.checked_sub(received.len()))
        .ok_or(SwitchError::EndlessBody)?;
    let mut body = transport.take(rest as u64);
    let skipped = tokio::io::copy(&mut body, &mut tokio::io::sink()).await;
    if skipped.map_err(HandshakeError::from)? < rest as u64 {
        return Err(HandshakeError::Cut.into());
    }
    Ok(())
}

/// The first request, and the one that its redirect leads to, as in Go.
const REQUESTS_MAX: usize = 2;

/// Bytes of a redirect's body: it says where else to look, in a line or two.
const BODY_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests;
