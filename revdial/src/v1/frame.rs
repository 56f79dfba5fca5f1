//! The frames of v1: seven bytes of header, and the payload behind them.
//!
//! Big-endian:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | type: `N` opens a connection, `C` closes it, `W` carries its data; others are skipped |
//! | 1 | 4 | number of the connection |
//! | 5 | 2 | bytes of payload, which any type may have |

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::frame::StreamId;

/// The parsed head of one frame. There are no bytes that are none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Header {
    /// What the frame does.
    pub kind: Kind,
    /// The connection; `None` is number 0, which Go's dialers come to after 2³² dials and ours never use.
    pub id: Option<StreamId>,
    /// Bytes of payload behind the header.
    pub length: u16,
}

/// What a frame does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// `N`: opens a connection. Only dialers send it.
    Open,
    /// `C`: the sender sends no more on the connection.
    Close,
    /// `W`: the payload is data of the connection.
    Write,
    /// A type without a meaning.
    Unknown(u8),
}

impl Header {
    /// The head of a frame.
    pub const fn new(kind: Kind, id: Option<StreamId>, length: u16) -> Self {
        Self { kind, id, length }
    }

    /// Parses the seven bytes of a header.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let [kind, i0, i1, i2, i3, l0, l1] = *bytes;
        let kind = match kind {
            TYPE_OPEN => Kind::Open,
            TYPE_CLOSE => Kind::Close,
            TYPE_WRITE => Kind::Write,
            other => Kind::Unknown(other),
        };
        let id = StreamId::new(u32::from_be_bytes([i0, i1, i2, i3]));
        Self::new(kind, id, u16::from_be_bytes([l0, l1]))
    }

    /// Writes the seven bytes of the header.
    pub fn encode(self) -> [u8; HEADER_LEN] {
        let kind = match self.kind {
            Kind::Open => TYPE_OPEN,
            Kind::Close => TYPE_CLOSE,
            Kind::Write => TYPE_WRITE,
            Kind::Unknown(other) => other,
        };
        let [i0, i1, i2, i3] = self.id.map_or(0, StreamId::value).to_be_bytes();
        let [l0, l1] = self.length.to_be_bytes();
        [kind, i0, i1, i2, i3, l0, l1]
    }
}

/// Bytes of a header.
pub const HEADER_LEN: usize = 7;

const TYPE_OPEN: u8 = b'N';
const TYPE_CLOSE: u8 = b'C';
const TYPE_WRITE: u8 = b'W';

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_the_bytes_that_go_writes() {
        let cases: [(Header, &[u8; HEADER_LEN]); 5] = [
            (
                Header::new(Kind::Open, StreamId::new(1), 0),
                b"N\0\0\0\x01\0\0",
            ),
            (
                Header::new(Kind::Close, StreamId::new(0x0102_0304), 0),
                b"C\x01\x02\x03\x04\0\0",
            ),
            (
                Header::new(Kind::Write, StreamId::new(0x42), 11),
                b"W\0\0\0B\0\x0b",
            ),
            (
                Header::new(Kind::Write, None, u16::MAX),
                b"W\0\0\0\0\xff\xff",
            ),
            (
                Header::new(Kind::Unknown(b'P'), StreamId::new(u32::MAX), 0),
                b"P\xff\xff\xff\xff\0\0",
            ),
        ];
        for (header, bytes) in cases {
            assert_eq!(header.encode(), *bytes, "{header:?}");
            assert_eq!(Header::decode(bytes), header);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header(bytes: [u8; HEADER_LEN]) {
            prop_assert_eq!(Header::decode(&bytes).encode(), bytes);
        }
    }
}
