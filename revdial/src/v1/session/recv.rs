//! The receiving half of a connection: what waits for the reader.

use bytes::Bytes;

use crate::session::blocks::{BLOCK, Blocks, Spare};
use crate::session::recv::RecvState;

/// The receiving half.
#[derive(Debug)]
pub(super) struct RecvHalf {
    state: RecvState,
    buffer: Blocks,
}

impl RecvHalf {
    pub(super) fn new() -> Self {
        Self {
            state: RecvState::Open,
            buffer: Blocks::default(),
        }
    }

    /// Takes data, unless nobody reads or the peer had said that none comes: Go may send the rest of a write that
    /// timed out behind its `C`.
    pub(super) fn push(&mut self, bytes: &[u8], spare: &mut Spare) {
        if self.state == RecvState::Open {
            self.buffer.push(bytes, BLOCK, spare);
        }
    }

    /// Takes up to `max` bytes off the front; empty if none wait.
    pub(super) fn take(&mut self, max: usize) -> Bytes {
        self.buffer.take(max)
    }

    /// Notes the peer's `C`.
    pub(super) fn finish(&mut self) {
        self.state = RecvState::Finished;
    }

    /// Throws away what waits and what will come.
    pub(super) fn discard(&mut self) {
        self.buffer = Blocks::default();
        if self.state == RecvState::Open {
            self.state = RecvState::Discarding;
        }
    }

    /// Says whether the peer's `C` came.
    pub(super) fn is_finished(&self) -> bool {
        self.state == RecvState::Finished
    }

    /// Bytes that wait for the reader.
    pub(super) fn unread(&self) -> usize {
        self.buffer.len()
    }
}
