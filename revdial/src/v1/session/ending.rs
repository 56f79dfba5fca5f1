//! How connections end, and with them the session.

use std::time::Instant;

use crate::error::CloseReason;
use crate::frame::StreamId;
use crate::session::Event;
use crate::session::scheduler::Scheduler;
use crate::session::send::SendState;
use crate::session::stream::Handle;
use crate::v1::session::Session;
use crate::v1::session::stream::{End, Opening};

impl Session {
    /// Closes both directions for the holder of the connection at once; what was written and `C` still go out.
    pub fn close(&mut self, id: StreamId) {
        self.hide(id, End::ClosedHere);
        if let Some(stream) = self.streams.get_mut(id)
            && stream.end == End::ClosedHere
        {
            stream.send.finish();
        }
        self.schedule(id);
        self.tell(id);
    }

    /// Ends both directions at once: what waits is thrown away, and `C` goes before all data.
    ///
    /// The wire cannot carry the code, nor say that this was no orderly end.
    pub fn reset(&mut self, id: StreamId, _code: u32) {
        self.give_up(id, End::ResetHere);
    }

    /// Throws away what waits and what will come: nobody reads.
    ///
    /// The wire has no word for that; the peer goes on writing.
    pub fn stop_reading(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.recv.discard();
            self.pressure.fall(id, 0);
        }
    }

    /// Closes the connection unless its `C` is out: nobody writes the rest.
    ///
    /// One that the peer was not told of is withdrawn.
    pub fn stop_writing(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        if stream.end != End::None || stream.send.state() == SendState::Finished {
            return;
        }
        if stream.is_unheard_of() {
            self.give_up(id, End::ClosedHere);
        } else {
            self.close(id);
        }
    }

    /// Forgets a connection whose last handle was dropped.
    ///
    /// Unless it was shut down or reset it is closed: the peer gets what was written, then `C`.
    pub fn release(&mut self, id: StreamId, now: Instant) {
        self.departure.released = Some(now);
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if std::mem::replace(&mut stream.handle, Handle::Released) == Handle::Held {
            self.departure.held -= 1;
        }
        self.stop_writing(id);
        self.settle_released(id);
    }

    /// Takes no further connections, of either side: nobody is there to open or accept them.
    ///
    /// The session ends with the last connection, or when what was written before the handles were dropped could not
    /// be delivered for the configured time after the last one.
    pub fn release_endpoint(&mut self, now: Instant) {
        self.departure.deserted = true;
        self.departure.released = Some(now);
        while let Some(id) = self.streams.accept() {
            self.release(id, now);
        }
        self.end_if_deserted();
    }

    /// Ends the session: every connection ends with `reason`.
    ///
    /// The peer is told nothing, as there is no word for it, and least of all by `C`: it sees the transport end and
    /// connections without theirs. The first reason stays.
    pub fn end(&mut self, reason: CloseReason) {
        if self.closed.is_some() {
            return;
        }
        self.closed = Some(reason);
        self.control.end();
        self.scheduler = Scheduler::new();
        self.tickets.waits.clear();
        let released: Vec<StreamId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.handle == Handle::Released)
            .map(|(id, _)| id)
            .collect();
        for id in released {
            self.streams.remove(id);
        }
        self.events.clear();
        self.events.push_back(Event::Ended);
    }

    /// Closes a connection whose reader holds up the link.
    pub(super) fn stall(&mut self, id: StreamId) {
        self.give_up(id, End::Stalled);
    }

    /// Removes a connection that nobody holds, once there is nothing more to send for it.
    pub(super) fn settle_released(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        let lingers = self.closed.is_none() && stream.send.state() == SendState::Finishing;
        if stream.handle == Handle::Released && !lingers {
            self.remove(id);
        }
    }

    /// Ends a session that serves nobody any more.
    fn end_if_deserted(&mut self) {
        if self.departure.deserted && self.streams.is_empty() {
            self.end(CloseReason::Local);
        }
    }

    /// Ends both directions, throws away what waits, and tells a peer that knows of the connection, once.
    fn give_up(&mut self, id: StreamId, end: End) {
        self.hide(id, end);
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let before = stream.send.state();
        stream.send.abandon();
        self.scheduler.remove(id, &mut stream.turn);
        let opening = std::mem::replace(&mut stream.opening, Opening::Done);
        let owed = matches!(before, SendState::Open | SendState::Finishing);
        if opening == Opening::Queued {
            self.control.withdraw(id);
        } else if owed && self.closed.is_none() {
            self.control.close(Some(id));
        }
        self.tell(id);
    }

    /// Ends the connection for its holder; a reset goes beyond a close, and nothing beyond a reset.
    fn hide(&mut self, id: StreamId, end: End) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if matches!(stream.end, End::None | End::ClosedHere) {
            stream.end = end;
        }
        stream.recv.discard();
        self.pressure.fall(id, 0);
    }

    /// Removes a connection from every queue.
    fn remove(&mut self, id: StreamId) {
        if let Some(mut stream) = self.streams.remove(id) {
            self.scheduler.remove(id, &mut stream.turn);
            self.pressure.fall(id, 0);
            if stream.waits.flush {
                self.tickets.waits.retain(|waiting| *waiting != id);
            }
        }
        if self.streams.is_empty() {
            // An idle link holds nothing.
            self.spare.release();
        }
        self.end_if_deserted();
    }
}
