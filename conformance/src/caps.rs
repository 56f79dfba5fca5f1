//! What a transport claims to offer, and therefore which cases apply to it.

use std::fmt;

/// One thing that a transport may offer beyond ordered bytes in both directions.
///
/// A case lists what it needs; where the transport does not claim it, the case is reported as skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cap {
    /// [`Control::local_addr`](crate::Control::local_addr) and `peer_addr` answer.
    Addresses,
    /// The suite's [`CountingAllocator`](crate::CountingAllocator) is the global allocator. Never claimed: the suite
    /// finds out by itself.
    Allocator,
    /// Streams can be opened from both sides of a session.
    BothOpen,
    /// The bytes accepted while nobody reads are bounded: see [`Caps::bounded`].
    Bounded,
    /// [`Control::close`](crate::Control::close) ends both directions from any task.
    CloseHandle,
    /// The end of the transport beneath is not taken for the end of the stream: the transport has an end of its own
    /// to send, as TLS has and TCP has not.
    CutVisible,
    /// [`Control::set_read_deadline`](crate::Control::set_read_deadline) and `set_write_deadline` work.
    Deadlines,
    /// A completed flush means that the transport beneath has taken every byte. Without it a flush promises no more
    /// than that the bytes are on their way.
    FlushOnWire,
    /// [`MakeMux::frames`](crate::MakeMux::frames) knows the frames of the wire.
    Frames,
    /// [`Mux::go_away`](crate::Mux::go_away) stops new streams and lets the open ones finish.
    GoAway,
    /// A shutdown ends our direction alone.
    HalfClose,
    /// Pairs live in memory: they need no socket and no clock but tokio's, so that cases may run in virtual time.
    InMemory,
    /// The transport can be built over two byte pipes that the suite supplies, and so over faulty ones.
    Layered,
    /// Several streams share the connection.
    Mux,
    /// All streams of a session share one connection, so that an idle one costs little.
    OneConnection,
    /// Writes to a peer that is gone fail at last. Most transports have a word for it; that of Go's first revdial has
    /// not, and takes such bytes for ever.
    PeerGone,
    /// [`Mux::ping`](crate::Mux::ping) measures a round trip.
    Ping,
    /// A waker may poll the connection from within its call: nobody is woken under a lock that a poll takes.
    ReentrantWake,
    /// [`Control::reset`](crate::Control::reset) ends both directions abruptly.
    ResetHandle,
    /// An end dropped without a shutdown shows as an error at its peer, never as a clean end.
    ResetVisible,
    /// [`Mux::close`](crate::Mux::close) ends the session with all its streams.
    SessionClose,
    /// The number of streams is limited: see [`Caps::max_streams`].
    StreamLimit,
    /// `is_write_vectored` is true, and vectored writes use more than their first buffer.
    Vectored,
    /// A stream that is always ready yields to other tasks now and then, by tokio's budget.
    Yields,
}

impl Cap {
    /// Every capability, in alphabetical order.
    pub const ALL: &'static [Self] = &[
        Self::Addresses,
        Self::Allocator,
        Self::BothOpen,
        Self::Bounded,
        Self::CloseHandle,
        Self::CutVisible,
        Self::Deadlines,
        Self::FlushOnWire,
        Self::Frames,
        Self::GoAway,
        Self::HalfClose,
        Self::InMemory,
        Self::Layered,
        Self::Mux,
        Self::OneConnection,
        Self::PeerGone,
        Self::Ping,
        Self::ReentrantWake,
        Self::ResetHandle,
        Self::ResetVisible,
        Self::SessionClose,
        Self::StreamLimit,
        Self::Vectored,
        Self::Yields,
    ];

    /// The name in reports: `half_close`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Allocator => "counting_allocator",
            Self::BothOpen => "both_open",
            Self::Bounded => "bounded",
            Self::CloseHandle => "close_handle",
            Self::CutVisible => "cut_visible",
            Self::Deadlines => "deadlines",
            Self::FlushOnWire => "flush_on_wire",
            Self::Frames => "frames",
            Self::GoAway => "go_away",
            Self::HalfClose => "half_close",
            Self::InMemory => "in_memory",
            Self::Layered => "layered",
            Self::Mux => "mux",
            Self::OneConnection => "one_connection",
            Self::PeerGone => "peer_gone",
            Self::Ping => "ping",
            Self::ReentrantWake => "reentrant_wake",
            Self::ResetHandle => "reset_handle",
            Self::ResetVisible => "reset_visible",
            Self::SessionClose => "session_close",
            Self::StreamLimit => "stream_limit",
            Self::Vectored => "vectored",
            Self::Yields => "yields",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The set of capabilities that a transport claims.
