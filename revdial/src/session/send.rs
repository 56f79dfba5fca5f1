//! The sending half of a stream: what waits for its turn, and the credit that the peer gave.

use bytes::Bytes;

use crate::session::blocks::{Blocks, Spare};

/// What the writer may still do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SendState {
    /// Write.
    Open,
    /// Nothing: FIN follows what is queued.
    Finishing,
    /// Nothing: FIN was made into a frame.
    Finished,
    /// Nothing: what was queued was thrown away.
    Abandoned(Loss),
}

/// What was thrown away with a sending half.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loss {
    /// Nothing: all that was written had been made into frames.
    None,
    /// Bytes, or a FIN, that no frame had taken.
    Some,
}

/// What can be sent next.
#[derive(Debug)]
pub(crate) enum Sendable {
    Data(Bytes),
    Fin,
    Nothing,
}

/// The sending half.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct SendHalf {
    state: SendState,
    queue: Blocks,
    /// Bytes that the peer is ready to take.
    credit: u32,
    /// The ticket of the last frame that was made of this half.
    ticket: u64,
}

impl SendHalf {
    pub(crate) fn new(credit: u32) -> Self {
        Self {
            state: SendState::Open,
            queue: Blocks::default(),
            credit,
            ticket: 0,
        }
    }

    /// Queues as much of `data` as fits under `limit`; returns how much.
    pub(crate) fn push(&mut self, data: &[u8], limit: usize, spare: &mut Spare) -> usize {
        let room = limit.saturating_sub(self.queue.len());
        let taken = room.min(data.len());
        self.queue.push(&data[..taken], room - taken, spare);
        taken
    }

    /// Lets FIN follow what is queued.
    pub(crate) fn finish(&mut self) {
        if self.state == SendState::Open {
            self.state = SendState::Finishing;
        }
    }

    /// Throws away what is queued; nothing more is sent.
    pub(crate) fn abandon(&mut self) {
        let loss = match self.state {
            SendState::Finished | SendState::Abandoned(_) => return,
            SendState::Open if self.queue.is_empty() => Loss::None,
            SendState::Finishing | SendState::Open => Loss::Some,
        };
        self.queue = Blocks::default();
        self.state = SendState::Abandoned(loss);
    }

    /// Adds credit; `None` if the sum does not fit the wire's 32 bits.
    pub(crate) fn grant(&mut self, delta: u32) -> Option<()> {
        self.credit = self.credit.checked_add(delta)?;
        Some(())
    }

    /// Takes what goes into the next frame, `max` bytes at most.
    pub(crate) fn take(&mut self, max: usize, ticket: u64) -> Sendable {
        let count = self.ready_bytes().min(max);
        if count > 0 {
            self.ticket = ticket;
            return Sendable::Data(self.take_bytes(count));
        }
        if self.fin_is_ready() {
            self.ticket = ticket;
            self.state = SendState::Finished;
            return Sendable::Fin;
        }
        Sendable::Nothing
    }

    /// Says whether a frame can be made.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready_bytes() > 0 || self.fin_is_ready()
    }

    /// Says whether all that was queued, FIN included, is with the transport, which took all frames up to `flushed`.
    pub(crate) fn is_flushed(&self, flushed: u64) -> bool {
        let settled = match self.state {
            SendState::Open | SendState::Finished | SendState::Abandoned(Loss::None) => true,
            SendState::Finishing | SendState::Abandoned(Loss::Some) => false,
        };
        settled && self.queue.is_empty() && self.ticket <= flushed
    }

    /// What the writer may still do.
    pub(crate) fn state(&self) -> SendState {
        self.state
    }

    /// Bytes that wait for their turn.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    fn take_bytes(&mut self, max: usize) -> Bytes {
        let bytes = self.queue.take(max);
        self.credit -=
            u32::try_from(bytes.len()).expect("no more is taken than the credit, which is a u32");
        bytes
    }

    fn ready_bytes(&self) -> usize {
        self.queue
            .len()
            .min(usize::try_from(self.credit).unwrap_or(usize::MAX))
    }

    fn fin_is_ready(&self) -> bool {
        self.state == SendState::Finishing && self.queue.is_empty()
    }
}

#[cfg(test)]
impl SendHalf {
    /// Makes the credit of a fresh stream small enough for a model.
    pub(super) fn shrink(&mut self, window: u32) {
        self.credit = window;
    }

    /// Bytes that the peer is ready to take.
    pub(super) fn credit(&self) -> u32 {
        self.credit
    }

    /// Frames between the last flushed one and the last of this half.
    pub(super) fn unflushed(&self, flushed: u64) -> u64 {
        self.ticket.saturating_sub(flushed)
    }
}
