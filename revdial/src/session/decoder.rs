//! Cuts the byte stream into headers and pieces of payload, wherever the transport happened to split it.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::frame::{Flags, FrameError, HEADER_LEN, Header, StreamId};

/// What the next bytes are.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Piece<'a> {
    Header(Header),
    /// Part of the payload of the data frame whose header came last; never empty.
    Payload {
        id: StreamId,
        bytes: &'a [u8],
        /// The flags of the frame with its last byte, before that none: an end comes behind all data.
        flags: Flags,
    },
}

/// Where in a frame the input stands.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Decoder {
    Header {
        bytes: [u8; HEADER_LEN],
        filled: usize,
    },
    Payload {
        id: StreamId,
        flags: Flags,
        left: usize,
    },
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
    /// Payload is handed on as it comes: a frame is never collected, however long it says it is.
    pub(super) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Option<Result<Piece<'a>, FrameError>> {
        if input.is_empty() {
            return None;
        }
        match self {
            Self::Header { bytes, filled } => {
                let missing = bytes.get_mut(*filled..)?;
                let taken = missing.len().min(input.len());
                let (part, rest) = input.split_at_checked(taken)?;
                missing.get_mut(..taken)?.copy_from_slice(part);
                *input = rest;
                *filled = filled.saturating_add(taken);
                if *filled < HEADER_LEN {
                    return None;
                }
                let header = Header::decode(bytes);
                *self = Self::behind(header.as_ref().ok());
                Some(header.map(Piece::Header))
            }
            &mut Self::Payload { id, flags, left } => {
                let taken = left.min(input.len());
                let (bytes, rest) = input.split_at_checked(taken)?;
                *input = rest;
                let left = left.saturating_sub(taken);
                if left == 0 {
                    *self = Self::new();
                    return Some(Ok(Piece::Payload { id, bytes, flags }));
                }
                *self = Self::Payload { id, flags, left };
                let flags = Flags::NONE;
                Some(Ok(Piece::Payload { id, bytes, flags }))
            }
        }
    }

    /// What follows `header`.
    fn behind(header: Option<&Header>) -> Self {
        match header {
            Some(&Header::Data { id, flags, length }) if length > 0 => Self::Payload {
                id,
                flags,
                left: usize::try_from(length).unwrap_or(usize::MAX),
            },
            _ => Self::new(),
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

    fn wire() -> Vec<u8> {
        let id = StreamId::new(1).unwrap();
        let mut wire = Vec::new();
        for length in [5, 0, 3] {
            let flags = Flags::NONE;
            wire.extend(Header::Data { id, flags, length }.encode());
            wire.extend(vec![b'x'; length as usize]);
        }
        wire.extend(Header::Ping { nonce: 9 }.encode());
        wire
    }

    fn decode(segments: &[&[u8]]) -> (Vec<Header>, Vec<u8>) {
        let mut decoder = Decoder::new();
        let mut headers = Vec::new();
        let mut payload = Vec::new();
        for segment in segments {
            let mut input = *segment;
            while let Some(piece) = decoder.next(&mut input) {
                match piece.unwrap() {
                    Piece::Header(header) => headers.push(header),
                    Piece::Payload { bytes, .. } => payload.extend(bytes),
                }
            }
        }
        (headers, payload)
    }

    proptest! {
        #[test]
        fn any_segmentation_gives_the_same_pieces(cuts in prop::collection::vec(0usize..60, 0..8)) {
            let wire = wire();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(wire.len())).collect();
            cuts.sort_unstable();
            let mut rest = wire.as_slice();
            let mut segments = Vec::new();
            for cut in cuts {
                let (segment, after) = rest.split_at(cut + rest.len() - wire.len());
                segments.push(segment);
                rest = after;
            }
            segments.push(rest);
            prop_assert_eq!(decode(&segments), decode(&[&wire]));
        }
    }
}
