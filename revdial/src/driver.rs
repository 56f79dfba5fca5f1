//! The one task that owns the transport.
//!
//! It reads and writes in the same poll: a full send path never stops the reading, nor the reverse. Its life is two
//! phases: it serves until the session ends, then it closes the transport within
//! [`close_timeout`](crate::Config::close_timeout).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, info};

use crate::error::CloseReason;
use crate::frame::HEADER_LEN;
use crate::link::{Link, Outlet, now};
use crate::session::Frame;

/// The task of a link.
#[derive(Debug)]
pub(crate) struct Driver<T> {
    link: EndOnDrop,
    close_timeout: Duration,
    input: Input<T>,
    outbox: Outbox,
    /// The newest frame that the transport took and has not flushed.
    unflushed: Option<u64>,
    timer: Timer,
}

/// Tells everybody when the task is dropped before it has ended.
#[derive(Debug)]
struct EndOnDrop(Arc<Link>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(CloseReason::Aborted);
    }
}

/// Says whether a step achieved something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    Made,
    None,
}

impl<T: AsyncRead + AsyncWrite> Driver<T> {
    pub(crate) fn new(transport: Pin<Box<T>>, link: Arc<Link>, close_timeout: Duration) -> Self {
        Self {
            link: EndOnDrop(link),
            close_timeout,
            outbox: Outbox::new(transport.is_write_vectored()),
            input: Input {
                transport,
                buffer: BytesMut::new(),
            },
            unflushed: None,
            timer: Timer::default(),
        }
    }

    /// Serves, then closes.
    pub(crate) async fn run(mut self) {
        debug!("the link is up");
        let reason = poll_fn(|cx| self.poll_serve(cx)).await;
        info!(%reason, "the link ended");
        if matches!(reason, CloseReason::Transport(_) | CloseReason::TimedOut(_)) {
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
        for _ in 0..STEPS_PER_POLL {
            let input = self.poll_input(cx);
            let output = self.poll_output(cx);
            let time = self.poll_timer(cx);
            if let Some(reason) = self.closed() {
                return Poll::Ready(reason);
            }
            let idle = [input, output, time]
                .iter()
                .all(|step| *step == Progress::None);
            let outlet = if self.outbox.is_empty() {
                Outlet::Open
            } else {
                Outlet::Blocked
            };
            if idle && self.link.0.park(outlet, cx) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn closed(&self) -> Option<CloseReason> {
        self.link.0.with(|state, _| state.session.closed().cloned())
    }

    /// Reads once.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Progress {
        let Poll::Ready(outcome) = self.input.poll_read(cx) else {
            return Progress::None;
        };
        self.link.0.with(|state, _| match outcome {
            Ok(bytes) if bytes.is_empty() => state.session.handle_eof(),
            Ok(bytes) => state.session.handle_input(now(), bytes),
            Err(error) => state.session.handle_transport_error(error),
        });
        Progress::Made
    }

    /// Writes until the transport takes no more or there is nothing to send.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Progress {
        match self.poll_write_out(cx) {
            Poll::Ready(Ok(progress)) => progress,
            Poll::Ready(Err(error)) => {
                // A peer that left in good order may have sent its last words before it closed.
                for _ in 0..LAST_WORDS_STEPS {
                    if self.closed().is_some() || self.poll_input(cx) == Progress::None {
                        break;
                    }
                }
                self.link
                    .0
                    .with(|state, _| state.session.handle_transport_error(error));
                Progress::Made
            }
            Poll::Pending => Progress::None,
        }
    }

    /// Writes some batches; without progress when all that there was is written and flushed.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Progress>> {
        let mut progress = Progress::None;
        for _ in 0..BATCHES_PER_STEP {
            if self.outbox.is_empty() {
                self.outbox.fill(&self.link.0);
            }
            if self.outbox.is_empty() {
                ready!(self.poll_flush(cx))?;
                return Poll::Ready(Ok(progress));
            }
            if let Some(ticket) = ready!(self.outbox.poll_write(self.input.transport.as_mut(), cx))?
            {
                self.unflushed = Some(ticket);
                if self.link.0.with(|state, _| state.session.wants_flush()) {
                    ready!(self.poll_flush(cx))?;
                }
            }
            progress = Progress::Made;
        }
        Poll::Ready(Ok(progress))
    }

