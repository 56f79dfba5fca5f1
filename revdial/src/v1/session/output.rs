//! What the session wants: frames on the wire, a call at some time, wakers woken.

use std::time::Instant;

use bytes::Bytes;

use crate::frame::StreamId;
use crate::session::scheduler::{QUANTUM, Rest};
use crate::session::send::Sendable;
use crate::session::{Event, Frame, Head};
use crate::v1::frame::{Header, Kind};
use crate::v1::session::Session;
use crate::v1::session::control::Control;
use crate::v1::session::stream::Opening;

impl Session {
    /// Makes the next frame, with `max` bytes of payload at most; `None` when there is nothing to send.
    ///
    /// To be called only when the transport takes bytes: what is chosen later is chosen better.
    pub fn poll_transmit(&mut self, _now: Instant, max: usize) -> Option<Frame> {
        if let Some(control) = self.control.next() {
            let header = self.control_header(control);
            return Some(self.frame(header, Bytes::new()));
        }
        while let Some(id) = self.scheduler.front() {
            if let Some(frame) = self.data_frame(id, max) {
                return Some(frame);
            }
        }
        None
    }

    /// Takes a frame back that the transport has taken, so that its memory serves again. To drop it is right as well.
    pub fn recycle(&mut self, frame: Frame) {
        if let Ok(block) = frame.into_payload().try_into_mut() {
            self.spare.keep(block);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed.is_some() {
            return None;
        }
        match (self.pressure.timeout(), self.linger_timeout()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next change for somebody who waits.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Says whether [`poll_transmit`](Self::poll_transmit) may have a frame.
    pub fn has_output(&self) -> bool {
        !self.control.is_empty() || !self.scheduler.is_empty()
    }

    /// Says whether somebody waits for [`handle_flushed`](Self::handle_flushed).
    pub fn wants_flush(&self) -> bool {
        !self.tickets.waits.is_empty()
    }

    /// When what dropped handles left behind is given up: some time after the last one.
    pub(super) fn linger_timeout(&self) -> Option<Instant> {
        let departure = &self.departure;
        if !departure.deserted || departure.held > 0 {
            return None;
        }
        departure.released?.checked_add(self.config.close_timeout)
    }

    fn control_header(&mut self, control: Control) -> Header {
        match control {
            Control::Close(id) => Header::new(Kind::Close, id, 0),
            Control::Open(id) => {
                if let Some(stream) = self.streams.get_mut(id) {
                    stream.opening = Opening::Done;
                }
                Header::new(Kind::Open, Some(id), 0)
            }
        }
    }

    /// The next frame of the connection whose turn it is; `None` if it has none, and then its turn is over.
    fn data_frame(&mut self, id: StreamId, max: usize) -> Option<Frame> {
        let Some(stream) = self.streams.get_mut(id) else {
            self.scheduler.drop_front();
            return None;
        };
        self.scheduler.begin(&mut stream.turn);
        let room = max.clamp(1, QUANTUM);
        let sendable = stream.send.take(room, self.tickets.made + 1);
        let rest = if stream.send.is_ready() {
            Rest::More
        } else {
            Rest::Nothing
        };
        let (kind, payload) = match sendable {
            Sendable::Data(payload) => (Kind::Write, payload),
            Sendable::Fin => (Kind::Close, Bytes::new()),
            Sendable::Nothing => {
                self.scheduler.end(&mut stream.turn, 0, Rest::Nothing);
                return None;
            }
        };
        self.scheduler.end(&mut stream.turn, payload.len(), rest);
        let length = u16::try_from(payload.len()).expect("a payload is at most 16 KiB");
        // The wire has no credit: what a frame took is there again.
        let granted = stream.send.grant(u32::from(length));
        debug_assert!(granted.is_some(), "no more is given back than was taken");
        if stream.send.queued() <= self.config.send_buffer / 2
            && std::mem::take(&mut stream.waits.write)
        {
            self.events.push_back(Event::Writable(id));
        }
        let frame = self.frame(Header::new(kind, Some(id), length), payload);
        if kind == Kind::Close {
            self.settle_released(id);
        }
        Some(frame)
    }

    fn frame(&mut self, header: Header, payload: Bytes) -> Frame {
        self.tickets.made += 1;
        Frame::new(Head::V1(header.encode()), payload, self.tickets.made)
    }
}
