//! Frames that go before all data, each kind with its bound.

use std::collections::VecDeque;

use crate::frame::{GoAwayCode, StreamId};

/// A frame that is to be sent before any data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Control {
    /// The answer to a ping.
    Pong(u32),
    Reset {
        id: StreamId,
        code: u32,
    },
    /// SYN, ACK or credit, as the stream says when the frame is made.
    Notice(StreamId),
    /// The last frame of the session.
    GoAway(GoAwayCode),
}

/// The queues.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct ControlQueue {
    /// The newest [`MAX_PONGS`], in order: hashicorp/yamux has several under way, and waits for each.
    pongs: VecDeque<u32>,
    resets: VecDeque<(StreamId, u32)>,
    /// Each stream at most once.
    notices: VecDeque<StreamId>,
    go_away: Option<GoAwayCode>,
}

impl ControlQueue {
    pub(super) fn pong(&mut self, nonce: u32) {
        if self.pongs.len() == MAX_PONGS {
            self.pongs.pop_front();
        }
        self.pongs.push_back(nonce);
    }

    pub(super) fn reset(&mut self, id: StreamId, code: u32) {
        self.resets.push_back((id, code));
    }

    /// Queues a stream; the caller sees to it that it is not queued already.
    pub(super) fn notice(&mut self, id: StreamId) {
        self.notices.push_back(id);
    }

    /// Forgets the notice of a stream that is gone.
    pub(super) fn remove_notice(&mut self, id: StreamId) {
        self.notices.retain(|queued| *queued != id);
    }

    /// Ends the session: nothing but resets goes before the farewell.
    pub(super) fn go_away(&mut self, code: GoAwayCode) {
        self.notices.clear();
        self.pongs.clear();
        self.go_away = Some(code);
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Option<Control> {
        if let Some(nonce) = self.pongs.pop_front() {
            return Some(Control::Pong(nonce));
        }
        if let Some((id, code)) = self.resets.pop_front() {
            return Some(Control::Reset { id, code });
        }
        if let Some(id) = self.notices.pop_front() {
            return Some(Control::Notice(id));
        }
        self.go_away.take().map(Control::GoAway)
    }

    /// Resets that wait.
    pub(super) fn resets(&self) -> usize {
        self.resets.len()
    }

    /// Says whether nothing but notices waits.
    pub(super) fn has_only_notices(&self) -> bool {
        self.pongs.is_empty() && self.resets.is_empty() && self.go_away.is_none()
    }

    /// Says whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.has_only_notices() && self.notices.is_empty()
    }
}

/// Answers that wait for the transport. A peer that asks faster than it reads gets no others.
pub(super) const MAX_PONGS: usize = 8;
