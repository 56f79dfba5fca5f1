use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf, ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep};

use super::Link;

/// What the SSH library reads from and writes to.
pub(crate) struct Transport<S> {
    reader: BufReader<ReadHalf<S>>,
    link: Arc<Link>,
    pause: Pin<Box<Sleep>>,
}

/// What writes the spool to the stream. It must run as long as the connection; dropping it ends the connection.
pub(crate) struct Drain<S> {
    writer: WriteHalf<S>,
    guard: KillOnDrop,
}

pub(super) fn pair<S>(stream: S, link: Arc<Link>) -> (Transport<S>, Drain<S>)
where
    S: AsyncRead + AsyncWrite,
{
    let (reader, writer) = tokio::io::split(stream);
    let transport = Transport {
        reader: BufReader::with_capacity(READ_BUFFER, reader),
        link: link.clone(),
        pause: Box::pin(tokio::time::sleep_until(Instant::now())),
    };
    let guard = KillOnDrop(link);
    (transport, Drain { writer, guard })
}

impl<S: AsyncRead + AsyncWrite> AsyncRead for Transport<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.link.register_reader(cx.waker());
        if this.link.gone().is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        if this.link.take_throttle() {
            this.pause.as_mut().reset(Instant::now() + THROTTLE);
        }
        ready!(this.pause.as_mut().poll(cx));
        if this.link.must_pause() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.reader).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        if read > 0 {
            this.link.count_read(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite> AsyncWrite for Transport<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.link.gone().is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.link.spool(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.end_spool();
        Poll::Ready(Ok(()))
    }
}

impl<S> Drop for Transport<S> {
    fn drop(&mut self) {
        self.link.leave();
    }
}

impl<S> std::fmt::Debug for Transport<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite> Drain<S> {
    /// Writes until the transport is shut down or dropped and all that it took is written, then ends the stream's
    /// direction. Where the transport is still read, the peer has a moment to end its own direction.
    ///
    /// # Errors
    ///
    /// The stream's, or a peer that takes nothing for 10 s after the transport is gone.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        while let Some(mut bytes) = self.guard.0.next_spooled().await {
            while bytes.has_remaining() {
                let written = self.write(&bytes).await?;
                bytes.advance(written);
                self.guard.0.written(written);
            }
            self.writer.flush().await?;
        }
        if self.guard.0.gone().is_cancelled() {
            return Ok(());
        }
        tokio::time::timeout(LAST_WRITE, self.writer.shutdown())
            .await
            .map_err(io::Error::from)??;
        tokio::select! {
            () = self.guard.0.unused().cancelled() => {}
            () = self.guard.0.gone().cancelled() => {}
            () = tokio::time::sleep(LINGER) => {}
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let link = self.guard.0.clone();
        let write = self.writer.write(bytes);
        tokio::pin!(write);
        loop {
            let limited = link.is_ending();
            tokio::select! {
                biased;
                result = &mut write => {
                    let written = result?;
                    return if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) };
                }
                () = link.gone().cancelled() => return Err(io::ErrorKind::BrokenPipe.into()),
                () = tokio::time::sleep(LAST_WRITE) => {
                    if limited {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }
}

impl<S> std::fmt::Debug for Drain<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain")
            .field("link", &self.guard.0)
            .finish_non_exhaustive()
    }
}

/// Ends the connection when it is dropped: nothing of a connection outlives the task that drains it.
struct KillOnDrop(Arc<Link>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// One large packet: a busy socket rarely has more when it is read. It is cleared when it is made, so an idle connection holds
/// all of it.
const READ_BUFFER: usize = 32 << 10;

/// The wait after a grant of two bytes to a full channel.
const THROTTLE: Duration = Duration::from_millis(3);

/// How long a peer may take to accept bytes after the connection has ended on our side.
const LAST_WRITE: Duration = Duration::from_secs(10);

/// How long a peer may take to end its direction after we have ended ours.
const LINGER: Duration = Duration::from_secs(2);
