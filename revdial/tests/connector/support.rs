//! A server, a proxy, and what tests need of both.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use http::Uri;
use revdial::connector::Timing;
use revdial::{Config, Conn, Connector, Dialer, Listener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Runs a test body within twenty seconds.
pub(crate) async fn within<F: Future>(body: F) -> F::Output {
    // Two ends with TLS are large.
    tokio::time::timeout(Duration::from_secs(20), Box::pin(body))
        .await
        .expect("the test hangs")
}

/// A server that answers registrations as the test wants.
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// What dials it.
    pub(crate) fn connector(&self) -> Connector {
        connector(&format!("http://{}/reverse?x=1", self.address))
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    /// Takes one registration; gives the request and the link.
    pub(crate) async fn register(&self) -> (String, Dialer) {
        register(self.accept().await).await
    }

    /// Answers one registration with `reply`, and closes.
    pub(crate) async fn answer(&self, reply: &str) -> String {
        let mut tcp = self.accept().await;
        let head = read_head(&mut tcp).await;
        tcp.write_all(reply.as_bytes()).await.unwrap();
        head
    }
}

pub(crate) fn connector(uri: &str) -> Connector {
    Connector::new(&uri.parse::<Uri>().unwrap())
        .unwrap()
        .timing(fast())
}

/// Waits that suit a test.
pub(crate) fn fast() -> Timing {
    let mut timing = Timing::default();
    timing.outage = (Duration::from_millis(1), Duration::from_millis(50));
    timing
}

pub(crate) async fn register<T>(mut transport: T) -> (String, Dialer)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let head = read_head(&mut transport).await;
    transport.write_all(SWITCHING.as_bytes()).await.unwrap();
    transport.flush().await.unwrap();
    (head, Dialer::new(transport, Config::default()))
}

pub(crate) async fn read_head(transport: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(transport.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends back what comes on each connection, until the link ends.
pub(crate) async fn echo(mut listener: Listener) {
    while let Ok(conn) = listener.accept().await {
        tokio::spawn(echo_conn(conn));
    }
}

async fn echo_conn(conn: Conn) {
    let (mut read, mut write) = conn.into_split();
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = write.shutdown().await;
    }
}

pub(crate) async fn expect_echo(dialer: &Dialer) {
    let mut conn = dialer.dial().await.unwrap();
    conn.write_all(b"hello").await.unwrap();
    conn.shutdown().await.unwrap();
    let mut answer = String::new();
    conn.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello");
}

pub(crate) const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: revdial\r\n\r\n";