    /// Flushes what the transport took, and tells who waits for that.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(ticket) = self.unflushed else {
            return Poll::Ready(Ok(()));
        };
        ready!(self.input.transport.as_mut().poll_flush(cx))?;
        self.unflushed = None;
        self.link
            .0
            .with(|state, _| state.session.handle_flushed(ticket));
        Poll::Ready(Ok(()))
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Progress {
        let due = self.link.0.with(|state, _| state.session.poll_timeout());
        if self
            .timer
            .poll_due(due.map(Instant::from_std), cx)
            .is_pending()
        {
            return Progress::None;
        }
        self.link
            .0
            .with(|state, _| state.session.handle_timeout(now()));
        Progress::Made
    }

    /// Sends the farewell, shuts the transport down, and reads until the peer has done the same.
    ///
    /// Without the last step a socket with unread bytes would be reset by the kernel, and with it what we sent last.
    fn poll_close(&mut self, cx: &mut Context<'_>, closing: &mut Closing) -> Poll<()> {
        let peer_is_done = self.input.poll_drain(cx);
        while *closing == Closing::Writing {
            match ready!(self.poll_write_out(cx)) {
                Ok(Progress::Made) => {}
                Ok(Progress::None) => *closing = Closing::ShuttingDown,
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
    buffer: BytesMut,
}

impl<T: AsyncRead> Input<T> {
    /// Reads some bytes; none at the end. While nothing comes no buffer is held.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.buffer.capacity() < READ_MIN {
            self.buffer.reserve(READ_SIZE);
        }
        let read = pin!(self.transport.read_buf(&mut self.buffer)).poll(cx);
        if read.is_pending() {
            self.buffer = BytesMut::new();
        }
        ready!(read)?;
        Poll::Ready(Ok(self.buffer.split().freeze()))
    }

    /// Reads and throws away until the end.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..STEPS_PER_POLL {
            match ready!(self.poll_read(cx)) {
                Ok(bytes) if !bytes.is_empty() => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Frames on their way into the transport.
///
/// It holds little, and only what the transport is about to take: a frame that is chosen late is chosen better. While
/// the transport takes whole batches they grow to 128 KiB; as soon as it takes a part they fall to 16 KiB.
#[derive(Debug)]
struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are written.
    offset: usize,
    limit: usize,
    gather: Gather,
}

/// How frames become one write.
#[derive(Debug)]
enum Gather {
    /// The transport takes them as they lie.
    Vectored,
    /// The transport takes one slice (TLS): they are copied together.
    Copied(BytesMut),
}

impl Outbox {
    fn new(vectored: bool) -> Self {
        Self {
            frames: VecDeque::new(),
            offset: 0,
            limit: BATCH_MIN,
            gather: if vectored {
                Gather::Vectored
            } else {
                Gather::Copied(BytesMut::new())
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes a batch from the session.
    fn fill(&mut self, link: &Link) {
        let (frames, limit) = (&mut self.frames, self.limit);
        link.with(|state, _| {
            let now = now();
            let mut room = limit;
            while room > 0 && frames.len() < SLICES / 2 {
                let Some(frame) = state.session.poll_transmit(now, room) else {
                    break;
                };
                room = room.saturating_sub(HEADER_LEN + frame.payload().len());
                frames.push_back(frame);
            }
        });
        if let Gather::Copied(buffer) = &mut self.gather {
            for frame in &self.frames {
                buffer.extend_from_slice(frame.head());
                buffer.extend_from_slice(frame.payload());
            }
        }
    }

    /// Writes once; the ticket of the last frame when the whole batch is written.
    fn poll_write<T: AsyncWrite>(
        &mut self,
        transport: Pin<&mut T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<u64>>> {
        let written = match &self.gather {
            Gather::Vectored => {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = self.slices(&mut slices);
                ready!(transport.poll_write_vectored(cx, &slices[..count]))?
            }
            Gather::Copied(buffer) => ready!(transport.poll_write(cx, buffer))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        Poll::Ready(Ok(self.advance(written)))
    }

    /// Lays out what is not written yet.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut skip = self.offset;
        let mut count = 0;
        for frame in &self.frames {
            for part in [frame.head().as_slice(), frame.payload()] {
                let rest = part.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(part.len());
                if !rest.is_empty() && count < SLICES {
                    slices[count] = IoSlice::new(rest);
                    count += 1;
                }
            }
        }
        count
    }

    fn advance(&mut self, written: usize) -> Option<u64> {
        if let Gather::Copied(buffer) = &mut self.gather {
            buffer.advance(written.min(buffer.len()));
            if buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
        self.offset += written;
        while let Some(frame) = self.frames.front() {
            let len = HEADER_LEN + frame.payload().len();
            if self.offset < len {
                break;
            }
            self.offset -= len;
            let ticket = frame.ticket();
            self.frames.pop_front();
            if self.frames.is_empty() {
                self.limit = (self.limit * 2).min(BATCH_MAX);
                return Some(ticket);
            }
        }
        self.limit = BATCH_MIN;
        None
    }
}

/// A timer that is made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
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

/// Batches that are written before the other direction gets a turn.
const BATCHES_PER_STEP: usize = 16;
/// Reads after a failed write: 8 MiB, more than a socket holds.
const LAST_WORDS_STEPS: usize = 128;

/// Bytes of one read.
const READ_SIZE: usize = 64 * 1024;
/// Room that is left in a read buffer for it to be used again.
const READ_MIN: usize = 16 * 1024;

/// Bytes of one batch while the transport takes only part of it.
const BATCH_MIN: usize = 16 * 1024;
/// Bytes of one batch while the transport takes all of it.
const BATCH_MAX: usize = 128 * 1024;
/// Slices of one vectored write; a frame has two.
const SLICES: usize = 64;
