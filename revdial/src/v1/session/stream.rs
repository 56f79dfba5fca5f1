//! One connection: two halves, how it ended, and who waits for it.

use crate::frame::INITIAL_WINDOW;
use crate::session::scheduler::Turn;
use crate::session::send::{SendHalf, SendState};
use crate::session::stream::{Handle, Waits};
use crate::v1::session::recv::RecvHalf;

/// How a connection ended for its holder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// Not at all.
    None,
    /// It was closed here; what is queued still goes out.
    ClosedHere,
    /// It was reset here.
    ResetHere,
    /// Its reader held up the link for too long.
    Stalled,
}

/// How far the opening went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opening {
    /// We opened it; `N` waits to be sent.
    Queued,
    /// Both sides know, or will: there is no answer.
    Done,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) opening: Opening,
    pub(super) end: End,
    pub(super) handle: Handle,
    pub(super) recv: RecvHalf,
    pub(super) send: SendHalf,
    pub(super) turn: Turn,
    pub(super) waits: Waits,
}

impl Stream {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            opening,
            end: End::None,
            handle: Handle::Held,
            recv: RecvHalf::new(),
            send: SendHalf::new(INITIAL_WINDOW),
            turn: Turn::default(),
            waits: Waits::default(),
        }
    }

    /// Says whether the peer has heard nothing of the connection, and there is nothing to tell.
    pub(super) fn is_unheard_of(&self) -> bool {
        self.opening == Opening::Queued
            && self.send.state() == SendState::Open
            && self.send.queued() == 0
    }
}
