//! A connection that has a transport of its own: what a [`Conn`](crate::Conn) of a v2 link is made of.
//!
//! The halves, and the handles of other tasks, share the transport behind one short-held lock. Whoever works on it takes
//! it out for that time: it is polled, and dropped, outside the lock, so that a transport may wake whom it likes. Who
//! comes meanwhile waits to be woken.

mod loan;

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::addr::Addr;
use crate::driver::Timer;
use crate::error::{CloseReason, ConnError};
use crate::frame::StreamId;
use crate::link::Side;

use self::loan::{Loan, Reading, Writing};

/// What a connection can be made of.
///
/// Reading and writing must keep wakers of their own, as sockets and TLS do.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Transport for T {}

/// A transport of any kind.
pub(crate) type BoxTransport = Pin<Box<dyn Transport>>;

/// A transport and what is known of it.
pub(crate) struct Parts {
    pub(crate) transport: BoxTransport,
    pub(crate) number: StreamId,
    pub(crate) local_addr: Addr,
    pub(crate) peer_addr: Addr,
    /// How long a close may take.
    pub(crate) close_timeout: Duration,
    /// Counts the connection among those that are open.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What the halves of a direct connection share.
pub(crate) struct Direct {
    state: Mutex<State>,
    vectored: bool,
    number: StreamId,
    local_addr: Addr,
    peer_addr: Addr,
    close_timeout: Duration,
    /// Where a close goes on after the call.
    runtime: Handle,
    _permit: OwnedSemaphorePermit,
}

/// What the lock guards.
struct State {
    place: Place,
    end: End,
    reading: Reading,
    writing: Writing,
    /// Why reads fail, and why writes do.
    broken: Broken,
    read: Slot,
    write: Slot,
}

/// Where the transport is.
enum Place {
    Gone,
    Here(BoxTransport),
    /// Somebody works on it, and brings it back.
    Lent,
}

/// What ended both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Closed,
    None,
    Reset,
}

#[derive(Debug, Default)]
struct Broken {
    read: Option<ConnError>,
    write: Option<ConnError>,
}

/// Who waits for one direction, and how long they may.
#[derive(Debug, Default)]
struct Slot {
    waker: Option<Waker>,
    /// The waker waits for the transport to be brought back.
    queues: bool,
    deadline: Option<Instant>,
}

/// A direction's way to the transport.
enum Access<R> {
    /// Nothing needs to be done.
    Answer(Result<R, ConnError>),
    /// Another task works on it.
    Busy,
    Ours(Loan),
}

