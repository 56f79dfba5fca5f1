use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A pipe that dies: after so many written bytes, or when its handle says so.
#[derive(Debug)]
pub struct Cut<S> {
    inner: S,
    shared: CutHandle,
    side: usize,
}

/// How a dead pipe looks to its two ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Death {
    /// Reads end without an error, as when the peer's kernel closes the socket of a process that crashed. Writes fail
    /// with `BrokenPipe`.
    EndOfFile,
    /// Reads and writes fail with `ConnectionReset`.
    Error,
}

/// Kills the two ends of a pipe.
#[derive(Clone, Debug)]
pub struct CutHandle(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    left: Option<u64>,
    dead: bool,
    death: Death,
    wakers: [Option<Waker>; 4],
}

impl<S> Cut<S> {
    /// Wraps both ends of a pipe. What `a` writes counts: after `bytes` of them both ends are dead; `None` waits for
    /// the handle. The bytes before the cut can still be read.
    pub fn pair(a: S, b: S, bytes: Option<u64>, death: Death) -> (Self, Self, CutHandle) {
        let shared = CutHandle(Arc::new(Mutex::new(State {
            left: bytes,
            dead: bytes == Some(0),
            death,
            wakers: [const { None }; 4],
        })));
        let end = |inner, side| Self {
            inner,
            shared: shared.clone(),
            side,
        };
        (end(a, 0), end(b, 1), shared.clone())
    }

    /// Registers the task for news of a death, and tells of one that has come.
    fn dead(&self, cx: &Context<'_>, direction: usize) -> Option<Death> {
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.wakers[self.side * 2 + direction] = Some(cx.waker().clone());
        state.dead.then_some(state.death)
    }
}

impl CutHandle {
    /// Kills both ends now.
    pub fn cut(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.dead = true;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// How many of the next `len` bytes may pass.
    fn allowance(&self, len: usize) -> usize {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = state.left.unwrap_or(u64::MAX);
        len.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn spend(&self, n: usize) {
        let spent = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.left = state.left.map(|left| left.saturating_sub(n as u64));
            state.left == Some(0)
        };
        if spent {
            self.cut();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let dead = self.dead(cx, 0);
        match (Pin::new(&mut self.inner).poll_read(cx, buf), dead) {
            (Poll::Pending, Some(Death::EndOfFile)) => Poll::Ready(Ok(())),
            (Poll::Pending, Some(Death::Error)) => {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            (poll, _) => poll,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(death) = self.dead(cx, 1) {
            return Poll::Ready(Err(write_error(death)));
        }
        if self.side == 1 {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        let len = self.shared.allowance(buf.len());
        let poll = Pin::new(&mut self.inner).poll_write(cx, &buf[..len]);
        if let Poll::Ready(Ok(n)) = &poll {
            self.shared.spend(*n);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.dead(cx, 1) {
            Some(death) => Poll::Ready(Err(write_error(death))),
            None => Pin::new(&mut self.inner).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.dead(cx, 1) {
            Some(death) => Poll::Ready(Err(write_error(death))),
            None => Pin::new(&mut self.inner).poll_shutdown(cx),
        }
    }
}

fn write_error(death: Death) -> io::Error {
    match death {
        Death::EndOfFile => io::ErrorKind::BrokenPipe.into(),
        Death::Error => io::ErrorKind::ConnectionReset.into(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_bytes_before_the_cut_arrive_and_no_more() {
        let (a, b) = tokio::io::duplex(64);
        let (mut a, mut b, _) = Cut::pair(a, b, Some(5), Death::EndOfFile);
        let error = a.write_all(b"hello world").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let mut got = Vec::new();
        b.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"hello");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_wakes_a_parked_read() {
        let (a, b) = tokio::io::duplex(64);
        let (_a, mut b, handle) = Cut::pair(a, b, None, Death::Error);
        let cut = async {
            tokio::task::yield_now().await;
            handle.cut();
        };
        let (read, ()) = tokio::join!(b.read_u8(), cut);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
