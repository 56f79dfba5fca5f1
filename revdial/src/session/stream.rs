//! One stream: two halves, how it ended, and who waits for it.

use std::task::Poll;

use crate::config::Config;
use crate::error::{CloseReason, ConnError};
use crate::frame::INITIAL_WINDOW;
use crate::session::memory::Memory;
use crate::session::recv::{RecvHalf, RecvState};
use crate::session::scheduler::Turn;
use crate::session::send::{SendHalf, SendState};

/// How a stream ended before both halves were finished.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// Not at all.
    None,
    /// It was closed here; what is queued still goes out.
    ClosedHere,
    /// It was reset here, because it held the most of too much unread data.
    Overrun,
    /// It was reset here.
    ResetHere,
    /// The peer reset it.
    ResetByPeer { code: u32 },
}

impl End {
    /// What every operation answers after an end that this side made.
    pub(super) fn error_here(self) -> Option<ConnError> {
        match self {
            Self::None | Self::ResetByPeer { .. } => None,
            Self::ClosedHere | Self::ResetHere => Some(ConnError::Closed),
            Self::Overrun => Some(ConnError::Overrun),
        }
    }
}

/// What a reader finds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    Data,
    End,
}

/// Says whether somebody holds a handle to the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Handle {
    Held,
    Released,
}

/// How far the opening of a stream went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// We opened it; SYN waits to be sent.
    Queued,
    /// We opened it; SYN is out.
    Sent,
    /// The peer opened it; ACK waits to be sent.
    Answering,
    /// Both sides know.
    Done,
}

/// Who is to be told of a change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// A reader found nothing.
    pub(crate) read: bool,
    /// A writer found no room, or a dial waits for its answer.
    pub(crate) write: bool,
    /// A writer waits until what it wrote is with the transport.
    pub(crate) flush: bool,
}

/// One stream.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Stream {
    pub(super) opening: Opening,
    pub(super) end: End,
    pub(super) handle: Handle,
    pub(super) recv: RecvHalf,
    pub(super) send: SendHalf,
    pub(super) turn: Turn,
    pub(super) waits: Waits,
    /// Says whether the stream waits in the control queue.
    pub(super) noticed: bool,
}

impl Stream {
    /// Opens a stream of ours.
    pub(super) fn outbound(config: &Config) -> Self {
        Self::new(
            Opening::Queued,
            config.first_window(),
            config.first_credit(),
        )
    }

    /// Takes a stream that the peer opened.
    pub(super) fn inbound(config: &Config) -> Self {
        Self::new(Opening::Answering, config.first_window(), INITIAL_WINDOW)
    }

    fn new(opening: Opening, window: u32, credit: u32) -> Self {
        Self {
            opening,
            end: End::None,
            handle: Handle::Held,
            recv: RecvHalf::new(window),
            send: SendHalf::new(credit),
            turn: Turn::default(),
            waits: Waits::default(),
            noticed: false,
        }
    }

    /// Ends the stream for its holder, where the wire has nothing more to say.
    pub(super) fn hide_from_holder(&mut self, memory: &mut Memory) {
        self.end = match self.end {
            End::None | End::ClosedHere => End::ClosedHere,
            End::Overrun | End::ResetHere | End::ResetByPeer { .. } => End::ResetHere,
        };
        self.recv.discard(memory);
    }

    /// What a reader finds; `closed` says why the session ended.
    ///
    /// What arrived before a reset or the end of the link comes first, then the error.
    pub(super) fn poll_readable(
        &mut self,
        closed: Option<&CloseReason>,
    ) -> Poll<Result<Content, ConnError>> {
        if let Some(error) = self.end.error_here() {
            return Poll::Ready(Err(error));
        }
        if self.recv.has_data() {
            return Poll::Ready(Ok(Content::Data));
        }
        if self.recv.state() == RecvState::Finished {
            return Poll::Ready(Ok(Content::End));
        }
        if let End::ResetByPeer { code } = self.end {
            return Poll::Ready(Err(ConnError::Reset { code }));
        }
        if let Some(reason) = closed {
            return Poll::Ready(Err(ConnError::Link(reason.clone())));
        }
        self.waits.read = true;
        Poll::Pending
    }

    /// Says whether frames may still be sent for the stream.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.end, End::None | End::ClosedHere)
    }

    /// Says whether both sides sent FIN.
    pub(super) fn is_finished(&self) -> bool {
        self.send.state() == SendState::Finished && self.recv.state() == RecvState::Finished
    }

    /// Says whether there is something to tell the peer before any data.
    pub(super) fn has_notice(&self) -> bool {
        self.is_live()
            && (matches!(self.opening, Opening::Queued | Opening::Answering)
                || self.recv.update_is_due())
    }
}
