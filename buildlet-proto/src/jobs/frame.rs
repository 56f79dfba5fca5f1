//! A job's output as frames: both streams apart, with the place of each byte, and an end that cannot be taken for a cut.
//!
//! A header of thirteen bytes (a kind, an offset, a length, the numbers with their highest byte first), then as many bytes
//! as it says. This is a codec and nothing more: it knows no connection and no clock.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// One of the two streams that a job writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a command has two")]
pub enum Stream {
    /// Standard output; all output of a job on a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a job's output.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Frame {
    /// Bytes that were written: at least one, and at most [`MAX_DATA`].
    Data {
        /// Where to.
        stream: Stream,
        /// The place of the first one.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// The reply is complete. A reply that stops without this frame was cut.
    End {
        /// The job as JSON, at most [`MAX_END`].
        job: Bytes,
    },
    /// Bytes that are gone.
    Gap {
        /// Whose.
        stream: Stream,
        /// The first that is gone.
        offset: u64,
        /// The first that is not; larger than `offset`.
        end: u64,
    },
    /// Nothing happens, and the connection lives.
    Heartbeat,
}

impl Frame {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    ///
    /// Where there are more bytes than [`MAX_DATA`] or [`MAX_END`] allows.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Data {
                stream,
                offset,
                bytes,
            } => {
                assert!(bytes.len() <= MAX_DATA, "data is sent in small frames");
                put(out, kind_of(*stream), *offset, bytes);
            }
            Self::End { job } => {
                assert!(job.len() <= MAX_END, "what a job says of itself is short");
                put(out, END, 0, job);
            }
            Self::Gap {
                stream,
                offset,
                end,
            } => {
                let mut payload = [0; GAP_LENGTH];
                let (kind, rest) = payload.split_at_mut(1);
                kind.fill(kind_of(*stream));
                rest.copy_from_slice(&end.to_be_bytes());
                put(out, GAP, *offset, &payload);
            }
            Self::Heartbeat => put(out, HEARTBEAT, 0, &[]),
        }
    }

    /// Takes the first frame out of `input`; `None` where it is not there whole.
    ///
    /// # Errors
    ///
    /// [`FrameError`] as soon as a header cannot be one of ours; `input` is then as it was.
    pub fn decode(input: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(mut header) = input.get(..HEADER_LENGTH) else {
            return Ok(None);
        };
        let (kind, offset, length) = (header.get_u8(), header.get_u64(), header.get_u32());
        let length = usize::try_from(length).map_err(|_| FrameError::Length)?;
        let is_valid = match kind {
            STDOUT | STDERR => (1..=MAX_DATA).contains(&length),
            GAP => length == GAP_LENGTH,
            END => length <= MAX_END,
            HEARTBEAT => length == 0,
            _ => return Err(FrameError::Kind(kind)),
        };
        if !is_valid {
            return Err(FrameError::Length);
        }
        if input.len().saturating_sub(HEADER_LENGTH) < length {
            return Ok(None);
        }
        let frame = match kind {
            GAP => Self::gap(offset, input.get(HEADER_LENGTH..).unwrap_or_default())?,
            HEARTBEAT => Self::Heartbeat,
            END => {
                input.advance(HEADER_LENGTH);
                return Ok(Some(Self::End {
                    job: input.split_to(length).freeze(),
                }));
            }
            _ => {
                // The whole of a stream has to be countable.
                offset
                    .checked_add(length as u64)
                    .ok_or(FrameError::Offset)?;
                input.advance(HEADER_LENGTH);
                return Ok(Some(Self::Data {
                    stream: stream_of(kind)?,
                    offset,
                    bytes: input.split_to(length).freeze(),
                }));
            }
        };
        input.advance(HEADER_LENGTH);
        input.advance(length);
        Ok(Some(frame))
    }

    /// Takes what has arrived of a frame that was cut: bytes of output count although those behind them are missing. Call it
    /// when [`decode`](Self::decode) finds no whole frame, and no more will come.
    pub fn salvage(input: &mut BytesMut) -> Option<Self> {
        let mut header = input.get(..HEADER_LENGTH)?;
        let (kind, offset) = (header.get_u8(), header.get_u64());
        let stream = stream_of(kind).ok()?;
        input.advance(HEADER_LENGTH);
        let bytes = std::mem::take(input).freeze();
        let is_countable = offset.checked_add(bytes.len() as u64).is_some();
        let is_valid = is_countable && (1..MAX_DATA).contains(&bytes.len());
        is_valid.then_some(Self::Data {
            stream,
            offset,
            bytes,
        })
    }

    fn gap(offset: u64, mut payload: &[u8]) -> Result<Self, FrameError> {
        let (stream, end) = (stream_of(payload.get_u8())?, payload.get_u64());
        if end <= offset {
            return Err(FrameError::Offset);
        }
        Ok(Self::Gap {
            stream,
            offset,
            end,
        })
    }
}

