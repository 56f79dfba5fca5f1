//! What the tests have in common: a server to connect to, in memory, with and without TLS.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use revdial::v2::{PickUpHandler, PickUps, Tls};
use revdial::{Config, Conn, Dialer, Listener};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream,
    duplex,
};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub(crate) const KEEP_ALIVE: &str = "{\"command\":\"keep-alive\"}\n";

/// Runs a test body within a minute, of whichever clock it runs by.
pub(crate) async fn within<F: Future>(body: F) -> F::Output {
    timeout(Duration::from_secs(1000), body)
        .await
        .expect("the test hangs")
}

pub(crate) fn path() -> PathAndQuery {
    PathAndQuery::from_static("/revdial")
}

/// A dialer whose peer is a script.
pub(crate) fn dialer(pick_ups: &PickUps, config: Config) -> (Dialer, Script) {
    let (ours, theirs) = duplex(64 * 1024);
    let dialer = Dialer::v2(ours, pick_ups, path(), config);
    (dialer, Script::new(theirs))
}

/// A control connection in the hands of a test.
pub(crate) struct Script(BufReader<DuplexStream>);

impl Script {
    pub(crate) fn new(stream: DuplexStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// The next line; empty at the end.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    /// The id of the next dial that is announced.
    pub(crate) async fn announced(&mut self) -> String {
        loop {
            let line = self.line().await;
            assert!(!line.is_empty(), "the control connection ended");
            let start = "{\"command\":\"conn-ready\",\"connPath\":\"/revdial?revdial.dialer=";
            if let Some(rest) = line.strip_prefix(start) {
                return rest.strip_suffix("\"}\n").unwrap().to_owned();
            }
            assert_eq!(line, KEEP_ALIVE);
        }
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.0.write_all(line.as_bytes()).await.unwrap();
    }
}

/// A link with both of ours, and the server of its pick-ups in memory.
pub(crate) fn link(config: &Config) -> (Dialer, Listener) {
    let pick_ups = PickUps::new();
    let (a, b) = duplex(64 * 1024);
    let dialer = Dialer::v2(a, &pick_ups, path(), config.clone());
    let connect = move || {
        let (ours, theirs) = duplex(64 * 1024);
        tokio::spawn(serve_by_hand(theirs, pick_ups.clone()));
        async { Ok(ours) }
    };
    (dialer, Listener::v2(b, connect, config.clone()))
}

/// A connection on a link of ours.
pub(crate) async fn connected(
    dialer: &Dialer,
    listener: &mut Listener,
) -> io::Result<(Conn, Conn)> {
    let accepting = async { Ok::<_, io::Error>(listener.accept().await?) };
    let dialing = async { Ok::<_, io::Error>(dialer.dial().await?) };
    tokio::try_join!(dialing, accepting)
}

/// An HTTP server of few words: it reads a request, and answers as Go does.
pub(crate) async fn serve_by_hand<T>(mut stream: T, pick_ups: PickUps)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let head = request_head(&mut stream).await;
    answer_by_hand(stream, &head, pick_ups).await;
}

/// Answers a request with this head as Go does.
pub(crate) async fn answer_by_hand<T>(mut stream: T, head: &str, pick_ups: PickUps)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let id = head
        .split_once("revdial.dialer=")
        .and_then(|(_, rest)| rest.split_once(' '))
        .map_or("", |(id, _)| id);
    match pick_ups.begin(id) {
        Ok(pick_up) => {
            stream
                .write_all(b"HTTP/0.0 101 Switching Protocols\r\n")
                .await
                .unwrap();
            stream.write_all(b"\r\n").await.unwrap();
            stream.flush().await.unwrap();
            pick_up.complete(stream);
        }
        Err(_) => {
            let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\nunknown dialer\n";
            // Who asked may be gone.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

/// The head of a request, as it came.
pub(crate) async fn request_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Serves one connection with hyper and the handler of this crate.
pub(crate) async fn serve_with_hyper<T>(stream: T, pick_ups: PickUps)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handler = PickUpHandler::new(pick_ups, Tls::Present, |request| async {
        hyper::upgrade::on(request).await.map(TokioIo::new)
    });
    let service = service_fn(|request| {
        let response = handler.answer(request);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A peer that goes away is the test's matter.
    let _ = connection.with_upgrades().await;
}

/// A certificate for `localhost`, who trusts it, and both as PEM.
struct Trust {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    pem: String,
}

/// The certificate of the server and its key.
pub(crate) fn pem() -> &'static str {
    &trust().pem
}

fn trust() -> &'static Trust {
    static MADE: OnceLock<Trust> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        let certificate: CertificateDer<'static> = made.cert.into();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Trust {
            client: Arc::new(client),
            server: Arc::new(server),
            pem,
        }
    })
}

pub(crate) async fn connect_tls<T>(stream: T) -> io::Result<client::TlsStream<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::clone(&trust().client))
        .connect(name, stream)
        .await
}

pub(crate) async fn accept_tls<T>(stream: T) -> io::Result<server::TlsStream<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    TlsAcceptor::from(Arc::clone(&trust().server))
        .accept(stream)
        .await
}
