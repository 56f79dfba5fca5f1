//! The one task that owns the transport.
//!
//! It reads and writes in the same poll: a full send path never stops the reading, nor the reverse. Its life is two
//! phases: it serves until the session ends, then it closes the transport within
//! [`close_timeout`](crate::Config::close_timeout).

mod outbox;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, info};

use crate::error::CloseReason;
use crate::link::{Inlet, Link, Next, Outlet, Work, now};

use self::outbox::{Filled, Outbox};

/// The task of a link.
#[derive(Debug)]
pub(crate) struct Driver<T> {
    link: EndOnDrop,
    close_timeout: Duration,
    input: Input<T>,
    inlet: Inlet,
    outbox: Outbox,
    timer: Timer,
    /// Turns that others get before confirmations are sent alone.
    patience: u8,
}

/// Tells everybody when the task is dropped before it has ended.
#[derive(Debug)]
struct EndOnDrop(Arc<Link>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(CloseReason::Aborted);
    }
}

/// What came of reading.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Inflow {
    /// As much as the buffer holds: there is probably more.
    Flood,
    Read,
    /// Nothing waits; the task is woken when something does.
    Dry,
}

/// What came of writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outflow {
    /// The transport takes no more; the task is woken when it does.
    Blocked,
    /// All that there was is written and flushed.
    Drained,
    /// There may be more.
    Wrote,
}

impl<T: AsyncRead + AsyncWrite> Driver<T> {
    pub(crate) fn new(
        transport: Pin<Box<T>>,
        link: Arc<Link>,
        close_timeout: Duration,
        largest_read: usize,
    ) -> Self {
        Self {
            link: EndOnDrop(link),
            close_timeout,
            outbox: Outbox::new(transport.is_write_vectored()),
            input: Input::new(transport, largest_read),
            inlet: Inlet::Open,
            timer: Timer::default(),
            patience: PATIENCE,
        }
    }

    /// Serves, then closes.
    pub(crate) async fn run(mut self) {
        debug!("the link is up");
        let reason = poll_fn(|cx| self.poll_serve(cx)).await;
        info!(%reason, "the link ended");
        if matches!(
            reason,
            CloseReason::Aborted | CloseReason::Transport(_) | CloseReason::TimedOut(_)
        ) {
            return;
        }
        let mut closing = Closing::Writing;
        let limit = self.close_timeout;
        let close = poll_fn(|cx| self.poll_close(cx, &mut closing));
        if tokio::time::timeout(limit, close).await.is_err() {
            debug!("the peer did not let us close the transport in time");
        }
    }

    /// Moves bytes both ways until the session ends.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let (mut inflow, mut work) = (Inflow::Dry, Work::None);
        for _ in 0..STEPS_PER_POLL {
            // Where nothing waited a moment ago, and there is something to send, that is done first.
            if inflow != Inflow::Dry || work == Work::None {
                inflow = self.poll_input(cx, &mut work);
            }
            if self.waits_for_answer(inflow, work) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let outflow = if work == Work::None && self.outbox.is_empty() {
                Outflow::Drained
            } else {
                self.poll_output(cx)
            };
            let next = match (inflow, outflow) {
                (Inflow::Dry, Outflow::Blocked) => self.park(Outlet::Blocked, cx),
                (Inflow::Dry, Outflow::Drained) => self.park(Outlet::Open, cx),
                (_, Outflow::Wrote) => self.link.0.next_step(),
                _ if work == Work::Ended => self.link.0.next_step(),
                (Inflow::Flood | Inflow::Read, _) => Next::Work(Work::None),
            };
            match next {
                Next::Closed(reason) => return Poll::Ready(reason),
                Next::Work(_) if inflow == Inflow::Flood || outflow == Outflow::Wrote => break,
                Next::Work(next) => work = next,
                Next::Wait(due) if self.poll_timer(due, cx).is_pending() => return Poll::Pending,
                Next::Wait(_) => work = Work::None,
            }
        }
        // A link that is never idle has its times as well.
        let due = self.link.0.with(|state, _| state.session.poll_timeout());
        let _ = self.poll_timer(due, cx);
        // Whoever was given bytes uses them while they are in the cache, and the transport is asked for news.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// Says whether what input made for us to send may wait for an answer that goes with it.
    ///
    /// Whoever accepts a stream, and the task that it hands it to, had their turn then.
    fn waits_for_answer(&mut self, inflow: Inflow, work: Work) -> bool {
        let waiting = self.patience < PATIENCE && inflow == Inflow::Dry;
        let waits = self.patience > 0 && (waiting || work == Work::Notices);
        if waits {
            self.patience -= 1;
        }
        waits
    }

