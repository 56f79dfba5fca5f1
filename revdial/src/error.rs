//! What can go wrong, sorted by blame, and the one mapping to [`io::ErrorKind`].

use std::fmt;
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
    /// The link was given up without a word: by [`Dialer::abort`](crate::Dialer::abort), or because its task was dropped, when
    /// its runtime was shut down or it panicked.
    #[error("the link was given up on this side")]
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
    /// The peer took nothing of a message for this long.
    #[error("the peer took no bytes for {0:?}")]
    Stalled(Duration),
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
    /// A stream was opened that is open.
    #[error("stream {0} was opened twice")]
    DuplicateOpen(StreamId),
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer provoked more answers than it reads.
    #[error("the peer does not read the answers to its own mistakes")]
    Flood,
    /// A line of a v2 control connection that is not a JSON object with texts.
    #[error("a line is not a JSON object with texts")]
    InvalidMessage,
    /// A line of a v2 control connection with more than 4096 bytes.
    #[error("a line is longer than 4096 bytes")]
    LineTooLong,
    /// A frame for a stream that nobody opened.
    #[error("a frame for stream {0}, which was never opened")]
    NeverOpened(StreamId),
    /// More data than the receiver allowed.
    #[error("more data on stream {0} than its window allows")]
    WindowExceeded(StreamId),
    /// A connection was opened by the listener, on a v1 link, whose wire gives it no numbers.
    #[error("a connection was opened towards the dialer")]
    OpenedByListener,
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
    /// The link held more unread data than its [budget](crate::Config::receive_budget), and this connection the most of
    /// it: it was reset.
    #[error("the link held too much unread data, this connection the most")]
    Overrun,
    /// The deadline passed; the connection lives on.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// The peer reset the connection, or dropped it without shutting it down.
    #[error("the peer reset the connection with code {code}")]
    Reset {
        /// What the peer gave to `reset`; 0 if it gave nothing.
        code: u32,
    },
    /// On a v1 link this connection held up all others, because its received bytes were not read for
    /// [`Config::v1_stall_timeout`](crate::Config::v1_stall_timeout), and was closed on this side.
    #[error(
        "the connection held up its link, because what it received was not read, and was closed"
    )]
    Stalled,
    /// The link under the connection ended.
    #[error("the link ended")]
    Link(#[from] CloseReason),
}

/// Why a ping has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// The dialect of the link, v1 or v2, has no pings.
    #[error("the dialect of this link has no pings")]
    Unsupported,
    /// The link ended.
    #[error("the link ended")]
    Closed(#[from] CloseReason),
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
    /// The peer of a v2 link could not pick the connection up, and says why.
    #[error("the peer could not pick the connection up: {0}")]
    PickUpFailed(PeerText),
    /// The peer of a v2 link connected, and the connection broke before it was ours.
    #[error("the picked-up connection broke before it was handed over")]
    PickUpBroken(#[source] Arc<io::Error>),
    /// The peer of a v2 link picked nothing up in [`Config::dial_timeout`](crate::Config::dial_timeout).
    #[error("the peer did not pick the connection up within {0:?}")]
    TimedOut(Duration),
    /// The link ended.
    #[error("the link ended")]
    Closed(#[from] CloseReason),
}

/// What a peer says, made fit to be shown: on one line, without control characters, at most 1024 bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerText(Box<str>);

impl PeerText {
    #[cfg(feature = "tokio")]
    pub(crate) fn new(text: &str) -> Self {
        let mut clean = String::new();
        let words = text.split(|c: char| c.is_whitespace() || c.is_control());
        for word in words.filter(|word| !word.is_empty()) {
            if !clean.is_empty() {
                clean.push(' ');
            }
            clean.push_str(word);
        }
        let mut end = clean.len().min(PEER_TEXT_MAX);
        while !clean.is_char_boundary(end) {
            end -= 1;
        }
        clean.truncate(end);
        Self(clean.into_boxed_str())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Any error of this crate that becomes an [`io::Error`].
#[derive(Clone, Copy, Debug)]
enum Class<'a> {
    Close(&'a CloseReason),
    Conn(&'a ConnError),
    Dial(&'a DialError),
    Ping(&'a PingError),
}

/// The one mapping to [`io::ErrorKind`]: own close `NotConnected`, reset `ConnectionReset`, a link that ended
/// `ConnectionAborted`, silence and deadlines `TimedOut`, too much unread data `QuotaExceeded`.
fn kind(class: Class<'_>) -> io::ErrorKind {
    match class {
        Class::Close(CloseReason::Local)
        | Class::Conn(ConnError::Closed)
        | Class::Dial(DialError::PeerLeaving | DialError::NumbersUsedUp) => {
            io::ErrorKind::NotConnected
        }
        Class::Close(CloseReason::TimedOut(_) | CloseReason::Stalled(_))
        | Class::Conn(ConnError::DeadlinePassed)
        | Class::Dial(DialError::TimedOut(_)) => io::ErrorKind::TimedOut,
        Class::Close(CloseReason::Protocol(_)) => io::ErrorKind::InvalidData,
        Class::Close(
            CloseReason::Aborted
            | CloseReason::Cut
            | CloseReason::PeerClosed
            | CloseReason::PeerError(_)
            | CloseReason::Transport(_),
        )
        | Class::Dial(DialError::PickUpBroken(_)) => io::ErrorKind::ConnectionAborted,
        Class::Conn(ConnError::Stalled) => io::ErrorKind::ConnectionAborted,
        Class::Conn(ConnError::Overrun) => io::ErrorKind::QuotaExceeded,
        Class::Conn(ConnError::Shutdown) => io::ErrorKind::BrokenPipe,
        Class::Conn(ConnError::Reset { .. }) => io::ErrorKind::ConnectionReset,
        Class::Dial(DialError::Refused { .. } | DialError::PickUpFailed(_)) => {
            io::ErrorKind::ConnectionRefused
        }
        Class::Dial(DialError::TooManyConnections(_)) => io::ErrorKind::ResourceBusy,
        Class::Ping(PingError::Unsupported) => io::ErrorKind::Unsupported,
        Class::Conn(ConnError::Link(reason))
        | Class::Dial(DialError::Closed(reason))
        | Class::Ping(PingError::Closed(reason)) => kind(Class::Close(reason)),
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

impl PingError {
    /// The kind that this error has as an [`io::Error`].
    pub fn kind(&self) -> io::ErrorKind {
        kind(Class::Ping(self))
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

impl From<PingError> for io::Error {
    fn from(error: PingError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Bytes of a peer's text that are kept: as much as a person reads.
#[cfg(feature = "tokio")]
const PEER_TEXT_MAX: usize = 1024;

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_is_shown_on_one_short_line() {
        let text = PeerText::new("switch failed: got 400:\n\t\u{1b}[2J\0 \u{85} no\r\n");
        assert_eq!(text.as_str(), "switch failed: got 400: [2J no");
        assert_eq!(PeerText::new(&"€".repeat(900)).as_str().len(), 1023);
        assert_eq!(PeerText::new("\n").to_string(), "");
    }
}
