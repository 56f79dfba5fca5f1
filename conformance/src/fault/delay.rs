use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Lets each byte be read a fixed time after it came, as a long line does. Writes are not delayed.
#[derive(Debug)]
pub struct Delay<S> {
    inner: S,
    delay: Duration,
    queue: VecDeque<(Instant, Vec<u8>)>,
    queued: usize,
    ended: bool,
    timer: Pin<Box<Sleep>>,
}

impl<S> Delay<S> {
    /// Delays what is read from `inner`. Must be called within a runtime, whose clock it uses.
    pub fn new(inner: S, delay: Duration) -> Self {
        Self {
            inner,
            delay,
            queue: VecDeque::new(),
            queued: 0,
            ended: false,
            timer: Box::pin(sleep_until(Instant::now())),
        }
    }
}

impl<S: AsyncRead + Unpin> Delay<S> {
    /// Takes in what has come. Errors and the end are seen at once, but told after what came before.
    fn take_in(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while !self.ended && self.queued < ON_THE_LINE {
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.inner).poll_read(cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => self.ended = true,
                Poll::Ready(Ok(())) => {
                    self.queued += buf.filled().len();
                    let due = Instant::now() + self.delay;
                    self.queue.push_back((due, buf.filled().to_vec()));
                }
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Delay<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.take_in(cx)?;
        let Some((due, chunk)) = this.queue.front_mut() else {
            return if this.ended {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            };
        };
        if *due > Instant::now() {
            this.timer.as_mut().reset(*due);
            ready!(this.timer.as_mut().poll(cx));
        }
        let n = chunk.len().min(buf.remaining());
        buf.put_slice(&chunk[..n]);
        chunk.drain(..n);
        if chunk.is_empty() {
            this.queue.pop_front();
        }
        this.queued -= n;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Delay<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The most that is on the line at a time: what stalls a sender is the line, not this type, so it is generous.
const ON_THE_LINE: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_byte_takes_its_time() {
        let (mut a, b) = tokio::io::duplex(64);
        let mut b = Delay::new(b, Duration::from_millis(50));
        let start = Instant::now();
        a.write_all(b"x").await.unwrap();
        assert_eq!(b.read_u8().await.unwrap(), b'x');
        assert!(start.elapsed() >= Duration::from_millis(50));
    }
}
