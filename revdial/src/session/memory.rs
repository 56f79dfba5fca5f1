//! What the session holds for others: received bytes, and blocks that wait to serve again.

use std::time::{Duration, Instant};

use crate::frame::StreamId;
use crate::session::Session;
use crate::session::blocks::{Blocks, Spare};
use crate::session::ending::CODE_DROPPED;
use crate::session::output::Frame;
use crate::session::stream::End;

/// The memory of all streams of a session.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Memory {
    pub(super) spare: Spare,
    /// Bytes of memory in receive buffers.
    received: usize,
    /// When frames were made last.
    used: Option<Instant>,
}

impl Memory {
    /// Changes a receive buffer and keeps count of what all of them hold.
    pub(super) fn track<R>(
        &mut self,
        buffer: &mut Blocks,
        act: impl FnOnce(&mut Blocks, &mut Spare) -> R,
    ) -> R {
        self.received -= buffer.held();
        let result = act(buffer, &mut self.spare);
        self.received += buffer.held();
        result
    }

    /// Bytes of memory.
    pub(super) fn held(&self) -> usize {
        self.received + self.spare.held()
    }

    /// Notes that the session is busy.
    pub(super) fn used(&mut self, now: Instant) {
        self.used = Some(now);
    }

    /// Gives the spare blocks back when nothing has happened for a while.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.spare.release();
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.spare.is_empty() {
            return None;
        }
        self.used?.checked_add(SPARE_TIME)
    }
}

impl Session {
    /// Takes a frame back that the transport has taken, so that its memory serves again. To drop it is right as well.
    pub fn recycle(&mut self, frame: Frame) {
        if let Ok(block) = frame.into_payload().try_into_mut() {
            self.memory.spare.keep(block);
        }
    }

    /// Brings the memory of received data under the budget: blocks that are half empty are packed, then the stream
    /// that holds most is reset, and the next.
    pub(super) fn relieve(&mut self) {
        self.memory.spare.release();
        for stream in self.streams.values_mut() {
            stream.recv.compact(&mut self.memory);
        }
        while self.memory.held() > self.config.receive_budget()
            && let Some(id) = self.streams.largest()
        {
            self.overrun(id);
        }
    }

    fn overrun(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if stream.is_live() && !stream.is_finished() {
            self.reset_live(id, CODE_DROPPED);
        }
        if let Some(stream) = self.streams.get_mut(id) {
            stream.end = End::Overrun;
            stream.recv.discard(&mut self.memory);
        }
        self.memory.spare.release();
        self.tell(id);
    }
}

/// How long spare blocks outlast the last use: a transfer pauses for round trips, not for seconds.
pub(super) const SPARE_TIME: Duration = Duration::from_secs(1);
