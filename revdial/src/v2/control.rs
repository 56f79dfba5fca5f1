//! The two machines of a control connection: lines in, lines out, time as an argument.
//!
//! [`DialerControl`] is the side that announces connections, [`ListenerControl`] the side that picks them up. A driver
//! gives either what it reads and asks what to write, [`Control`] is what it needs of both.

mod dialer;
mod listener;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::CloseReason;
use crate::v2::message::{Decoder, Message};

pub(crate) use self::dialer::{DialerControl, DialerEvent};
pub(crate) use self::listener::{ListenerControl, ListenerEvent, Silence};

/// One side of a control connection, as its driver sees it.
pub(crate) trait Control: Send + 'static {
    type Event;

    /// What both sides have.
    fn line(&self) -> &Line;

    /// What both sides have.
    fn line_mut(&mut self) -> &mut Line;

    /// Takes the next of what has happened; where there is nothing more, all input is taken or
    /// [`wants_input`](Self::wants_input) says no.
    fn poll_event(&mut self, now: Instant) -> Option<Self::Event>;

    /// The next message to write, one at a time: [`handle_written`](Line::handle_written) asks for the one after.
    fn poll_message(&mut self, now: Instant) -> Option<Message>;

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Notes that time passed.
    fn handle_timeout(&mut self, now: Instant);

    /// Says whether the driver is to read.
    fn wants_input(&self) -> bool {
        self.line().input.is_empty() && self.line().closed.is_none()
    }

    /// The next line to write; the transport has [`WRITE_LIMIT`] to take it.
    fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        let line = self.line();
        if line.closed.is_some() || line.write_limit.is_some() {
            return None;
        }
        let message = self.poll_message(now)?;
        self.line_mut().write_limit = Some(now + WRITE_LIMIT);
        Some(message.encode())
    }
}

/// What both sides of a control connection have: what was read and not yet understood, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Line {
    decoder: Decoder,
    input: Bytes,
    /// When the transport must have taken the message that it was given.
    write_limit: Option<Instant>,
    closed: Option<CloseReason>,
}

impl Line {
    /// Takes what was read.
    pub(crate) fn handle_input(&mut self, input: Bytes) {
        self.input = input;
    }

    /// Notes that the transport ended. There is no word for goodbye, so an end between two lines is one.
    pub(crate) fn handle_eof(&mut self) {
        self.end(if self.decoder.is_between_lines() {
            CloseReason::PeerClosed
        } else {
            CloseReason::Cut
        });
    }

    /// Notes that the transport failed.
    pub(crate) fn handle_transport_error(&mut self, error: io::Error) {
        self.end(if error.kind() == io::ErrorKind::UnexpectedEof {
            CloseReason::Cut
        } else {
            CloseReason::Transport(Arc::new(error))
        });
    }

    /// Notes that the transport took the message that it was given.
    pub(crate) fn handle_written(&mut self) {
        self.write_limit = None;
    }

    /// Ends the link; the first reason stays.
    pub(crate) fn end(&mut self, reason: CloseReason) {
        self.input = Bytes::new();
        self.closed.get_or_insert(reason);
    }

    /// Why the link ended, once it has.
    pub(crate) fn closed(&self) -> Option<&CloseReason> {
        self.closed.as_ref()
    }

    /// The next message; what is none ends the link.
    fn poll_message(&mut self) -> Option<Message> {
        if self.closed.is_some() {
            return None;
        }
        match self.decoder.decode(&mut self.input)? {
            Ok(message) => Some(message),
            Err(error) => {
                self.end(CloseReason::Protocol(error));
                None
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.write_limit.is_some_and(|limit| limit <= now) {
            self.end(CloseReason::Stalled(WRITE_LIMIT));
        }
    }
}

/// How long the transport may take for one message, as in Go: a peer that does not read loses the link.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// The Dialer's time between keep-alives, as in Go.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Without a message for three keep-alives the Dialer is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests;
