//! Over TLS, and through a proxy that speaks it.

use std::sync::Arc;

use http::Uri;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use revdial::Connector;
use revdial::connector::{ConnectError, InvalidServer, NoProxy, Proxies};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::proxies::tunnel;
use crate::support::{Server, echo, expect_echo, fast, register, within};

/// An authority, and what it vouches for.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            certificate,
        }
    }

    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn trusted(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn connector(uri: &str, config: Arc<ClientConfig>) -> Connector {
    Connector::with_tls(&uri.parse::<Uri>().unwrap(), config)
        .unwrap()
        .timing(fast())
}

#[tokio::test]
async fn a_server_is_verified_by_its_name() {
    within(async {
        let authority = Authority::new();
        let server = Server::new().await;
        let uri = format!("https://localhost:{}/", server.address.port());
        let connector = connector(&uri, authority.trusted());
        let serving = async {
            let tcp = server.accept().await;
            register(authority.acceptor("localhost").accept(tcp).await.unwrap()).await
        };
        let (listener, (_, dialer)) = tokio::join!(connector.connect(), serving);
        tokio::spawn(echo(listener.unwrap()));
        expect_echo(&dialer).await;

        let other = async {
            let tcp = server.accept().await;
            assert!(authority.acceptor("other").accept(tcp).await.is_err());
        };
        let (outcome, ()) = tokio::join!(connector.connect(), other);
        let error = outcome.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("localhost"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_proxy_with_tls_leads_to_a_server_with_tls() {
    within(async {
        let (inside, outside) = (Authority::new(), Authority::new());
        let server = Server::new().await;
        let farm = server.address;
        let front = Server::new().await;
        let proxy = format!("https://user:s3cret@localhost:{}", front.address.port());
        let proxies = Proxies::new(proxy.parse().unwrap(), NoProxy::default());
        let connector = connector("https://farm.test/", inside.trusted()).proxies(proxies);

        let error = connector.connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::ProxyNeedsTls), "{error:?}");
        front.accept().await;

        let connector = connector.proxy_tls(outside.trusted());
        let acceptor = outside.acceptor("localhost");
        tokio::spawn(async move {
            let tls = acceptor.accept(front.accept().await).await.unwrap();
            tunnel(tls, farm).await;
        });
        let serving = async {
            let tcp = server.accept().await;
            register(inside.acceptor("farm.test").accept(tcp).await.unwrap()).await
        };
        let (listener, (_, dialer)) = tokio::join!(connector.connect(), serving);
        tokio::spawn(echo(listener.unwrap()));
        expect_echo(&dialer).await;
    })
    .await;
}

#[test]
fn tls_is_not_left_out_by_accident() {
    let config = Authority::new().trusted();
    let uri = Uri::from_static("http://farm.example/");
    let error = Connector::with_tls(&uri, config).unwrap_err();
    assert_eq!(error, InvalidServer::Scheme);
}
