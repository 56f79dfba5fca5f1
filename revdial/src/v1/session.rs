//! The machine: one side of a link, without a transport, a clock or a lock.

mod control;
mod decoder;
mod ending;
mod input;
mod output;
mod pressure;
mod recv;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::task::Poll;
use std::time::Instant;

use bytes::{BufMut, Bytes};

use crate::config::Config;
use crate::error::{CloseReason, ConnError, DialError};
use crate::frame::StreamId;
use crate::session::blocks::Spare;
use crate::session::scheduler::Scheduler;
use crate::session::send::SendState;
use crate::session::{Event, Role, Tickets, io};

use self::control::ControlQueue;
use self::decoder::Decoder;
use self::pressure::Pressure;
use self::stream::{End, Stream};
use self::table::StreamTable;

/// One side of a link.
///
/// It has the methods of v3's [`Session`](crate::session::Session), with the same meanings and in the same order of
/// use, as far as the wire allows; what differs is said at each. What is new is [`wants_input`](Self::wants_input).
///
/// ```
/// use std::task::Poll;
/// use std::time::Instant;
///
/// use revdial::Config;
/// use revdial::session::Role;
/// use revdial::v1::Session;
///
/// let now = Instant::now();
/// let mut dialer = Session::new(Role::Dialer, Config::default());
/// let mut listener = Session::new(Role::Listener, Config::default());
///
/// let id = dialer.open()?;
/// let Poll::Ready(Ok(5)) = dialer.write(id, b"hello") else { panic!() };
/// while let Some(frame) = dialer.poll_transmit(now, usize::MAX) {
///     listener.handle_input(now, frame.head());
///     listener.handle_input(now, frame.into_payload());
/// }
///
/// let id = listener.accept().expect("the dialer opened a connection");
/// let mut heard = Vec::new();
/// let Poll::Ready(Ok(5)) = listener.read(id, &mut heard) else { panic!() };
/// assert_eq!(heard, b"hello");
/// # Ok::<(), revdial::DialError>(())
/// ```
#[derive(Debug)]
pub struct Session {
    role: Role,
    config: Config,
    decoder: Decoder,
    streams: StreamTable,
    control: ControlQueue,
    scheduler: Scheduler,
    pressure: Pressure,
    spare: Spare,
    events: VecDeque<Event>,
    tickets: Tickets,
    departure: Departure,
    closed: Option<CloseReason>,
}

/// Who is about to leave, on this side: the peer's leaving is the end.
#[derive(Debug, Default)]
struct Departure {
    /// Nobody here opens or accepts further connections.
    deserted: bool,
    /// Connections whose handle is held.
    held: usize,
    /// When the last handle, of a connection or the endpoint, was dropped.
    released: Option<Instant>,
}

impl Session {
    /// Starts a session on a fresh transport.
    pub fn new(role: Role, config: Config) -> Self {
        Self {
            role,
            decoder: Decoder::new(),
            streams: StreamTable::new(role),
            control: ControlQueue::default(),
            scheduler: Scheduler::new(),
            pressure: Pressure::new(&config),
            spare: Spare::default(),
            events: VecDeque::new(),
            tickets: Tickets::default(),
            departure: Departure::default(),
            closed: None,
            config,
        }
    }

    /// Opens a connection; the peer is told with the next frame.
    ///
    /// Numbers go round after 2³² dials, leaving out 0 and those in use. A listener has none.
    pub fn open(&mut self) -> Result<StreamId, DialError> {
        if let Some(reason) = &self.closed {
            return Err(DialError::Closed(reason.clone()));
        }
        if self.role == Role::Dialer && self.streams.len() >= self.config.max_outbound_streams {
            return Err(DialError::TooManyConnections(
                self.config.max_outbound_streams,
            ));
        }
        let id = self.streams.open().ok_or(DialError::NumbersUsedUp)?;
        self.departure.held += 1;
        self.control.open(id);
        Ok(id)
    }

    /// Says whether a connection of ours is open: at once, for the peer confirms nothing.
    pub fn poll_opened(&self, id: StreamId) -> Poll<Result<(), DialError>> {
        Poll::Ready(match (&self.closed, self.streams.get(id)) {
            (Some(reason), _) => Err(DialError::Closed(reason.clone())),
            (None, Some(_)) => Ok(()),
            (None, None) => Err(DialError::Closed(CloseReason::Local)),
        })
    }

    /// Takes the oldest connection that the peer opened; `None` until [`Event::Incoming`].
    pub fn accept(&mut self) -> Option<StreamId> {
        if self.closed.is_some() {
            return None;
        }
        self.streams.accept()
    }

