//! Bodies: bytes that a handler reads, and what it replies with.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio_util::io::{StreamReader, poll_read_buf};

use crate::ProcessState;
use crate::api::{ByteReader, Execution};
use crate::exec::PROCESS_STATE;

/// Reads a request's body; one that was cut short ends in an error.
pub(super) fn reader<R>(body: R) -> ByteReader
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let chunks = body
        .map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error))
        .into_data_stream();
    Box::pin(StreamReader::new(Box::pin(chunks)))
}

/// The body of a reply: some bytes, a stream, or the output of a command and, as a trailer, its end.
pub struct ReplyBody(Content);

enum Content {
    Empty,
    Full(Bytes),
    /// The output while it lasts, then the end. Both parts are kept to the end: dropping one kills the command.
    Execution(Execution, Part),
    Stream(Option<Bytes>, ByteReader),
}

#[derive(Clone, Copy)]
enum Part {
    Output,
    State,
}

impl ReplyBody {
    pub(super) fn empty() -> Self {
        Self(Content::Empty)
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self(Content::Full(bytes))
    }

    pub(super) fn execution(execution: Execution) -> Self {
        Self(Content::Execution(execution, Part::Output))
    }

    /// A stream whose first bytes may be long in coming.
    pub(super) fn stream(reader: ByteReader) -> Self {
        Self(Content::Stream(None, reader))
    }

    /// A stream, once its first bytes are there: what fails before them can still be answered with a status.
    pub(super) async fn started(mut reader: ByteReader) -> io::Result<Self> {
        let first = std::future::poll_fn(|cx| poll_chunk(&mut reader, cx)).await;
        match first.transpose()? {
            Some(first) => Ok(Self(Content::Stream(Some(first), reader))),
            None => Ok(Self::empty()),
        }
    }

    /// The next frame, and with it the content that is left.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match &mut self.0 {
                Content::Empty => return Poll::Ready(None),
                Content::Full(bytes) => {
                    let frame = Frame::data(std::mem::take(bytes));
                    self.0 = Content::Empty;
                    return Poll::Ready(Some(Ok(frame)));
                }
                Content::Stream(first, reader) => {
                    let chunk = match first.take() {
                        Some(first) => Some(Ok(first)),
                        None => ready!(poll_chunk(reader, cx)),
                    };
                    return Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)));
                }
                Content::Execution(execution, part @ Part::Output) => {
                    match ready!(poll_chunk(&mut execution.output, cx)) {
                        Some(chunk) => return Poll::Ready(Some(chunk.map(Frame::data))),
                        None => *part = Part::State,
                    }
                }
                Content::Execution(execution, Part::State) => {
                    let state = ready!(execution.state.as_mut().poll(cx));
                    self.0 = Content::Empty;
                    let trailers = state
                        .map(|state| trailers(&state))
                        .map_err(io::Error::other);
                    return Poll::Ready(Some(trailers.map(Frame::trailers)));
                }
            }
        }
    }
}

impl std::fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyBody").finish_non_exhaustive()
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.poll_content(cx)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Execution(..) | Content::Stream(..) => SizeHint::default(),
        }
    }
}

fn poll_chunk(reader: &mut ByteReader, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    Poll::Ready(
        match ready!(poll_read_buf(reader.as_mut(), cx, &mut chunk)) {
            Ok(0) => None,
            Ok(_) => Some(Ok(chunk.freeze())),
            Err(error) => Some(Err(error)),
        },
    )
}

fn trailers(state: &ProcessState) -> HeaderMap {
    // A start failure may quote a name that no header can carry.
    let value = HeaderValue::from_str(state.as_str())
        .unwrap_or_else(|_| HeaderValue::from_static("the command could not be started"));
    let mut trailers = HeaderMap::new();
    trailers.insert(PROCESS_STATE, value);
    trailers
}

/// Large enough that a big archive moves in few chunks, small enough to hold one for each connection.
const CHUNK: usize = 64 * 1024;
