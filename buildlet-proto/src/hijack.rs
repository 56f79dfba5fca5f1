//! HTTP/1.1 connections that a handler can take over.
//!
//! [`serve_connection`] is hyper's server with two abilities that the peers of this protocol need and hyper does not
//! have. A handler can take the connection over after a 101 although the request carried no `Upgrade` header, which Go's
//! clients never send ([`Hijack`]), and [`join()`] it to another stream. And a response that declares a `Trailer` gets its trailers sent to every HTTP/1.1
//! client, where hyper sends them only to those that say `TE: trailers`, which Go's clients do not.

mod io;
mod join;
mod trailers;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use self::io::HijackedStream;
use self::io::{HeldIo, Hold};
pub use self::join::join;

/// Serves one connection until it ends, and then whatever a handler took it over for.
///
/// The request's body is [`hyper::body::Incoming`], the one foreign type of this interface. Each request carries a
/// [`Hijack`] in its extensions.
///
/// # Errors
///
/// [`ConnectionError`] where the peer broke the protocol or was silent for too long, where the transport failed, or
/// where a response body ended in an error; the transport is then dropped without a clean end.
///
/// # Cancel safety
///
/// Dropping the future drops the connection, and with it the handler and what took the connection over.
pub async fn serve_connection<IO, S, B>(
    io: IO,
    service: S,
    limits: Limits,
) -> Result<(), ConnectionError>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let hold = Hold::default();
    let hijack = Hijack::default();
    let service = {
        let (hijack, hold, service) = (hijack.clone(), hold.clone(), Arc::new(service));
        service_fn(move |mut request: Request<Incoming>| {
            let (hijack, hold) = (hijack.clone(), hold.clone());
            let asked = trailers::Asked::new(&request);
            request.extensions_mut().insert(hijack.clone());
            let response = service.call(request);
            async move { response.await.map(|r| divert(r, asked, &hijack, &hold)) }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.head_bytes)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(HeldIo::new(io, hold)), service);
    let parts = connection
        .without_shutdown()
        .await
        .map_err(ConnectionError)?;
    finish(parts.io.into_inner(), parts.read_buf, &hijack).await;
    Ok(())
}

/// Bounds on what a peer may do before it has asked for anything.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// How long a peer may take for the head of a request, counted from the end of the one before: a peer that is silent
    /// for longer loses the connection, so that connections cost the one who holds them open something.
    pub header_timeout: Duration,
    /// The largest head of a request, and the most of a body that waits for its handler.
    pub head_bytes: usize,
}

impl Limits {
    /// The default limits with another header timeout.
    pub fn with_header_timeout(header_timeout: Duration) -> Self {
        Self {
            header_timeout,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    /// Ten seconds and 64 KiB: ten times what a far machine needs, and room for a command line in a query.
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            head_bytes: 64 * 1024,
        }
    }
}

/// A handler's way to the connection that its request came on, found in the request's extensions.
#[derive(Clone, Default)]
pub struct Hijack {
    takeover: Arc<Mutex<Option<Takeover>>>,
}

impl Hijack {
    /// Takes the connection over: when the handler then returns a response with status 101, its head is sent and flushed
    /// on its own, and `on_stream` gets the raw stream, beginning with what the client has already sent. With any other
    /// status nothing is taken over and `on_stream` is dropped.
    ///
    /// The future runs inside [`serve_connection`], so whoever owns the connection owns it too.
    pub fn take_over<F, Fut>(&self, on_stream: F)
    where
        F: FnOnce(HijackedStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.put(Takeover {
            head: Head::AsWritten,
            on_stream: Box::new(|stream| Box::pin(on_stream(stream))),
        });
    }

    fn put(&self, takeover: Takeover) {
        *self.lock() = Some(takeover);
    }

    fn take(&self) -> Option<Takeover> {
        self.lock().take()
    }

