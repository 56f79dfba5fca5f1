//! The frames of the wire: twelve bytes of header, and the payload of a data frame behind them.
//!
//! The layout is that of yamux version 0 (<https://github.com/hashicorp/yamux/blob/master/spec.md>), big-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version, 0 |
//! | 1 | 1 | type: 0 data, 1 window update, 2 ping, 3 go away |
//! | 2 | 2 | flags: 1 SYN, 2 ACK, 4 FIN, 8 RST |
//! | 4 | 4 | stream id, 0 for the session |
//! | 8 | 4 | length: payload bytes, credit, nonce or code, by type |
//!
//! A [`Header`] is parsed once; what the machine sees cannot be a ping for a stream or data for the session.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::fmt;

/// The parsed head of one frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Header {
    /// `length` bytes of a stream follow the header.
    Data {
        /// The stream that the payload belongs to.
        id: StreamId,
        /// What happens to the stream besides.
        flags: Flags,
        /// Bytes of payload behind the header; it may be zero.
        length: u32,
    },
    /// The receiver of this frame may send more bytes on the stream.
    WindowUpdate {
        /// The stream that the credit belongs to.
        id: StreamId,
        /// What happens to the stream besides.
        flags: Flags,
        /// Bytes of credit; with [`Flags::RST`] the code of the reset.
        delta: u32,
    },
    /// A question that is to be answered with the same nonce.
    Ping {
        /// Chosen by who asks.
        nonce: u32,
    },
    /// The answer to a [`Header::Ping`].
    Pong {
        /// The nonce of the question.
        nonce: u32,
    },
    /// The sender accepts no further streams, or ends the session because of an error.
    GoAway {
        /// Why.
        code: GoAwayCode,
    },
}

impl Header {
    /// Parses the twelve bytes of a header.
    ///
    /// Flags without a meaning are ignored: the specification gives them none, and peers may.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [version, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3] = *bytes;
        let flags = Flags(u16::from_be_bytes([f0, f1]));
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        match kind {
            TYPE_DATA => Ok(Self::Data {
                id: StreamId::new(id).ok_or(FrameError::NoStream)?,
                flags,
                length,
            }),
            TYPE_WINDOW_UPDATE => Ok(Self::WindowUpdate {
                id: StreamId::new(id).ok_or(FrameError::NoStream)?,
                flags,
                delta: length,
            }),
            TYPE_PING | TYPE_GO_AWAY if id != 0 => Err(FrameError::StreamOfSession(id)),
            TYPE_PING if flags.contains(Flags::SYN) => Ok(Self::Ping { nonce: length }),
            TYPE_PING => Ok(Self::Pong { nonce: length }),
            TYPE_GO_AWAY => Ok(Self::GoAway {
                code: GoAwayCode(length),
            }),
            other => Err(FrameError::Type(other)),
        }
    }

    /// Writes the twelve bytes of the header.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let (kind, flags, id, length) = match self {
            Self::Data { id, flags, length } => (TYPE_DATA, flags, id.0, length),
            Self::WindowUpdate { id, flags, delta } => (TYPE_WINDOW_UPDATE, flags, id.0, delta),
            Self::Ping { nonce } => (TYPE_PING, Flags::SYN, 0, nonce),
            Self::Pong { nonce } => (TYPE_PING, Flags::ACK, 0, nonce),
            Self::GoAway { code } => (TYPE_GO_AWAY, Flags::NONE, 0, code.0),
        };
        let [f0, f1] = flags.0.to_be_bytes();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        let [l0, l1, l2, l3] = length.to_be_bytes();
        [VERSION, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3]
    }
}

/// The number of a stream; never 0, which means the session.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StreamId(u32);

impl StreamId {
    /// Takes a number from the wire; `None` for 0.
    pub const fn new(id: u32) -> Option<Self> {
        match id {
            0 => None,
            id => Some(Self(id)),
        }
    }

    /// The number on the wire.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Says whether the yamux client, that is the [`Dialer`](crate::session::Role::Dialer), opened the stream.
    pub const fn is_odd(self) -> bool {
        self.0 % 2 == 1
    }

