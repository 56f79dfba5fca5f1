//! Forwarded streams that are byte streams of this process.

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::{BackendError, BackendStream, ChannelEvent, ChannelSink, ChannelSource};

impl BackendStream {
    /// A byte stream by its two directions, which is cut when `closed` is cancelled.
    pub(crate) fn over(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        closed: CancellationToken,
    ) -> Self {
        Self {
            sink: Box::new(Sink {
                write,
                closed: closed.clone(),
            }),
            source: Box::new(Source {
                read,
                buffer: vec![0; CHUNK],
                state: State::Open,
                closed,
            }),
        }
    }
}

struct Sink<W> {
    write: W,
    closed: CancellationToken,
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin> ChannelSink for Sink<W> {
    async fn data(&mut self, data: Bytes) -> Result<(), BackendError> {
        let written = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(BackendError::Closed),
            written = self.write.write_all(&data) => written,
        };
        written.map_err(|_| BackendError::Closed)
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        let ended = self.write.shutdown().await;
        ended.map_err(|_| BackendError::Closed)
    }
}

struct Source<R> {
    read: R,
    buffer: Vec<u8>,
    state: State,
    closed: CancellationToken,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    Over,
}

#[async_trait]
impl<R: AsyncRead + Send + Unpin> ChannelSource for Source<R> {
    async fn next(&mut self) -> Option<ChannelEvent> {
        if self.state == State::Over {
            return None;
        }
        let read = tokio::select! {
            biased;
            () = self.closed.cancelled() => return None,
            read = self.read.read(&mut self.buffer) => read,
        };
        match read {
            Ok(0) => {
                self.state = State::Over;
                Some(ChannelEvent::Eof)
            }
            // A copy, so that a queue of small pieces does not keep large buffers.
            Ok(length) => Some(ChannelEvent::Data(Bytes::copy_from_slice(
                &self.buffer[..length],
            ))),
            Err(error) => {
                tracing::debug!(%error, "a forwarded connection broke");
                self.state = State::Over;
                None
            }
        }
    }
}

/// The largest piece of data: what a client's packet usually takes (RFC 4253 §6.1).
const CHUNK: usize = 32 * 1024;
