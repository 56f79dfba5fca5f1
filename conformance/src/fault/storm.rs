use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::rng::Rng;

/// Is pending for no reason, half of the time, and asks to be polled again.
#[derive(Debug)]
pub struct Storm<S> {
    inner: S,
    rng: Rng,
}

impl<S> Storm<S> {
    /// A storm whose gusts are drawn from `seed`.
    pub fn new(inner: S, seed: u64) -> Self {
        Self {
            inner,
            rng: Rng::new(seed),
        }
    }

    fn gust(&mut self, cx: &Context<'_>) -> bool {
        let gust = self.rng.one_in(2);
        if gust {
            cx.waker().wake_by_ref();
        }
        gust
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Storm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gust(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Storm<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.gust(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gust(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gust(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_through_a_storm() {
        let (a, b) = tokio::io::duplex(4);
        let (mut a, mut b) = (Storm::new(a, 1), Storm::new(b, 2));
        let send = async {
            a.write_all(&[7; 1000]).await.unwrap();
            a.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, n) = tokio::join!(send, b.read_to_end(&mut got));
        assert_eq!((n.unwrap(), got), (1000, vec![7; 1000]));
    }
}
