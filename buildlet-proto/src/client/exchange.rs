//! One HTTP/1.1 exchange over a connection of its own.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio_util::io::ReaderStream;
use tokio_util::task::AbortOnDropHandle;

use super::Connect;
use super::reply::Reply;
use crate::api::{ByteReader, ByteStream};
use crate::{ApiError, ErrorStatus};

/// Where requests go, and what they all carry.
pub(crate) struct Http<C> {
    connect: Arc<C>,
    headers: HeaderMap,
}

impl<C: Connect> Http<C> {
    pub(crate) fn new(connect: C) -> Self {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("buildlet"))]);
        Self {
            connect: Arc::new(connect),
            headers,
        }
    }

    pub(crate) fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    /// Sends a request on a new connection and waits for the head of a successful reply.
    pub(crate) async fn send(&self, request: Request<RequestBody>) -> Result<Reply, ApiError> {
        let (response, connection) = Box::pin(self.exchange(request)).await?;
        let reply = Reply::new(response, connection);
        if reply.status().is_success() {
            return reply.check_delimited();
        }
        Err(reply.into_error().await)
    }

    /// Sends a request that asks to take the connection over. The reply has any status.
    pub(crate) async fn exchange(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), ApiError> {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let io = self.connect.connect().await.map_err(|error| {
            ApiError::bad_gateway("the server cannot be reached").because(error)
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(cut_before_reply)?;
        // Whatever ends the connection shows in the reply as well, to whoever waits for it.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = connection.with_upgrades().await;
        }));
        let response = sender
            .send_request(request)
            .await
            .map_err(cut_before_reply)?;
        Ok((response, connection))
    }

    /// Sends a request that becomes a stream: the headers of the 101, and the stream behind it.
    pub(crate) async fn open_stream(
        &self,
        request: Request<RequestBody>,
    ) -> Result<(HeaderMap, Box<dyn ByteStream>), ApiError> {
        let (mut response, connection) = self.exchange(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let reply = Reply::new(response, connection);
            if reply.status().is_success() {
                return Err(unexpected(reply.status()));
            }
            return Err(reply.into_error().await);
        }
        let headers = std::mem::take(response.headers_mut());
        let stream = hyper::upgrade::on(&mut response).await.map_err(|error| {
            ApiError::bad_gateway("the connection was cut at its opening").because(error)
        })?;
        Ok((headers, Box::new(TokioIo::new(stream))))
    }
}

impl<C> Clone for Http<C> {
    fn clone(&self) -> Self {
        Self {
            connect: self.connect.clone(),
            headers: self.headers.clone(),
        }
    }
}

/// Limits the time in which a reply has to begin. The text is that of Go's client.
pub(crate) async fn within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let late = || {
        let message = format!("buildlet: timeout waiting for {what} header response");
        ApiError::new(ErrorStatus::GATEWAY_TIMEOUT, message)
    };
    tokio::time::timeout(limit, call)
        .await
        .map_err(|_| late())?
}

/// A request without a body.
pub(crate) fn request(method: Method, path: &str) -> Request<RequestBody> {
    send_as(method, path, RequestBody::empty())
}

/// A request whose body is a urlencoded form.
pub(crate) fn form(path: &str, form: String) -> Request<RequestBody> {
    let body = RequestBody::Whole(Some(form.into()));
    let mut request = send_as(Method::POST, path, body);
    let urlencoded = HeaderValue::from_static("application/x-www-form-urlencoded");
    request.headers_mut().insert(CONTENT_TYPE, urlencoded);
    request
}

/// A request whose body is read as it is sent.
pub(crate) fn upload(method: Method, path: &str, content: ByteReader) -> Request<RequestBody> {
    let body = RequestBody::Reader(ReaderStream::with_capacity(content, READ_SIZE));
    send_as(method, path, body)
}

/// A path with the pairs of a query, percent-encoded.
pub(crate) fn with_query<'a>(
    path: &str,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    format!("{path}?{}", urlencoded(pairs))
}

/// Pairs as a query or as a form.
pub(crate) fn urlencoded<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// A request with a body of any kind.
pub(crate) fn send_as(method: Method, path: &str, body: RequestBody) -> Request<RequestBody> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(body)
        .expect("paths are constants and queries are percent-encoded")
}

/// What a request sends.
pub(crate) enum RequestBody {
    Reader(ReaderStream<ByteReader>),
    Whole(Option<Bytes>),
}

impl RequestBody {
    fn empty() -> Self {
        Self::Whole(None)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = match self.get_mut() {
            Self::Reader(reader) => ready!(Pin::new(reader).poll_next(cx)),
            Self::Whole(content) => content.take().map(Ok),
        };
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Reader(_) => SizeHint::default(),
            Self::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |content| content.len() as u64))
            }
        }
    }
}

fn cut_before_reply(error: hyper::Error) -> ApiError {
    if error.is_user() {
        let source = error.source().map(ToString::to_string).unwrap_or_default();
        return ApiError::bad_request(format!("the content to send cannot be read: {source}"));
    }
    if error.is_parse() {
        return ApiError::bad_gateway("the server does not answer in HTTP/1.1").because(error);
    }
    ApiError::bad_gateway("the connection was cut before a reply came").because(error)
}

/// A reply that takes as long as the operation it answers has no status yet; this one is for the caller alone.
pub(super) fn unexpected(status: StatusCode) -> ApiError {
    ApiError::bad_gateway(format!("unexpected reply: HTTP status {status}"))
}

/// Large enough that the cost of a chunk does not show, small enough to be sent as it is read.
const READ_SIZE: usize = 64 * 1024;