impl Direct {
    /// Takes a connected transport. It has to be called on the runtime.
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            vectored: parts.transport.is_write_vectored(),
            state: Mutex::new(State {
                place: Place::Here(parts.transport),
                end: End::None,
                reading: Reading::Open,
                writing: Writing::Open,
                broken: Broken::default(),
                read: Slot::default(),
                write: Slot::default(),
            }),
            number: parts.number,
            local_addr: parts.local_addr,
            peer_addr: parts.peer_addr,
            close_timeout: parts.close_timeout,
            runtime: Handle::current(),
            _permit: parts.permit,
        })
    }

    pub(crate) fn number(&self) -> StreamId {
        self.number
    }

    pub(crate) fn local_addr(&self) -> Addr {
        self.local_addr
    }

    pub(crate) fn peer_addr(&self) -> Addr {
        self.peer_addr
    }

    pub(crate) fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    /// Appends to `buf` what waits; nothing at the end.
    pub(crate) fn poll_read(
        &self,
        timer: &mut Timer,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), ConnError>> {
        let nothing_asked = buf.remaining() == 0;
        let check = |state: &mut State| match state.reading {
            Reading::Ended => Some(Ok(())),
            Reading::Open | Reading::Abandoned if nothing_asked => Some(Ok(())),
            Reading::Open | Reading::Abandoned => None,
        };
        self.poll_op(Side::Read, timer, cx, check, |loan, cx| {
            loan.push_out(cx);
            let before = buf.filled().len();
            ready!(loan.transport.as_mut().poll_read(cx, buf))?;
            if buf.filled().len() == before {
                loan.reading = Reading::Ended;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Reads up to `max` bytes into a buffer of their own; none at the end.
    pub(crate) fn poll_read_chunk(
        &self,
        timer: &mut Timer,
        cx: &mut Context<'_>,
        max: usize,
    ) -> Poll<Result<Bytes, ConnError>> {
        let mut chunk = BytesMut::zeroed(max.min(CHUNK_MAX));
        let mut buf = ReadBuf::new(&mut chunk);
        ready!(self.poll_read(timer, cx, &mut buf))?;
        let len = buf.filled().len();
        chunk.truncate(len);
        Poll::Ready(Ok(chunk.freeze()))
    }

    /// Gives bytes to the transport.
    pub(crate) fn poll_write(
        &self,
        timer: &mut Timer,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<Result<usize, ConnError>> {
        let check = |state: &mut State| state.refuse_write(data.is_empty());
        self.poll_op(Side::Write, timer, cx, check, |loan, cx| {
            loan.discard(cx);
            let count = ready!(loan.transport.as_mut().poll_write(cx, data))?;
            loan.taken(count, cx)
        })
    }

    /// Like [`poll_write`](Self::poll_write), with the concatenation of `slices`.
    pub(crate) fn poll_write_vectored(
        &self,
        timer: &mut Timer,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, ConnError>> {
        let is_empty = slices.iter().all(|slice| slice.is_empty());
        let check = |state: &mut State| state.refuse_write(is_empty);
        self.poll_op(Side::Write, timer, cx, check, |loan, cx| {
            loan.discard(cx);
            let count = ready!(loan.transport.as_mut().poll_write_vectored(cx, slices))?;
            loan.taken(count, cx)
        })
    }

    /// Waits until the transport has passed on what was written.
    pub(crate) fn poll_flush(
        &self,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnError>> {
        let check = |state: &mut State| match state.writing {
            Writing::Finished => Some(Ok(())),
            Writing::Finishing | Writing::Open | Writing::Unflushed => None,
        };
        self.poll_op(Side::Write, timer, cx, check, |loan, cx| {
            loan.discard(cx);
            ready!(loan.transport.as_mut().poll_flush(cx))?;
            if loan.writing == Writing::Unflushed {
                loan.writing = Writing::Open;
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Ends our direction, once.
    pub(crate) fn poll_shutdown(
        &self,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnError>> {
        let check = |state: &mut State| match state.writing {
            Writing::Finished => Some(Ok(())),
            Writing::Finishing | Writing::Open | Writing::Unflushed => {
                state.writing = Writing::Finishing;
                None
            }
        };
        self.poll_op(Side::Write, timer, cx, check, |loan, cx| {
            loan.discard(cx);
            ready!(loan.transport.as_mut().poll_shutdown(cx))?;
            loan.writing = Writing::Finished;
            Poll::Ready(Ok(()))
        })
    }

    /// Ends both directions for us; what was written goes out, and an orderly end behind it.
    pub(crate) fn close(&self) {
        self.end(End::Closed);
    }

    /// Ends both directions: the transport is dropped as it is.
    pub(crate) fn reset(&self) {
        self.end(End::Reset);
    }

    pub(crate) fn set_deadline(&self, side: Side, deadline: Option<Instant>) {
        let waker = {
            let mut state = self.lock();
            let slot = state.slot(side);
            slot.deadline = deadline;
            slot.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Notes that the reading half is dropped. The writer sees to what comes from now on.
    pub(crate) fn stop_reading(&self) {
        let wakers = {
            let mut state = self.lock();
            if state.reading == Reading::Open {
                state.reading = Reading::Abandoned;
            }
            [state.write.waker.take(), state.read.waker.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Notes that the writing half is dropped.
    pub(crate) fn stop_writing(&self) {
        if self.lock().writing != Writing::Finished {
            self.end(End::Reset);
        }
    }

    fn end(&self, end: End) {
        let (end, transport, wakers) = {
            let mut state = self.lock();
            if state.end == End::None {
                state.end = end;
            }
            let wakers = [state.read.waker.take(), state.write.waker.take()];
            let place = std::mem::replace(&mut state.place, Place::Gone);
            let transport = match place {
                Place::Here(transport) => Some(transport),
                // Who has it disposes of it.
                Place::Lent | Place::Gone => None,
            };
            (state.end, transport, wakers)
        };
        self.dispose(end, transport);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Does with a transport what its end says.
    fn dispose(&self, end: End, transport: Option<BoxTransport>) {
        let Some(transport) = transport else { return };
        if end == End::Closed {
            // The task ends by itself, at the latest after `close_timeout`. Nobody can be told how.
            let limit = self.close_timeout;
            self.runtime
                .spawn(async move { tokio::time::timeout(limit, linger(transport)).await });
        }
    }

    /// Does one operation of one direction: within its deadline, and with the transport if nobody else has it.
    fn poll_op<R>(
        &self,
        side: Side,
        timer: &mut Timer,
        cx: &mut Context<'_>,
        check: impl FnOnce(&mut State) -> Option<Result<R, ConnError>>,
        operation: impl FnOnce(&mut Loan, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> Poll<Result<R, ConnError>> {
        let outcome = match self.take(side, cx, check) {
            Access::Answer(answer) => return Poll::Ready(answer),
            Access::Busy => Poll::Pending,
            Access::Ours(mut loan) => {
                let mut rescue = ResetOnPanic(Some(self));
                let outcome = operation(&mut loan, cx);
                rescue.0 = None;
                self.give_back(side, loan, outcome)
            }
        };
        if outcome.is_ready() {
            return outcome;
        }
        let deadline = self.lock().slot(side).deadline;
        ready!(timer.poll_due(deadline, cx));
        Poll::Ready(Err(ConnError::DeadlinePassed))
    }

    /// Takes the transport, or says why not. Unless there is an answer the task is woken when it is to come again.
    fn take<R>(
        &self,
        side: Side,
        cx: &Context<'_>,
        check: impl FnOnce(&mut State) -> Option<Result<R, ConnError>>,
    ) -> Access<R> {
        let mut state = self.lock();
        if state.end != End::None {
            return Access::Answer(Err(ConnError::Closed));
        }
        let deadline = state.slot(side).deadline;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Access::Answer(Err(ConnError::DeadlinePassed));
        }
        if let Some(answer) = check(&mut state) {
            return Access::Answer(answer);
        }
        if let Some(error) = state.broken(side) {
            return Access::Answer(Err(error.clone()));
        }
        let slot = state.slot(side);
        slot.queues = true;
        let known = slot.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        let old = if known {
            None
        } else {
            slot.waker.replace(cx.waker().clone())
        };
        let access = match std::mem::replace(&mut state.place, Place::Lent) {
            Place::Here(transport) => {
                state.slot(side).queues = false;
                Access::Ours(Loan {
                    transport,
                    reading: state.reading,
                    writing: state.writing,
                    writer_is_absent: state.write.waker.is_none(),
                })
            }
            Place::Lent => Access::Busy,
            Place::Gone => {
                state.place = Place::Gone;
                Access::Answer(Err(ConnError::Closed))
            }
        };
        // A waker may run anything when it is dropped.
        drop(state);
        drop(old);
        access
    }

    /// Brings the transport back, and notes what has come of the operation.
    fn give_back<R>(
        &self,
        side: Side,
        loan: Loan,
        outcome: Poll<io::Result<R>>,
    ) -> Poll<Result<R, ConnError>> {
        let outcome = outcome.map_err(broken);
        let mut state = self.lock();
        let mut wakers = Wakers::default();
        if let Poll::Ready(Err(error)) = &outcome {
            state.note(side, error, &mut wakers);
        }
        state.keep(&loan);
        if outcome.is_ready() {
            wakers.discarded = state.slot(side).waker.take();
        }
        let other = state.slot(match side {
            Side::Read => Side::Write,
            Side::Write => Side::Read,
        });
        if std::mem::take(&mut other.queues) {
            wakers.woken = wakers.woken.or_else(|| other.waker.take());
        }
        let (end, mut transport) = (state.end, Some(loan.transport));
        if end == End::None {
            state.place = transport.take().map_or(Place::Gone, Place::Here);
        }
        drop(state);
        self.dispose(end, transport);
        drop(wakers.discarded);
        wakers.woken.into_iter().for_each(Waker::wake);
        if end == End::None {
            outcome
        } else {
            Poll::Ready(Err(ConnError::Closed))
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the connection when whoever works on the transport, a waker that it calls for example, panics.
struct ResetOnPanic<'a>(Option<&'a Direct>);

impl Drop for ResetOnPanic<'_> {
    fn drop(&mut self) {
        if let Some(direct) = self.0 {
            direct.end(End::Reset);
        }
    }
}

/// What is to be done with wakers outside the lock.
#[derive(Default)]
struct Wakers {
    woken: Option<Waker>,
    discarded: Option<Waker>,
}

impl State {
    fn slot(&mut self, side: Side) -> &mut Slot {
        match side {
            Side::Read => &mut self.read,
            Side::Write => &mut self.write,
        }
    }

    fn broken(&self, side: Side) -> Option<&ConnError> {
        match side {
            Side::Read => self.broken.read.as_ref(),
            Side::Write => self.broken.write.as_ref(),
        }
    }

    /// Says why nothing can be written, or that nothing is to be written.
    fn refuse_write(&self, is_empty: bool) -> Option<Result<usize, ConnError>> {
        match self.writing {
            Writing::Finishing | Writing::Finished => Some(Err(ConnError::Shutdown)),
            Writing::Open | Writing::Unflushed if is_empty => Some(Ok(0)),
            Writing::Open | Writing::Unflushed => None,
        }
    }

    /// Keeps an error: what failed once fails for ever. A failed read is the end of the transport; after a failed write
    /// there may be something to read.
    fn note(&mut self, side: Side, error: &ConnError, wakers: &mut Wakers) {
        self.broken.write.get_or_insert_with(|| error.clone());
        if side == Side::Read {
            self.broken.read = Some(error.clone());
            wakers.woken = self.write.waker.take();
        }
    }

    /// Keeps what the operation found out.
    fn keep(&mut self, loan: &Loan) {
        if loan.reading == Reading::Ended {
            self.reading = Reading::Ended;
        }
        if self.writing != Writing::Finishing || loan.writing == Writing::Finished {
            self.writing = loan.writing;
        }
    }
}

/// Ends a transport in good order: everything is sent, and the peer's end awaited.
///
/// Without the last step a socket with unread bytes would be reset by the kernel, and with it what we sent last.
pub(crate) async fn linger(mut transport: BoxTransport) -> io::Result<()> {
    transport.shutdown().await?;
    let mut rest = transport.take(LINGER_BYTES);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// What an error of the transport means.
fn broken(error: io::Error) -> ConnError {
    let by_peer = [
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::ConnectionReset,
        // TLS without a `close_notify`.
        io::ErrorKind::UnexpectedEof,
    ];
    if by_peer.contains(&error.kind()) {
        ConnError::Reset { code: 0 }
    } else {
        ConnError::Link(CloseReason::Transport(Arc::new(error)))
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Bytes of one chunk: a TLS record.
const CHUNK_MAX: usize = 16 * 1024;

/// What a peer may send to a connection that was closed here before it is cut.
const LINGER_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
