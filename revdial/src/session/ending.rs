//! How streams end, and with them the session.

use std::time::Instant;

use crate::error::CloseReason;
use crate::frame::{GoAwayCode, StreamId};
use crate::session::scheduler::Scheduler;
use crate::session::send::SendState;
use crate::session::stream::{End, Handle, Opening};
use crate::session::{Event, Session};

impl Session {
    /// Closes both directions for the holder of the stream at once; what was written and FIN still go out, then the
    /// peer is told that nobody reads.
    pub fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if stream.end != End::None {
            stream.hide_from_holder(&mut self.memory);
            self.tell(id);
            return;
        }
        stream.end = End::ClosedHere;
        stream.recv.discard(&mut self.memory);
        stream.send.finish();
        let finished = stream.send.state() == SendState::Finished;
        self.tell(id);
        if self.closed.is_some() {
            return;
        }
        if finished {
            self.settle_closed(id);
        } else {
            self.schedule(id);
            // The peer may be stuck in a write, and read what is queued here only behind it.
            self.notice_if_due(id);
        }
    }

    /// Ends both directions at once; the peer's readers get `code` behind what it has received.
    pub fn reset(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if !stream.is_live() || stream.is_finished() {
            stream.hide_from_holder(&mut self.memory);
            self.tell(id);
            return;
        }
        self.reset_live(id, code);
        self.tell(id);
    }

    /// Throws away what waits and what will come: nobody reads.
    ///
    /// The wire has no word for that; the peer goes on writing and gets its credit back.
    pub fn stop_reading(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.recv.discard(&mut self.memory);
        }
        self.notice_if_due(id);
    }

    /// Resets the stream unless its FIN is out: nobody writes the rest.
    pub fn stop_writing(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get(id)
            && stream.end == End::None
            && stream.send.state() != SendState::Finished
        {
            self.reset(id, CODE_DROPPED);
        }
    }

    /// Forgets a stream whose last handle was dropped.
    ///
    /// Unless both sides have finished, or [`close`](Self::close) still has something to send, it is reset.
    pub fn release(&mut self, id: StreamId, now: Instant) {
        self.forget_handle(id);
        self.departure.released = Some(now);
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let lingers = stream.end == End::ClosedHere && stream.send.state() == SendState::Finishing;
        if self.closed.is_none() && lingers {
            return;
        }
        if stream.is_live() && !stream.is_finished() && self.closed.is_none() {
            self.reset_live(id, CODE_DROPPED);
        }
        self.remove(id);
    }

    /// Takes no further streams, of either side: nobody is there to open or accept them.
    ///
    /// The session ends with the last stream, or when what [`close`](Self::close) left behind could not be delivered
    /// for the configured time after the last handle was dropped.
    pub fn release_endpoint(&mut self, now: Instant) {
        self.departure.deserted = true;
        self.departure.released = Some(now);
        while let Some(id) = self.streams.accept() {
            self.release(id, now);
        }
        self.end_if_deserted();
    }

    /// Ends the session: every stream ends with `reason`, and the peer is told unless the transport is the reason.
    ///
    /// The first reason stays.
    pub fn end(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        let peer_is_to_blame = matches!(reason, CloseReason::Protocol(_));
        self.control.go_away(if peer_is_to_blame {
            GoAwayCode::PROTOCOL_ERROR
        } else {
            GoAwayCode::NORMAL
        });
        self.closed = Some(reason);
        self.scheduler = Scheduler::new();
        self.tickets.waits.clear();
        for id in self.streams.ids() {
            if let Some(stream) = self.streams.get_mut(id)
                && stream.handle == Handle::Released
            {
                stream.recv.discard(&mut self.memory);
                self.streams.remove(id);
            }
        }
        self.memory.spare.release();
        self.events.clear();
        self.events.push_back(Event::Ended);
    }

    /// Resets a stream that is live on the wire.
    pub(super) fn reset_live(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.end = End::ResetHere;
        stream.recv.discard(&mut self.memory);
        stream.send.abandon();
        let unknown_to_peer = stream.opening == Opening::Queued;
        self.unqueue(id);
        if self.closed.is_none() && !unknown_to_peer {
            self.streams.bury(id);
            self.control.reset(id, code);
        }
    }

    /// Ends a closed stream whose FIN is out: the peer's writer learns that nobody reads.
    pub(super) fn settle_closed(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        let released = stream.handle == Handle::Released;
        if stream.is_live() && !stream.is_finished() {
            self.reset_live(id, CODE_DROPPED);
        }
        if released {
            self.remove(id);
        }
    }

    /// Removes a stream from every queue and gives back what it held.
    pub(super) fn remove(&mut self, id: StreamId) {
        self.unqueue(id);
        if let Some(mut stream) = self.streams.remove(id) {
            stream.recv.discard(&mut self.memory);
            self.growth_left += stream.recv.growth(self.config.first_window());
            if stream.waits.flush {
                self.tickets.waits.retain(|waiting| *waiting != id);
            }
        }
        self.end_if_idle();
    }

    /// Notes that the handle of a stream is dropped.
    pub(super) fn forget_handle(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id)
            && std::mem::replace(&mut stream.handle, Handle::Released) == Handle::Held
        {
            self.departure.held -= 1;
        }
    }

    /// Ends a session that serves nobody any more.
    pub(super) fn end_if_idle(&mut self) {
        if self.departure.peer_leaves && self.streams.is_empty() {
            self.end(CloseReason::PeerClosed);
        }
        self.end_if_deserted();
    }

    pub(super) fn end_if_deserted(&mut self) {
        if self.departure.deserted && self.streams.is_empty() {
            self.end(CloseReason::Local);
        }
    }
}

/// The code of a reset that nobody chose: the handle was dropped.
pub(super) const CODE_DROPPED: u32 = 0;
