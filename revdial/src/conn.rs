//! A connection: what a `net.Conn` is in Go, in Rust's terms.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;
use tokio::time::Instant;

use crate::addr::Addr;
use crate::direct::{Direct, Parts};
use crate::driver::Timer;
use crate::error::{ConnError, DialError};
use crate::frame::StreamId;
use crate::link::{Link, Side, now};
use crate::machine::Machine;

/// A connection over a link, or, with dialect v2, one that a link brought about.
///
/// - **Reading** returns 0 bytes at the end only: when the peer has shut its side down and everything was read. A
///   reset and a cut link are errors. What arrived before them is delivered first.
/// - **Writing** queues up to [`Config::send_buffer`](crate::Config::send_buffer) bytes. `flush` waits until they are
///   with the transport; bytes go out without it as well.
/// - **`shutdown`** sends the end of our data, once, and waits until it is with the transport. Reading goes on.
/// - **Dropping** a connection that was not shut down, or whose peer has not finished, resets it: half an answer never
///   looks like a whole one.
/// - **[`handle`](Self::handle)** gives other tasks the means to close or reset it and to set deadlines.
///
/// On a link of dialect [v1](crate::v1) the wire has one word for all ends. What is dropped is closed there, behind
/// what was written, and the peer reads an orderly end after a reset as well. On this side everything holds as above.
///
/// # A connection of dialect v2
///
/// It has a transport of its own, and what that cannot say it cannot either. A reset carries no code, and is a transport
/// that ends without being shut down: over TLS the peer misses the `close_notify` and gets a reset with code 0, over plain
/// TCP it may take it for an end, which is why Go's side insists on TLS. Written bytes are queued by the transport, and a
/// flush means what it means there. It outlives the link that brought it about.
///
/// # Cancel safety
///
/// A read or write that is dropped before it is ready has taken nothing. A `shutdown` that is dropped has still begun:
/// no more can be written.
#[derive(Debug)]
pub struct Conn {
    read: ReadHalf,
    write: WriteHalf,
}

/// The reading half of a [`Conn`].
///
/// When it is dropped before the [`WriteHalf`], what the peer sends from then on is thrown away; the peer is not told,
/// as the wire has no word for it.
#[derive(Debug)]
pub struct ReadHalf {
    inner: Inner,
    timer: Timer,
}

/// The writing half of a [`Conn`].
///
/// When it is dropped before `shutdown` has completed the connection is reset, in both directions.
#[derive(Debug)]
pub struct WriteHalf {
    inner: Inner,
    timer: Timer,
}

/// The means to end a [`Conn`] and to set its deadlines from anywhere. It does not keep the connection open, and does
/// nothing once that is dropped.
#[derive(Clone, Debug)]
pub struct ConnHandle(WeakInner);

#[derive(Clone, Debug)]
enum WeakInner {
    Direct(Weak<Direct>),
    Stream(Weak<Stream>),
}

/// What the halves share; dropped with the last of them.
#[derive(Clone, Debug)]
enum Inner {
    /// A transport of its own.
    Direct(Arc<Direct>),
    /// A stream of a link.
    Stream(Arc<Stream>),
}

/// A stream of a link.
#[derive(Debug)]
struct Stream {
    link: Arc<Link>,
    id: StreamId,
}

impl Conn {
    /// Takes a stream that the session has opened or accepted.
    pub(crate) fn new(link: Arc<Link>, id: StreamId) -> Self {
        Self::of(Inner::Stream(Arc::new(Stream { link, id })))
    }

    /// Takes a transport that is connected.
    pub(crate) fn direct(parts: Parts) -> Self {
        Self::of(Inner::Direct(Direct::new(parts)))
    }

    fn of(inner: Inner) -> Self {
        Self {
            read: ReadHalf {
                inner: inner.clone(),
                timer: Timer::default(),
            },
            write: WriteHalf {
                inner,
                timer: Timer::default(),
            },
        }
    }

    /// Waits for the peer's answer to our opening.
    pub(crate) fn poll_opened(&self, cx: &Context<'_>) -> Poll<Result<(), DialError>> {
        let stream = match &self.write.inner {
            Inner::Direct(_) => return Poll::Ready(Ok(())),
            Inner::Stream(stream) => stream,
        };
        let id = stream.id;
        stream.link.with(|state, wakes| {
            let outcome = state.session.poll_opened(id);
            if outcome.is_pending() {
                state.register(id, Side::Write, cx, wakes);
            }
            outcome
        })
    }

