//! What a password becomes: a DES key for p9sk1, and an AES key with two points for dp9ik.

use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use zeroize::Zeroize;

use super::des::DesKey;
use super::pak::PakHash;

/// A user's keys.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) aes: [u8; 16],
    pub(crate) des: DesKey,
    pub(crate) pak: PakHash,
}

impl Keys {
    /// Derives the keys; it takes the milliseconds that PBKDF2 is there to take.
    pub(crate) fn new(user: &str, password: &[u8]) -> Self {
        let mut aes = [0; 16];
        pbkdf2_hmac::<Sha1>(password, b"Plan 9 key derivation", ROUNDS, &mut aes);
        Self {
            des: DesKey::of_password(password),
            pak: PakHash::new(&aes, user),
            aes,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.aes.zeroize();
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

/// What Plan 9 has fixed.
const ROUNDS: u32 = 9001;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::conterm::vectors::known;

    #[test]
    fn passwords_become_the_known_keys() {
        for password in [
            "glenda123",
            "short",
            "exactly8",
            "averylongpassword-beyond-sixteen",
        ] {
            let keys = Keys::new("glenda", password.as_bytes());
            let label = format!("passtokey '{password}'");
            assert_eq!(keys.des.bytes().to_vec(), known(&format!("{label} des56")));
            assert_eq!(
                keys.des.with_parity().to_vec(),
                known(&format!("{label} des64"))
            );
            assert_eq!(keys.aes.to_vec(), known(&format!("{label} aes")));
        }
    }

    #[test]
    fn messages_are_encrypted_in_overlapping_blocks() {
        let des = DesKey::of_password(b"glenda123");
        for (length, label) in [
            (72, "p9 encrypt 72 bytes 00..47:"),
            (13, "p9 encrypt 13 bytes 00..0c:"),
        ] {
            let message: Vec<u8> = (0..length).collect();
            let mut encrypted = message.clone();
            des.encrypt(&mut encrypted);
            assert_eq!(encrypted, known(label));
            des.decrypt(&mut encrypted);
            assert_eq!(encrypted, message);
        }
    }
}
