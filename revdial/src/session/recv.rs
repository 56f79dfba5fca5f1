//! The receiving half of a stream: what waits for the reader, and the credit of the peer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::INITIAL_WINDOW;

/// What becomes of data that arrives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RecvState {
    /// It is kept for the reader.
    Open,
    /// Nobody reads: it is thrown away, and the peer gets its credit back.
    Discarding,
    /// There is none: the peer sent FIN.
    Finished,
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct RecvHalf {
    state: RecvState,
    buffer: RecvBuffer,
    /// Bytes that the peer may still send.
    credit: u32,
    /// Bytes that the peer may send when nothing waits here.
    window: u32,
    /// Bytes that were read and not yet given back as credit.
    consumed: u32,
    /// When credit was given back last.
    updated: Option<Instant>,
}

impl RecvHalf {
    pub(super) fn new() -> Self {
        Self {
            state: RecvState::Open,
            buffer: RecvBuffer::default(),
            credit: INITIAL_WINDOW,
            window: INITIAL_WINDOW,
            consumed: 0,
            updated: None,
        }
    }

    /// Counts an announced payload against the credit; `None` if the peer may not send that much.
    pub(super) fn announce(&mut self, length: u32) -> Option<()> {
        self.credit = self.credit.checked_sub(length)?;
        Some(())
    }

    /// Takes payload that was announced.
    pub(super) fn push(&mut self, payload: Bytes) {
        if self.state == RecvState::Open {
            self.buffer.push(payload);
        } else {
            self.consume(payload.len());
        }
    }

    /// Takes up to `max` bytes off the front; empty if none wait.
    pub(super) fn take(&mut self, max: usize) -> Bytes {
        let bytes = self.buffer.take(max);
        self.consume(bytes.len());
        bytes
    }

    /// Notes the peer's FIN.
    pub(super) fn finish(&mut self) {
        self.state = RecvState::Finished;
    }

    /// Throws away what waits and what will come.
    pub(super) fn discard(&mut self) {
        let dropped = self.buffer.len();
        self.buffer = RecvBuffer::default();
        self.consume(dropped);
        if self.state == RecvState::Open {
            self.state = RecvState::Discarding;
        }
    }

    /// Gives back the credit of what was read, and with it the window grows while the round trip time limits the
    /// transfer: when half a window was read in less than two of them. It grows by at most `budget`.
    pub(super) fn take_update(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        ceiling: u32,
        budget: u32,
    ) -> Update {
        let quick = match (self.updated, round_trip) {
            (Some(last), Some(round_trip)) => now.saturating_duration_since(last) < 2 * round_trip,
            _ => false,
        };
        let room = ceiling.saturating_sub(self.window).min(budget);
        let growth = if quick { self.window.min(room) } else { 0 };
        let delta = self.consumed + growth;
        self.updated = Some(now);
        self.window += growth;
        self.credit += delta;
        self.consumed = 0;
        Update { delta, growth }
    }

    /// Says whether enough was read for the peer to be told: half a window.
    pub(super) fn update_is_due(&self) -> bool {
        self.state != RecvState::Finished && self.consumed >= self.window / 2
    }

    /// What becomes of data that arrives.
    pub(super) fn state(&self) -> RecvState {
        self.state
    }

    /// Says whether data waits for the reader.
    pub(super) fn has_data(&self) -> bool {
        self.buffer.len() > 0
    }

    /// Bytes by which the window exceeds that of the specification.
    pub(super) fn growth(&self) -> u32 {
        self.window - INITIAL_WINDOW
    }

    fn consume(&mut self, count: usize) {
        let count =
            u32::try_from(count).expect("no more is buffered than a window, which is a u32");
        self.consumed += count;
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

/// Received bytes, in blocks.
///
/// A large payload stays where the transport's read put it; a small one is copied behind its predecessor, so that it
/// does not hold a whole read block in memory. A byte costs at most two bytes here.
#[derive(Debug, Default)]
struct RecvBuffer {
    blocks: VecDeque<Bytes>,
    /// Small payloads, behind all blocks.
    tail: BytesMut,
    len: usize,
}

impl RecvBuffer {
    fn push(&mut self, payload: Bytes) {
        self.len += payload.len();
        if payload.len() < SHARED_MIN {
            self.tail.extend_from_slice(&payload);
            return;
        }
        if !self.tail.is_empty() {
            self.blocks.push_back(self.tail.split().freeze());
        }
        self.blocks.push_back(payload);
    }

    fn take(&mut self, max: usize) -> Bytes {
        let taken = match self.blocks.front_mut() {
            Some(block) if block.len() > max => block.split_to(max),
            Some(_) => self.blocks.pop_front().unwrap_or_default(),
            None if self.tail.len() > max => self.tail.split_to(max).freeze(),
            None => self.tail.split().freeze(),
        };
        self.len -= taken.remaining();
        if self.len == 0 {
            *self = Self::default();
        }
        taken
    }

    fn len(&self) -> usize {
        self.len
    }
}

/// Payload from this size on is not copied: half of the 64 KiB that the driver reads at once.
const SHARED_MIN: usize = 32 * 1024;
