//! Deadlines and close for transports that have neither.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::pair::Control;

/// Gives any stream what Go's `net.Conn` has and tokio's traits lack: absolute deadlines and a close that other tasks
/// can call.
///
/// A deadline is looked at before the stream is, so that one in the past takes precedence over data and room. Setting
/// one, or closing, wakes the operations that are pending. After a timeout the stream goes on where it was.
///
/// The stream is dropped when it is closed: whatever it does then is what the peer sees. Its own wakers must not poll
/// it from within their call, because it is locked while it is polled.
pub struct Deadlined<S> {
    shared: Arc<Shared<S>>,
    read_timer: Timer,
    write_timer: Timer,
}

/// The handle of a [`Deadlined`] stream, for any task.
pub struct DeadlineControl<S>(Arc<Shared<S>>);

struct Shared<S> {
    stream: Mutex<Option<S>>,
    slots: Mutex<Slots>,
    local: Option<String>,
    peer: Option<String>,
}

#[derive(Default)]
struct Slots {
    closed: bool,
    read: Slot,
    write: Slot,
}

#[derive(Default)]
struct Slot {
    deadline: Option<Instant>,
    waker: Option<Waker>,
}

#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
}

/// The timer of one direction, made when a deadline is first waited for.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl<S> Deadlined<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self::with_addresses(stream, None, None)
    }

    /// Wraps a stream whose addresses are known.
    pub fn with_addresses(stream: S, local: Option<String>, peer: Option<String>) -> Self {
        Self {
            shared: Arc::new(Shared {
                stream: Mutex::new(Some(stream)),
                slots: Mutex::default(),
                local,
                peer,
            }),
            read_timer: Timer::default(),
            write_timer: Timer::default(),
        }
    }

    /// A handle for another task.
    pub fn control(&self) -> DeadlineControl<S> {
        DeadlineControl(Arc::clone(&self.shared))
    }

    /// Checks for a close and a deadline, then polls the stream.
    fn poll_with<T>(
        &mut self,
        way: Way,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>>
    where
        S: Unpin,
    {
        let deadline = {
            let mut slots = self.shared.slots();
            if slots.closed {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            }
            let slot = slots.slot(way);
            slot.waker = Some(cx.waker().clone());
            slot.deadline
        };
        let timer = match way {
            Way::Read => &mut self.read_timer,
            Way::Write => &mut self.write_timer,
        };
        if let Some(deadline) = deadline {
            if deadline <= Instant::now() || timer.poll(deadline, cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        let poll = match &mut *self.shared.stream() {
            Some(stream) => poll(Pin::new(stream), cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        if poll.is_ready() {
            self.shared.slots().slot(way).waker = None;
        }
        poll
    }
}

impl<S> fmt::Debug for Deadlined<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlined").finish_non_exhaustive()
    }
}

impl<S> Drop for Deadlined<S> {
    /// A handle that outlives the stream does not keep it open.
    fn drop(&mut self) {
        let stream = self.shared.stream().take();
        let slots = std::mem::take(&mut *self.shared.slots());
        drop((stream, slots));
    }
}

impl<S> Shared<S> {
    fn stream(&self) -> MutexGuard<'_, Option<S>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, way: Way, deadline: Option<Instant>) {
        let waker = {
            let mut slots = self.slots();
            let slot = slots.slot(way);
            slot.deadline = deadline;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Slots {
    fn slot(&mut self, way: Way) -> &mut Slot {
        match way {
            Way::Read => &mut self.read,
            Way::Write => &mut self.write,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deadlined<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_with(Way::Read, cx, |stream, cx| stream.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deadlined<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(Way::Write, cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(Way::Write, cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(Way::Write, cx, |stream, cx| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(Way::Write, cx, |stream, cx| {
            stream.poll_write_vectored(cx, bufs)
        })
    }

    fn is_write_vectored(&self) -> bool {
        let stream = self.shared.stream();
        stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

impl<S> DeadlineControl<S> {
    /// Looks at the stream, unless it is closed.
    pub(crate) fn with_stream<T>(&self, look: impl FnOnce(&mut S) -> T) -> Option<T> {
        self.0.stream().as_mut().map(look)
    }

    fn mark_closed(&self) {
        let wakers = {
            let mut slots = self.0.slots();
            slots.closed = true;
            [slots.read.waker.take(), slots.write.waker.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<S> Clone for DeadlineControl<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for DeadlineControl<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineControl").finish_non_exhaustive()
    }
}

impl<S: Send + 'static> Control for DeadlineControl<S> {
    fn close(&self) {
        let stream = self.0.stream().take();
        self.mark_closed();
        drop(stream);
    }

    fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.0.set(Way::Read, deadline);
    }

    fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.0.set(Way::Write, deadline);
    }

    fn local_addr(&self) -> Option<String> {
        self.0.local.clone()
    }

    fn peer_addr(&self) -> Option<String> {
        self.0.peer.clone()
    }
}
