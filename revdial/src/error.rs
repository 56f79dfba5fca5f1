//! What can go wrong, sorted by blame, and the one mapping to [`io::ErrorKind`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::frame::{FrameError, GoAwayCode, StreamId};

/// Why a link ended; the same for everybody who waits for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    // Us.
    /// This side closed the link, or dropped its last handle.
    #[error("the link was closed on this side")]
    Local,
    /// The task of the link was dropped: its runtime was shut down, or it panicked.
    #[error("the task of the link was dropped")]
    Aborted,

    // The peer.
    /// The peer said goodbye.
    #[error("the peer closed the link")]
    PeerClosed,
    /// The peer accuses us, or is broken itself, and ended the link.
    #[error("the peer ended the link with error code {0}")]
    PeerError(GoAwayCode),
    /// The peer broke the protocol; we ended the link.
    #[error("the peer broke the protocol")]
    Protocol(#[from] ProtocolError),

    // The transport.
    /// The transport ended without a goodbye: the peer died, or something between cut the connection.
    #[error("the transport was cut")]
    Cut,
    /// Nothing was heard from the peer for this long, although it was asked.
    #[error("nothing was heard from the peer for {0:?}")]
    TimedOut(Duration),
    /// Reading from or writing to the transport failed.
    #[error("the transport broke")]
    Transport(#[source] Arc<io::Error>),
}

/// What a peer did that the protocol does not allow.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// More credit than fits 32 bits.
    #[error("the credit of stream {0} overflows")]
    CreditOverflow(StreamId),
    /// Data behind the peer's own FIN.
    #[error("data behind the end of stream {0}")]
    DataAfterFin(StreamId),
    /// A stream was opened that is open.
    #[error("stream {0} was opened twice")]
    DuplicateOpen(StreamId),
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer provoked more answers than it reads.
    #[error("the peer does not read the answers to its own mistakes")]
    Flood,
    /// A frame for a stream that nobody opened.
    #[error("a frame for stream {0}, which was never opened")]
    NeverOpened(StreamId),
    /// More data than the receiver allowed.
    #[error("more data on stream {0} than its window allows")]
    WindowExceeded(StreamId),
    /// A stream was opened with a number that belongs to the other side.
    #[error("stream {0} was opened with a number of the other side")]
    WrongParity(StreamId),
}

/// Why an operation on a connection failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnError {
    /// The connection was closed or reset on this side.
    #[error("the connection was closed on this side")]
    Closed,
    /// A write after `shutdown`.
    #[error("the connection was shut down for writing")]
    Shutdown,
    /// The deadline passed; the connection lives on.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// The peer reset the connection, or dropped it without shutting it down.
    #[error("the peer reset the connection with code {code}")]
    Reset {
        /// What the peer gave to `reset`; 0 if it gave nothing.
        code: u32,
    },
    /// The link under the connection ended.
    #[error("the link ended")]
    Link(#[from] CloseReason),
}

/// Why a dial failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The numbers of this link are used up (two thousand million dials); a new link is needed.
    #[error("the connection numbers of this link are used up")]
    NumbersUsedUp,
    /// [`Config::max_outbound_streams`](crate::Config::max_outbound_streams) connections are open.
    #[error("{0} connections are open, which is this side's limit")]
    TooManyConnections(usize),
    /// The peer refused: nobody listens, or it holds as many connections as it wants.
    #[error("the peer refused the connection with code {code}")]
    Refused {
        /// What the peer gave as the reason; 0 if nothing.
        code: u32,
    },
    /// The peer is about to leave and takes no further connections.
    #[error("the peer takes no further connections on this link")]
    PeerLeaving,
    /// The link ended.
    #[error("the link ended")]
    Closed(#[from] CloseReason),
}

/// Any error of this crate that becomes an [`io::Error`].
#[derive(Clone, Copy, Debug)]
enum Class<'a> {
    Close(&'a CloseReason),
    Conn(&'a ConnError),
    Dial(&'a DialError),
}

/// The one mapping to [`io::ErrorKind`]: own close `NotConnected`, reset `ConnectionReset`, a link that ended
/// `ConnectionAborted`, silence and deadlines `TimedOut`.
fn kind(class: Class<'_>) -> io::ErrorKind {
    match class {
        Class::Close(CloseReason::Local)
        | Class::Conn(ConnError::Closed)
        | Class::Dial(DialError::PeerLeaving | DialError::NumbersUsedUp) => {
            io::ErrorKind::NotConnected
        }
        Class::Close(CloseReason::TimedOut(_)) | Class::Conn(ConnError::DeadlinePassed) => {
            io::ErrorKind::TimedOut
        }
        Class::Close(CloseReason::Protocol(_)) => io::ErrorKind::InvalidData,
        Class::Close(
            CloseReason::Aborted
            | CloseReason::Cut
            | CloseReason::PeerClosed
            | CloseReason::PeerError(_)
            | CloseReason::Transport(_),
        ) => io::ErrorKind::ConnectionAborted,
        Class::Conn(ConnError::Shutdown) => io::ErrorKind::BrokenPipe,
        Class::Conn(ConnError::Reset { .. }) => io::ErrorKind::ConnectionReset,
        Class::Dial(DialError::Refused { .. }) => io::ErrorKind::ConnectionRefused,
        Class::Dial(DialError::TooManyConnections(_)) => io::ErrorKind::ResourceBusy,
        Class::Conn(ConnError::Link(reason)) | Class::Dial(DialError::Closed(reason)) => {
            kind(Class::Close(reason))
        }
    }
}

impl CloseReason {
    /// The kind that this reason has as an [`io::Error`].
    pub fn kind(&self) -> io::ErrorKind {
        kind(Class::Close(self))
    }
}

impl ConnError {
    /// The kind that this error has as an [`io::Error`].
    pub fn kind(&self) -> io::ErrorKind {
        kind(Class::Conn(self))
    }
}

impl DialError {
    /// The kind that this error has as an [`io::Error`].
    pub fn kind(&self) -> io::ErrorKind {
        kind(Class::Dial(self))
    }
}

impl From<CloseReason> for io::Error {
    fn from(reason: CloseReason) -> Self {
        Self::new(reason.kind(), reason)
    }
}

impl From<ConnError> for io::Error {
    fn from(error: ConnError) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        Self::new(error.kind(), error)
    }
}
