//! The receiving half of a stream: what waits for the reader, and the credit of the peer.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes};

use crate::frame::INITIAL_WINDOW;
use crate::session::blocks::Blocks;
use crate::session::memory::Memory;

/// What becomes of data that arrives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RecvState {
    /// It is kept for the reader.
    Open,
    /// It is thrown away, and the peer gets its credit back: nobody reads, or the peer had reset the stream.
    Discarding,
    /// The peer sent FIN. What comes behind it is thrown away, within the credit that the peer had: in Go's hashicorp/yamux a
    /// write may overtake the close of another goroutine.
    Finished,
}

/// The receiving half.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct RecvHalf {
    state: RecvState,
    buffer: Blocks,
    /// Bytes of announced payload that have not come.
    due: u32,
    /// Bytes that the peer may still announce.
    credit: u32,
    /// Bytes that the peer may send when nothing waits here.
    window: u32,
    /// Bytes that were read and not yet given back as credit.
    consumed: u32,
    /// `None` before the first credit was given back; boxed, as most streams never come to that.
    pace: Option<Box<Pace>>,
}

impl RecvHalf {
    pub(super) fn new(window: u32) -> Self {
        Self {
            state: RecvState::Open,
            buffer: Blocks::default(),
            due: 0,
            credit: window,
            window,
            consumed: 0,
            pace: None,
        }
    }

    /// Counts an announced payload against the credit; `None` if the peer may not send that much.
    pub(super) fn announce(&mut self, length: u32) -> Option<()> {
        self.credit = self.credit.checked_sub(length)?;
        self.due = length;
        Some(())
    }

    /// Takes payload that was announced.
    pub(super) fn push(&mut self, payload: &[u8], memory: &mut Memory) {
        self.due -= to_u32(payload.len());
        if self.state != RecvState::Open {
            self.consumed += to_u32(payload.len());
            return;
        }
        let coming = self.credit.saturating_add(self.due);
        let coming = usize::try_from(coming).unwrap_or(usize::MAX);
        memory.track(&mut self.buffer, |buffer, spare| {
            buffer.push(payload, coming, spare);
        });
    }

    /// Moves what waits into `buf`, as much as it has room for; how much.
    pub(super) fn read<B: BufMut>(&mut self, buf: &mut B, memory: &mut Memory) -> usize {
        let count = memory.track(&mut self.buffer, |buffer, spare| buffer.read(buf, spare));
        self.consumed += to_u32(count);
        count
    }

    /// Takes up to `max` bytes off the front; empty if none wait.
    pub(super) fn take(&mut self, max: usize, memory: &mut Memory) -> Bytes {
        let bytes = memory.track(&mut self.buffer, |buffer, _| buffer.take(max));
        self.consumed += to_u32(bytes.len());
        bytes
    }

    /// Notes the peer's FIN.
    pub(super) fn finish(&mut self) {
        self.state = RecvState::Finished;
    }

    /// Throws away what waits and what will come.
    pub(super) fn discard(&mut self, memory: &mut Memory) {
        self.consumed += to_u32(self.buffer.len());
        memory.track(&mut self.buffer, Blocks::clear);
        self.close();
    }

    /// Throws away what will come, and keeps what waits.
    pub(super) fn close(&mut self) {
        if self.state == RecvState::Open {
            self.state = RecvState::Discarding;
        }
    }

    /// Gives up memory that is not in use.
    pub(super) fn compact(&mut self, memory: &mut Memory) {
        memory.track(&mut self.buffer, |buffer, _| buffer.compact());
    }

    /// Gives back the credit of what was read, and with it the window doubles while the round trip time limits the
    /// transfer. It grows by at most `budget`.
    pub(super) fn take_update(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        ceiling: u32,
        budget: u32,
    ) -> Update {
        let room = ceiling.saturating_sub(self.window).min(budget);
        let growth = if self.is_limiting(now, round_trip) {
            self.window.min(room)
        } else {
            0
        };
        let delta = self.consumed + growth;
        self.window += growth;
        self.credit += delta;
        self.consumed = 0;
        Update { delta, growth }
    }

    /// Says whether enough was read for the peer to be told: half of the first window, a sixteenth of large ones, as
    /// what the peer was not told of slows it down.
    pub(super) fn update_is_due(&self) -> bool {
        let half = self.window.min(INITIAL_WINDOW) / 2;
        let enough = (self.window / 16).max(half);
        self.state != RecvState::Finished && self.consumed >= enough
    }

    /// What becomes of data that arrives.
    pub(super) fn state(&self) -> RecvState {
        self.state
    }

    /// Says whether data waits for the reader.
    pub(super) fn has_data(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Bytes by which the window exceeds what it was at first.
    pub(super) fn growth(&self, first: u32) -> u32 {
        self.window.saturating_sub(first)
    }

    /// Says, about once in a round trip time, whether the window slows the transfer down. At most one window passes in
    /// that time; where more than half of one was read, the reader keeps up and the sender waits for credit.
    fn is_limiting(&mut self, now: Instant, round_trip: Option<Duration>) -> bool {
        let begun = Pace {
            since: now,
            read: 0,
            window: self.window,
        };
        let (Some(pace), Some(round_trip)) = (&mut self.pace, round_trip) else {
            self.pace = Some(Box::new(begun));
            return false;
        };
        pace.read = pace.read.saturating_add(self.consumed);
        let elapsed = now.saturating_duration_since(pace.since);
        // What comes in bursts comes a little early at times.
        if elapsed <= round_trip * 3 / 4 {
            return false;
        }
        let (read, window) = (u128::from(pace.read), u128::from(pace.window));
        **pace = begun;
        2 * read * round_trip.as_nanos() > window * elapsed.as_nanos()
    }

    /// Bytes of memory.
    pub(super) fn held(&self) -> usize {
        self.buffer.held()
    }
}

/// No more is buffered, or announced, than a window.
fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("a window is a u32")
}

/// How fast the reader is.
#[derive(Clone, Copy, Debug)]
struct Pace {
    since: Instant,
    /// Bytes that were read since then.
    read: u32,
    /// The window that those bytes were sent under: what was given later takes a round trip to show.
    window: u32,
}

#[cfg(test)]
impl RecvHalf {
    /// Makes the window of a fresh stream small enough for a model.
    pub(super) fn shrink(&mut self, window: u32) {
        self.credit = window;
        self.window = window;
    }

    /// Bytes that the peer may still send.
    pub(super) fn credit(&self) -> u32 {
        self.credit
    }

    /// Bytes that wait here or were read and not given back.
    pub(super) fn charged(&self) -> u64 {
        self.buffer.len() as u64 + u64::from(self.consumed)
    }

    /// Bytes that the peer may send when nothing waits here.
    pub(super) fn window(&self) -> u32 {
        self.window
    }
}

/// Credit to be given back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Update {
    /// Bytes of credit.
    pub(super) delta: u32,
    /// Bytes by which the window grew, to be taken off the budget.
    pub(super) growth: u32,
}
