use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Writes nothing while it is shut, as a socket whose peer does not read. Starts open.
#[derive(Debug)]
pub struct Gate<S> {
    inner: S,
    shared: GateHandle,
}

/// Opens and shuts a [`Gate`].
#[derive(Clone, Debug, Default)]
pub struct GateHandle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    shut: bool,
    waker: Option<Waker>,
}

impl<S> Gate<S> {
    /// A gate and its handle.
    pub fn new(inner: S) -> (Self, GateHandle) {
        let shared = GateHandle::default();
        let gate = Self {
            inner,
            shared: shared.clone(),
        };
        (gate, shared)
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.shut {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl GateHandle {
    /// Lets no more bytes through.
    pub fn shut(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).shut = true;
    }

    /// Lets bytes through again.
    pub fn open(&self) {
        let waker = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.shut = false;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.poll_open(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Pin::new(&mut self.inner).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_open(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Pin::new(&mut self.inner).poll_shutdown(cx),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_shut_gate_holds_bytes_back_until_it_opens() {
        let (a, _b) = tokio::io::duplex(64);
        let (mut a, gate) = Gate::new(a);
        gate.shut();
        let second = std::time::Duration::from_secs(1);
        assert!(
            tokio::time::timeout(second, a.write_u8(1)).await.is_err(),
            "the gate is shut"
        );
        gate.open();
        a.write_u8(1).await.unwrap();
    }
}
