//! The layer under `cpu` on 17010: records with a SHA-1 sum, under RC4.
//!
//! It is as weak as that sounds; see the notes on what may be allowed where.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, BufMut, BytesMut};
use rc4::{KeyInit, Rc4, StreamCipher};
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::ContermError;

/// One direction of the layer.
pub(crate) struct SslDirection {
    cipher: Rc4,
    key: Zeroizing<[u8; KEY]>,
    sequence: u32,
}

/// The directions from and to the machine, as a client makes them of the first eight bytes of the secret and of what both
/// sides drew.
pub(crate) fn directions(
    secret: &[u8],
    ours: [u8; 4],
    theirs: [u8; 4],
) -> Option<(SslDirection, SslDirection)> {
    let digest = Sha1::new()
        .chain_update(ours)
        .chain_update(secret.get(..8)?)
        .chain_update(theirs)
        .finalize();
    keys(&digest.into())
}

/// The keys of a digest: its hexadecimal digits are taken for base64, which is what Plan 9 does.
fn keys(digest: &[u8; 20]) -> Option<(SslDirection, SslDirection)> {
    let (from, to) = digest.split_at(10);
    Some((SslDirection::new(from)?, SslDirection::new(to)?))
}

impl SslDirection {
    fn new(half: &[u8]) -> Option<Self> {
        let hex: Zeroizing<String> =
            Zeroizing::new(half.iter().map(|byte| format!("{byte:02x}")).collect());
        let mut key = Zeroizing::new([0; KEY]);
        let length = STANDARD.decode_slice(&*hex, &mut *key).ok()?;
        (length == KEY).then_some(())?;
        Some(Self {
            cipher: Rc4::new_from_slice(&*key).ok()?,
            key,
            sequence: 0,
        })
    }

    /// The other side of this direction, which nothing was said on.
    #[cfg(test)]
    pub(crate) fn twin(&self) -> Self {
        Self {
            cipher: Rc4::new_from_slice(&*self.key).unwrap(),
            key: self.key.clone(),
            sequence: 0,
        }
    }

    /// Appends records that carry `data` to `out`.
    pub(crate) fn seal(&mut self, data: &[u8], out: &mut BytesMut) {
        for piece in data.chunks(MAX_DATA) {
            let length = u16::try_from(piece.len() + SUM).expect("a record fits 15 bits");
            out.put_u16(length | SHORT);
            let at = out.len();
            out.extend_from_slice(&self.sum(piece));
            out.extend_from_slice(piece);
            self.cipher.apply_keystream(&mut out[at..]);
            self.sequence = self.sequence.wrapping_add(1);
        }
    }

    /// Takes one record from `input`, where there is a whole one.
    pub(crate) fn open(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, ContermError> {
        let Some(header) = input.first_chunk::<3>().copied() else {
            return Ok(None);
        };
        let first = u16::from_be_bytes([header[0], header[1]]);
        let (skip, length, padding) = if first & SHORT != 0 {
            (2, usize::from(first & !SHORT), 0)
        } else {
            (3, usize::from(first & 0x3fff), usize::from(header[2]))
        };
        if length < SUM + padding {
            return Err(ContermError::Protocol("a record without its sum"));
        }
        if input.len() < skip + length {
            return Ok(None);
        }
        input.advance(skip);
        let mut record = input.split_to(length);
        self.cipher.apply_keystream(&mut record);
        let sum = record.split_to(SUM);
        if !bool::from(self.sum(&record).ct_eq(&sum)) {
            return Err(ContermError::Protocol("a record with a wrong sum"));
        }
        self.sequence = self.sequence.wrapping_add(1);
        record.truncate(length - SUM - padding);
        Ok(Some(record))
    }

    fn sum(&self, data: &[u8]) -> [u8; SUM] {
        Sha1::new()
            .chain_update(*self.key)
            .chain_update(data)
            .chain_update(self.sequence.to_be_bytes())
            .finalize()
            .into()
    }
}

const KEY: usize = 15;
const SUM: usize = 20;

/// Marks a header of two bytes.
const SHORT: u16 = 0x8000;

/// The most data that a record carries.
const MAX_DATA: usize = 32747;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::conterm::vectors::known;

    fn digest() -> [u8; 20] {
        let key: Vec<u8> = (0..16).collect();
        let digest: [u8; 20] = Sha1::digest(key).into();
        assert_eq!(digest.to_vec(), known("ssl: key16=00..0f sha1"));
        digest
    }

    #[test]
    fn keys_are_hexadecimal_digits_read_as_base64() {
        let (from, to) = keys(&digest()).unwrap();
        assert_eq!(to.key.to_vec(), known("secretout="));
        assert_eq!(hex_of(&*from.key), "e7ad7bf1bf3a6b9edf69cdb6f3df5a");
    }

    #[test]
    fn records_come_in_any_pieces_and_only_whole_ones_count() {
        let (mut sender, _) = keys(&digest()).unwrap();
        let (mut receiver, _) = keys(&digest()).unwrap();
        let message: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut wire = BytesMut::new();
        sender.seal(&message, &mut wire);
        let (mut input, mut output) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(7919) {
            input.extend_from_slice(piece);
            while let Some(record) = receiver.open(&mut input).unwrap() {
                output.extend_from_slice(&record);
            }
        }
        assert_eq!(output, message);
        assert!(input.is_empty());
    }

    #[test]
    fn a_changed_or_repeated_record_is_refused() {
        let (mut sender, _) = keys(&digest()).unwrap();
        let mut wire = BytesMut::new();
        sender.seal(b"hello", &mut wire);
        for bit in 16..wire.len() * 8 {
            let mut changed = wire.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let (mut receiver, _) = keys(&digest()).unwrap();
            assert!(receiver.open(&mut changed).is_err(), "bit {bit}");
        }
        let (mut receiver, _) = keys(&digest()).unwrap();
        let mut twice = BytesMut::from([&wire[..], &wire[..]].concat().as_slice());
        assert!(receiver.open(&mut twice).unwrap().is_some());
        assert!(receiver.open(&mut twice).is_err());
    }

    fn hex_of(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