/// The bytes are no frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A kind of frame that there is not.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// A length that such a frame cannot have.
    #[error("a frame of an impossible length")]
    Length,
    /// A place that no byte can have, or a gap of nothing.
    #[error("a frame with an impossible offset")]
    Offset,
}

fn put(out: &mut BytesMut, kind: u8, offset: u64, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.reserve(HEADER_LENGTH.saturating_add(payload.len()));
    out.put_u8(kind);
    out.put_u64(offset);
    out.put_u32(length);
    out.put_slice(payload);
}

fn kind_of(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => STDOUT,
        Stream::Stderr => STDERR,
    }
}

fn stream_of(kind: u8) -> Result<Stream, FrameError> {
    match kind {
        STDOUT => Ok(Stream::Stdout),
        STDERR => Ok(Stream::Stderr),
        _ => Err(FrameError::Kind(kind)),
    }
}

/// The most bytes of output in a frame: what a pipe holds, so that a frame is one read and one write.
pub const MAX_DATA: usize = 64 * 1024;
/// The longest JSON of a job: what 2 KiB of a command, 2 KiB of a reason and a path of 4 KiB become at worst, and
/// some.
pub const MAX_END: usize = 64 * 1024;
/// The length of a frame's header.
pub const HEADER_LENGTH: usize = 13;

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const GAP: u8 = 3;
const END: u8 = 4;
const HEARTBEAT: u8 = 5;
/// The stream's kind, and the end.
const GAP_LENGTH: usize = 9;

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "only the test's own numbers"
)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn encoded(frames: &[Frame]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        bytes
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let frames = [
            Frame::Data {
                stream: Stream::Stdout,
                offset: 5,
                bytes: Bytes::from_static(b"hey"),
            },
            Frame::Data {
                stream: Stream::Stderr,
                offset: 0,
                bytes: Bytes::from_static(b"!"),
            },
            Frame::Gap {
                stream: Stream::Stderr,
                offset: 1,
                end: 258,
            },
            Frame::Heartbeat,
            Frame::End {
                job: Bytes::from_static(b"{}"),
            },
        ];
        let bytes = encoded(&frames);
        let want = b"\x01\0\0\0\0\0\0\0\x05\0\0\0\x03hey\
            \x02\0\0\0\0\0\0\0\0\0\0\0\x01!\
            \x03\0\0\0\0\0\0\0\x01\0\0\0\x09\x02\0\0\0\0\0\0\x01\x02\
            \x05\0\0\0\0\0\0\0\0\0\0\0\0\
            \x04\0\0\0\0\0\0\0\0\0\0\0\x02{}";
        assert_eq!(&bytes[..], &want[..]);
    }

    #[test]
    fn what_is_no_frame_is_refused_at_its_header() {
        let header = |kind: u8, offset: u64, length: u32| {
            let mut bytes = BytesMut::new();
            bytes.put_u8(kind);
            bytes.put_u64(offset);
            bytes.put_u32(length);
            Frame::decode(&mut bytes)
        };
        for kind in [0, 6, 255] {
            assert_eq!(header(kind, 0, 1), Err(FrameError::Kind(kind)));
        }
        for (kind, length) in [
            (STDOUT, 0),
            (STDOUT, 64 * 1024 + 1),
            (STDERR, u32::MAX),
            (GAP, 8),
            (END, 64 * 1024 + 1),
            (HEARTBEAT, 1),
        ] {
            assert_eq!(header(kind, 0, length), Err(FrameError::Length), "{kind}");
        }
        assert_eq!(header(STDOUT, 0, 1), Ok(None), "its byte is not there");
    }

    #[test]
    fn what_has_arrived_of_a_cut_frame_counts() {
        let data = Frame::Data {
            stream: Stream::Stderr,
            offset: 7,
            bytes: Bytes::from_static(b"abc"),
        };
        let bytes = encoded(&[data]);
        for cut in 0..bytes.len() {
            let mut input = BytesMut::from(&bytes[..cut]);
            assert_eq!(Frame::decode(&mut input), Ok(None));
            let arrived = bytes[HEADER_LENGTH.min(cut)..cut].to_vec();
            let want = (!arrived.is_empty()).then(|| Frame::Data {
                stream: Stream::Stderr,
                offset: 7,
                bytes: arrived.into(),
            });
            assert_eq!(Frame::salvage(&mut input), want);
        }
        let end = Frame::End {
            job: Bytes::from_static(b"{}"),
        };
        let mut input = encoded(&[end]);
        input.truncate(HEADER_LENGTH + 1);
        assert_eq!(Frame::salvage(&mut input), None);
    }

    #[test]
    fn offsets_that_nothing_can_have_are_refused() {
        let data = Frame::Data {
            stream: Stream::Stdout,
            offset: u64::MAX,
            bytes: Bytes::from_static(b"x"),
        };
        let gap = |offset, end| Frame::Gap {
            stream: Stream::Stdout,
            offset,
            end,
        };
        for frame in [data, gap(3, 3), gap(3, 2)] {
            let mut bytes = encoded(std::slice::from_ref(&frame));
            assert_eq!(
                Frame::decode(&mut bytes),
                Err(FrameError::Offset),
                "{frame:?}"
            );
        }
        let mut bytes = encoded(&[gap(1, 2)]);
        bytes[HEADER_LENGTH] = 7;
        assert_eq!(Frame::decode(&mut bytes), Err(FrameError::Kind(7)));
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let stream = || {
            any::<bool>().prop_map(|is_stdout| {
                if is_stdout {
                    Stream::Stdout
                } else {
                    Stream::Stderr
                }
            })
        };
        let bytes = |length: std::ops::Range<usize>| vec(any::<u8>(), length).prop_map(Bytes::from);
        prop_oneof![
            (stream(), any::<u32>(), bytes(1..200)).prop_map(|(stream, offset, bytes)| {
                Frame::Data {
                    stream,
                    offset: offset.into(),
                    bytes,
                }
            }),
            (stream(), any::<u32>(), 1..u64::MAX / 2).prop_map(|(stream, offset, length)| {
                let offset = u64::from(offset);
                Frame::Gap {
                    stream,
                    offset,
                    end: offset + length,
                }
            }),
            bytes(0..200).prop_map(|job| Frame::End { job }),
            Just(Frame::Heartbeat),
        ]
    }

    #[test]
    fn bytes_at_places_that_nothing_can_have_are_not_salvaged() {
        let cut = |offset: u64| {
            let mut input = BytesMut::new();
            put(&mut input, STDOUT, offset, b"ab");
            Frame::salvage(&mut input)
        };
        assert!(cut(u64::MAX - 2).is_some());
        assert!(cut(u64::MAX - 1).is_none());
    }

    proptest! {
        #[test]
        fn frames_survive_any_segmentation(
            frames in vec(frame(), 0..20), sizes in vec(1_usize..40, 1..40),
        ) {
            let mut wire = encoded(&frames);
            let mut sizes = sizes.into_iter().cycle();
            let (mut input, mut decoded) = (BytesMut::new(), Vec::new());
            while wire.has_remaining() {
                let size = sizes.next().unwrap_or(1).min(wire.len());
                input.extend_from_slice(&wire.split_to(size));
                while let Some(frame) = Frame::decode(&mut input).unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic_or_wait_for_more_than_the_bound(bytes in vec(any::<u8>(), 0..100)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::decode(&mut input) {}
            if let Ok(None) = Frame::decode(&mut input) {
                prop_assert!(input.len() < HEADER_LENGTH + MAX_DATA.max(MAX_END));
            }
        }
    }
}
