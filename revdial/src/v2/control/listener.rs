//! The side that picks connections up.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Control, Line, SILENCE_LIMIT};
use crate::error::CloseReason;
use crate::v2::message::Message;

/// The Listener's side: it hears what is to be picked up, and says what could not be.
#[derive(Debug)]
pub(crate) struct ListenerControl {
    line: Line,
    /// When the Dialer must have been heard; none where silence is allowed.
    silence: Option<Instant>,
    failures: VecDeque<Message>,
}

/// What has happened.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum ListenerEvent {
    /// A connection is to be picked up. The driver has to [`fail`](ListenerControl::fail) it where it cannot.
    ConnReady { conn_path: String },
}

/// Says what a dead Dialer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Silence {
    Allowed,
    /// One that is silent for three keep-alives.
    Limited,
}

impl ListenerControl {
    /// Starts on a fresh control connection.
    pub(crate) fn new(silence: Silence, now: Instant) -> Self {
        Self {
            line: Line::default(),
            silence: (silence == Silence::Limited).then(|| now + SILENCE_LIMIT),
            failures: VecDeque::new(),
        }
    }

    /// Tells the Dialer that a connection could not be picked up, and why.
    pub(crate) fn fail(&mut self, conn_path: String, err: String) {
        if self.line.closed().is_none() {
            let failure = Message::PickUpFailed { conn_path, err };
            self.failures.push_back(failure);
        }
    }
}

impl Control for ListenerControl {
    type Event = ListenerEvent;

    fn line(&self) -> &Line {
        &self.line
    }

    fn line_mut(&mut self) -> &mut Line {
        &mut self.line
    }

    /// A peer that provokes failures and does not read them is not heard meanwhile, so that they do not pile up.
    fn wants_input(&self) -> bool {
        let heard = self.failures.len() < FAILURES_MAX;
        heard && self.line.input.is_empty() && self.line.closed.is_none()
    }

    fn poll_event(&mut self, now: Instant) -> Option<ListenerEvent> {
        while self.failures.len() < FAILURES_MAX {
            let message = self.line.poll_message()?;
            self.silence = self.silence.map(|_| now + SILENCE_LIMIT);
            if let Message::ConnReady { conn_path } = message {
                return Some(ListenerEvent::ConnReady { conn_path });
            }
        }
        None
    }

    fn poll_message(&mut self, _: Instant) -> Option<Message> {
        self.failures.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let times = self.silence.into_iter().chain(self.line.write_limit);
        times.min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.line.handle_timeout(now);
        if self.silence.is_some_and(|limit| limit <= now) {
            self.line.end(CloseReason::TimedOut(SILENCE_LIMIT));
        }
    }
}

/// Failures that may wait to be sent before the peer is heard again.
const FAILURES_MAX: usize = 16;
