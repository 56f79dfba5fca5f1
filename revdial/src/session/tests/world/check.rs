//! What must hold after every step, and at rest.

use super::*;

impl World {
    pub(super) fn check(&self) {
        for side in 0..2 {
            self.check_link(side);
            for stream in 0..self.tracks.len() {
                self.check_nobody_is_forgotten(side, stream);
                self.check_credit(side, &self.tracks[stream]);
            }
        }
        if self.is_quiet() {
            for (stream, track) in self.tracks.iter().enumerate() {
                for side in 0..2 {
                    self.check_rest(side, stream, track);
                }
            }
        }
    }

    /// A session ends for a reason that was given, and what it waits for comes.
    fn check_link(&self, side: usize) {
        let link = &self.links[side];
        let farewell = self.links[1 - side].farewell == Mark::Arrived;
        let justified = match self.sides[side].closed() {
            None => {
                let deserted = link.left && self.sides[side].streams.is_empty();
                let alone = farewell && self.sides[side].streams.is_empty();
                !deserted && !alone && !link.ended && !link.cut
            }
            Some(CloseReason::Local) => link.ended || link.left,
            Some(CloseReason::PeerClosed) => farewell,
            Some(CloseReason::Cut) => link.cut,
            Some(_) => false,
        };
        assert!(justified, "{:?}: {link:?}", self.sides[side].closed());
        let owed = link.awaits_stream && self.sides[side].streams.has_backlog();
        assert!(!owed, "who accepts is not told");
        if self.window == INITIAL_WINDOW && !self.is_closed(side) {
            let session = &self.sides[side];
            let streams = session.streams.ids().into_iter();
            let first = session.config.first_window();
            let grown = streams.filter_map(|id| Some(session.streams.get(id)?.recv.growth(first)));
            let budget = session.config.growth_budget;
            assert_eq!(
                session.growth_left + grown.sum::<u32>(),
                budget,
                "growth is lost"
            );
        }
    }

    /// Whoever waits, waits for something that has not happened.
    fn check_nobody_is_forgotten(&self, side: usize, stream: usize) {
        let failed = self.failure(side, stream).any();
        let track = &self.tracks[stream];
        let (party, peer) = (&track.parties[side], &track.parties[1 - side]);
        let Waiting {
            opened,
            read,
            write,
            flush,
        } = party.waiting;
        let readable = peer.arrived > party.read || peer.fin == Mark::Arrived;
        assert!(!read || !(failed || readable), "a reader is not told");
        let room = party.written - party.framed <= self.send_buffer / 2;
        let shut = party.finishing;
        assert!(!write || !(failed || room || shut), "a writer is not told");
        assert!(
            !flush || !(failed || track.is_flushed(side)),
            "a flush is not told"
        );
        let answered = peer.hello == Mark::Arrived;
        assert!(!opened || !(failed || answered), "a dial is not told");
    }

    /// What a side may send and what the other lets it send agree, frames under way included.
    fn check_credit(&self, side: usize, track: &Track) {
        let (Some(sender), Some(receiver)) = (
            self.sides[side].streams.get(track.id),
            self.sides[1 - side].streams.get(track.id),
        ) else {
            return;
        };
        let window = u64::from(receiver.recv.window());
        let waiting = self.wires[side].announced(track.id);
        let charged = u64::from(receiver.recv.credit()) + receiver.recv.charged();
        if !self.is_closed(1 - side) {
            assert_eq!(
                charged + waiting,
                window,
                "the receiver loses count: {track:?}"
            );
        }
        let silent = track.parties.iter().any(|party| party.rst != Mark::No);
        if silent || self.is_closed(0) || self.is_closed(1) {
            return;
        }
        let left = u64::from(sender.send.credit())
            + self.wires[side].unannounced(track.id)
            + self.wires[1 - side].credit(track.id);
        // A fresh stream has credit of which the sender hears with the receiver's first frame, or knows before.
        let config = &self.sides[1 - side].config;
        let beyond = |window: u32| u64::from(window - INITIAL_WINDOW);
        let (first, known) = (beyond(config.first_window()), beyond(config.first_credit()));
        let (untold, early) = match track.parties[1 - side].hello {
            Mark::No => (first, known),
            Mark::Framed => (0, known),
            Mark::Arrived => (0, 0),
        };
        let right = u64::from(receiver.recv.credit());
        assert_eq!(left + untold, right + early, "credit is lost");
        let due = receiver.is_live() && receiver.recv.update_is_due();
        assert!(!due || receiver.noticed, "credit is held back: {track:?}");
    }

    /// At rest nobody is stuck who need not be, and nothing is kept for nobody.
    fn check_rest(&self, side: usize, stream: usize, track: &Track) {
        if self.is_closed(0) || self.is_closed(1) {
            return;
        }
        let (party, peer) = (&track.parties[side], &track.parties[1 - side]);
        let entry = self.sides[side].streams.get(track.id);
        let reset = peer.rst == Mark::Arrived || party.rst == Mark::Arrived;
        let unread = peer.known && !peer.ended && !peer.deaf && party.arrived > peer.read;
        let backlog = !peer.known && party.arrived > 0;
        let live = entry.is_some_and(Stream::is_live);
        let stuck = live && party.written > party.framed && !reset && !unread && !backlog;
        assert!(
            !stuck,
            "a writer is stuck: stream {stream} of side {side}, {track:?}"
        );
        let finished = party.fin == Mark::Arrived && peer.fin == Mark::Arrived;
        let gone = party.ended || (party.known && !party.held);
        let announced = track.parties[0].hello == Mark::Arrived;
        let lingers = party.finishing && party.fin == Mark::No && !reset;
        if gone && !finished && !lingers && announced {
            assert!(
                reset,
                "the peer does not learn that a stream is gone: {track:?}"
            );
        }
        if party.known && !party.held && !lingers {
            assert!(entry.is_none(), "a stream is kept for nobody: {track:?}");
        }
    }
}
