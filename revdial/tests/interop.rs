//! Against the `yamux` crate, in both roles: its frames are what others send.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::time::Duration;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use revdial::{Config, Conn, Dialer, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use yamux::{Connection, Mode, Stream};

async fn within<F: Future>(body: F) -> F::Output {
    timeout(Duration::from_secs(20), body)
        .await
        .expect("the test hangs")
}

type Peer = Connection<Compat<DuplexStream>>;

fn peer(transport: DuplexStream, mode: Mode) -> Peer {
    Connection::new(transport.compat(), yamux::Config::default(), mode)
}

/// Drives the peer, which moves nothing by itself; hands over the streams that it takes.
async fn drive(mut peer: Peer, streams: mpsc::Sender<Stream>) {
    while let Some(Ok(stream)) = poll_fn(|cx| peer.poll_next_inbound(cx)).await {
        if streams.send(stream).await.is_err() {
            break;
        }
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 31 + seed + i / 251).to_le_bytes()[0])
        .collect()
}

/// Sends `len` bytes on our side of an echo and checks what comes back.
async fn echo_ours(conn: Conn, len: usize, seed: usize) {
    let (mut read, mut write) = conn.into_split();
    let sent = pattern(len, seed);
    let sending = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let ((), count) = tokio::join!(sending, read.read_to_end(&mut received));
    count.unwrap();
    assert!(received == sent);
}

async fn echo_peer(stream: Stream) {
    let (mut read, mut write) = stream.split();
    futures_util::io::copy(&mut read, &mut write).await.unwrap();
    write.close().await.unwrap();
}

#[tokio::test]
async fn our_dialer_speaks_to_a_yamux_server() {
    within(async {
        let (a, b) = duplex(64 * 1024);
        let dialer = Dialer::new(a, Config::default());
        let (sender, mut streams) = mpsc::channel(1);
        let driver = tokio::spawn(drive(peer(b, Mode::Server), sender));
        let echo = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Some(stream) = streams.recv().await {
                tasks.spawn(echo_peer(stream));
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
        let mut rounds = JoinSet::new();
        for seed in 0..8 {
            let dialer = dialer.clone();
            rounds.spawn(async move {
                // The crate acknowledges with its first data: a confirmed dial would wait for it.
                let conn = dialer.dial_optimistic().await.unwrap();
                echo_ours(conn, 700_000, seed).await;
            });
        }
        while let Some(done) = rounds.join_next().await {
            done.unwrap();
        }
        assert!(dialer.ping().await.is_ok());
        drop(dialer);
        driver.await.unwrap();
        echo.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn our_listener_serves_a_yamux_client() {
    within(async {
        let (a, b) = duplex(64 * 1024);
        let mut listener = Listener::new(a, Config::default());
        let server = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok(conn) = listener.accept().await {
                tasks.spawn(async move {
                    let (mut read, mut write) = conn.into_split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.shutdown().await.unwrap();
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        });
        let mut client = peer(b, Mode::Client);
        let mut streams = Vec::new();
        for _ in 0..8 {
            streams.push(poll_fn(|cx| client.poll_new_outbound(cx)).await.unwrap());
        }
        let (sender, _none) = mpsc::channel(1);
        let driver = tokio::spawn(drive(client, sender));
        let mut rounds = JoinSet::new();
        // Backwards: the crate sends SYN with the first data, so the numbers come out of order.
        for (seed, stream) in streams.into_iter().enumerate().rev() {
            rounds.spawn(async move {
                let sent = pattern(700_000, seed);
                let (mut read, mut write) = stream.split();
                let sending = async {
                    write.write_all(&sent).await.unwrap();
                    write.close().await.unwrap();
                    // The crate sends a second FIN.
                    write.close().await.unwrap();
                };
                let mut received = Vec::new();
                let ((), count) = tokio::join!(sending, read.read_to_end(&mut received));
                count.unwrap();
                assert!(received == sent);
            });
        }
        while let Some(done) = rounds.join_next().await {
            done.unwrap();
        }
        driver.abort();
        server.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_yamux_stream_that_is_dropped_is_a_reset_here() {
    within(async {
        let (a, b) = duplex(64 * 1024);
        let mut listener = Listener::new(a, Config::default());
        let mut client = peer(b, Mode::Client);
        let mut stream = poll_fn(|cx| client.poll_new_outbound(cx)).await.unwrap();
        let (sender, _none) = mpsc::channel(1);
        let driver = tokio::spawn(drive(client, sender));
        stream.write_all(b"half").await.unwrap();
        stream.flush().await.unwrap();
        let mut conn = listener.accept().await.unwrap();
        let mut received = [0; 4];
        conn.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"half");
        drop(stream);
        let error = conn.read(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        driver.abort();
    })
    .await;
}
