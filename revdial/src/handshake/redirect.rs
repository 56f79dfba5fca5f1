//! An upgrade that follows a redirect to another path of the same server.

use bytes::BytesMut;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, TRANSFER_ENCODING,
};
use http::uri::{Parts, PathAndQuery, Uri};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{BODY_MAX, HandshakeError, Upgraded, conclude, exchange, header};

/// Why a 307 is not followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// It names a server. The request holds credentials that are meant for the one that was dialled, and the
    /// connection leads to no other.
    #[error(
        "it leads to another server ({0:?}), and credentials go to none but the configured one; configure that address"
    )]
    Absolute(HeaderValue),
    /// There is no `Location`, or it is no path.
    #[error("it names no path of this server")]
    NoPath,
    /// The connection cannot be used again: the server closes it, or does not say where its body ends within 4 KiB.
    #[error(
        "the connection cannot carry a second request; let the server send a 307 with a short `Content-Length`"
    )]
    NotReusable,
    /// The second answer is a redirect, too.
    #[error("it leads to a further redirect, and one is followed")]
    TooMany,
}

/// Like [`upgrade`](super::upgrade), and follows one `307 Temporary Redirect` to another path of the same server, with
/// a second request on the same connection.
///
/// Go's coordinators do so to move a registration between their handlers. A redirect that names a server is refused
/// ([`RedirectError::Absolute`]), even if it is the same one: the request carries the machine's credentials.
///
/// # Cancel safety
///
/// Not cancel safe, as `upgrade`.
pub async fn upgrade_following<T>(
    mut transport: T,
    request: &Request<()>,
) -> Result<(Upgraded<T>, Response<()>), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (response, received) = exchange(&mut transport, request).await?;
    if response.status() != StatusCode::TEMPORARY_REDIRECT {
        return conclude(transport, response, received).await;
    }
    let target = target(response.headers())?;
    skip_body(&mut transport, response.headers(), received).await?;
    let (response, received) = exchange(&mut transport, &request_to(request, target)).await?;
    if response.status() == StatusCode::TEMPORARY_REDIRECT {
        return Err(RedirectError::TooMany.into());
    }
    conclude(transport, response, received).await
}

/// Where the redirect leads, if that is a path of the same server.
fn target(headers: &HeaderMap) -> Result<PathAndQuery, RedirectError> {
    let location = headers.get(LOCATION).ok_or(RedirectError::NoPath)?;
    let bytes = location.as_bytes();
    match bytes {
        // `//HOST/PATH` is a relative reference that names a server.
        [b'/', b'/', ..] => Err(RedirectError::Absolute(location.clone())),
        [b'/', ..] => PathAndQuery::try_from(bytes).map_err(|_| RedirectError::NoPath),
        _ if bytes.contains(&b':') => Err(RedirectError::Absolute(location.clone())),
        _ => Err(RedirectError::NoPath),
    }
}

/// Reads over the body, of which `received` is a part.
async fn skip_body<T: AsyncRead + Unpin>(
    transport: &mut T,
    headers: &HeaderMap,
    received: BytesMut,
) -> Result<(), HandshakeError> {
    let length = body_length(headers).ok_or(RedirectError::NotReusable)?;
    // What is behind the body answers a request that was not made.
    let rest = length
        .checked_sub(received.len())
        .ok_or(RedirectError::NotReusable)?;
    let mut skipped = transport.take(rest as u64);
    let count = tokio::io::copy(&mut skipped, &mut tokio::io::sink()).await?;
    if count < rest as u64 {
        return Err(HandshakeError::Cut);
    }
    Ok(())
}

/// The length of a body that ends before the connection does.
fn body_length(headers: &HeaderMap) -> Option<usize> {
    let closes = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    if closes || headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = header::<usize>(headers, &CONTENT_LENGTH)?;
    (lengths.nth(1).is_none() && length <= BODY_MAX).then_some(length)
}

