//! Lets everybody finish, and tells worlds apart.

use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

use super::*;

impl World {
    /// Lets everybody finish, in good order, and checks that they can.
    pub(in crate::session::tests) fn finish(&mut self) {
        self.settle();
        for side in 0..2 {
            for stream in 0..self.tracks.len() {
                self.apply(Op::Stream {
                    side,
                    stream,
                    verb: Verb::Shutdown,
                });
            }
        }
        self.settle();
        self.check_heard();
        for side in 0..2 {
            for stream in 0..self.tracks.len() {
                self.apply(Op::Stream {
                    side,
                    stream,
                    verb: Verb::Release,
                });
            }
        }
        self.settle();
        for side in 0..2 {
            self.apply(Op::Leave(side));
        }
        self.settle();
        for side in 0..2 {
            assert!(self.is_closed(side), "the link outlives its handles");
            for track in &self.tracks {
                let entry = self.sides[side].streams.get(track.id);
                assert!(!track.parties[side].known || entry.is_none());
            }
        }
    }

    /// Moves and reads everything until nothing changes.
    pub(in crate::session::tests) fn settle(&mut self) {
        let mut calm = 0;
        for _ in 0..100_000 {
            let before = self.progress();
            for side in 0..2 {
                self.pass(side);
            }
            calm = if self.progress() == before {
                calm + 1
            } else {
                0
            };
            if calm >= 2 && self.is_quiet() {
                return;
            }
        }
        panic!("the link does not come to rest");
    }

    /// Grows with everything that moves.
    fn progress(&self) -> u64 {
        let links = self.links.iter().zip(&self.sides);
        let links = links.map(|(link, side)| link.made + u64::from(side.closed().is_some()));
        let parties = self.tracks.iter().flat_map(|track| &track.parties);
        let parties = parties.map(|party| {
            let marks = [party.hello, party.fin, party.rst];
            let marks = marks.iter().filter(|mark| **mark == Mark::Arrived).count();
            let seen = u64::from(party.known) + u64::from(party.seen_end);
            marks as u64 + seen + party.arrived + party.read
        });
        links.sum::<u64>() + parties.sum::<u64>()
    }

    fn pass(&mut self, side: usize) {
        self.apply(Op::Transmit {
            side,
            max: usize::MAX,
        });
        self.apply(Op::Flushed(side));
        if let Some(bytes) = self.frame_under_way(side) {
            self.apply(Op::Deliver { from: side, bytes });
        }
        if self.is_closed(side) && self.is_quiet() && !self.links[1 - side].cut {
            self.apply(Op::Cut(1 - side));
        }
        if side == 1 {
            self.apply(Op::Accept);
        }
        for stream in 0..self.tracks.len() {
            let party = self.tracks[stream].parties.get(side);
            if party.is_some_and(|party| !party.deaf) {
                let verb = Verb::Read(usize::MAX);
                self.apply(Op::Stream { side, stream, verb });
            }
        }
    }

    /// At rest, whoever promised an end and was not interrupted was heard in full by whoever held on.
    fn check_heard(&self) {
        for track in &self.tracks {
            for side in 0..2 {
                let (party, reader) = (&track.parties[side], &track.parties[1 - side]);
                let reset = track.parties.iter().any(|party| party.rst != Mark::No);
                let excused = reset || self.is_closed(0) || self.is_closed(1);
                let listens = reader.held && !reader.deaf && !reader.ended;
                let due = party.fin == Mark::Arrived || (party.finishing && !excused);
                if due && listens {
                    assert!(reader.seen_end, "an end was not heard: {track:?}");
                }
            }
        }
    }

    /// The state, such that two worlds with the same one behave alike.
    pub(in crate::session::tests) fn fingerprint(&self) -> u64 {
        let mut hasher = Print(DefaultHasher::new());
        for side in 0..2 {
            self.sides[side].print(&mut hasher).unwrap();
            self.wires[side].hash(&mut hasher.0);
            let link = Link {
                made: 0,
                ..self.links[side].clone()
            };
            link.hash(&mut hasher.0);
        }
        self.tracks.hash(&mut hasher.0);
        hasher.0.finish()
    }
}

impl Session {
    fn print(&self, out: &mut Print) -> fmt::Result {
        write!(out, "{:?}{:?}", self.decoder, self.streams.numbers())?;
        write!(out, "{:?}{:?}", self.control, self.scheduler)?;
        write!(out, "{:?}{:?}", self.liveness, self.departure)?;
        write!(out, "{:?}{:?}", self.closed, self.tickets.waits)?;
        let mut ids = self.streams.ids();
        ids.sort_unstable();
        for id in ids {
            let stream = self.streams.get(id).unwrap();
            write!(out, "{:?}{:?}", stream.opening, stream.end)?;
            write!(out, "{:?}{:?}", stream.handle, stream.recv)?;
            write!(out, "{:?}{:?}", stream.turn, stream.waits)?;
            let send = &stream.send;
            write!(out, "{:?}{}{}", send.state(), send.queued(), send.credit())?;
            let behind = send.unflushed(self.tickets.flushed);
            write!(out, "{behind}{}", stream.noticed)?;
        }
        Ok(())
    }
}

/// Hashes what is formatted.
struct Print(DefaultHasher);

impl fmt::Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.hash(&mut self.0);
        Ok(())
    }
}
