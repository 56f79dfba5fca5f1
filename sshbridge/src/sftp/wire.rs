//! The bytes of SFTP: numbers and strings as in SSH (RFC 4251 §5), packets with a length before them.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Puts pieces of a stream together to packets.
#[derive(Debug, Default)]
pub(super) struct Packets {
    buffer: BytesMut,
}

impl Packets {
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next packet, without its length, where it is here.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Malformed> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_PACKET {
            return Err(Malformed);
        }
        if self.buffer.len().saturating_sub(4) < length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether a packet has begun and is not here.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// What is here is not what the protocol says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

/// Reads the fields of a packet.
#[derive(Debug)]
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Malformed)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| Malformed)
    }

    pub(super) fn string(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(length))
    }

    /// A path: no system knows one with a zero in it.
    pub(super) fn path(&mut self) -> Result<Bytes, Malformed> {
        let path = self.string()?;
        if path.contains(&0) {
            return Err(Malformed);
        }
        Ok(path)
    }
}

/// Writes a string.
pub(super) fn put_string(buffer: &mut BytesMut, string: &[u8]) {
    // What we send is bounded far below.
    buffer.put_u32(u32::try_from(string.len()).unwrap_or(u32::MAX));
    buffer.put_slice(string);
}

/// The longest packet, as OpenSSH has it, against clients that announce more than fits into memory.
pub(super) const MAX_PACKET: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_however_the_stream_is_cut() {
        let stream = [0, 0, 0, 2, 1, 2, 0, 0, 0, 1, 3, 0];
        for size in 1..stream.len() {
            let mut packets = Packets::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                packets.push(piece);
                while let Some(packet) = packets.next().unwrap() {
                    found.push(packet);
                }
            }
            assert_eq!(found, [&[1, 2][..], &[3]]);
            assert!(!packets.is_empty());
        }
    }

    #[test]
    fn lengths_that_nobody_may_send_are_refused_before_the_packet_comes() {
        for length in [0_u32, 262_145, u32::MAX] {
            let mut packets = Packets::default();
            packets.push(&length.to_be_bytes());
            assert_eq!(packets.next(), Err(Malformed), "{length}");
        }
    }

    #[test]
    fn a_string_ends_within_its_packet() {
        let mut fields = Fields(Bytes::from_static(&[0, 0, 0, 2, b'a']));
        assert_eq!(fields.string(), Err(Malformed));
        let mut fields = Fields(Bytes::from_static(&[0, 0, 0, 2, b'a', 0]));
        assert_eq!(fields.path(), Err(Malformed));
    }
}
