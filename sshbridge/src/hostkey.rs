//! The key by which users recognise a server.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::{Certificate, LineEnding};
use russh::keys::{Algorithm, PrivateKey};
use zeroize::Zeroizing;

/// A server's host key: Ed25519, which every client of the last ten years knows.
#[derive(Clone)]
pub struct HostKeys {
    key: PrivateKey,
    certificate: Option<Box<Certificate>>,
}

impl HostKeys {
    /// Reads the key in `dir`, or makes one where there is none yet. The file is `ssh_host_ed25519_key`, in OpenSSH's
    /// format and for its owner only; it is complete and on the disk before it has this name.
    ///
    /// Where `ssh_host_ed25519_key-cert.pub` is beside it, a certificate as `ssh-keygen -h -s` makes it, clients that ask for
    /// one are shown it: those whose users have one `@cert-authority` line for all of an organisation's servers. It is read
    /// once; clients, not we, look at its time.
    ///
    /// # Errors
    ///
    /// [`HostKeyError`]. A key that cannot be read is never replaced: users would be told of an attack. Nor is a certificate
    /// that cannot be used left out.
    pub fn load_or_create(dir: &Path) -> Result<Self, HostKeyError> {
        let path = dir.join(FILE_NAME);
        match Self::load(&path) {
            Err(HostKeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            result => return result?.with_certificate(dir),
        }
        match Self::ephemeral().store(dir, &path) {
            Ok(()) => tracing::info!(path = %path.display(), "made a host key"),
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(HostKeyError::Write { path, source }),
        }
        Self::load(&path)?.with_certificate(dir)
    }

    /// Makes a key that is gone with this value.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    pub fn ephemeral() -> Self {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
            .expect("an Ed25519 key can be made of any random bytes");
        Self {
            key,
            certificate: None,
        }
    }

    /// The public key as a line without comment: `ssh-ed25519 AAAA…`.
    ///
    /// # Panics
    ///
    /// Never: an Ed25519 key can be encoded.
    pub fn public_line(&self) -> String {
        self.key
            .public_key()
            .to_openssh()
            .expect("an Ed25519 key can be encoded")
    }

    /// The key itself, for the server.
    pub(crate) fn private_key(&self) -> &PrivateKey {
        &self.key
    }

    /// The certificate of the key, for the server.
    pub(crate) fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }

    fn load(path: &Path) -> Result<Self, HostKeyError> {
        let path_buf = || path.to_path_buf();
        let text = read_private(path)?;
        let key = PrivateKey::from_openssh(text.as_bytes())
            .map_err(|_| HostKeyError::Malformed { path: path_buf() })?;
        if key.is_encrypted() || key.algorithm() != Algorithm::Ed25519 {
            return Err(HostKeyError::Unsupported { path: path_buf() });
        }
        let mut key = key;
        key.set_comment("");
        Ok(Self {
            key,
            certificate: None,
        })
    }

    /// Takes the certificate in `dir`, where there is one.
    fn with_certificate(mut self, dir: &Path) -> Result<Self, HostKeyError> {
        let path = dir.join(CERTIFICATE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(self),
            Err(source) => return Err(HostKeyError::Read { path, source }),
        };
        let certificate = Certificate::from_openssh(text.trim());
        let usable = certificate.ok().filter(|certificate| {
            certificate.cert_type().is_host()
                && certificate.public_key() == self.key.public_key().key_data()
        });
        let Some(certificate) = usable else {
            return Err(HostKeyError::Certificate { path });
        };
        self.certificate = Some(Box::new(certificate));
        Ok(self)
    }

    fn store(&self, dir: &Path, path: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let text = self
            .key
            .to_openssh(LineEnding::LF)
            .map_err(io::Error::other)?;
        let new = dir.join(format!("{FILE_NAME}.{}.new", std::process::id()));
        // A file of that name was left by a process that did not get to the end.
        let _ = fs::remove_file(&new);
        let written = write_private(&new, text.as_bytes()).and_then(|()| fs::hard_link(&new, path));
        let removed = fs::remove_file(&new);
        written.and(removed)?;
        sync_dir(dir)
    }
}

impl std::fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKeys")
            .field("public", &self.public_line())
            .finish_non_exhaustive()
    }
}