    /// Appends to `buf` what waits, as much as there is room for; 0 bytes mean the end, or that there was no room.
    ///
    /// The end is the peer's `C`, whatever it meant by it. What arrived before the end of the link is delivered first,
    /// then the error.
    pub fn read<B: BufMut>(&mut self, id: StreamId, buf: &mut B) -> Poll<Result<usize, ConnError>> {
        io::read(buf, |max| self.read_chunk(id, max))
    }

    /// Takes up to `max` bytes without copying them; an empty chunk means the end.
    pub fn read_chunk(&mut self, id: StreamId, max: usize) -> Poll<Result<Bytes, ConnError>> {
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(self.gone()));
        };
        match stream.end {
            End::ClosedHere | End::ResetHere => return Poll::Ready(Err(ConnError::Closed)),
            End::Stalled => return Poll::Ready(Err(ConnError::Stalled)),
            End::None => {}
        }
        if stream.recv.unread() > 0 {
            let chunk = stream.recv.take(max);
            self.pressure.fall(id, stream.recv.unread());
            return Poll::Ready(Ok(chunk));
        }
        if stream.recv.is_finished() {
            return Poll::Ready(Ok(Bytes::new()));
        }
        if let Some(reason) = &self.closed {
            return Poll::Ready(Err(ConnError::Link(reason.clone())));
        }
        stream.waits.read = true;
        Poll::Pending
    }

    /// Queues as much of `data` as there is room for.
    ///
    /// A peer that reads no more, or has closed the connection, cannot say so: bytes are then taken in vain.
    pub fn write(&mut self, id: StreamId, data: &[u8]) -> Poll<Result<usize, ConnError>> {
        let limit = self.config.send_buffer.max(1);
        if let Err(error) = self.writable(id) {
            return Poll::Ready(Err(error));
        }
        let Some(stream) = self.streams.get_mut(id).filter(|_| !data.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let count = stream.send.push(data, limit, &mut self.spare);
        if count == 0 {
            stream.waits.write = true;
            return Poll::Pending;
        }
        self.schedule(id);
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
        match stream.end {
            End::ClosedHere | End::ResetHere => return Poll::Ready(Err(ConnError::Closed)),
            End::Stalled => return Poll::Ready(Err(ConnError::Stalled)),
            End::None if stream.send.is_flushed(flushed) => return Poll::Ready(Ok(())),
            End::None => {}
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

    /// Sends `C` behind what was written, once, and waits until it is with the transport. Reading goes on.
    pub fn shutdown(&mut self, id: StreamId) -> Poll<Result<(), ConnError>> {
        match self.writable(id) {
            Ok(stream) => {
                stream.send.finish();
                self.schedule(id);
            }
            Err(ConnError::Shutdown) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        self.flush(id)
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
        self.closed.is_some()
    }

    /// Connections that are open, or whose handle is held.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Bytes that the writer of a connection has queued and that no frame has taken yet.
    pub fn queued(&self, id: StreamId) -> usize {
        self.streams
            .get(id)
            .map_or(0, |stream| stream.send.queued())
    }

    /// Bytes of a connection that arrived and were not read.
    pub fn unread(&self, id: StreamId) -> usize {
        self.streams
            .get(id)
            .map_or(0, |stream| stream.recv.unread())
    }

    /// The connection, if it can be written to.
    fn writable(&mut self, id: StreamId) -> Result<&mut Stream, ConnError> {
        let closed = self.closed.clone();
        let Some(stream) = self.streams.get_mut(id) else {
            return Err(closed.map_or(ConnError::Closed, ConnError::Link));
        };
        match (stream.end, stream.send.state(), closed) {
            (End::ClosedHere | End::ResetHere, _, _) => Err(ConnError::Closed),
            (End::Stalled, _, _) => Err(ConnError::Stalled),
            (_, SendState::Finishing | SendState::Finished | SendState::Abandoned(_), _) => {
                Err(ConnError::Shutdown)
            }
            (_, SendState::Open, Some(reason)) => Err(ConnError::Link(reason)),
            (_, SendState::Open, None) => Ok(stream),
        }
    }

    /// Why a connection that does not exist does not.
    fn gone(&self) -> ConnError {
        match &self.closed {
            Some(reason) => ConnError::Link(reason.clone()),
            None => ConnError::Closed,
        }
    }

    /// Queues the connection for its turn if it has something to send.
    fn schedule(&mut self, id: StreamId) {
        if self.closed.is_some() {
            return;
        }
        if let Some(stream) = self.streams.get_mut(id)
            && stream.send.is_ready()
        {
            self.scheduler.schedule(id, &mut stream.turn);
        }
    }

    /// Tells everybody who waits for the connection.
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
