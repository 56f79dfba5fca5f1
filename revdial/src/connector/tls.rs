//! TLS, where the feature `rustls` is on.

use std::io;

use crate::connector::transport::Io;

/// How a server is verified.
#[cfg(feature = "rustls")]
#[derive(Clone)]
pub(super) struct TlsConfig(pub(super) std::sync::Arc<rustls::ClientConfig>);

/// Without the feature there is none.
#[cfg(not(feature = "rustls"))]
#[derive(Clone)]
pub(super) enum TlsConfig {}

/// Makes the handshake with a server that proves to be `host`, a name or an address without brackets.
#[cfg(feature = "rustls")]
pub(super) async fn connect(
    config: &TlsConfig,
    host: &str,
    io: Box<dyn Io>,
) -> io::Result<Box<dyn Io>> {
    let name = rustls::pki_types::ServerName::try_from(host.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&config.0));
    let stream = connector.connect(name, io).await.map_err(verifiers_word)?;
    Ok(Box::new(stream))
}

#[cfg(not(feature = "rustls"))]
#[expect(clippy::unused_async, reason = "the same as its sibling")]
pub(super) async fn connect(
    config: &TlsConfig,
    _host: &str,
    _io: Box<dyn Io>,
) -> io::Result<Box<dyn Io>> {
    match *config {}
}

/// Where a verifier said in its own words why it does not trust a server, they are the error: rustls would print the
/// names of its types.
#[cfg(feature = "rustls")]
fn verifiers_word(error: io::Error) -> io::Error {
    use rustls::{CertificateError, Error, OtherError};

    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(Error::InvalidCertificate(CertificateError::Other(OtherError(word)))) = inner {
        let word = std::sync::Arc::clone(word);
        return io::Error::new(error.kind(), VerifiersWord(word));
    }
    error
}

/// What a verifier said.
#[cfg(feature = "rustls")]
#[derive(Debug)]
struct VerifiersWord(std::sync::Arc<dyn std::error::Error + Send + Sync>);

#[cfg(feature = "rustls")]
impl std::fmt::Display for VerifiersWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "invalid peer certificate: {}", self.0)
    }
}

#[cfg(feature = "rustls")]
impl std::error::Error for VerifiersWord {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