    /// The next number of the same side; `None` when they are used up.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(2).map(Self)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The flags of a data frame or a window update.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags(u16);

impl Flags {
    /// Nothing besides.
    pub const NONE: Self = Self(0);
    /// Opens the stream.
    pub const SYN: Self = Self(1);
    /// Confirms the stream.
    pub const ACK: Self = Self(2);
    /// The sender sends no more data.
    pub const FIN: Self = Self(4);
    /// The stream is gone in both directions.
    pub const RST: Self = Self(8);

    /// Says whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Why a peer goes away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GoAwayCode(u32);

impl GoAwayCode {
    /// The sender is done.
    pub const NORMAL: Self = Self(0);
    /// The receiver broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// The sender is broken.
    pub const INTERNAL_ERROR: Self = Self(2);

    /// The number on the wire.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for GoAwayCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NORMAL => f.write_str("0 (normal)"),
            Self::PROTOCOL_ERROR => f.write_str("1 (protocol error)"),
            Self::INTERNAL_ERROR => f.write_str("2 (internal error)"),
            Self(code) => write!(f, "{code}"),
        }
    }
}

/// Bytes that are no header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Data or credit for stream 0, which is the session.
    #[error("a frame of a stream carries id 0")]
    NoStream,
    /// A ping or a farewell for a stream.
    #[error("a frame of the session carries stream id {0}")]
    StreamOfSession(u32),
    /// A type that version 0 does not have.
    #[error("unknown frame type {0}")]
    Type(u8),
    /// A version other than 0; most often the other side does not speak yamux at all.
    #[error("unknown protocol version {0}")]
    Version(u8),
}

/// Bytes of a header.
pub const HEADER_LEN: usize = 12;

/// The credit of either side when a stream is opened, in bytes: 256 KiB, given by the specification.
pub const INITIAL_WINDOW: u32 = 256 * 1024;

const VERSION: u8 = 0;
const TYPE_DATA: u8 = 0;
const TYPE_WINDOW_UPDATE: u8 = 1;
const TYPE_PING: u8 = 2;
const TYPE_GO_AWAY: u8 = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(value: u32) -> StreamId {
        StreamId::new(value).unwrap()
    }

    #[test]
    fn headers_are_the_bytes_of_the_specification() {
        let cases: [(Header, [u8; HEADER_LEN]); 6] = [
            (
                Header::Data {
                    id: id(1),
                    flags: Flags::FIN,
                    length: 0,
                },
                [0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0],
            ),
            (
                Header::WindowUpdate {
                    id: id(3),
                    flags: Flags::SYN,
                    delta: 0,
                },
                [0, 1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0],
            ),
            (
                Header::WindowUpdate {
                    id: id(0x0102_0304),
                    flags: Flags::RST,
                    delta: 7,
                },
                [0, 1, 0, 8, 1, 2, 3, 4, 0, 0, 0, 7],
            ),
            (
                Header::Ping { nonce: 0x0a0b_0c0d },
                [0, 2, 0, 1, 0, 0, 0, 0, 10, 11, 12, 13],
            ),
            (
                Header::Pong { nonce: 5 },
                [0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5],
            ),
            (
                Header::GoAway {
                    code: GoAwayCode::PROTOCOL_ERROR,
                },
                [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ),
        ];
        for (header, bytes) in cases {
            assert_eq!(header.encode(), bytes, "{header:?}");
            assert_eq!(Header::decode(&bytes), Ok(header));
        }
    }

    #[test]
    fn a_header_that_means_nothing_is_refused() {
        let decode = |bytes| Header::decode(&bytes).unwrap_err();
        assert_eq!(
            decode([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
            FrameError::Version(1)
        );
        assert_eq!(
            decode([0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]),
            FrameError::Type(4)
        );
        assert_eq!(
            decode([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            FrameError::NoStream
        );
        assert_eq!(
            decode([0, 2, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0]),
            FrameError::StreamOfSession(9)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_a_header_or_an_error(bytes: [u8; HEADER_LEN]) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
    }
}
