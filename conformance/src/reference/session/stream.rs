use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::{Flaw, Shared};

/// One end of a stream.
pub(super) struct Stream {
    shared: Arc<Shared>,
    id: u32,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, id: u32) -> Self {
        Self { shared, id }
    }

    /// Does one operation within this task's share of the thread.
    fn poll_op<T>(
        &self,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.shared.flaw == Flaw::NeverYields {
            return operation(cx);
        }
        let share = ready!(coop::poll_proceed(cx));
        let outcome = operation(cx);
        if outcome.is_ready() {
            share.made_progress();
        }
        outcome
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_op(cx, |cx| {
            self.shared
                .with(|state, wakes| state.read(self.id, cx, buf, wakes))
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_op(cx, |cx| {
            self.shared
                .with(|state, wakes| state.write(self.id, cx, buf, wakes))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|state, _| state.flush(self.id, cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.with(|state, wakes| {
            state.finish(self.id, wakes);
            state.flush(self.id, cx)
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared
            .with(|state, wakes| state.release(self.id, wakes));
    }
}
