//! Frames that go before all data.

use std::collections::VecDeque;

use crate::frame::StreamId;

/// A frame that is to be sent before any data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Control {
    /// `C`, for a connection that was refused or given up.
    Close(Option<StreamId>),
    /// `N`.
    Open(StreamId),
}

/// The queues.
#[derive(Debug, Default)]
pub(super) struct ControlQueue {
    /// Bounded by [`Config::max_pending_resets`](crate::Config::max_pending_resets) as far as the peer provokes them.
    closes: VecDeque<Option<StreamId>>,
    /// Each connection at most once.
    opens: VecDeque<StreamId>,
}

impl ControlQueue {
    pub(super) fn close(&mut self, id: Option<StreamId>) {
        self.closes.push_back(id);
    }

    pub(super) fn open(&mut self, id: StreamId) {
        self.opens.push_back(id);
    }

    /// Takes back an opening that no frame was made of.
    pub(super) fn withdraw(&mut self, id: StreamId) {
        self.opens.retain(|queued| *queued != id);
    }

    /// Opens nothing any more.
    pub(super) fn end(&mut self) {
        self.opens.clear();
    }

    /// The next frame. Ends go first: a number that is used again was closed before.
    pub(super) fn next(&mut self) -> Option<Control> {
        match self.closes.pop_front() {
            Some(id) => Some(Control::Close(id)),
            None => self.opens.pop_front().map(Control::Open),
        }
    }

    /// Ends that wait.
    pub(super) fn closes(&self) -> usize {
        self.closes.len()
    }

    /// Says whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.closes.is_empty() && self.opens.is_empty()
    }
}