    /// Splits the connection into halves for two tasks.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// Gives the means to end the connection from elsewhere.
    pub fn handle(&self) -> ConnHandle {
        self.write.handle()
    }

    /// Ends both directions at once. The peer's readers get what has arrived, then an error with this code.
    pub fn reset(&self, code: u32) {
        self.write.inner.reset(code);
    }

    /// Sets the time from which reads and writes fail with [`TimedOut`](io::ErrorKind::TimedOut), those that wait
    /// included, even where there is data; `None` lifts it. The connection survives.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.set_read_deadline(deadline);
        self.set_write_deadline(deadline);
    }

    /// Sets the deadline of reads.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.write.inner.set_deadline(Side::Read, deadline);
    }

    /// Sets the deadline of writes, flushes and shutdowns.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.write.inner.set_deadline(Side::Write, deadline);
    }

    /// The number of the connection on its link. With dialect v2 each side counts for itself.
    pub fn id(&self) -> u32 {
        self.write.id()
    }

    /// The address on this side.
    pub fn local_addr(&self) -> Addr {
        match &self.write.inner {
            Inner::Direct(direct) => direct.local_addr(),
            Inner::Stream(stream) => stream.link.local_addr(Some(stream.id)),
        }
    }

    /// The address on the other side.
    pub fn peer_addr(&self) -> Addr {
        match &self.write.inner {
            Inner::Direct(direct) => direct.peer_addr(),
            Inner::Stream(stream) => stream.link.peer_addr(Some(stream.id)),
        }
    }

    /// Waits for received bytes and takes up to `max` of them without copying; an empty chunk is the end.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped has taken nothing.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Bytes, ConnError> {
        self.read.read_chunk(max).await
    }
}

impl ReadHalf {
    /// Waits for received bytes and takes up to `max` of them without copying; an empty chunk is the end.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped has taken nothing.
    pub async fn read_chunk(&mut self, max: usize) -> Result<Bytes, ConnError> {
        std::future::poll_fn(|cx| {
            let timer = &mut self.timer;
            match &self.inner {
                Inner::Direct(direct) => direct.poll_read_chunk(timer, cx, max),
                Inner::Stream(stream) => {
                    let read = |session: &mut Machine, id| session.read_chunk(id, max);
                    stream.poll_op(Side::Read, timer, cx, read)
                }
            }
        })
        .await
    }

    /// Gives the means to end the connection from elsewhere.
    pub fn handle(&self) -> ConnHandle {
        self.inner.handle()
    }

    /// The number of the connection on its link.
    pub fn id(&self) -> u32 {
        self.inner.id().value()
    }
}

impl WriteHalf {
    /// Gives the means to end the connection from elsewhere.
    pub fn handle(&self) -> ConnHandle {
        self.inner.handle()
    }

    /// Ends both directions at once. The peer's readers get what has arrived, then an error with this code.
    pub fn reset(&self, code: u32) {
        self.inner.reset(code);
    }

    /// The number of the connection on its link.
    pub fn id(&self) -> u32 {
        self.inner.id().value()
    }
}

impl ConnHandle {
    /// Closes the connection: reads and writes fail from now on, those that wait included; what was written before
    /// still goes out, and the peer's readers get an orderly end behind it.
    pub fn close(&self) {
        match self.0.upgrade() {
            Some(Inner::Direct(direct)) => direct.close(),
            Some(Inner::Stream(stream)) => {
                stream.link.with(|state, _| state.session.close(stream.id));
            }
            None => {}
        }
    }

    /// Ends both directions at once. The peer's readers get what has arrived, then an error with this code.
    pub fn reset(&self, code: u32) {
        if let Some(inner) = self.0.upgrade() {
            inner.reset(code);
        }
    }

    /// Sets both deadlines; see [`Conn::set_deadline`].
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.set_read_deadline(deadline);
        self.set_write_deadline(deadline);
    }

    /// Sets the deadline of reads.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        if let Some(inner) = self.0.upgrade() {
            inner.set_deadline(Side::Read, deadline);
        }
    }

    /// Sets the deadline of writes, flushes and shutdowns.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        if let Some(inner) = self.0.upgrade() {
            inner.set_deadline(Side::Write, deadline);
        }
    }
}

impl WeakInner {
    fn upgrade(&self) -> Option<Inner> {
        Some(match self {
            Self::Direct(direct) => Inner::Direct(direct.upgrade()?),
            Self::Stream(stream) => Inner::Stream(stream.upgrade()?),
        })
    }
}

