//! The machine: one side of a link, without a transport, a clock or a lock.
//!
//! A [`Session`] is fed with bytes and time and asked for frames, deadlines and events. The driver does that for a
//! real transport; tests do it for two sessions and a clock that is a number.
//!
//! ```
//! use std::task::Poll;
//! use std::time::Instant;
//!
//! use bytes::Bytes;
//! use revdial::Config;
//! use revdial::session::{Role, Session};
//!
//! let now = Instant::now();
//! let mut dialer = Session::new(Role::Dialer, Config::default(), now, 0);
//! let mut listener = Session::new(Role::Listener, Config::default(), now, 0);
//!
//! let id = dialer.open()?;
//! let Poll::Ready(Ok(5)) = dialer.write(id, b"hello") else { panic!() };
//! while let Some(frame) = dialer.poll_transmit(now, usize::MAX) {
//!     listener.handle_input(now, Bytes::copy_from_slice(frame.head()));
//!     listener.handle_input(now, frame.into_payload());
//! }
//!
//! let id = listener.accept().expect("the dialer opened a stream");
//! let mut heard = Vec::new();
//! let Poll::Ready(Ok(5)) = listener.read(id, &mut heard) else { panic!() };
//! assert_eq!(heard, b"hello");
//! # Ok::<(), revdial::DialError>(())
//! ```

pub(crate) mod blocks;
mod control;
mod decoder;
mod ending;
mod input;
pub(crate) mod io;
mod liveness;
mod memory;
mod output;
pub(crate) mod recv;
pub(crate) mod scheduler;
pub(crate) mod send;
pub(crate) mod stream;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};

use crate::config::Config;
use crate::error::{CloseReason, ConnError, DialError};
use crate::frame::StreamId;
pub use crate::session::output::Frame;
pub(crate) use crate::session::output::Head;

use self::control::ControlQueue;
use self::decoder::Decoder;
use self::liveness::Liveness;
use self::memory::Memory;
use self::scheduler::Scheduler;
use self::send::SendState;
use self::stream::{Content, End, Opening, Stream};
use self::table::StreamTable;

/// Which side of the link this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Role {
    /// Opens streams and refuses those of the peer; the yamux client, whose numbers are odd.
    Dialer,
    /// Takes streams; the yamux server.
    Listener,
}

impl Role {
    fn first_id(self) -> u32 {
        match self {
            Self::Dialer => 1,
            Self::Listener => 2,
        }
    }
}

/// What has changed for somebody who waits.
///
/// At most one event of a kind waits for each stream, and only where an operation returned `Pending` before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// [`Session::accept`] has a stream.
    Incoming,
    /// [`Session::read`] has an answer.
    Readable(StreamId),
    /// [`Session::write`], [`flush`](Session::flush), [`shutdown`](Session::shutdown) or
    /// [`poll_opened`](Session::poll_opened) has an answer.
    Writable(StreamId),
    /// The ping with this nonce was answered.
    Pong {
        /// What [`Session::ping`] returned.
        nonce: u32,
        /// From sending to answer.
        round_trip: Duration,
    },
    /// The session ended: everybody who waits is to look again.
    Ended,
}

/// One side of a link.
///
/// Its methods are of four kinds. After any of the first three, ask the fourth until it has nothing more:
///
/// 1. **Input**: [`handle_input`](Self::handle_input), [`handle_eof`](Self::handle_eof),
///    [`handle_transport_error`](Self::handle_transport_error), [`handle_timeout`](Self::handle_timeout),
///    [`handle_flushed`](Self::handle_flushed). None of them fails: what a peer does wrong ends the session.
/// 2. **Commands for streams**: [`open`](Self::open), [`accept`](Self::accept), [`read`](Self::read),
///    [`write`](Self::write), [`flush`](Self::flush), [`shutdown`](Self::shutdown), [`close`](Self::close),
///    [`reset`](Self::reset), [`stop_reading`](Self::stop_reading),
///    [`stop_writing`](Self::stop_writing),
///    [`release`](Self::release).
/// 3. **Commands for the session**: [`ping`](Self::ping), [`release_endpoint`](Self::release_endpoint),
///    [`end`](Self::end).
/// 4. **Output**: [`poll_event`](Self::poll_event), [`poll_transmit`](Self::poll_transmit),
///    [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Session {
    role: Role,
    config: Config,
    decoder: Decoder,
    streams: StreamTable,
    control: ControlQueue,
    scheduler: Scheduler,
    liveness: Liveness,
    memory: Memory,
    events: VecDeque<Event>,
    tickets: Tickets,
    growth_left: u32,
    departure: Departure,
    closed: Option<CloseReason>,
}

/// Which frames were made, and which of them are with the transport.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Tickets {
    pub(crate) made: u64,
    pub(crate) flushed: u64,
    /// Streams whose writer waits for its frames to be flushed.
    pub(crate) waits: Vec<StreamId>,
}