/// The same request for another path.
fn request_to(request: &Request<()>, target: PathAndQuery) -> Request<()> {
    let mut parts: Parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(target);
    let mut redirected = request.clone();
    // The rest of the URI was valid, and any path fits it.
    if let Ok(uri) = Uri::from_parts(parts) {
        *redirected.uri_mut() = uri;
    }
    redirected
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// Registers with a server that answers one request after the other with `replies`; returns what it was asked.
    async fn against(replies: &[&str]) -> (Vec<String>, Result<Vec<u8>, HandshakeError>) {
        let (ours, mut theirs) = duplex(64);
        let request = Request::get("http://farm.example/old?x=1")
            .header("X-Key", "secret")
            .body(())
            .unwrap();
        let server = async {
            let mut asked = Vec::new();
            for reply in replies {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match theirs.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return asked,
                    }
                }
                asked.push(String::from_utf8(head).unwrap());
                // A client that has heard enough goes away.
                let _ = theirs.write_all(reply.as_bytes()).await;
            }
            drop(theirs);
            asked
        };
        let client = async {
            let (mut upgraded, _) = upgrade_following(ours, &request).await?;
            let mut rest = Vec::new();
            upgraded.read_to_end(&mut rest).await?;
            Ok(rest)
        };
        tokio::time::timeout(Duration::from_secs(10), async {
            tokio::join!(server, client)
        })
        .await
        .expect("the test hangs")
    }

    const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n\r\nbehind";

    #[tokio::test]
    async fn a_relative_307_is_followed_on_the_same_connection() {
        let moved = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /new?y=2\r\nContent-Length: 6\r\n\r\nmoved\n";
        let (asked, rest) = against(&[moved, SWITCHING]).await;
        assert_eq!(rest.unwrap(), b"behind");
        assert_eq!(
            asked,
            [
                "GET /old?x=1 HTTP/1.1\r\nHost: farm.example\r\nx-key: secret\r\n\r\n",
                "GET /new?y=2 HTTP/1.1\r\nHost: farm.example\r\nx-key: secret\r\n\r\n",
            ]
        );
    }

    #[tokio::test]
    async fn credentials_are_not_sent_where_a_redirect_says() {
        for location in [
            "https://farm.example/new",
            "http://evil.example/",
            "//evil.example/new",
            "ftp:x",
        ] {
            let moved = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            );
            let (asked, outcome) = against(&[&moved, SWITCHING]).await;
            assert_eq!(asked.len(), 1, "{location}");
            let error = outcome.unwrap_err();
            assert!(
                matches!(error, HandshakeError::Redirect(RedirectError::Absolute(_))),
                "{location}: {error:?}"
            );
        }
    }

    #[tokio::test]
    async fn two_requests_are_made_at_most() {
        let moved =
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: /old\r\nContent-Length: 0\r\n\r\n";
        let (asked, outcome) = against(&[moved, moved, SWITCHING]).await;
        assert_eq!(asked.len(), 2);
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, HandshakeError::Redirect(RedirectError::TooMany)),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_redirect_without_a_path_or_an_end_is_an_error() {
        for (headers, expected) in [
            ("Content-Length: 0\r\n", RedirectError::NoPath),
            (
                "Location: new\r\nContent-Length: 0\r\n",
                RedirectError::NoPath,
            ),
            ("Location: /new\r\n", RedirectError::NotReusable),
            (
                "Location: /new\r\nContent-Length: 0\r\nConnection: close\r\n",
                RedirectError::NotReusable,
            ),
            (
                "Location: /new\r\nContent-Length: 99999\r\n",
                RedirectError::NotReusable,
            ),
            (
                "Location: /new\r\nTransfer-Encoding: chunked\r\n",
                RedirectError::NotReusable,
            ),
            (
                "Location: /new\r\nContent-Length: 0\r\nContent-Length: 5\r\n",
                RedirectError::NotReusable,
            ),
        ] {
            let moved = format!("HTTP/1.1 307 Temporary Redirect\r\n{headers}\r\n");
            let (_, outcome) = against(&[&moved]).await;
            let Err(HandshakeError::Redirect(error)) = outcome else {
                panic!("{headers}");
            };
            assert_eq!(error, expected, "{headers}");
        }
        let short =
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: /new\r\nContent-Length: 9\r\n\r\nshort";
        let (_, outcome) = against(&[short]).await;
        assert!(matches!(outcome, Err(HandshakeError::Cut)));
    }
}
