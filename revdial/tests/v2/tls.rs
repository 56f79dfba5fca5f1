//! The whole over TLS on the loopback interface, with hyper as the server.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use http::uri::PathAndQuery;
use revdial::v2::PickUps;
use revdial::{CloseReason, Config, Conn, Dialer, Listener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{
    accept_tls, connect_tls, connected, dialer, request_head, serve_with_hyper, within,
};

/// A server for pick-ups; it ends when the set is dropped.
async fn server(pick_ups: PickUps) -> (SocketAddr, JoinSet<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut tasks = JoinSet::new();
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let pick_ups = pick_ups.clone();
            tasks.spawn(async move {
                if let Ok(stream) = accept_tls(stream).await {
                    serve_with_hyper(stream, pick_ups).await;
                }
            });
        }
    });
    (addr, server)
}

/// A registered machine: its control connection is TLS as well.
async fn link(pick_ups: &PickUps, server: SocketAddr) -> (Dialer, Listener) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let accepting = async { accept_tls(socket.accept().await?.0).await };
    let connecting = async { connect_tls(TcpStream::connect(addr).await?).await };
    let (theirs, ours) = tokio::try_join!(accepting, connecting).unwrap();
    let mut config = Config::default();
    config.local_addr = Some(addr);
    config.peer_addr = Some(ours.get_ref().0.local_addr().unwrap());
    let path = PathAndQuery::from_static("/revdial?farm=1");
    let dialer = Dialer::v2(theirs, pick_ups, path, config);
    let connect = move || async move { connect_tls(TcpStream::connect(server).await?).await };
    (dialer, Listener::v2(ours, connect, Config::default()))
}

async fn pair() -> (Dialer, Listener, Conn, Conn, JoinSet<()>) {
    let pick_ups = PickUps::new();
    let (addr, server) = server(pick_ups.clone()).await;
    let (dialer, mut listener) = link(&pick_ups, addr).await;
    let (ours, theirs) = connected(&dialer, &mut listener).await.unwrap();
    (dialer, listener, ours, theirs, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_connections_at_once_do_not_mix() {
    within(async {
        let pick_ups = PickUps::new();
        let (addr, _server) = server(pick_ups.clone()).await;
        let (dialer, mut listener) = link(&pick_ups, addr).await;
        let echo = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok(conn) = listener.accept().await {
                tasks.spawn(async move {
                    let (mut read, mut write) = conn.into_split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.shutdown().await.unwrap();
                });
            }
            while tasks.join_next().await.is_some() {}
        });
        let mut asking = JoinSet::new();
        for seed in 0..16_u8 {
            let dialer = dialer.clone();
            asking.spawn(async move {
                let conn = dialer.dial().await.unwrap();
                let (mut read, mut write) = conn.into_split();
                let sent = vec![seed; 300_000];
                let writing = async {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let mut got = Vec::new();
                tokio::join!(writing, async { read.read_to_end(&mut got).await.unwrap() });
                assert!(got == sent);
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
        drop(dialer);
        echo.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_connection_shows_the_addresses_of_its_link() {
    within(async {
        let (dialer, _listener, ours, theirs, _server) = pair().await;
        assert_eq!(ours.local_addr().socket(), dialer.local_addr().socket());
        assert_eq!(ours.peer_addr().socket(), dialer.peer_addr().socket());
        assert!(ours.peer_addr().socket().is_some());
        assert_eq!(ours.peer_addr().stream(), Some(1));
        assert_eq!(theirs.local_addr().to_string(), "revdial#1");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_connection_is_a_reset_and_a_closed_one_an_end() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs, _server) = pair().await;
        ours.write_all(b"half an ans").await.unwrap();
        drop(ours);
        let mut got = Vec::new();
        let error = theirs.read_to_end(&mut got).await.unwrap_err();
        assert_eq!(got, b"half an ans");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(
            theirs.read(&mut [0]).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
        assert_eq!(
            theirs.write(b"x").await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );

        let (_dialer, _listener, mut ours, mut theirs, _server) = pair().await;
        ours.write_all(b"an answer").await.unwrap();
        ours.handle().close();
        let error = ours.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"an answer");
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_dies_with_its_control_connection_is_noticed() {
    within(async {
        let (dialer, listener, _ours, _theirs, _server) = pair().await;
        drop(listener);
        assert!(matches!(dialer.closed().await, CloseReason::PeerClosed));
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_cannot_reach_the_server_says_why() {
    within(async {
        let pick_ups = PickUps::new();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = socket.local_addr().unwrap();
        drop(socket);
        let (dialer, _listener) = link(&pick_ups, nobody).await;
        let error = dialer.dial().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("refused"), "{error}");
    })
    .await;
}

/// A client's socket that notes the lengths of the TLS records that come. Go's programs read one record at a time, and
/// throw away what shares one with the head of a 101.
struct Records {
    tcp: TcpStream,
    seen: Arc<Mutex<Vec<usize>>>,
    header: Vec<u8>,
    /// Bytes that are left of the record.
    left: usize,
}

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        for byte in &buf.filled()[before..] {
            if self.left > 0 {
                self.left -= 1;
                continue;
            }
            self.header.push(*byte);
            if let [_, _, _, high, low] = self.header[..] {
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.seen.lock().unwrap().push(self.left);
                self.header.clear();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn the_first_bytes_of_a_dial_come_in_a_record_of_their_own() {
    within(async {
        let pick_ups = PickUps::new();
        let (addr, _server) = server(pick_ups.clone()).await;
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let dialing = tokio::spawn(async move {
            let mut conn = dialer.dial().await?;
            conn.write_all(b"GET /status").await?;
            io::Result::Ok(conn)
        });
        let id = peer.announced().await;
        let seen = Arc::default();
        let tcp = Records {
            tcp: TcpStream::connect(addr).await.unwrap(),
            seen: Arc::clone(&seen),
            header: Vec::new(),
            left: 0,
        };
        let mut tls = connect_tls(tcp).await.unwrap();
        let request = format!(
            "GET /revdial?revdial.dialer={id} HTTP/1.1\r\nHost: \r\nConnection: Upgrade\r\nUpgrade: revdial\r\n\r\n"
        );
        tls.write_all(request.as_bytes()).await.unwrap();
        let _conn = dialing.await.unwrap().unwrap();
        let head = request_head(&mut tls).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let mut word = [0; 11];
        tls.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"GET /status");
        let records = seen.lock().unwrap().clone();
        let want = [head.len() + AROUND, word.len() + AROUND];
        assert!(records.ends_with(&want), "{records:?}, {want:?}");
    })
    .await;
}

/// What a record of TLS 1.3 has beside its text: a type, and 16 bytes that seal it.
const AROUND: usize = 17;
