//! TLS and QUIC.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use conn_conformance::{Cap, Caps, Pair, Side, Target, Wire, over};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::plain::end;

/// A certificate for `localhost`, and who trusts it.
#[derive(Clone)]
pub(super) struct Trust {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

pub(super) fn trust() -> Result<Trust, Box<dyn std::error::Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate: CertificateDer<'static> = made.cert.into();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    client.alpn_protocols = vec![b"conformance".to_vec()];
    server.alpn_protocols = vec![b"conformance".to_vec()];
    Ok(Trust {
        client: Arc::new(client),
        server: Arc::new(server),
    })
}

impl Trust {
    /// Makes one side of a TLS connection.
    pub(super) async fn handshake(self, wire: Wire, side: Side) -> io::Result<Wire> {
        Ok(match side {
            Side::Client => {
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                Box::new(TlsConnector::from(self.client).connect(name, wire).await?)
            }
            Side::Server => Box::new(TlsAcceptor::from(self.server).accept(wire).await?),
        })
    }
}

/// TLS 1.3 by tokio-rustls.
pub(crate) fn tls() -> Target {
    let made = trust().map_err(|error| error.to_string());
    let make = move |a: Wire, b: Wire| {
        let made = made.clone();
        async move {
            let trust = made.map_err(io::Error::other)?;
            let (a, b) = tokio::try_join!(
                trust.clone().handshake(a, Side::Client),
                trust.handshake(b, Side::Server)
            )?;
            Ok(Pair::of(end(a, None, None), end(b, None, None)))
        }
    };
    let caps = Caps::of(&[
        Cap::CutVisible,
        Cap::Deadlines,
        Cap::FlushOnWire,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::Layered,
        Cap::PeerGone,
        Cap::ResetVisible,
    ]);
    Target::pairs("tls", over(make), caps.bounded(512 * 1024))
}

/// One stream of a QUIC connection by quinn, over UDP on the loopback interface. A stream exists for the acceptor from
/// its first byte on, so each pair is made with one.
pub(crate) fn quinn() -> Target {
    let made = trust().map_err(|error| error.to_string());
    let make = move || {
        let made = made.clone();
        async move { quinn_pair(made.map_err(io::Error::other)?).await }
    };
    let caps = Caps::of(&[Cap::Deadlines, Cap::HalfClose, Cap::PeerGone]);
    Target::pairs("quinn", make, caps)
}

async fn quinn_pair(trust: Trust) -> io::Result<Pair> {
    let client = quinn::crypto::rustls::QuicClientConfig::try_from(trust.client);
    let server = quinn::crypto::rustls::QuicServerConfig::try_from(trust.server);
    let client = quinn::ClientConfig::new(Arc::new(client.map_err(io::Error::other)?));
    let server = quinn::ServerConfig::with_crypto(Arc::new(server.map_err(io::Error::other)?));
    let loopback = (Ipv4Addr::LOCALHOST, 0).into();
    let listener = quinn::Endpoint::server(server, loopback)?;
    let dialer = quinn::Endpoint::client(loopback)?;
    let dial = async {
        let connecting = dialer
            .connect_with(client, listener.local_addr()?, "localhost")
            .map_err(io::Error::other)?;
        connecting.await.map_err(io::Error::other)
    };
    let accept = async {
        let incoming = listener.accept().await;
        let incoming = incoming.ok_or(io::ErrorKind::ConnectionAborted)?;
        incoming.await.map_err(io::Error::other)
    };
    let (dialed, accepted) = tokio::try_join!(dial, accept)?;
    let (mut to_b, from_b) = dialed.open_bi().await?;
    to_b.write_all(b"!").await?;
    let (to_a, mut from_a) = accepted.accept_bi().await?;
    from_a
        .read_exact(&mut [0])
        .await
        .map_err(io::Error::other)?;
    let a = tokio::io::join(from_b, to_b);
    let b = tokio::io::join(from_a, to_a);
    let guards = (dialed, accepted, dialer, listener);
    Ok(Pair::of(end(a, None, None), end(b, None, None)).keep(guards))
}
