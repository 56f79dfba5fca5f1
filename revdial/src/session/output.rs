//! What the session wants: frames on the wire, a call at some time, wakers woken.

use std::time::Instant;

use bytes::Bytes;

use crate::frame::{Flags, HEADER_LEN, Header, INITIAL_WINDOW, StreamId};
use crate::session::control::Control;
use crate::session::scheduler::{QUANTUM, Rest};
use crate::session::send::Sendable;
use crate::session::stream::{End, Opening};
use crate::session::{Event, Session};
use crate::v1;

/// A frame for the transport, of any dialect.
#[derive(Debug)]
pub struct Frame {
    head: Head,
    payload: Bytes,
    ticket: u64,
}

/// A header as bytes.
#[derive(Debug)]
pub(crate) enum Head {
    V1([u8; v1::frame::HEADER_LEN]),
    V3([u8; HEADER_LEN]),
}

impl Frame {
    pub(crate) fn new(head: Head, payload: Bytes, ticket: u64) -> Self {
        Self {
            head,
            payload,
            ticket,
        }
    }

    /// The bytes of the header: twelve, in dialect v1 seven.
    pub fn head(&self) -> &[u8] {
        match &self.head {
            Head::V1(bytes) => bytes,
            Head::V3(bytes) => bytes,
        }
    }

    /// What follows the header; empty for all but data.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Gives away what follows the header.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }

    /// The number of the frame, for [`Session::handle_flushed`].
    pub fn ticket(&self) -> u64 {
        self.ticket
    }
}

impl Session {
    /// Makes the next frame, with `max` bytes of payload at most; `None` when there is nothing to send.
    ///
    /// To be called only when the transport takes bytes: what is chosen later is chosen better.
    pub fn poll_transmit(&mut self, now: Instant, max: usize) -> Option<Frame> {
        if let Some(nonce) = self.take_ping(now) {
            return Some(self.frame(Header::Ping { nonce }, Bytes::new()));
        }
        while let Some(control) = self.control.next() {
            if let Some(header) = self.control_header(now, control) {
                return Some(self.frame(header, Bytes::new()));
            }
        }
        while let Some(id) = self.scheduler.front() {
            self.memory.used(now);
            if let Some(frame) = self.data_frame(id, max) {
                return Some(frame);
            }
        }
        None
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed.is_some() {
            return None;
        }
        [
            self.liveness.poll_timeout(),
            self.linger_timeout(),
            self.memory.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next change for somebody who waits.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Says whether [`poll_transmit`](Self::poll_transmit) may have a frame.
    pub fn has_output(&self) -> bool {
        let ping = self.closed.is_none() && self.liveness.has_ping();
        ping || !self.control.is_empty() || !self.scheduler.is_empty()
    }

    /// Says whether there are confirmations and credit to send and nothing else: they gain by going with an answer
    /// that somebody is about to write.
    pub fn may_wait(&self) -> bool {
        !self.liveness.has_ping() && self.control.has_only_notices() && self.scheduler.is_empty()
    }

    /// Says whether somebody waits for [`handle_flushed`](Self::handle_flushed).
    pub fn wants_flush(&self) -> bool {
        !self.tickets.waits.is_empty()
    }

    /// When what `close` left behind is given up: some time after the last handle was dropped.
    pub(super) fn linger_timeout(&self) -> Option<Instant> {
        let departure = &self.departure;
        if !departure.deserted || departure.held > 0 {
            return None;
        }
        departure.released?.checked_add(self.config.close_timeout)
    }

    fn take_ping(&mut self, now: Instant) -> Option<u32> {
        match self.closed {
            Some(_) => None,
            None => self.liveness.take_ping(now),
        }
    }

    fn control_header(&mut self, now: Instant, control: Control) -> Option<Header> {
        match control {
            Control::Pong(nonce) => Some(Header::Pong { nonce }),
            Control::Reset { id, code } => Some(Header::WindowUpdate {
                id,
                flags: Flags::RST,
                delta: code,
            }),
            Control::Notice(id) => self.notice_header(now, id),
            Control::GoAway(code) => Some(Header::GoAway { code }),
        }
    }

    /// SYN, ACK and credit of one stream, in one frame.
    fn notice_header(&mut self, now: Instant, id: StreamId) -> Option<Header> {
        let stream = self.streams.get_mut(id)?;
        stream.noticed = false;
        if !stream.has_notice() {
            return None;
        }
        let (flags, opening) = match stream.opening {
            Opening::Queued => (Flags::SYN, Opening::Sent),
            Opening::Answering => (Flags::ACK, Opening::Done),
            other @ (Opening::Sent | Opening::Done) => (Flags::NONE, other),
        };
        // The first frame says what the peer has beyond the window of the wire.
        let mut delta = if opening != stream.opening {
            self.config.first_window() - INITIAL_WINDOW
        } else {
            0
        };
        stream.opening = opening;
        if stream.recv.update_is_due() {
            self.liveness.ask_if_stale(now);
            let update = stream.recv.take_update(
                now,
                self.liveness.distance(),
                self.config.window_ceiling(),
                self.growth_left,
            );
            self.growth_left -= update.growth;
            delta += update.delta;
        }
        Some(Header::WindowUpdate { id, flags, delta })
    }

    /// The next frame of the stream whose turn it is; `None` if it has none, and then its turn is over.
    fn data_frame(&mut self, id: StreamId, max: usize) -> Option<Frame> {
        let Some(stream) = self.streams.get_mut(id) else {
            self.scheduler.drop_front();
            return None;
        };
        self.scheduler.begin(&mut stream.turn);
        let room = max.clamp(1, QUANTUM);
        let sendable = stream.send.take(room, self.tickets.made + 1);
        let rest = if stream.send.is_ready() && !matches!(sendable, Sendable::Nothing) {
            Rest::More
        } else {
            Rest::Nothing
        };
        let (flags, payload) = match sendable {
            Sendable::Data(payload) => (Flags::NONE, payload),
            Sendable::Fin => (Flags::FIN, Bytes::new()),
            Sendable::Nothing => {
                self.scheduler.end(&mut stream.turn, 0, rest);
                return None;
            }
        };
        self.scheduler.end(&mut stream.turn, payload.len(), rest);
        let fin_of_closed = flags == Flags::FIN && stream.end == End::ClosedHere;
        let has_room = stream.send.queued() <= self.config.send_buffer / 2;
        if fin_of_closed {
            self.settle_closed(id);
        } else if has_room {
            self.tell_room(id);
        }
        let length = u32::try_from(payload.len()).expect("a payload is at most a window");
        Some(self.frame(Header::Data { id, flags, length }, payload))
    }

    /// Tells a writer that waits for room, and nobody else.
    fn tell_room(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id)
            && std::mem::take(&mut stream.waits.write)
        {
            self.events.push_back(Event::Writable(id));
        }
    }

    fn frame(&mut self, header: Header, payload: Bytes) -> Frame {
        self.tickets.made += 1;
        Frame::new(Head::V3(header.encode()), payload, self.tickets.made)
    }
}
