//! Public keys of users.

use std::fmt;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{HashAlg, PublicKey};

/// A public key that may log in.
///
/// ```
/// use sshbridge::key::AuthorizedKey;
///
/// let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";
/// let key: AuthorizedKey = line.parse()?;
/// assert_eq!(key.fingerprint(), "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ");
/// # Ok::<(), sshbridge::key::KeyError>(())
/// ```
#[derive(Clone)]
pub struct AuthorizedKey {
    key: KeyData,
}

impl AuthorizedKey {
    /// SHA-256 of the key, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Takes a key that came over SSH.
    pub(crate) fn from_public(key: &PublicKey) -> Result<Self, KeyError> {
        let key = key.key_data().clone();
        if key.is_dsa() {
            return Err(KeyError::Dsa);
        }
        if let Some(bits) = key.rsa().map(|rsa| rsa.key_size())
            && bits < RSA_MIN_BITS
        {
            return Err(KeyError::ShortRsa { bits });
        }
        if key.is_certificate() || key.is_other() {
            return Err(KeyError::Malformed);
        }
        Ok(Self { key })
    }

    /// The key as an `authorized_keys` line without options or comment.
    pub(crate) fn line(&self) -> Option<String> {
        PublicKey::from(self.key.clone()).to_openssh().ok()
    }
}

impl PartialEq for AuthorizedKey {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for AuthorizedKey {}

impl std::str::FromStr for AuthorizedKey {
    type Err = KeyError;

    /// Reads `TYPE BASE64 [COMMENT]`: an `authorized_keys` line without options.
    fn from_str(line: &str) -> Result<Self, KeyError> {
        let key = PublicKey::from_openssh(line.trim()).map_err(|_| KeyError::Malformed)?;
        Self::from_public(&key)
    }
}

impl fmt::Debug for AuthorizedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthorizedKey")
            .field(&self.fingerprint())
            .finish()
    }
}

/// A public key that is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A DSA key, which no current client offers.
    #[error("DSA keys are not accepted, make an Ed25519 key: ssh-keygen -t ed25519")]
    Dsa,
    /// The text is no public key.
    #[error("not a public key: expected a line such as `ssh-ed25519 AAAA…`")]
    Malformed,
    /// An RSA key that is too short to be safe.
    #[error("an RSA key needs at least 2048 bits and this one has {bits}")]
    ShortRsa {
        /// The length of its modulus.
        bits: u32,
    },
}

/// What OpenSSH calls `RequiredRSASize` has been 2048 by custom since NIST SP 800-131A.
const RSA_MIN_BITS: u32 = 2048;

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::Mpint;
    use russh::keys::ssh_key::public::{DsaPublicKey, RsaPublicKey};

    use super::*;

    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn a_comment_is_no_part_of_a_key() {
        let plain: AuthorizedKey = ED25519.parse().unwrap();
        let commented: AuthorizedKey = format!("  {ED25519} me@home\n").parse().unwrap();
        assert_eq!(plain, commented);
        assert_eq!(commented.line().unwrap(), ED25519);
    }

    #[test]
    fn rsa_keys_need_2048_bits() {
        let rsa = |bits: usize| {
            let mut modulus = vec![0; bits / 8];
            modulus[0] = 0xff;
            let number = |bytes: &[u8]| Mpint::from_positive_bytes(bytes);
            let key = RsaPublicKey::new(number(&[1, 0, 1]), number(&modulus)).unwrap();
            AuthorizedKey::from_public(&KeyData::Rsa(key).into())
        };
        assert_eq!(rsa(1024), Err(KeyError::ShortRsa { bits: 1024 }));
        assert_eq!(rsa(2040), Err(KeyError::ShortRsa { bits: 2040 }));
        assert!(rsa(2048).is_ok());
        assert!(rsa(4096).is_ok());
    }

    #[test]
    fn dsa_keys_are_refused() {
        let number = || Mpint::from_positive_bytes(&[7]);
        let key = DsaPublicKey::new(number(), number(), number(), number());
        let key = AuthorizedKey::from_public(&KeyData::Dsa(key.unwrap()).into());
        assert_eq!(key, Err(KeyError::Dsa));
    }

    #[test]
    fn lines_that_are_no_plain_key_are_refused() {
        let with_options = format!("restrict,command=\"date\" {ED25519}");
        let two_lines = format!("{ED25519}\n{ED25519}");
        for line in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 AAAA",
            &with_options,
            &two_lines,
        ] {
            assert_eq!(
                line.parse::<AuthorizedKey>(),
                Err(KeyError::Malformed),
                "{line}"
            );
        }
    }
}
