use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;

#[test]
fn pins_are_read_with_and_without_their_prefix() {
    let hex = "5F1c".repeat(16);
    let pin: Pin = hex.parse().unwrap();
    assert_eq!(pin.to_string(), format!("sha256:{}", hex.to_lowercase()));
    assert_eq!(pin.to_string().parse(), Ok(pin));
}

#[test]
fn what_is_no_pin_is_refused() {
    let cases = [
        String::new(),
        "sha256:".to_owned(),
        "g".repeat(64),
        "a".repeat(63),
        "a".repeat(65),
        "é".repeat(32),
        format!("sha1:{}", "a".repeat(64)),
    ];
    for text in cases {
        assert_eq!(text.parse::<Pin>(), Err(TlsError::InvalidPin), "{text:?}");
    }
}

#[test]
fn garbage_has_no_pin() {
    let garbage = CertificateDer::from(vec![0x30, 0x03, 1, 2, 3]);
    assert_eq!(
        Pin::of_certificate(&garbage),
        Err(TlsError::InvalidCertificate)
    );
}

#[tokio::test]
async fn the_right_pin_is_accepted() {
    let ca = Authority::new();
    let chain = vec![ca.issue(Leaf::default()), ca.certificate.clone()];
    handshake(chain, Some(ca.pin()), "localhost").await.unwrap();
}

#[tokio::test]
async fn the_pin_holds_for_an_address_as_well() {
    let ca = Authority::new();
    let chain = vec![ca.issue(Leaf::default()), ca.certificate.clone()];
    handshake(chain.clone(), Some(ca.pin()), "127.0.0.1")
        .await
        .unwrap();
    handshake(chain, Some(ca.pin()), "[::1]").await.unwrap();
}

#[tokio::test]
async fn another_pin_is_refused_with_what_to_do() {
    let (ca, other) = (Authority::new(), Authority::new());
    let chain = vec![ca.issue(Leaf::default()), ca.certificate.clone()];
    let error = handshake(chain, Some(other.pin()), "localhost")
        .await
        .unwrap_err();
    let want = format!(
        "the server's certificate authority does not match the pin {}",
        other.pin()
    );
    assert!(error.to_string().starts_with(&want), "{error}");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn an_authority_that_is_not_presented_is_a_mismatch() {
    let ca = Authority::new();
    let chain = vec![ca.issue(Leaf::default())];
    let error = handshake(chain, Some(ca.pin()), "localhost")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not match the pin"),
        "{error}"
    );
}

#[tokio::test]
async fn presenting_the_authority_is_no_proof_of_being_issued_by_it() {
    let (ca, impostor) = (Authority::new(), Authority::new());
    let chain = vec![impostor.issue(Leaf::default()), ca.certificate.clone()];
    let error = handshake(chain, Some(ca.pin()), "localhost")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_not_its_own_authority() {
    let ca = Authority::new();
    let error = handshake_with(
        vec![ca.certificate.clone()],
        ca.key(),
        Some(ca.pin()),
        "localhost",
    )
    .await
    .unwrap_err();
    assert!(
        error.to_string().contains("as its own certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn another_name_is_refused() {
    let ca = Authority::new();
    let chain = vec![ca.issue(Leaf::default()), ca.certificate.clone()];
    let error = handshake(chain, Some(ca.pin()), "example.org")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let ca = Authority::new();
    let hour = Duration::from_secs(3600);
    let expired = Leaf {
        begins: SystemTime::now() - 2 * hour,
        ends: SystemTime::now() - hour,
    };
    let chain = vec![ca.issue(expired), ca.certificate.clone()];
    let error = handshake(chain, Some(ca.pin()), "localhost")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[tokio::test]
async fn without_a_pin_a_private_authority_is_refused() {
    let ca = Authority::new();
    let chain = vec![ca.issue(Leaf::default()), ca.certificate.clone()];
    match handshake(chain, None, "localhost").await {
        Ok(()) => panic!("trusted"),
        Err(error) => assert!(
            error.to_string().contains("UnknownIssuer") || error.kind() == io::ErrorKind::NotFound
        ),
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_one_is_refused() {
    let config = client_config(Some(&Authority::new().pin())).unwrap();
    for name in ["", "local host", "localhost:443", "a..b"] {
        let error = connect(tokio::io::empty(), name, config.clone())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_does_not_end_cleanly() {
    let ca = Authority::new();
    let chain = vec![ca.issue(Leaf::default()), ca.certificate.clone()];
    let (client, server) = tokio::io::duplex(64 * 1024);
    let cut = async {
        let mut tls = acceptor(chain, leaf_key()).accept(server).await.unwrap();
        tls.write_all(b"half of a fi").await.unwrap();
        tls.flush().await.unwrap();
        // The transport goes without a close_notify.
        drop(tls.into_inner());
    };
    let read = async {
        let config = client_config(Some(&ca.pin())).unwrap();
        let mut tls = connect(client, "localhost", config).await.unwrap();
        tls.read_to_end(&mut Vec::new()).await.unwrap_err()
    };
    let ((), error) = tokio::join!(cut, read);
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

/// Shakes hands with a server that presents `chain`, whose first certificate is issued by [`Authority::issue`].
async fn handshake(
    chain: Vec<CertificateDer<'static>>,
    pin: Option<Pin>,
    server_name: &str,
) -> io::Result<()> {
    handshake_with(chain, leaf_key(), pin, server_name).await
}

async fn handshake_with(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pin: Option<Pin>,
    server_name: &str,
) -> io::Result<()> {
    let config = match client_config(pin.as_ref()) {
        Err(TlsError::NoAuthorities) => return Err(io::ErrorKind::NotFound.into()),
        config => config.unwrap(),
    };
    let (client, server) = tokio::io::duplex(64 * 1024);
    let both = async {
        let accept = acceptor(chain, key).accept(server);
        // The server's side fails where the client's does; what the client says is what counts.
        let (_, connected) = tokio::join!(accept, connect(client, server_name, config));
        connected.map(|_| ())
    };
    tokio::time::timeout(Duration::from_secs(10), both)
        .await
        .expect("a handshake in memory ends")
}

fn acceptor(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> TlsAcceptor {
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// An authority of its own key; two of them differ.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().into();
        Self {
            params,
            key,
            certificate,
        }
    }

    fn pin(&self) -> Pin {
        Pin::of_certificate(&self.certificate).unwrap()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        self.key.serialize_der().try_into().unwrap()
    }

    fn issue(&self, leaf: Leaf) -> CertificateDer<'static> {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = leaf.begins.into();
        params.not_after = leaf.ends.into();
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&leaf_pair(), &issuer).unwrap().into()
    }
}

struct Leaf {
    begins: SystemTime,
    ends: SystemTime,
}

impl Default for Leaf {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            begins: SystemTime::now() - hour,
            ends: SystemTime::now() + hour,
        }
    }
}

/// One key for every leaf: which one it is does not matter here.
fn leaf_pair() -> KeyPair {
    static PAIR: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    KeyPair::from_pem(PAIR.get_or_init(|| KeyPair::generate().unwrap().serialize_pem())).unwrap()
}

fn leaf_key() -> PrivateKeyDer<'static> {
    leaf_pair().serialize_der().try_into().unwrap()
}