/// Who is about to leave.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
struct Departure {
    /// The peer takes no further streams.
    peer_leaves: bool,
    /// Nobody here opens or accepts further streams.
    deserted: bool,
    /// Streams whose handle is held.
    held: usize,
    /// When the last handle, of a stream or the endpoint, was dropped.
    released: Option<Instant>,
}

impl Session {
    /// Starts a session on a fresh transport.
    ///
    /// `jitter` is a random number that keeps the keep-alives of many links apart.
    pub fn new(role: Role, config: Config, now: Instant, jitter: u8) -> Self {
        Self {
            role,
            decoder: Decoder::new(),
            streams: StreamTable::new(role, config.tombstones),
            control: ControlQueue::default(),
            scheduler: Scheduler::new(),
            liveness: Liveness::new(config.keep_alive, jitter, now),
            memory: Memory::default(),
            events: VecDeque::new(),
            tickets: Tickets::default(),
            growth_left: config.growth_budget,
            departure: Departure::default(),
            closed: None,
            config,
        }
    }

    /// Opens a stream; the peer is told with the next frame.
    pub fn open(&mut self) -> Result<StreamId, DialError> {
        if let Some(reason) = &self.closed {
            return Err(DialError::Closed(reason.clone()));
        }
        if self.departure.peer_leaves {
            return Err(DialError::PeerLeaving);
        }
        if self.streams.outbound() >= self.config.max_outbound_streams {
            return Err(DialError::TooManyConnections(
                self.config.max_outbound_streams,
            ));
        }
        let id = self
            .streams
            .open(&self.config)
            .ok_or(DialError::NumbersUsedUp)?;
        self.departure.held += 1;
        self.notice(id);
        Ok(id)
    }