impl Inner {
    fn handle(&self) -> ConnHandle {
        ConnHandle(match self {
            Self::Direct(direct) => WeakInner::Direct(Arc::downgrade(direct)),
            Self::Stream(stream) => WeakInner::Stream(Arc::downgrade(stream)),
        })
    }

    fn id(&self) -> StreamId {
        match self {
            Self::Direct(direct) => direct.number(),
            Self::Stream(stream) => stream.id,
        }
    }

    fn reset(&self, code: u32) {
        match self {
            Self::Direct(direct) => direct.reset(),
            Self::Stream(stream) => stream.reset(code),
        }
    }

    fn set_deadline(&self, side: Side, deadline: Option<Instant>) {
        match self {
            Self::Direct(direct) => direct.set_deadline(side, deadline),
            Self::Stream(stream) => stream.set_deadline(side, deadline),
        }
    }
}

impl Stream {
    fn reset(&self, code: u32) {
        self.link
            .with(|state, _| state.session.reset(self.id, code));
    }

    fn set_deadline(&self, side: Side, deadline: Option<Instant>) {
        self.link.with(|state, wakes| {
            state.slot(self.id, side).deadline = deadline;
            state.wake(self.id, side, wakes);
        });
    }

    /// Does one operation of one direction, within its deadline and this task's share of the thread.
    fn poll_op<R>(
        &self,
        side: Side,
        timer: &mut Timer,
        cx: &mut Context<'_>,
        operation: impl FnOnce(&mut Machine, StreamId) -> Poll<Result<R, ConnError>>,
    ) -> Poll<Result<R, ConnError>> {
        let share = ready!(coop::poll_proceed(cx));
        let (outcome, deadline) = self.link.with(|state, wakes| {
            let deadline = state.deadline(self.id, side);
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return (Poll::Ready(Err(ConnError::DeadlinePassed)), None);
            }
            let outcome = operation(&mut state.session, self.id);
            if outcome.is_pending() {
                state.register(self.id, side, cx, wakes);
            }
            (outcome, deadline)
        });
        if outcome.is_ready() || timer.poll_due(deadline, cx).is_ready() {
            share.made_progress();
        }
        let passed = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if outcome.is_pending() && passed {
            return Poll::Ready(Err(ConnError::DeadlinePassed));
        }
        outcome
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.link.with(|state, wakes| {
            state.session.release(self.id, now());
            state.forget(self.id, wakes);
        });
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        match &self.inner {
            Inner::Direct(direct) => direct.stop_reading(),
            Inner::Stream(stream) => {
                let id = stream.id;
                stream.link.with(|state, _| state.session.stop_reading(id));
            }
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        match &self.inner {
            Inner::Direct(direct) => direct.stop_writing(),
            Inner::Stream(stream) => {
                let id = stream.id;
                stream.link.with(|state, _| state.session.stop_writing(id));
            }
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, timer } = self.get_mut();
        match inner {
            Inner::Direct(direct) => ready!(direct.poll_read(timer, cx, buf))?,
            Inner::Stream(stream) => {
                let read = |session: &mut Machine, id| session.read(id, buf);
                ready!(stream.poll_op(Side::Read, timer, cx, read))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, timer } = self.get_mut();
        Poll::Ready(Ok(ready!(match inner {
            Inner::Direct(direct) => direct.poll_write(timer, cx, data),
            Inner::Stream(stream) => {
                let write = |session: &mut Machine, id| session.write(id, data);
                stream.poll_op(Side::Write, timer, cx, write)
            }
        })?))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { inner, timer } = self.get_mut();
        Poll::Ready(Ok(ready!(match inner {
            Inner::Direct(direct) => direct.poll_write_vectored(timer, cx, slices),
            Inner::Stream(stream) => {
                let write = |session: &mut Machine, id| session.write_vectored(id, slices);
                stream.poll_op(Side::Write, timer, cx, write)
            }
        })?))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Direct(direct) => direct.is_write_vectored(),
            Inner::Stream(_) => true,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, timer } = self.get_mut();
        Poll::Ready(Ok(ready!(match inner {
            Inner::Direct(direct) => direct.poll_flush(timer, cx),
            Inner::Stream(stream) => stream.poll_op(Side::Write, timer, cx, Machine::flush),
        })?))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { inner, timer } = self.get_mut();
        Poll::Ready(Ok(ready!(match inner {
            Inner::Direct(direct) => direct.poll_shutdown(timer, cx),
            Inner::Stream(stream) => stream.poll_op(Side::Write, timer, cx, Machine::shutdown),
        })?))
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().write).poll_write(cx, data)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().write).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.write.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().write).poll_shutdown(cx)
    }
}
