//! Frames that go before all data, each kind with its bound.

use std::collections::VecDeque;

use crate::frame::{GoAwayCode, StreamId};

/// A frame that is to be sent before any data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Control {
    /// The answer to the peer's newest ping.
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
pub(super) struct ControlQueue {
    /// One answer: a peer that asks faster than it reads gets the newest only.
    pong: Option<u32>,
    resets: VecDeque<(StreamId, u32)>,
    /// Each stream at most once.
    notices: VecDeque<StreamId>,
    go_away: Option<GoAwayCode>,
}

impl ControlQueue {
    pub(super) fn pong(&mut self, nonce: u32) {
        self.pong = Some(nonce);
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
        self.pong = None;
        self.go_away = Some(code);
    }

    /// The next frame.
    pub(super) fn next(&mut self) -> Option<Control> {
        if let Some(nonce) = self.pong.take() {
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

    /// Says whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pong.is_none()
            && self.resets.is_empty()
            && self.notices.is_empty()
            && self.go_away.is_none()
    }
}
