//! From an HTTP connection to a link: which dialect is spoken, and the client's side of the upgrade.

mod redirect;
mod retry_after;
mod window;

use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

pub use crate::handshake::redirect::{RedirectError, upgrade_following};

use self::retry_after::retry_after;

/// What two sides speak once the connection is theirs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Dialect {
    /// Go's frames of 2015, without flow control. No header asks for it.
    V1,
    /// Go's control connection with one further connection per dial.
    V2,
    /// Ours: many connections over one, with flow control.
    V3,
}

impl Dialect {
    /// The header that asks for a dialect.
    pub const HEADER: HeaderName = HeaderName::from_static("x-revdial-version");

    /// Reads what a client asks for. A client that says nothing is old: [`V1`](Self::V1).
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, UnknownDialect> {
        let mut values = headers.get_all(Self::HEADER).iter();
        match (values.next().map(HeaderValue::as_bytes), values.next()) {
            (None, _) => Ok(Self::V1),
            (Some(b"2"), None) => Ok(Self::V2),
            (Some(b"3"), None) => Ok(Self::V3),
            (Some(_), _) => Err(UnknownDialect),
        }
    }

    /// The value of [`HEADER`](Self::HEADER) that asks for the dialect; none for [`V1`](Self::V1).
    pub fn header_value(self) -> Option<HeaderValue> {
        match self {
            Self::V1 => None,
            Self::V2 => Some(HeaderValue::from_static("2")),
            Self::V3 => Some(HeaderValue::from_static("3")),
        }
    }
}

/// A client asked for a dialect that does not exist; the answer is 400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown revdial version")]
#[non_exhaustive]
pub struct UnknownDialect;

/// Why an upgrade did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    // Us.
    /// The request cannot be written as HTTP/1.1: it is not a GET, or it announces a body.
    #[error("an upgrade is asked for with a GET without a body")]
    BadRequest,

    // The peer.
    /// The server answered, but not with 101.
    #[error("want HTTP status 101; got {status}:\n\t{body}", body = body_text(.body))]
    Refused {
        /// The status.
        status: StatusCode,
        /// The beginning of the body, 4 KiB at most.
        body: Bytes,
        /// How long the server asks us to wait before we try again: what `Retry-After` says in seconds, or as a date,
        /// which is compared with the server's own `Date` where it sends one, and with our clock otherwise.
        retry_after: Option<Duration>,
        /// Where the server sends us instead.
        location: Option<HeaderValue>,
    },
    /// The server sends us elsewhere, and we do not go.
    #[error("the server's redirect is not followed")]
    Redirect(#[from] RedirectError),
    /// What came is not an HTTP reply.
    #[error("the answer is not an HTTP reply")]
    NotHttp(#[source] Option<httparse::Error>),
    /// The head of the reply is longer than 16 KiB.
    #[error("the head of the reply is longer than {HEAD_MAX} bytes")]
    HeadTooLong,

    // The transport.
    /// The connection ended before the reply.
    #[error("the connection ended before the reply")]
    Cut,
    /// Reading or writing failed.
    #[error("the transport broke")]
    Transport(#[from] io::Error),
}

/// Writes `request` and waits for the server to hand the connection over.
///
/// The request is written as HTTP/1.1 `GET` of the URI's path and query, with its headers and the `Host` of its URI
/// unless it has one (empty where the URI has no host, as Go's buildlet sends it). Both `HTTP/1.1 101` and the
/// `HTTP/0.0 101` of Go's coordinator are accepted. Bytes that came behind the head are kept: reading from [`Upgraded`]
/// gives them first.
///
/// There is no time limit: a server that is silent keeps this waiting. Give it one with [`tokio::time::timeout`].
///
/// # Cancel safety
///
/// Not cancel safe: the transport is lost with the future, as part of the request may be written.
pub async fn upgrade<T>(
    mut transport: T,
    request: &Request<()>,
) -> Result<(Upgraded<T>, Response<()>), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (response, rest) = exchange(&mut transport, request).await?;
    conclude(transport, response, rest).await
}

/// Writes the request and reads the head of its reply; returns it, and what came behind it.
pub(crate) async fn exchange<T>(
    transport: &mut T,
    request: &Request<()>,
) -> Result<(Response<()>, BytesMut), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    transport.write_all(&request_head(request)?).await?;
    transport.flush().await?;
    let mut received = BytesMut::new();
    loop {
        if let Some((response, length)) = parse_head(&received)? {
            received.advance(length);
            return Ok((response, received));
        }
        if received.len() >= HEAD_MAX {
            return Err(HandshakeError::HeadTooLong);
        }
        let room = HEAD_MAX - received.len();
        if transport.take(room as u64).read_buf(&mut received).await? == 0 {
            return Err(HandshakeError::Cut);
        }
    }
}

