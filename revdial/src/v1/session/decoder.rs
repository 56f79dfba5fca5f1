//! Cuts the byte stream into headers and pieces of data, wherever the transport happened to split it.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::Buf;

use crate::frame::StreamId;
use crate::v1::frame::{HEADER_LEN, Header, Kind};

/// What the next bytes are.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Piece<'a> {
    Header(Header),
    /// Part of the payload of the `W` whose header came last; never empty.
    Payload {
        id: StreamId,
        bytes: &'a [u8],
    },
}

/// Where in a frame the input stands.
#[derive(Debug)]
pub(super) enum Decoder {
    Header {
        bytes: [u8; HEADER_LEN],
        filled: usize,
    },
    Payload {
        left: usize,
        fate: Fate,
    },
}

/// What becomes of a payload.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Data(StreamId),
    /// It belongs to a frame that is no `W`, or to number 0.
    Skipped,
}

impl Decoder {
    /// Awaits the first header.
    pub(super) fn new() -> Self {
        Self::Header {
            bytes: [0; HEADER_LEN],
            filled: 0,
        }
    }

    /// Takes the next piece off `input`; `None` when more input is needed.
    ///
    /// Payload is handed on, or skipped, as it comes: a frame is never collected.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Piece<'a>> {
        loop {
            if input.is_empty() {
                return None;
            }
            match self {
                Self::Header { bytes, filled } => {
                    let missing = bytes.get_mut(*filled..)?;
                    let taken = missing.len().min(input.len());
                    input.copy_to_slice(missing.get_mut(..taken)?);
                    *filled = filled.saturating_add(taken);
                    if *filled < HEADER_LEN {
                        return None;
                    }
                    let header = Header::decode(bytes);
                    *self = Self::behind(header);
                    return Some(Piece::Header(header));
                }
                &mut Self::Payload { left, fate } => {
                    let (bytes, rest) = input.split_at_checked(left.min(input.len()))?;
                    *input = rest;
                    let left = left.saturating_sub(bytes.len());
                    *self = Self::payload(left, fate);
                    if let Fate::Data(id) = fate {
                        return Some(Piece::Payload { id, bytes });
                    }
                }
            }
        }
    }

    /// Says whether the input ends where a frame does.
    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self, Self::Header { filled: 0, .. })
    }

    /// What follows `header`.
    fn behind(header: Header) -> Self {
        let fate = match (header.kind, header.id) {
            (Kind::Write, Some(id)) => Fate::Data(id),
            (Kind::Write | Kind::Open | Kind::Close | Kind::Unknown(_), _) => Fate::Skipped,
        };
        Self::payload(usize::from(header.length), fate)
    }

    /// Awaits `left` bytes of payload; without any, the next header.
    fn payload(left: usize, fate: Fate) -> Self {
        if left == 0 {
            Self::new()
        } else {
            Self::Payload { left, fate }
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "only the test's own numbers"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Data, payloads of frames that have none to offer, an unknown type, number 0.
    const WIRE: &[u8] =
        b"N\0\0\0\x01\0\x02..W\0\0\0\x01\0\x05helloP\0\0\0\x01\0\x03...W\0\0\0\0\0\x01.\
        W\0\0\0\x01\0\0W\0\0\0\x01\0\x01!C\0\0\0\x01\0\x01.";

    fn decode(segments: &[&[u8]]) -> (Vec<Header>, Vec<u8>) {
        let mut decoder = Decoder::new();
        let mut headers = Vec::new();
        let mut data = Vec::new();
        for segment in segments {
            let mut input = *segment;
            while let Some(piece) = decoder.next(&mut input) {
                match piece {
                    Piece::Header(header) => headers.push(header),
                    Piece::Payload { bytes, .. } => data.extend(bytes),
                }
            }
        }
        assert!(decoder.is_between_frames());
        (headers, data)
    }

    #[test]
    fn only_the_payload_of_data_is_handed_on() {
        let (headers, data) = decode(&[WIRE]);
        assert_eq!(data, b"hello!");
        assert_eq!(headers.len(), 7);
    }

    #[test]
    fn a_cut_at_any_byte_changes_nothing() {
        for at in 0..=WIRE.len() {
            let (before, after) = WIRE.split_at(at);
            assert_eq!(decode(&[before, after]), decode(&[WIRE]), "at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_pieces(cuts in prop::collection::vec(0..=WIRE.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut rest = WIRE;
            let mut segments = Vec::new();
            for cut in cuts {
                let (segment, after) = rest.split_at(cut + rest.len() - WIRE.len());
                segments.push(segment);
                rest = after;
            }
            segments.push(rest);
            prop_assert_eq!(decode(&segments), decode(&[WIRE]));
        }
    }
}