    fn park(&mut self, outlet: Outlet, cx: &Context<'_>) -> Next {
        let outbox = &mut self.outbox;
        self.link
            .0
            .park(self.inlet, outlet, cx, |session| outbox.report(session))
    }

    /// Reads once, unless the session is to be relieved of what it has first; `work` becomes what that made for us to do.
    fn poll_input(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Inflow {
        if self.inlet == Inlet::Paused {
            self.inlet = self.link.0.with(|state, _| state.inlet());
        }
        if self.inlet == Inlet::Paused {
            return Inflow::Dry;
        }
        let Poll::Ready(outcome) = self.input.poll_read(cx) else {
            return Inflow::Dry;
        };
        let now = now();
        let (input, outbox) = (&mut self.input, &mut self.outbox);
        (*work, self.inlet) = self.link.0.with(|state, _| {
            // What was flushed before it came is told before it: a reset may answer what somebody waits to be flushed.
            outbox.report(&mut state.session);
            match outcome {
                Ok(0) => state.session.handle_eof(),
                Ok(_) => state.session.handle_input(now, &input.buffer),
                Err(error) => state.session.handle_transport_error(error),
            }
            (state.work(), state.inlet())
        });
        input.reuse(now)
    }

    /// Writes until the transport takes no more or there is nothing to send.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Outflow {
        self.patience = PATIENCE;
        match self.poll_write_out(cx) {
            Poll::Ready(Ok(outflow)) => outflow,
            Poll::Ready(Err(error)) => {
                // A peer that left in good order may have sent its last words before it closed.
                let mut work = Work::None;
                for _ in 0..LAST_WORDS_STEPS {
                    let inflow = self.poll_input(cx, &mut work);
                    if work == Work::Ended || inflow == Inflow::Dry {
                        break;
                    }
                }
                self.link
                    .0
                    .with(|state, _| state.session.handle_transport_error(error));
                Outflow::Wrote
            }
            Poll::Pending => Outflow::Blocked,
        }
    }

