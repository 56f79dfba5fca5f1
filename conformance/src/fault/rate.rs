use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Writes so many bytes per second, in ticks of a millisecond, as a slow line does. Reads are not slowed.
#[derive(Debug)]
pub struct Rate<S> {
    inner: S,
    per_tick: usize,
    left: usize,
    next: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> Rate<S> {
    /// Lets `bytes_per_second` through, at least 1000. Must be called within a runtime, whose clock it uses.
    pub fn new(inner: S, bytes_per_second: usize) -> Self {
        let per_tick = (bytes_per_second / 1000).max(1);
        Self {
            inner,
            per_tick,
            left: per_tick,
            next: Instant::now() + TICK,
            timer: Box::pin(sleep_until(Instant::now())),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if Instant::now() >= this.next {
            this.left = this.per_tick;
            this.next = Instant::now() + TICK;
        }
        while this.left == 0 {
            this.timer.as_mut().reset(this.next);
            ready!(this.timer.as_mut().poll(cx));
            this.left = this.per_tick;
            this.next = Instant::now() + TICK;
        }
        let len = buf.len().min(this.left);
        let n = ready!(Pin::new(&mut this.inner).poll_write(cx, &buf[..len]))?;
        this.left -= n;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

/// The finest step of tokio's timer.
const TICK: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_lets_so_many_bytes_through() {
        let (a, b) = tokio::io::duplex(1 << 20);
        let mut a = Rate::new(a, 100_000);
        let start = Instant::now();
        a.write_all(&[0; 100_000]).await.unwrap();
        let took = start.elapsed().as_millis();
        assert!((900..=1100).contains(&took), "{took} ms");
        drop(b);
    }
}
