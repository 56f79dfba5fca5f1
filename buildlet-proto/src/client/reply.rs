//! A reply, and its body as a stream of bytes that cannot end by being cut.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::task::AbortOnDropHandle;

use super::exchange::unexpected;
use crate::{ApiError, ErrorStatus};

/// The head of a reply, and its body still to come. Dropping it cuts the connection.
pub(crate) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    reader: ReplyReader,
}

impl Reply {
    pub(super) fn new(response: Response<Incoming>, connection: AbortOnDropHandle<()>) -> Self {
        let (head, body) = response.into_parts();
        let reader = ReplyReader {
            body,
            chunk: Bytes::new(),
            phase: Phase::Reading,
            heartbeat: None,
            trailers: HeaderMap::new(),
            end: None,
            connection,
        };
        Self {
            status: head.status,
            headers: head.headers,
            reader,
        }
    }

    /// Refuses a body that goes on until the connection closes: nobody could tell its end from a cut.
    pub(super) fn check_delimited(self) -> Result<Self, ApiError> {
        let is_sized = self.reader.body.size_hint().exact().is_some();
        if is_sized || self.headers.contains_key(TRANSFER_ENCODING) {
            return Ok(self);
        }
        Err(ApiError::bad_gateway(
            "the reply has neither a length nor chunks, so that its end cannot be told from a cut",
        ))
    }

    /// Reads an error out of a reply that is none of success.
    pub(super) async fn into_error(self) -> ApiError {
        let Some(status) = ErrorStatus::from_status(self.status) else {
            return unexpected(self.status);
        };
        let mut text = Vec::new();
        let mut body = self.reader.take(ERROR_LIMIT);
        // What has arrived is shown, whether or not the rest does.
        let _ = tokio::time::timeout(ERROR_TIME, body.read_to_end(&mut text)).await;
        let text = printable(&String::from_utf8_lossy(&text));
        if text.is_empty() {
            return ApiError::new(status, format!("HTTP status {}", self.status));
        }
        ApiError::new(status, text)
    }

    /// Reads the whole body, of at most `limit` bytes.
    pub(crate) async fn bytes(self, limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        let mut body = self.reader.take(limit as u64 + 1);
        body.read_to_end(&mut bytes).await.map_err(cut)?;
        if bytes.len() > limit {
            let message = format!("the reply has more than the {limit} bytes expected");
            return Err(ApiError::bad_gateway(message));
        }
        Ok(bytes)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(crate) fn into_reader(self) -> ReplyReader {
        self.reader
    }
}

/// The bytes of a reply. A cut is an error, at every further read as well.
pub(crate) struct ReplyReader {
    body: Incoming,
    chunk: Bytes,
    phase: Phase,
    heartbeat: Option<AbortOnDropHandle<ApiError>>,
    trailers: HeaderMap,
    end: Option<oneshot::Sender<Result<HeaderMap, ApiError>>>,
    connection: AbortOnDropHandle<()>,
}

impl ReplyReader {
    /// Has reads fail when `heartbeat` ends, which it does when the other side is taken for dead.
    pub(super) fn with_heartbeat(mut self, heartbeat: AbortOnDropHandle<ApiError>) -> Self {
        self.heartbeat = Some(heartbeat);
        self
    }

    /// Tells what follows the last byte: the trailers, or why there are none.
    pub(super) fn on_end(&mut self) -> oneshot::Receiver<Result<HeaderMap, ApiError>> {
        let (sender, receiver) = oneshot::channel();
        self.end = Some(sender);
        receiver
    }

    /// Cuts the connection when dropped, as dropping the reader does.
    pub(super) fn cut_on_drop(&self) -> CutOnDrop {
        CutOnDrop(self.connection.abort_handle())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.phase {
            Phase::Reading => {}
            Phase::Ended => return Poll::Ready(Ok(())),
            Phase::Failed(kind) => return Poll::Ready(Err(kind.into())),
        }
        if let Some(Poll::Ready(lost)) = self
            .heartbeat
            .as_mut()
            .map(|heartbeat| Pin::new(heartbeat).poll(cx))
        {
            let lost = lost.unwrap_or_else(|_| ApiError::bad_gateway("the heartbeat ended"));
            let error = io::Error::new(io::ErrorKind::TimedOut, lost);
            return Poll::Ready(Err(self.fail(error)));
        }
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.finish(Phase::Ended, Ok);
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(self.fail(cut_in_reply(error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.chunk = data;
                        return Poll::Ready(Ok(()));
                    }
                    Err(frame) => self.trailers = frame.into_trailers().unwrap_or_default(),
                },
            }
        }
    }

    fn fail(&mut self, error: io::Error) -> io::Error {
        let message = error.to_string();
        self.finish(Phase::Failed(error.kind()), |_| {
            Err(ApiError::bad_gateway(message))
        });
        error
    }

    fn finish(&mut self, phase: Phase, end: impl FnOnce(HeaderMap) -> Result<HeaderMap, ApiError>) {
        self.phase = phase;
        self.heartbeat = None;
        if let Some(sender) = self.end.take() {
            // Nobody may be waiting for the end any more.
            let _ = sender.send(end(std::mem::take(&mut self.trailers)));
        }
    }
}

impl AsyncRead for ReplyReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.chunk.is_empty() {
            ready!(this.poll_chunk(cx))?;
        }
        let count = this.chunk.len().min(buf.remaining());
        buf.put_slice(&this.chunk[..count]);
        this.chunk.advance(count);
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Copy)]
enum Phase {
    Reading,
    Ended,
    Failed(io::ErrorKind),
}

/// Ends a connection's task when dropped.
pub(super) struct CutOnDrop(AbortHandle);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a failed read of a reply means to the caller of the operation.
pub(crate) fn cut(error: io::Error) -> ApiError {
    match error.downcast::<ApiError>() {
        Ok(error) => error,
        Err(error) => ApiError::bad_gateway("the connection was cut in the middle of the reply")
            .because(error),
    }
}

fn cut_in_reply(error: hyper::Error) -> io::Error {
    let kind = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map_or(io::ErrorKind::UnexpectedEof, io::Error::kind);
    let message = "the connection was cut in the middle of the reply";
    io::Error::new(kind, ApiError::bad_gateway(message).because(error))
}

/// A peer's text, fit for a terminal.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    text.trim().chars().map(clean).collect()
}

/// As much of an error's text as Go's client reads.
const ERROR_LIMIT: u64 = 4 * 1024;
/// The status says most; its text is not waited for any longer.
const ERROR_TIME: Duration = Duration::from_secs(5);