    /// Waits until the peer has confirmed or refused a stream of ours.
    pub fn poll_opened(&mut self, id: StreamId) -> Poll<Result<(), DialError>> {
        let closed = self.closed.clone();
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(DialError::Closed(closed.unwrap_or(CloseReason::Local))));
        };
        match (stream.opening, stream.end, closed) {
            (Opening::Done, _, _) => Poll::Ready(Ok(())),
            (_, End::ResetByPeer { code }, _) => Poll::Ready(Err(DialError::Refused { code })),
            (_, End::ClosedHere | End::Overrun | End::ResetHere, None) => {
                Poll::Ready(Err(DialError::Closed(CloseReason::Local)))
            }
            (_, _, Some(reason)) => Poll::Ready(Err(DialError::Closed(reason))),
            (_, End::None, None) => {
                stream.waits.write = true;
                Poll::Pending
            }
        }
    }

    /// Takes the oldest stream that the peer opened; `None` until [`Event::Incoming`].
    pub fn accept(&mut self) -> Option<StreamId> {
        if self.closed.is_some() {
            return None;
        }
        self.streams.accept()
    }

    /// Appends to `buf` what waits, as much as there is room for; 0 bytes mean the end, or that there was no room.
    ///
    /// What arrived before a reset or the end of the link is delivered first, then the error: nothing that the peer
    /// sent in time is lost.
    pub fn read<B: BufMut>(&mut self, id: StreamId, buf: &mut B) -> Poll<Result<usize, ConnError>> {
        if !buf.has_remaining_mut() {
            return Poll::Ready(Ok(0));
        }
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(self.gone()));
        };
        let count = match ready!(stream.poll_readable(self.closed.as_ref()))? {
            Content::Data => stream.recv.read(buf, &mut self.memory),
            Content::End => return Poll::Ready(Ok(0)),
        };
        if stream.recv.update_is_due() {
            self.notice(id);
        }
        Poll::Ready(Ok(count))
    }

    /// Takes up to `max` bytes; an empty chunk means the end. Whole blocks are not copied.
    pub fn read_chunk(&mut self, id: StreamId, max: usize) -> Poll<Result<Bytes, ConnError>> {
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(self.gone()));
        };
        let chunk = match ready!(stream.poll_readable(self.closed.as_ref()))? {
            Content::Data => stream.recv.take(max, &mut self.memory),
            Content::End => return Poll::Ready(Ok(Bytes::new())),
        };
        self.notice_if_due(id);
        Poll::Ready(Ok(chunk))
    }

    /// Queues as much of `data` as there is room for.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, ConnError>> {
        let limit = self.config.send_buffer.max(1);
        let stream = self.streams.get_mut(id);
        let stream = match writable(stream, self.closed.as_ref()) {
            Ok(stream) => stream,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = stream.send.push(data, limit, &mut self.memory.spare);
        if count == 0 {
            stream.waits.write = true;
            return Poll::Pending;
        }
        if stream.is_live() && stream.send.is_ready() {
            self.scheduler.schedule(id, &mut stream.turn);
        }
        Poll::Ready(Ok(count))
    }

    /// Like [`write`](Self::write), with the concatenation of `slices`.
    pub fn write_vectored(
        &mut self,
        id: StreamId,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, ConnError>> {
        io::write_vectored(slices, |data| self.write(id, data))
    }

    /// Waits until everything that was written is with the transport.
    pub fn flush(&mut self, id: StreamId) -> Poll<Result<(), ConnError>> {
        let flushed = self.tickets.flushed;
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(self.gone()));
        };
        if let Some(error) = stream.end.error_here() {
            return Poll::Ready(Err(error));
        }
        if stream.send.is_flushed(flushed) {
            return Poll::Ready(Ok(()));
        }
        if let End::ResetByPeer { code } = stream.end {
            return Poll::Ready(Err(ConnError::Reset { code }));
        }
        if let Some(reason) = &self.closed {
            return Poll::Ready(Err(ConnError::Link(reason.clone())));
        }
        if !stream.waits.flush {
            stream.waits.flush = true;
            self.tickets.waits.push(id);
        }
        Poll::Pending
    }

    /// Sends FIN behind what was written, once, and waits until it is with the transport.
    pub fn shutdown(&mut self, id: StreamId) -> Poll<Result<(), ConnError>> {
        match writable(self.streams.get_mut(id), self.closed.as_ref()) {
            Ok(stream) => {
                stream.send.finish();
                self.schedule(id);
            }
            Err(ConnError::Shutdown) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        self.flush(id)
    }

    /// Asks for the round trip time; [`Event::Pong`] with a nonce that is not older tells.
    pub fn ping(&mut self) -> u32 {
        self.liveness.ask()
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Why the session ended, once it has.
    pub fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// Says whether [`open`](Self::open) can succeed no more.
    pub fn is_leaving(&self) -> bool {
        self.closed.is_some() || self.departure.peer_leaves
    }

    /// Streams that are open, or whose handle is held.
    pub fn stream_count(&self) -> usize {
        self.streams.inbound() + self.streams.outbound()
    }

    /// Bytes that the writer of a stream has queued and that no frame has taken yet.
    pub fn queued(&self, id: StreamId) -> usize {
        self.streams
            .get(id)
            .map_or(0, |stream| stream.send.queued())
    }

    /// The newest measured round trip time.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }

    /// Why a stream that does not exist does not.
    fn gone(&self) -> ConnError {
        match &self.closed {
            Some(reason) => ConnError::Link(reason.clone()),
            None => ConnError::Closed,
        }
    }

    fn unqueue(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            self.scheduler.remove(id, &mut stream.turn);
            if std::mem::take(&mut stream.noticed) {
                self.control.remove_notice(id);
            }
        }
    }

    /// Queues the stream for its turn if it has something to send.
    fn schedule(&mut self, id: StreamId) {
        if self.closed.is_some() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(id)
            && stream.is_live()
            && stream.send.is_ready()
        {
            self.scheduler.schedule(id, &mut stream.turn);
        }
    }

    /// Queues SYN, ACK or credit.
    fn notice(&mut self, id: StreamId) {
        if self.closed.is_some() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(id)
            && stream.has_notice()
            && !std::mem::replace(&mut stream.noticed, true)
        {
            self.control.notice(id);
        }
    }

    fn notice_if_due(&mut self, id: StreamId) {
        if self
            .streams
            .get(id)
            .is_some_and(|stream| stream.recv.update_is_due())
        {
            self.notice(id);
        }
    }

    /// Tells everybody who waits for the stream.
    fn tell(&mut self, id: StreamId) {
        self.tell_reader(id);
        self.tell_writer(id);
    }

    fn tell_reader(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id)
            && std::mem::take(&mut stream.waits.read)
        {
            self.events.push_back(Event::Readable(id));
        }
    }

    fn tell_writer(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let waits = std::mem::take(&mut stream.waits.write);
        let flushes = std::mem::take(&mut stream.waits.flush);
        if flushes {
            self.tickets.waits.retain(|waiting| *waiting != id);
        }
        if waits || flushes {
            self.events.push_back(Event::Writable(id));
        }
    }
}

/// The stream, if it can be written to; `closed` says why the session ended.
fn writable<'a>(
    stream: Option<&'a mut Stream>,
    closed: Option<&CloseReason>,
) -> Result<&'a mut Stream, ConnError> {
    let Some(stream) = stream else {
        return Err(closed.map_or(ConnError::Closed, |reason| ConnError::Link(reason.clone())));
    };
    if let Some(error) = stream.end.error_here() {
        return Err(error);
    }
    match (stream.end, stream.send.state(), closed) {
        (End::ResetByPeer { code }, SendState::Open | SendState::Abandoned(_), _) => {
            Err(ConnError::Reset { code })
        }
        (_, SendState::Finishing | SendState::Finished | SendState::Abandoned(_), _) => {
            Err(ConnError::Shutdown)
        }
        (_, SendState::Open, Some(reason)) => Err(ConnError::Link(reason.clone())),
        (_, SendState::Open, None) => Ok(stream),
    }
}