    fn is_taken_over(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Takeover>> {
        self.takeover.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hijack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hijack").finish_non_exhaustive()
    }
}

/// The connection failed before it ended as HTTP says it should.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP connection failed")]
pub struct ConnectionError(#[source] hyper::Error);

/// Who goes on with the connection after hyper.
struct Takeover {
    head: Head,
    on_stream: OnStream,
}

/// What becomes of the head that hyper has written.
enum Head {
    AsWritten,
    /// Its status becomes this one, its `Trailer` is given back, and the body follows in chunks to the end of the
    /// connection.
    Chunked(StatusCode, HeaderValue),
}

type OnStream = Box<dyn FnOnce(HijackedStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Decides who sends a response: hyper, or a takeover behind a head with status 101, the one head after which hyper lets
/// go of a connection.
fn divert<B>(
    response: Response<B>,
    asked: trailers::Asked,
    hijack: &Hijack,
    hold: &Hold,
) -> Response<MaybeBody<B>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS && hijack.is_taken_over() {
        hold.begin();
        return Response::from_parts(parts, MaybeBody::none());
    }
    drop(hijack.take());
    let trailer = parts.headers.get(header::TRAILER).cloned();
    let Some(trailer) = trailer.filter(|_| asked.may_get_trailers()) else {
        return Response::from_parts(parts, MaybeBody::some(body));
    };
    hijack.put(Takeover {
        head: Head::Chunked(parts.status, trailer),
        on_stream: Box::new(|stream| Box::pin(trailers::send(body, stream))),
    });
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    hold.begin();
    Response::from_parts(parts, MaybeBody::none())
}

/// Goes on with the transport when hyper is done with it.
async fn finish<IO>(io: HeldIo<IO>, early: Bytes, hijack: &Hijack)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut io, mut held) = io.into_parts();
    let takeover = hijack.take();
    if let Some(Head::Chunked(status, trailer)) = takeover.as_ref().map(|t| &t.head) {
        trailers::rewrite_head(&mut held, *status, trailer);
    }
    let sent = async {
        io.write_all(&held).await?;
        io.flush().await
    };
    if sent.await.is_err() {
        return;
    }
    match takeover {
        Some(takeover) => (takeover.on_stream)(HijackedStream::new(io, early)).await,
        None => linger(io).await,
    }
}

/// Ends the connection so that the last response arrives: a transport that is closed while its peer still sends, such as
/// an upload that was refused, would take the response back.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(mut io: IO) {
    let lingering = async {
        io.shutdown().await?;
        let mut rest = (&mut io).take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whether the peer waits for our end is its own affair.
    drop(tokio::time::timeout(LINGER, lingering).await);
}

/// The body of a response that hyper sends, or none where a takeover does.
struct MaybeBody<B>(Option<Pin<Box<B>>>);

impl<B> MaybeBody<B> {
    fn none() -> Self {
        Self(None)
    }

    fn some(body: B) -> Self {
        Self(Some(Box::pin(body)))
    }
}

impl<B: Body> Body for MaybeBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<B::Data>, B::Error>>> {
        match &mut self.0 {
            Some(body) => body.as_mut().poll_frame(cx),
            None => std::task::Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.as_ref().map_or_else(
            || http_body::SizeHint::with_exact(0),
            |body| body.size_hint(),
        )
    }
}

/// Makes an infallible function a service, for servers that answer their errors themselves.
///
/// ```
/// use buildlet_proto::hijack::{Limits, serve_connection, service};
///
/// # async fn example(socket: tokio::net::TcpStream) {
/// let hello = service(|_request| async { http::Response::new("hello".to_owned()) });
/// serve_connection(socket, hello, Limits::default()).await.ok();
/// # }
/// ```
pub fn service<F, Fut, B>(
    handle: F,
) -> impl Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
where
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Response<B>> + Send,
    B: Body,
{
    service_fn(move |request| {
        let response = handle(request);
        async move { Ok(response.await) }
    })
}

/// How long, and for how much, a peer is heard that we no longer listen to.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 16 << 20;
