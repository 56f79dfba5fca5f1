//! Certificates: made at start, read from files, or known by their pin.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::TlsAcceptor;

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Pin([u8; 32]);

impl Pin {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut pin = [0; 32];
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        pin.copy_from_slice(digest.as_ref());
        Self(pin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Pin {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        ensure!(
            hex.len() == 64 && hex.is_ascii(),
            "a pin is sha256: and 64 hexadecimal digits"
        );
        let mut pin = [0; 32];
        for (index, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16)?;
        }
        Ok(Self(pin))
    }
}

/// What a server shows: a certificate made on the spot, with its pin, or the one from files.
pub(crate) fn acceptor(files: Option<(&Path, &Path)>) -> anyhow::Result<(TlsAcceptor, Pin)> {
    let (chain, key) = match files {
        Some((cert, key)) => read(cert, key)?,
        None => make()?,
    };
    let leaf = chain.first().context("the certificate file is empty")?;
    let pin = Pin::of(leaf);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and the key do not fit")?;
    Ok((TlsAcceptor::from(Arc::new(config)), pin))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(cert: &Path, key: &Path) -> anyhow::Result<Identity> {
    let reading = |file: &Path| format!("reading {}", file.display());
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| reading(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| reading(key))?;
    Ok((chain, key))
}

fn make() -> anyhow::Result<Identity> {
    let made = rcgen::generate_simple_self_signed(["tunnel".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let key = key.map_err(|error| anyhow::anyhow!(error))?;
    Ok((vec![made.cert.der().clone()], key))
}

/// How a client verifies the server.
pub(crate) fn client_config(pin: Option<Pin>) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions()?;
    let config = match pin {
        Some(pin) => {
            let verifier = Arc::new(PinVerifier(pin, provider()));
            let builder = builder.dangerous();
            builder.with_custom_certificate_verifier(verifier)
        }
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            builder.with_root_certificates(roots)
        }
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Trusts one certificate, whatever names and dates it has.
#[derive(Debug)]
struct PinVerifier(Pin, Arc<CryptoProvider>);

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if Pin::of(leaf) == self.0 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.1.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.1.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}