///
/// ```
/// use conn_conformance::{Cap, Caps};
///
/// const TCP: Caps = Caps::of(&[Cap::HalfClose, Cap::Vectored]);
/// assert!(TCP.has(Cap::HalfClose) && !TCP.has(Cap::Deadlines));
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Caps {
    set: u32,
    bound: usize,
    max_streams: usize,
}

impl Caps {
    /// Ordered bytes in both directions and nothing else.
    pub const NONE: Self = Self {
        set: 0,
        bound: 0,
        max_streams: 0,
    };

    /// The capabilities of the list. `Bounded` and `StreamLimit` carry a number: claim them by
    /// [`bounded`](Self::bounded) and [`max_streams`](Self::max_streams).
    pub const fn of(list: &[Cap]) -> Self {
        let mut caps = Self::NONE;
        let mut i = 0;
        while i < list.len() {
            caps = caps.with(list[i]);
            i += 1;
        }
        caps
    }

    /// Adds one capability.
    #[must_use]
    pub const fn with(mut self, cap: Cap) -> Self {
        self.set |= cap.bit();
        self
    }

    /// Takes one capability away.
    #[must_use]
    pub const fn without(mut self, cap: Cap) -> Self {
        self.set &= !cap.bit();
        self
    }

    /// Adds what `other` claims; of two numbers the one that is set, `other`'s where both are.
    #[must_use]
    pub const fn and(mut self, other: Self) -> Self {
        self.set |= other.set;
        if other.bound > 0 {
            self.bound = other.bound;
        }
        if other.max_streams > 0 {
            self.max_streams = other.max_streams;
        }
        self
    }

    /// Claims that one direction accepts at most `bytes` while its reader does not read, all buffers on the way
    /// counted.
    #[must_use]
    pub const fn bounded(mut self, bytes: usize) -> Self {
        self.bound = bytes;
        self.with(Cap::Bounded)
    }

    /// Claims that one session carries at most `streams` at a time and refuses the next one alone.
    #[must_use]
    pub const fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self.with(Cap::StreamLimit)
    }

    /// Whether `cap` is claimed.
    pub const fn has(self, cap: Cap) -> bool {
        self.set & cap.bit() != 0
    }

    /// The bytes one direction accepts unread, 0 where nothing is claimed.
    pub const fn bound(self) -> usize {
        self.bound
    }

    /// The streams of one session, 0 where nothing is claimed.
    pub const fn stream_limit(self) -> usize {
        self.max_streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capability_has_its_own_bit() {
        for &cap in Cap::ALL {
            let only = Caps::of(&[cap]);
            assert_eq!(Cap::ALL.iter().filter(|&&c| only.has(c)).count(), 1);
            assert_eq!(only.without(cap), Caps::NONE);
        }
    }

    #[test]
    fn numbers_come_with_their_capability() {
        let caps = Caps::NONE.bounded(64).max_streams(8);
        assert!(caps.has(Cap::Bounded) && caps.has(Cap::StreamLimit));
        assert_eq!((caps.bound(), caps.stream_limit()), (64, 8));
        let more = caps.and(Caps::of(&[Cap::Mux]).bounded(32));
        assert!(more.has(Cap::Mux) && more.has(Cap::StreamLimit));
        assert_eq!((more.bound(), more.stream_limit()), (32, 8));
    }
}
