//! User certificates: what an authority says about a key, and what of it is believed.
//!
//! The format and the rules are those of OpenSSH's `PROTOCOL.certkeys`. Where it leaves a choice, less is accepted: a
//! certificate without principals is nobody's, and a critical option that is not enforced here refuses the certificate.

mod source;

use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use russh::keys::ssh_key::Certificate;
use russh::keys::{Algorithm, HashAlg, PublicKey};

pub use self::source::{SourceList, SourceListError};
use crate::auth::{Forwarding, Permission};
use crate::key::{AuthorizedKey, KeyError};

/// A certificate of a user's key, as `ssh-keygen -s` makes it.
///
/// Nothing about it is true before [`Self::check`].
#[derive(Clone)]
pub struct UserCertificate {
    certificate: Box<Certificate>,
}

/// What a certificate that was checked gives to its holder.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Certified {
    /// Who the holder is, by the authority's names. Never empty.
    pub principals: Vec<String>,
    /// The only command that may run (`force-command`).
    pub command: Option<String>,
    /// Whether there may be a terminal (`permit-pty`).
    pub terminal: Permission,
    /// What may be forwarded (`permit-port-forwarding`, `permit-agent-forwarding`).
    pub forwarding: Forwarding,
}

impl UserCertificate {
    /// Checks everything but who the principals are: that one of `authorities` signed it with an algorithm that is not
    /// broken, that it is for users and for a key that is accepted, that `now` is within its time, that it names a
    /// principal, and that each critical option is known and holds for a client at `peer`.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], for a log: a client is told nothing of it.
    pub fn check(
        &self,
        authorities: &[AuthorizedKey],
        peer: Option<IpAddr>,
        now: SystemTime,
    ) -> Result<Certified, CertificateError> {
        let certificate = &*self.certificate;
        self.check_signature(authorities)?;
        if !certificate.cert_type().is_user() {
            return Err(CertificateError::NotForUsers);
        }
        AuthorizedKey::from_public(&PublicKey::from(certificate.public_key().clone()))
            .map_err(CertificateError::Key)?;
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if seconds < certificate.valid_after() {
            return Err(CertificateError::NotYetValid);
        }
        if seconds >= certificate.valid_before() {
            return Err(CertificateError::Expired);
        }
        let principals = certificate.valid_principals();
        if principals.is_empty() || principals.iter().any(String::is_empty) {
            return Err(CertificateError::NoPrincipal);
        }
        Ok(Certified {
            principals: principals.to_vec(),
            command: self.critical_options(peer)?,
            terminal: self.extension("permit-pty"),
            forwarding: self.forwarding(),
        })
    }

    fn check_signature(&self, authorities: &[AuthorizedKey]) -> Result<(), CertificateError> {
        let certificate = &*self.certificate;
        let signer = PublicKey::from(certificate.signature_key().clone());
        let signer = AuthorizedKey::from_public(&signer).map_err(CertificateError::Authority)?;
        if !authorities.contains(&signer) {
            return Err(CertificateError::UnknownAuthority);
        }
        // `ssh-rsa` is RSA over SHA-1, in which a second certificate with the same signature can be made.
        let algorithm = certificate.signature().algorithm();
        if matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
            return Err(CertificateError::WeakSignature);
        }
        certificate
            .verify_signature()
            .map_err(|_| CertificateError::Forged)
    }

    /// Enforces the critical options; the forced command, where there is one.
    fn critical_options(&self, peer: Option<IpAddr>) -> Result<Option<String>, CertificateError> {
        let mut command = None;
        for (name, value) in self.certificate.critical_options().iter() {
            match name.as_str() {
                "force-command" if !value.is_empty() => command = Some(value.clone()),
                "source-address" => {
                    let sources: SourceList = value
                        .parse()
                        .map_err(|_| CertificateError::CriticalOption)?;
                    if !peer.is_some_and(|peer| sources.contains(peer)) {
                        return Err(CertificateError::Source);
                    }
                }
                _ => return Err(CertificateError::CriticalOption),
            }
        }
        Ok(command)
    }

    fn forwarding(&self) -> Forwarding {
        let ports = self.extension("permit-port-forwarding");
        Forwarding {
            agent: self.extension("permit-agent-forwarding"),
            direct: ports,
            remote: ports,
            unix: ports,
        }
    }

    /// What is not permitted is refused; unknown extensions mean nothing.
    fn extension(&self, name: &str) -> Permission {
        if self.certificate.extensions().contains_key(name) {
            Permission::Allowed
        } else {
            Permission::Refused
        }
    }

    /// What the authority calls the certificate in its own logs; any text.
    pub fn key_id(&self) -> &str {
        self.certificate.key_id()
    }

    /// The certificate's number, which authorities that revoke certificates make unique.
    pub fn serial(&self) -> u64 {
        self.certificate.serial()
    }

    /// The certified key, as an `authorized_keys` line.
    pub(crate) fn key_line(&self) -> Option<String> {
        let key = PublicKey::from(self.certificate.public_key().clone());
        AuthorizedKey::from_public(&key).ok()?.line()
    }

    /// SHA-256 of the certified key, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        let key = self.certificate.public_key();
        key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// SHA-256 of the authority's key.
    pub fn authority(&self) -> String {
        let key = self.certificate.signature_key();
        key.fingerprint(HashAlg::Sha256).to_string()
    }
}

impl From<&Certificate> for UserCertificate {
    fn from(certificate: &Certificate) -> Self {
        Self {
            certificate: Box::new(certificate.clone()),
        }
    }
}

impl std::str::FromStr for UserCertificate {
    type Err = KeyError;

    /// Reads a line such as `ssh-keygen -s` writes to `id_ed25519-cert.pub`.
    fn from_str(line: &str) -> Result<Self, KeyError> {
        let certificate =
            Certificate::from_openssh(line.trim()).map_err(|_| KeyError::Malformed)?;
        Ok(Self::from(&certificate))
    }
}

impl fmt::Debug for UserCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserCertificate")
            .field("key", &self.fingerprint())
            .field("key_id", &self.key_id())
            .field("serial", &self.serial())
            .finish_non_exhaustive()
    }
}

/// Why a certificate is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The authority's key is of a kind that is not accepted.
    #[error("the authority's key is not accepted: {0}")]
    Authority(#[source] KeyError),
    /// A critical option is unknown, or its value makes no sense.
    #[error("a critical option is not one that is enforced here")]
    CriticalOption,
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// The authority did not sign it.
    #[error("the signature is not the authority's")]
    Forged,
    /// The certified key is of a kind that is not accepted.
    #[error("the key is not accepted: {0}")]
    Key(#[source] KeyError),
    /// It names nobody. OpenSSH's authorities make such a certificate where `-n` is forgotten, and it would be
    /// everybody's.
    #[error("the certificate names no principal")]
    NoPrincipal,
    /// It is the certificate of a host.
    #[error("the certificate is not for users")]
    NotForUsers,
    /// Its time has not come.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// It may not be used from where the client is.
    #[error("the certificate may not be used from there")]
    Source,
    /// No configured authority signed it.
    #[error("the certificate's authority is not a configured one")]
    UnknownAuthority,
    /// It is signed with an algorithm that can be forged.
    #[error("the certificate is signed with a weak algorithm")]
    WeakSignature,
}

#[cfg(test)]
mod tests;
