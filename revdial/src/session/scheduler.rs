//! Whose turn it is: streams that were idle first, then everybody in turn by bytes.
//!
//! Deficit round robin (Shreedhar and Varghese, 1995) with the sparse queue of FQ-CoDel (RFC 8290, section 3.2). In each round a
//! stream may send one quantum of bytes, in as many frames as it takes. Its last frame may be larger than what is left of
//! that, so that no block is cut for the sake of the count; the next round is the shorter for it. A stream that becomes ready and has something
//! left of its quantum goes to the head: 64 bytes of an interactive session do not wait for eight bulk transfers, and
//! as they use up the same quantum nobody gains by pausing.

use std::collections::VecDeque;

use crate::frame::StreamId;
use crate::session::blocks::BLOCK;

/// A stream's place.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Turn {
    queued: Queued,
    /// Bytes that the stream may send in `round`; below zero where its last frame was larger.
    allowance: i32,
    /// It wraps: who was idle for just as many rounds goes on with what it had left, which harms nobody.
    round: u16,
}

impl Turn {
    /// Says whether the stream waits in a queue.
    pub(crate) fn is_queued(&self) -> bool {
        self.queued != Queued::No
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Queued {
    #[default]
    No,
    Sparse,
    Active,
}

/// The queues.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Scheduler {
    /// Streams that were idle and have something left of this round.
    sparse: VecDeque<StreamId>,
    /// Everybody else, the one that was served longest ago in front.
    active: VecDeque<StreamId>,
    round: u16,
}

impl Scheduler {
    pub(crate) fn new() -> Self {
        Self {
            sparse: VecDeque::new(),
            active: VecDeque::new(),
            round: 1,
        }
    }

    /// Queues a stream that became ready.
    pub(crate) fn schedule(&mut self, id: StreamId, turn: &mut Turn) {
        if turn.is_queued() {
            return;
        }
        self.renew(turn);
        if turn.allowance > 0 {
            turn.queued = Queued::Sparse;
            self.sparse.push_back(id);
        } else {
            turn.queued = Queued::Active;
            self.active.push_back(id);
        }
    }

    /// The stream whose turn it is.
    pub(crate) fn front(&self) -> Option<StreamId> {
        self.sparse.front().or_else(|| self.active.front()).copied()
    }

    /// Begins the turn of the front stream: gives it its quantum if this is a new round for it.
    pub(crate) fn begin(&mut self, turn: &mut Turn) {
        if turn.queued == Queued::Active && turn.allowance <= 0 && turn.round == self.round {
            self.round = self.round.wrapping_add(1);
        }
        self.renew(turn);
    }

    /// Ends the turn of the front stream, which sent `sent` bytes.
    pub(crate) fn end(&mut self, turn: &mut Turn, sent: usize, rest: Rest) {
        turn.allowance = turn.allowance.saturating_sub_unsigned(to_u32(sent));
        if rest == Rest::More && turn.allowance > 0 {
            return;
        }
        let popped = match turn.queued {
            Queued::Sparse => self.sparse.pop_front(),
            Queued::Active | Queued::No => self.active.pop_front(),
        };
        turn.queued = Queued::No;
        if let (Some(id), Rest::More) = (popped, rest) {
            turn.queued = Queued::Active;
            self.active.push_back(id);
        }
    }

    /// Forgets the front stream.
    pub(crate) fn drop_front(&mut self) {
        if self.sparse.pop_front().is_none() {
            self.active.pop_front();
        }
    }

    /// Forgets a stream that is gone.
    pub(crate) fn remove(&mut self, id: StreamId, turn: &mut Turn) {
        match turn.queued {
            Queued::No => {}
            Queued::Sparse => self.sparse.retain(|queued| *queued != id),
            Queued::Active => self.active.retain(|queued| *queued != id),
        }
        turn.queued = Queued::No;
    }

    /// Says whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.sparse.is_empty() && self.active.is_empty()
    }

    fn renew(&self, turn: &mut Turn) {
        if turn.round != self.round {
            turn.round = self.round;
            turn.allowance = turn
                .allowance
                .min(0)
                .saturating_add_unsigned(to_u32(QUANTUM));
        }
    }
}

/// Says whether a stream has more to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rest {
    More,
    Nothing,
}

fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame is at most a quantum")
}

/// Bytes that a stream may send in a round.
///
/// Several frames in a row are one wake-up of their reader at the other end, and one write into its socket: with 64 KiB
/// the two ends of a tunnel switch tasks a quarter less often than with 16. Who was idle does not wait for it.
pub(crate) const QUANTUM: usize = 4 * BLOCK;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u32) -> StreamId {
        StreamId::new(value).unwrap()
    }

    /// Lets the front of streams 1.. send `max` bytes of an endless supply; returns who it was and how much it sent.
    fn serve(
        scheduler: &mut Scheduler,
        turns: &mut [Turn],
        max: usize,
        rest: Rest,
    ) -> (usize, usize) {
        let index = scheduler.front().unwrap().value() as usize - 1;
        let turn = &mut turns[index];
        scheduler.begin(turn);
        let sent = max.min(QUANTUM);
        scheduler.end(turn, sent, rest);
        (index, sent)
    }

    #[test]
    fn bulk_streams_share_by_bytes_whatever_the_room() {
        let mut scheduler = Scheduler::new();
        let mut turns = [Turn::default(), Turn::default(), Turn::default()];
        for (value, turn) in (1..).zip(&mut turns) {
            scheduler.schedule(id(value), turn);
        }
        let mut total = [0usize; 3];
        for step in 0..3000 {
            let (index, sent) = serve(
                &mut scheduler,
                &mut turns,
                1000 + step * 7 % 20_000,
                Rest::More,
            );
            total[index] += sent;
        }
        let (least, most) = (total.iter().min().unwrap(), total.iter().max().unwrap());
        assert!(most - least <= 2 * QUANTUM, "{total:?}");
    }

    #[test]
    fn a_stream_that_was_idle_goes_first_until_its_quantum_is_used() {
        let mut scheduler = Scheduler::new();
        let mut turns: Vec<Turn> = (0..4).map(|_| Turn::default()).collect();
        for index in 0..3 {
            scheduler.schedule(id(index + 1), &mut turns[index as usize]);
        }
        for _ in 0..7 {
            serve(&mut scheduler, &mut turns, QUANTUM, Rest::More);
        }
        scheduler.schedule(id(4), &mut turns[3]);
        assert_eq!(
            serve(&mut scheduler, &mut turns, 64, Rest::Nothing),
            (3, 64)
        );
        scheduler.schedule(id(4), &mut turns[3]);
        assert_eq!(
            serve(&mut scheduler, &mut turns, QUANTUM, Rest::More),
            (3, QUANTUM)
        );
        let next = serve(&mut scheduler, &mut turns, QUANTUM, Rest::More);
        assert_ne!(next.0, 3, "the quantum is used: the others come first");
    }
}
