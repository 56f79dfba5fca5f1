//! The coordinator's certificate: one that the operator gives, or one of an authority that is made once.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use buildlet_proto::tls::Pin;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Tls;

/// A certificate with its key, and the pin that clients know it by.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The pin of the authority: the last certificate of the chain.
    pub pin: Pin,
}

impl Identity {
    /// Reads the operator's certificate, or issues one with the authority in `dir`, which is made when it is missing.
    ///
    /// # Errors
    ///
    /// An error that names the file that cannot be read or written, or is not what it should be.
    pub fn load(config: &Tls, dir: &Path) -> anyhow::Result<Self> {
        match (&config.certificate_file, &config.key_file) {
            (Some(certificate), Some(key)) => Self::read(certificate, key),
            _ => Self::issue(&config.names, &Authority::load_or_create(dir)?),
        }
    }

    /// How the server speaks TLS: 1.3, and 1.2 for machines too old for it.
    ///
    /// # Errors
    ///
    /// An error where the key does not belong to the certificate.
    pub fn server_config(self) -> anyhow::Result<Arc<ServerConfig>> {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
                .with_no_client_auth()
                .with_single_cert(self.chain, self.key)
                .context("the certificate and its key")?;
        // A hijacked connection is HTTP/1.1 by nature.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn read(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .with_context(|| format!("reading certificates from {}", certificate.display()))?;
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("reading a key from {}", key.display()))?;
        let authority = chain
            .last()
            .with_context(|| format!("{} holds no certificate", certificate.display()))?;
        let pin = Pin::of_certificate(authority)?;
        Ok(Self { chain, key, pin })
    }

    fn issue(names: &[String], authority: &Authority) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names).context("tls.names")?;
        params
            .distinguished_name
            .push(DnType::CommonName, "gomote coordinator");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let now = std::time::SystemTime::now();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + VALIDITY).into();
        let issuer = Issuer::from_params(&authority.params, &authority.key);
        let certificate = params
            .signed_by(&key, &issuer)
            .context("issuing the certificate")?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let pin = Pin::of_certificate(&authority.certificate)?;
        Ok(Self {
            chain: vec![certificate.into(), authority.certificate.clone()],
            key,
            pin,
        })
    }
}

/// A certificate authority of our own: clients pin its key, and every certificate is issued by it.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn load_or_create(dir: &Path) -> anyhow::Result<Self> {
        let files = [dir.join("ca.pem"), dir.join("ca.key")];
        match files.each_ref().map(|file| file.exists()) {
            [true, true] => Self::load(&files),
            [false, false] => Self::create(&files),
            [has_certificate, _] => {
                let (present, missing) = if has_certificate { (0, 1) } else { (1, 0) };
                anyhow::bail!(
                    "{} is there but {} is missing: restore it, or remove both to start with a new authority and pin",
                    files[present].display(),
                    files[missing].display(),
                )
            }
        }
    }

    fn load([certificate, key]: &[PathBuf; 2]) -> anyhow::Result<Self> {
        let pem =
            std::fs::read_to_string(key).with_context(|| format!("reading {}", key.display()))?;
        let pair = KeyPair::from_pem(&pem)
            .with_context(|| format!("reading a key from {}", key.display()))?;
        let der = CertificateDer::from_pem_file(certificate)
            .with_context(|| format!("reading a certificate from {}", certificate.display()))?;
        let same = Pin::of_certificate(&der)?
            == Pin::of_certificate(&authority_params().self_signed(&pair)?.into())?;
        ensure!(
            same,
            "{} is not the key of {}",
            key.display(),
            certificate.display()
        );
        Ok(Self {
            params: authority_params(),
            key: pair,
            certificate: der,
        })
    }

    fn create([certificate, key]: &[PathBuf; 2]) -> anyhow::Result<Self> {
        let pair = KeyPair::generate()?;
        let params = authority_params();
        let signed = params
            .self_signed(&pair)
            .context("making the certificate authority")?;
        write_private(key, &pair.serialize_pem())?;
        write_private(certificate, &signed.pem())?;
        Ok(Self {
            params,
            key: pair,
            certificate: signed.into(),
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Writes a new file that nobody else may read, and has it on the disk before it is used.
pub fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("making {}", path.display()))?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

/// The same at every start, so that a certificate names its issuer as the authority's own certificate does.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "gomote coordinator authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Machines with a dead battery may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(7 * 24 * 3600);
/// A certificate is issued at each start, and lives for two years.
const VALIDITY: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load(&Tls::default(), dir.path()).unwrap();
        let second = Identity::load(&Tls::default(), dir.path()).unwrap();
        assert_eq!(first.pin.to_string(), second.pin.to_string());
        assert_ne!(
            first.chain[0], second.chain[0],
            "a certificate is issued at each start"
        );
        first.server_config().unwrap();
    }

    #[test]
    fn an_operators_certificate_is_read_with_its_chain() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&authority.params, &authority.key);
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let chain = params.signed_by(&key, &issuer).unwrap().pem()
            + &std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
        let files = [dir.path().join("chain.pem"), dir.path().join("key.pem")];
        std::fs::write(&files[0], chain).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        let [certificate_file, key_file] = files.map(Some);
        let tls = Tls {
            certificate_file,
            key_file,
            ..Tls::default()
        };
        let identity = Identity::load(&tls, dir.path()).unwrap();
        assert_eq!(
            identity.pin.to_string(),
            Pin::of_certificate(&authority.certificate)
                .unwrap()
                .to_string()
        );
        identity.server_config().unwrap();
    }

    #[test]
    fn half_an_authority_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = Identity::load(&Tls::default(), dir.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("ca.key is missing"), "{error}");
    }

    #[test]
    fn the_key_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join("ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