    /// Writes some batches.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Outflow>> {
        let mut share = WRITE_SHARE;
        while share > 0 {
            if !self.outbox.has_batch() && self.outbox.fill(&self.link.0) == Filled::FlushFirst {
                ready!(self.outbox.poll_flush(self.input.transport.as_mut(), cx))?;
                continue;
            }
            if self.outbox.has_batch() {
                let count = ready!(self.outbox.poll_write(self.input.transport.as_mut(), cx))?;
                share = share.saturating_sub(count);
            }
            if self.outbox.has_all() {
                ready!(self.outbox.poll_flush(self.input.transport.as_mut(), cx))?;
                return Poll::Ready(Ok(Outflow::Drained));
            }
        }
        Poll::Ready(Ok(Outflow::Wrote))
    }

    /// Waits until `due`, or until buffers have been idle for long enough to be given up.
    fn poll_timer(&mut self, due: Option<std::time::Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let due = due.into_iter().chain(self.input.due()).min();
        let due = due.map(Instant::from_std);
        // The task is the same at every poll: a timer that will wake it in time needs no second look.
        if self.timer.is_set_before(due) {
            return Poll::Pending;
        }
        ready!(self.timer.poll_due(due, cx));
        let now = now();
        self.link
            .0
            .with(|state, _| state.session.handle_timeout(now));
        self.input.handle_timeout(now);
        self.outbox.give_up_memory();
        Poll::Ready(())
    }

    /// Sends the farewell, shuts the transport down, and reads until the peer has done the same.
    ///
    /// Without the last step a socket with unread bytes would be reset by the kernel, and with it what we sent last.
    fn poll_close(&mut self, cx: &mut Context<'_>, closing: &mut Closing) -> Poll<()> {
        let peer_is_done = self.input.poll_drain(cx);
        while *closing == Closing::Writing {
            match ready!(self.poll_write_out(cx)) {
                Ok(Outflow::Drained) => *closing = Closing::ShuttingDown,
                Ok(Outflow::Blocked | Outflow::Wrote) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        if *closing == Closing::ShuttingDown {
            if ready!(self.input.transport.as_mut().poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            *closing = Closing::AwaitingPeer;
        }
        peer_is_done
    }
}

/// How far the closing of the transport went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Closing {
    Writing,
    ShuttingDown,
    AwaitingPeer,
}

/// The transport, and what is read from it.
#[derive(Debug)]
struct Input<T> {
    transport: Pin<Box<T>>,
    /// Bytes of one read.
    largest_read: usize,
    buffer: BytesMut,
    /// When something was read last, while a buffer is held.
    used: Option<std::time::Instant>,
}

impl<T: AsyncRead> Input<T> {
    fn new(transport: Pin<Box<T>>, largest_read: usize) -> Self {
        Self {
            transport,
            largest_read,
            buffer: BytesMut::new(),
            used: None,
        }
    }

    /// Reads some bytes into the buffer; how many, none at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(READ_MIN);
        }
        let read = pin!(self.transport.read_buf(&mut self.buffer)).poll(cx);
        if read.is_pending() && self.used.is_none() {
            // A link that was idle for a while holds none.
            self.buffer = BytesMut::new();
        }
        read
    }

    /// Makes room for the next read; more of it if the last one filled the buffer.
    fn reuse(&mut self, now: std::time::Instant) -> Inflow {
        let filled = self.buffer.len() == self.buffer.capacity();
        if filled && self.buffer.capacity() < self.largest_read {
            self.buffer = BytesMut::with_capacity(self.largest_read);
        }
        self.buffer.clear();
        self.used = Some(now);
        if filled { Inflow::Flood } else { Inflow::Read }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    fn due(&self) -> Option<std::time::Instant> {
        self.used?.checked_add(IDLE_BUFFER_TIME)
    }

    /// Gives the buffer up when nothing was read for a while.
    fn handle_timeout(&mut self, now: std::time::Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.buffer = BytesMut::new();
            self.used = None;
        }
    }

    /// Reads and throws away until the end.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..STEPS_PER_POLL {
            self.buffer.clear();
            match ready!(self.poll_read(cx)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A timer that is made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Says whether whoever polled last is woken before `due`, or at that time.
    fn is_set_before(&self, due: Option<Instant>) -> bool {
        let (Some(sleep), Some(due)) = (&self.0, due) else {
            return false;
        };
        sleep.deadline() <= due && !sleep.is_elapsed()
    }

    /// Waits until `due`; without one for ever.
    pub(crate) fn poll_due(&mut self, due: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = due else {
            self.0 = None;
            return Poll::Pending;
        };
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(due)));
        // A time that moves away with every received byte is set anew only when the old one has come.
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if due <= sleep.deadline() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

/// Steps before other tasks get a turn, for transports that do not see to that themselves.
const STEPS_PER_POLL: usize = 32;

/// Turns that others get before confirmations are sent alone: one for who accepts a stream, one for who serves it.
const PATIENCE: u8 = 2;
/// Bytes that are written before others get a turn.
const WRITE_SHARE: usize = 256 * 1024;
/// Reads after a failed write: 8 MiB, more than a socket holds.
const LAST_WORDS_STEPS: usize = 128;

/// Bytes of one read while little comes.
const READ_MIN: usize = 4 * 1024;
/// How long an idle read buffer is held: a transfer pauses for round trips, not for seconds.
const IDLE_BUFFER_TIME: Duration = Duration::from_secs(1);
