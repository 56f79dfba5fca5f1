use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::rng::Rng;

/// Reads and writes at most so many bytes at a time, a random number each time.
#[derive(Debug)]
pub struct Chop<S> {
    inner: S,
    rng: Rng,
    max: usize,
}

impl<S> Chop<S> {
    /// Passes 1 to `max` bytes at a time; `max` of 0 counts as 1.
    pub fn new(inner: S, seed: u64, max: usize) -> Self {
        Self {
            inner,
            rng: Rng::new(seed),
            max: max.max(1),
        }
    }

    /// Passes one byte at a time.
    pub fn one_byte(inner: S) -> Self {
        Self::new(inner, 0, 1)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Chop<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let max = self.max;
        let mut piece = vec![0; self.rng.size(max).min(buf.remaining())];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
        buf.put_slice(piece.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Chop<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let max = self.max;
        let len = self.rng.size(max).min(buf.len());
        Pin::new(&mut self.inner).poll_write(cx, &buf[..len])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| buf))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_byte_at_a_time_is_all_that_passes() {
        let (a, mut b) = tokio::io::duplex(64);
        let mut a = Chop::one_byte(a);
        assert_eq!(a.write(b"abc").await.unwrap(), 1);
        b.write_all(b"xyz").await.unwrap();
        let mut buf = [0; 3];
        assert_eq!(a.read(&mut buf).await.unwrap(), 1);
    }
}