/// The transport is ours, or the server says why not.
async fn conclude<T>(
    transport: T,
    response: Response<()>,
    rest: BytesMut,
) -> Result<(Upgraded<T>, Response<()>), HandshakeError>
where
    T: AsyncRead + Unpin,
{
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok((Upgraded::new(rest.freeze(), transport), response));
    }
    Err(refused(transport, &response, rest).await)
}

/// A transport after the upgrade; it gives the bytes that came behind the reply first.
#[derive(Debug)]
pub struct Upgraded<T> {
    leftover: Bytes,
    transport: T,
}

impl<T> Upgraded<T> {
    /// Takes a transport from which `leftover` was read already.
    pub fn new(leftover: Bytes, transport: T) -> Self {
        Self {
            leftover,
            transport,
        }
    }

    /// The transport, for its addresses and options.
    pub fn get_ref(&self) -> &T {
        &self.transport
    }

    /// Gives back the bytes that were read already, and the transport.
    pub fn into_parts(self) -> (Bytes, T) {
        (self.leftover, self.transport)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Upgraded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.leftover.is_empty() {
            return Pin::new(&mut self.transport).poll_read(cx, buf);
        }
        let count = self.leftover.len().min(buf.remaining());
        buf.put_slice(&self.leftover.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Upgraded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// The bytes of the request.
fn request_head(request: &Request<()>) -> Result<Vec<u8>, HandshakeError> {
    let headers = request.headers();
    let has_body = headers.contains_key(http::header::CONTENT_LENGTH)
        || headers.contains_key(http::header::TRANSFER_ENCODING);
    if request.method() != Method::GET || has_body {
        return Err(HandshakeError::BadRequest);
    }
    let uri = request.uri();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("GET {target} HTTP/1.1\r\n").into_bytes();
    if !headers.contains_key(http::header::HOST) {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        head.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
    }
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// Parses the head of a reply; `None` until it is whole. Returns it and its length.
fn parse_head(received: &[u8]) -> Result<Option<(Response<()>, usize)>, HandshakeError> {
    // Go's `http.Response.Write` prints the version that nobody set; httparse knows 1.0 and 1.1 only.
    let known = b"HTTP/0.0 ";
    let start = received.len().min(known.len());
    let mut corrected;
    let head = if start > 5 && received[..start] == known[..start] {
        corrected = received.to_vec();
        corrected[5..start].copy_from_slice(&b"1.1 "[..start - 5]);
        corrected.as_slice()
    } else {
        received
    };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(HandshakeError::NotHttp(Some(error))),
    };
    let not_http = || HandshakeError::NotHttp(None);
    let code = parsed.code.ok_or_else(not_http)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| not_http())?;
    *response.version_mut() = Version::HTTP_11;
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| not_http())?;
        let value = HeaderValue::from_bytes(header.value).map_err(|_| not_http())?;
        response.headers_mut().append(name, value);
    }
    Ok(Some((response, length)))
}

/// Collects what the server says about its refusal. What cannot be read is left out: the status says enough.
pub(crate) async fn refused<T: AsyncRead + Unpin>(
    transport: T,
    response: &Response<()>,
    mut body: BytesMut,
) -> HandshakeError {
    let length =
        header::<usize>(response.headers(), &http::header::CONTENT_LENGTH).unwrap_or(BODY_MAX);
    let wanted = length.min(BODY_MAX);
    let mut rest = transport.take(wanted.saturating_sub(body.len()) as u64);
    let reading =
        async { while matches!(rest.read_buf(&mut body).await, Ok(count) if count > 0) {} };
    // A server that keeps the connection open after a body without a length must not hide its status.
    let _ = tokio::time::timeout(BODY_PATIENCE, reading).await;
    body.truncate(wanted);
    HandshakeError::Refused {
        status: response.status(),
        body: body.freeze(),
        retry_after: retry_after(response.headers(), SystemTime::now()),
        location: response.headers().get(http::header::LOCATION).cloned(),
    }
}

/// The first value of a header, if it is one.
pub(crate) fn header<V: FromStr>(headers: &HeaderMap, name: &HeaderName) -> Option<V> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The body as a person reads it.
fn body_text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}

/// Bytes of a reply's head; a server that sends more wants to fill our memory.
const HEAD_MAX: usize = 16 * 1024;
/// Header lines of a reply.
const HEADERS_MAX: usize = 100;
/// How long the rest of a refusal's body is waited for.
const BODY_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes that are kept of a refusal's body.
const BODY_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests;