/// A host key that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// The file beside the key is no certificate of it for hosts.
    #[error(
        "{path} is no host certificate of the key beside it: make it with `ssh-keygen -h -s`, or remove it"
    )]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner may read the key.
    #[error(
        "the host key {path} can be read by others: make its mode 600, or replace it if they may have read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no private key.
    #[error(
        "{path} is no private key in OpenSSH's format: restore it, or remove it to make a new one"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("the host key {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is encrypted, or not an Ed25519 key.
    #[error("the host key {path} is not an unencrypted Ed25519 key")]
    Unsupported {
        /// The file.
        path: PathBuf,
    },
    /// A new key could not be stored.
    #[error("a new host key cannot be stored as {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, HostKeyError> {
    let read = |source| HostKeyError::Read {
        path: path.to_path_buf(),
        source,
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_err(read)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(HostKeyError::Exposed {
                path: path.to_path_buf(),
            });
        }
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(read)
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Makes the new name as durable as the file; not every system lets a directory be opened for it.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

const FILE_NAME: &str = "ssh_host_ed25519_key";

/// The name of its certificate, as `ssh-keygen` makes it of the key's.
const CERTIFICATE_NAME: &str = "ssh_host_ed25519_key-cert.pub";

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::certificate::{Builder, CertType};

    use super::*;

    /// A directory that is removed with the test.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let name = format!("sshbridge-hostkey-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join(FILE_NAME)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_key_is_made_once() {
        let dir = Dir::new("once");
        let made = HostKeys::load_or_create(&dir.0).unwrap();
        let read = HostKeys::load_or_create(&dir.0).unwrap();
        assert_eq!(made.public_line(), read.public_line());
        assert!(made.public_line().starts_with("ssh-ed25519 AAAA"));
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_made_for_the_key() {
        let dir = Dir::new("dir");
        assert!(HostKeys::load_or_create(&dir.0.join("a/b")).is_ok());
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_replaced() {
        let dir = Dir::new("broken");
        HostKeys::load_or_create(&dir.0).unwrap();
        fs::write(dir.file(), "half a k").unwrap();
        let error = HostKeys::load_or_create(&dir.0).unwrap_err();
        assert!(matches!(error, HostKeyError::Malformed { .. }));
        assert_eq!(fs::read_to_string(dir.file()).unwrap(), "half a k");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;

        let dir = Dir::new("mode");
        HostKeys::load_or_create(&dir.0).unwrap();
        let mode = fs::metadata(dir.file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(dir.file(), fs::Permissions::from_mode(0o644)).unwrap();
        let error = HostKeys::load_or_create(&dir.0).unwrap_err();
        assert!(matches!(error, HostKeyError::Exposed { .. }));
    }

    fn certify(dir: &Dir, key: &HostKeys, kind: CertType) {
        let key = key.key.public_key().key_data().clone();
        let mut builder = Builder::new(vec![7; 16], key, 0, u64::MAX).unwrap();
        builder.cert_type(kind).unwrap();
        builder.valid_principal("gateway").unwrap();
        let certificate = builder.sign(HostKeys::ephemeral().private_key()).unwrap();
        fs::write(
            dir.0.join(CERTIFICATE_NAME),
            certificate.to_openssh().unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn a_certificate_beside_the_key_is_taken() {
        let dir = Dir::new("certificate");
        let key = HostKeys::load_or_create(&dir.0).unwrap();
        assert!(key.certificate().is_none());
        certify(&dir, &key, CertType::Host);
        let key = HostKeys::load_or_create(&dir.0).unwrap();
        let certificate = key.certificate().unwrap();
        assert_eq!(certificate.valid_principals(), ["gateway"]);
    }

    #[test]
    fn a_certificate_that_is_not_the_keys_is_named() {
        let dir = Dir::new("foreign");
        let key = HostKeys::load_or_create(&dir.0).unwrap();
        let is_named = || {
            let error = HostKeys::load_or_create(&dir.0).unwrap_err();
            matches!(error, HostKeyError::Certificate { .. })
        };
        certify(&dir, &HostKeys::ephemeral(), CertType::Host);
        assert!(is_named(), "of another key");
        certify(&dir, &key, CertType::User);
        assert!(is_named(), "for users");
        fs::write(dir.0.join(CERTIFICATE_NAME), "half a c").unwrap();
        assert!(is_named(), "of nothing");
    }

    #[test]
    fn debug_output_has_no_secret() {
        let text = format!("{:?}", HostKeys::ephemeral());
        assert!(text.contains("ssh-ed25519 "), "{text}");
        assert!(!text.contains("PRIVATE"), "{text}");
    }
}
