//! Bytes between asynchronous streams and the threads that work on files.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use buildlet_proto::ApiError;
use buildlet_proto::api::ByteReader;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::io::SyncIoBridge;

/// Runs `work` on a thread for blocking work and gives what it returns.
///
/// Where the future is dropped the work goes on to its next read or write of a stream that it was given, whose other end
/// is then gone, and ends there.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::internal("the work on the files ended early").because(error)),
    }
}

/// Makes a stream out of what `produce` writes on a thread of its own.
///
/// The stream ends cleanly only after `produce` has returned without an error. When the stream is dropped the next write
/// fails, which ends `produce`.
pub(crate) fn produced(
    produce: impl FnOnce(&mut ChunkWriter) -> io::Result<()> + Send + 'static,
) -> ByteReader {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let work = tokio::task::spawn_blocking(move || {
        let mut writer = ChunkWriter {
            sender,
            chunk: BytesMut::with_capacity(CHUNK),
        };
        produce(&mut writer)?;
        io::Write::flush(&mut writer)
    });
    Box::pin(Produced {
        chunks,
        chunk: Bytes::new(),
        work: Some(work),
    })
}

/// Reads `reader` on a thread for blocking work. Call it in the runtime, use it on the thread.
pub(crate) fn consumed(reader: ByteReader) -> SyncIoBridge<ByteReader> {
    SyncIoBridge::new(reader)
}

/// The writing end of a stream: gathers small writes into chunks.
pub(crate) struct ChunkWriter {
    sender: mpsc::Sender<Bytes>,
    chunk: BytesMut,
}

impl io::Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK));
        self.sender
            .blocking_send(chunk.freeze())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

struct Produced {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    /// `None` once it was seen to end.
    work: Option<JoinHandle<io::Result<()>>>,
}

impl AsyncRead for Produced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunk.is_empty() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => self.chunk = chunk,
                None => return self.poll_end(cx),
            }
        }
        let length = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl Produced {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(work) = &mut self.work else {
            return Poll::Ready(Ok(()));
        };
        let ended = ready!(Pin::new(work).poll(cx));
        self.work = None;
        Poll::Ready(ended.unwrap_or_else(|panicked| Err(io::Error::other(panicked))))
    }
}

/// The size of a chunk, and how many may wait: a quarter of a megabyte for each stream.
const CHUNK: usize = 64 * 1024;
const CHUNKS: usize = 4;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_error_is_not_a_clean_end() {
        let mut stream = produced(|writer| {
            writer.write_all(b"some")?;
            writer.flush()?;
            Err(io::Error::other("broken"))
        });
        let mut read = Vec::new();
        let error = stream.read_to_end(&mut read).await.unwrap_err();
        assert_eq!(
            (read.as_slice(), error.to_string().as_str()),
            (&b"some"[..], "broken")
        );
    }

    #[tokio::test]
    async fn dropping_the_stream_ends_the_work() {
        let (ended, end) = tokio::sync::oneshot::channel();
        let stream = produced(move |writer| {
            while writer.write_all(&[0; 4096]).is_ok() {}
            ended
                .send(())
                .map_err(|()| io::Error::other("nobody waits"))
        });
        drop(stream);
        end.await.unwrap();
    }
}
