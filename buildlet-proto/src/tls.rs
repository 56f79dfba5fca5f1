//! TLS connections to a server that is known by the pin of its certificate authority.
//!
//! A coordinator often has no name that a public authority would vouch for. It then issues its own certificate, and
//! whoever connects is given the [`Pin`] of the authority, one line to copy. Only the authority's key is pinned, so the
//! server can renew its certificate as often as it likes. All else is verified as ever: the server's name, the dates,
//! the chain of signatures.

mod verifier;

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;
use webpki::EndEntityCert;

use verifier::PinVerifier;

/// The SHA-256 of a certificate authority's public key, as the DER of its `SubjectPublicKeyInfo`.
///
/// As text it is `sha256:` and 64 hexadecimal digits; when read, the prefix may be missing. The same number comes from
/// `openssl x509 -in ca.pem -pubkey -noout | openssl pkey -pubin -outform der | sha256sum`.
///
/// ```
/// # use buildlet_proto::tls::Pin;
/// let text = "sha256:5f1c2d0a9e8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d";
/// assert_eq!(text.parse::<Pin>()?.to_string(), text);
/// # Ok::<(), buildlet_proto::tls::TlsError>(())
/// ```
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct Pin([u8; SHA256_LEN]);

impl Pin {
    /// The pin of the public key that `certificate` holds.
    ///
    /// # Errors
    ///
    /// [`TlsError::InvalidCertificate`] where it is not an X.509 v3 certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let certificate =
            EndEntityCert::try_from(certificate).map_err(|_| TlsError::InvalidCertificate)?;
        let key = certificate.subject_public_key_info();
        let digest = ring::digest::digest(&ring::digest::SHA256, &key);
        let mut pin = [0; SHA256_LEN];
        pin.copy_from_slice(digest.as_ref());
        Ok(Self(pin))
    }
}

impl FromStr for Pin {
    type Err = TlsError;

    fn from_str(text: &str) -> Result<Self, TlsError> {
        let hex = text.strip_prefix(PREFIX).unwrap_or(text).as_bytes();
        let mut pin = [0; SHA256_LEN];
        if hex.len() != 2 * SHA256_LEN {
            return Err(TlsError::InvalidPin);
        }
        for (byte, digits) in pin.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digits.iter().try_fold(0, |value, digit| {
                Ok(value << 4 | hex_value(*digit).ok_or(TlsError::InvalidPin)?)
            })?;
        }
        Ok(Self(pin))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How to verify a server: by `pin` alone where there is one, else by the authorities that the operating system trusts.
///
/// TLS 1.3 and 1.2, without ALPN and without client certificates. The system's authorities are read from disk here, so
/// a program makes one configuration and keeps it. `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
///
/// # Errors
///
/// [`TlsError::NoAuthorities`] where there is no pin and the system trusts nobody.
pub fn client_config(pin: Option<&Pin>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = builder(provider.clone());
    let config = match pin {
        Some(pin) => {
            let verifier = Arc::new(PinVerifier::new(*pin, provider));
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth()
        }
        None => builder
            .with_root_certificates(system_authorities()?)
            .with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Makes the TLS handshake with a server that proves to be `server_name`, a DNS name or an IP address without a port.
///
/// The caller limits the time. Where the server closes without saying so, reads end with
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) rather than as a clean end.
///
/// # Errors
///
/// [`InvalidInput`](io::ErrorKind::InvalidInput) for a name that cannot be one, [`InvalidData`](io::ErrorKind::InvalidData)
/// for a server that is not the one wanted (around a [`TlsError`] where the pin says so), and errors of `io`.
///
/// # Cancel safety
///
/// A dropped future closes `io`.
pub async fn connect<IO>(
    io: IO,
    server_name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let bare = server_name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(server_name);
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, TlsError::InvalidName))?;
    TlsConnector::from(config)
        .connect(name, io)
        .await
        .map_err(blame)
}

/// Why a server cannot be verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate that cannot be read.
    #[error("not an X.509 version 3 certificate")]
    InvalidCertificate,
    /// A server name that is neither a DNS name nor an IP address.
    #[error("the server's name is neither a DNS name nor an IP address")]
    InvalidName,
    /// A pin that cannot be read.
    #[error("a pin is `sha256:` and 64 hexadecimal digits")]
    InvalidPin,
    /// The server presents the pinned certificate as its own.
    #[error(
        "the server presents its certificate authority ({0}) as its own certificate; it must present a certificate \
         issued by that authority, followed by the authority's"
    )]
    LeafIsAuthority(Pin),
    /// There is no pin, and the system has no certificate authorities.
    #[error(
        "this system trusts no certificate authority; give the server's pin, or install the system's `ca-certificates`"
    )]
    NoAuthorities,
    /// No certificate of the presented chain has the pinned key.
    #[error(
        "the server's certificate authority does not match the pin {0}; this is another server, or it has a new \
         authority: ask its operator for the pin"
    )]
    PinMismatch(Pin),
}

fn builder(provider: Arc<CryptoProvider>) -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoAuthorities);
    }
    Ok(roots)
}

/// Brings our own error to the top of those that rustls and tokio-rustls wrap around it.
fn blame(error: io::Error) -> io::Error {
    let ours = error
        .get_ref()
        .and_then(|error| error.downcast_ref())
        .and_then(verifier::error_of);
    match ours {
        Some(ours) => io::Error::new(error.kind(), ours),
        None => error,
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| value.try_into().ok())
}

const PREFIX: &str = "sha256:";
const SHA256_LEN: usize = 32;

#[cfg(test)]
mod tests;
