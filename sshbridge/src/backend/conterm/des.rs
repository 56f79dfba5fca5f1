//! DES as Plan 9 uses it: keys of seven bytes, and messages of any length from eight bytes on, in overlapping blocks.

use des::Des;
use des::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, Zeroizing};

/// A DES key without its parity bits.
#[derive(Clone)]
pub(crate) struct DesKey([u8; DES_KEY]);

impl DesKey {
    pub(crate) fn new(bytes: [u8; DES_KEY]) -> Self {
        Self(bytes)
    }

    /// The key of a password, of which 27 bytes count.
    pub(crate) fn of_password(password: &[u8]) -> Self {
        let mut text = Zeroizing::new([0_u8; NAME + 7]);
        text[..8].fill(b' ');
        let mut left = password.len().min(NAME - 1);
        text[..left].copy_from_slice(&password[..left]);
        text[left] = 0;
        let mut at = 0;
        loop {
            let key = Self::squeeze(&text[at..at + 8]);
            if left <= 8 {
                return key;
            }
            left -= 8;
            at += 8;
            if left < 8 {
                at -= 8 - left;
                left = 8;
            }
            key.encrypt(&mut text[at..at + 8]);
        }
    }

    /// The low seven bits of eight bytes.
    fn squeeze(text: &[u8]) -> Self {
        let mut key = [0; DES_KEY];
        for (i, byte) in key.iter_mut().enumerate() {
            let high = u16::from(text[i + 1]) << (7 - i);
            *byte = low((u16::from(text[i]) >> i) + high);
        }
        Self(key)
    }

    /// The key in eight bytes, each with odd parity; this form is the secret that p9sk1 yields, so parity matters.
    pub(crate) fn with_parity(&self) -> Zeroizing<[u8; 8]> {
        let mut wide = [0; 8];
        wide[1..].copy_from_slice(&self.0);
        let bits = u64::from_be_bytes(wide);
        let mut out = Zeroizing::new([0; 8]);
        for (i, byte) in out.iter_mut().enumerate() {
            let seven = low(u16::from((bits >> (49 - 7 * i)).to_le_bytes()[0]) << 1);
            *byte = seven | u8::from(seven.count_ones().is_multiple_of(2));
        }
        out
    }

    pub(crate) fn bytes(&self) -> &[u8; DES_KEY] {
        &self.0
    }

    /// Encrypts at least eight bytes in place: blocks at a stride of seven, and one more that ends with the message.
    pub(crate) fn encrypt(&self, message: &mut [u8]) {
        let cipher = self.cipher();
        for at in blocks(message.len()) {
            let mut block = block(message, at);
            cipher.encrypt_block(&mut block);
            message[at..at + 8].copy_from_slice(&block);
        }
    }

    /// Undoes [`Self::encrypt`].
    pub(crate) fn decrypt(&self, message: &mut [u8]) {
        let cipher = self.cipher();
        for at in blocks(message.len()).rev() {
            let mut block = block(message, at);
            cipher.decrypt_block(&mut block);
            message[at..at + 8].copy_from_slice(&block);
        }
    }

    fn cipher(&self) -> Des {
        Des::new(&Array::from(*self.with_parity()))
    }
}

impl Drop for DesKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for DesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DesKey")
    }
}

fn block(message: &[u8], at: usize) -> Array<u8, des::cipher::consts::U8> {
    let mut block = [0; 8];
    block.copy_from_slice(&message[at..at + 8]);
    Array::from(block)
}

/// Where the blocks of a message start.
fn blocks(length: usize) -> impl DoubleEndedIterator<Item = usize> {
    let whole = length.saturating_sub(1) / 7;
    let last = (!length.saturating_sub(1).is_multiple_of(7) && length > 8).then(|| length - 8);
    (0..whole).map(|i| i * 7).chain(last)
}

fn low(word: u16) -> u8 {
    word.to_le_bytes()[0]
}

/// The size of a DES key without parity.
pub(crate) const DES_KEY: usize = 7;

/// The size of a name, and what a password is cut to with its end.
pub(crate) const NAME: usize = 28;
