//! The frames of yamux, version 0: a header of twelve bytes, and a body where the frame carries data.

use crate::mux::{Frame, FrameKind, Frames};

/// The frames of yamux, version 0, for [`MakeMux::frames`](crate::MakeMux::frames) of whatever speaks it.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a static of it must be written down"
)]
pub struct YamuxFrames;

impl Frames for YamuxFrames {
    fn parse(&self, bytes: &[u8]) -> Option<Frame> {
        let header = Header::decode(bytes.first_chunk()?);
        let body = if header.kind == DATA {
            header.length
        } else {
            0
        };
        let kind = match header.kind {
            _ if header.flags & RST != 0 => FrameKind::Reset,
            _ if header.flags & FIN != 0 => FrameKind::Finish,
            DATA if header.length > 0 => FrameKind::Data,
            PING if header.flags & ACK != 0 => FrameKind::Pong,
            PING => FrameKind::Ping,
            GO_AWAY => FrameKind::GoAway,
            _ if header.flags & SYN != 0 => FrameKind::Open,
            _ => FrameKind::Other,
        };
        Some(Frame::new(
            kind,
            u64::from(header.id),
            HEADER + body as usize,
        ))
    }

    fn encode(&self, kind: FrameKind) -> Option<Vec<u8>> {
        match kind {
            FrameKind::GoAway => Some(encode(kind, 0, 0)),
            FrameKind::Pong => Some(encode(kind, 0, 77)),
            FrameKind::Ping => Some(encode(kind, 0, 78)),
            FrameKind::Data
            | FrameKind::Finish
            | FrameKind::Open
            | FrameKind::Other
            | FrameKind::Reset => None,
        }
    }
}

/// The fields of a header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) flags: u16,
    pub(crate) id: u32,
    pub(crate) length: u32,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Self {
        let [version, kind, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3] = *bytes;
        Self {
            version,
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            id: u32::from_be_bytes([i0, i1, i2, i3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }
}

/// One frame without its body; `length` is what its kind means by it.
pub(crate) fn encode(kind: FrameKind, id: u32, length: u32) -> Vec<u8> {
    let (kind, flags) = match kind {
        FrameKind::Data => (DATA, 0),
        FrameKind::Finish => (DATA, FIN),
        FrameKind::GoAway => (GO_AWAY, 0),
        FrameKind::Open => (WINDOW_UPDATE, SYN),
        FrameKind::Other => (WINDOW_UPDATE, 0),
        FrameKind::Ping => (PING, SYN),
        FrameKind::Pong => (PING, ACK),
        FrameKind::Reset => (WINDOW_UPDATE, RST),
    };
    header(kind, flags, id, length)
}

/// The answer to an opening.
pub(crate) fn accepted(id: u32) -> Vec<u8> {
    header(WINDOW_UPDATE, ACK, id, 0)
}

fn header(kind: u8, flags: u16, id: u32, length: u32) -> Vec<u8> {
    let mut bytes = vec![0, kind];
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes
}

pub(crate) const HEADER: usize = 12;

pub(crate) const DATA: u8 = 0;
pub(crate) const WINDOW_UPDATE: u8 = 1;
pub(crate) const PING: u8 = 2;
pub(crate) const GO_AWAY: u8 = 3;

pub(crate) const SYN: u16 = 1;
pub(crate) const ACK: u16 = 2;
pub(crate) const FIN: u16 = 4;
pub(crate) const RST: u16 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_parsed() {
        for kind in [
            FrameKind::GoAway,
            FrameKind::Finish,
            FrameKind::Open,
            FrameKind::Ping,
            FrameKind::Pong,
            FrameKind::Reset,
        ] {
            let frame = YamuxFrames.parse(&encode(kind, 5, 0)).unwrap();
            assert_eq!(frame, Frame::new(kind, 5, HEADER));
        }
        let data = YamuxFrames.parse(&encode(FrameKind::Data, 5, 10)).unwrap();
        assert_eq!(data, Frame::new(FrameKind::Data, 5, HEADER + 10));
        assert!(YamuxFrames.parse(&[0; 11]).is_none());
    }
}
