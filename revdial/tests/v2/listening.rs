//! The listening side against scripts, in virtual time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use revdial::{CloseReason, Config, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::support::{KEEP_ALIVE, Script, connected, link, request_head, within};

fn ready(path: &str) -> String {
    format!("{{\"command\":\"conn-ready\",\"connPath\":\"{path}\"}}\n")
}

fn failed(path: &str, err: &str) -> String {
    format!("{{\"command\":\"pickup-failed\",\"connPath\":\"{path}\",\"err\":\"{err}\"}}\n")
}

/// A listener, its control connection, and the connections that it makes.
fn listener(config: Config) -> (Listener, Script, mpsc::Receiver<DuplexStream>) {
    let (ours, theirs) = duplex(64 * 1024);
    let (sender, made) = mpsc::channel(256);
    let connect = move || {
        let (ours, theirs) = duplex(64 * 1024);
        let sent = sender.try_send(theirs);
        async move { sent.map(|()| ours).map_err(io::Error::other) }
    };
    (
        Listener::v2(ours, connect, config),
        Script::new(theirs),
        made,
    )
}

#[tokio::test(start_paused = true)]
async fn what_go_announces_is_picked_up_as_go_does() {
    within(async {
        let (mut listener, mut peer, mut made) = listener(Config::default());
        peer.say(KEEP_ALIVE).await;
        peer.say(&ready("/revdial?a=1\\u0026revdial.dialer=00"))
            .await;
        peer.say(KEEP_ALIVE).await;
        let mut server = made.recv().await.unwrap();
        assert_eq!(
            request_head(&mut server).await,
            "GET /revdial?a=1&revdial.dialer=00 HTTP/1.1\r\nHost: \r\n\
             connection: Upgrade\r\nupgrade: revdial\r\n\r\n"
        );
        // Two writes, as Go's, and the first request in a third.
        for part in ["HTTP/0.0 101 Switching Protocols\r\n", "\r\n", "hello"] {
            server.write_all(part.as_bytes()).await.unwrap();
        }
        let mut conn = listener.accept().await.unwrap();
        assert_eq!(conn.id(), 1);
        let mut word = [0; 5];
        conn.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
        conn.write_all(b"there").await.unwrap();
        server.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"there");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_share_a_write_with_the_101_are_kept() {
    within(async {
        let (mut listener, mut peer, mut made) = listener(Config::default());
        peer.say(&ready("/r")).await;
        let mut server = made.recv().await.unwrap();
        request_head(&mut server).await;
        server
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello")
            .await
            .unwrap();
        let mut conn = listener.accept().await.unwrap();
        let chunk = conn.read_chunk(3).await.unwrap();
        assert_eq!(&chunk[..], b"hel");
        assert_eq!(&conn.read_chunk(100).await.unwrap()[..], b"lo");
        server.shutdown().await.unwrap();
        assert!(conn.read_chunk(100).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_picked_up_is_reported() {
    within(async {
        let (_listener, mut peer, mut made) = listener(Config::default());
        peer.say(&ready("/r")).await;
        let mut server = made.recv().await.unwrap();
        request_head(&mut server).await;
        server
            .write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\nunknown dialer\n")
            .await
            .unwrap();
        assert_eq!(
            peer.line().await,
            failed(
                "/r",
                "switch failed: want HTTP status 101 or 307; got 400 Bad Request:\\n\\tunknown dialer"
            )
        );
        peer.say(&ready("/r2")).await;
        drop(made.recv().await.unwrap());
        let line = peer.line().await;
        assert!(line.starts_with("{\"command\":\"pickup-failed\",\"connPath\":\"/r2\""), "{line}");
        peer.say(&ready("")).await;
        let line = peer.line().await;
        assert!(line.contains("the path is not the path of a URL"), "{line}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_dead_or_silent_ends_the_pick_up_after_20_seconds() {
    within(async {
        let (ours, theirs) = duplex(64 * 1024);
        let count = AtomicUsize::new(0);
        let connect = move || {
            let dead = count.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                if dead {
                    std::future::pending::<()>().await;
                }
                let (ours, theirs) = duplex(64);
                // A server that accepts and says nothing.
                std::mem::forget(theirs);
                Ok(ours)
            }
        };
        let _listener = Listener::v2(ours, connect, Config::default());
        let mut peer = Script::new(theirs);
        for path in ["/dead", "/silent"] {
            let began = Instant::now();
            peer.say(&ready(path)).await;
            assert_eq!(peer.line().await, failed(path, "no connection within 20s"));
            assert_eq!(began.elapsed(), Duration::from_secs(20));
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_makes_connections_may_fail_and_panic() {
    within(async {
        let (ours, theirs) = duplex(64 * 1024);
        let count = Arc::new(AtomicUsize::new(0));
        let connect = move || {
            let first = count.fetch_add(1, Ordering::Relaxed) == 0;
            // Unlike `panic!` this prints nothing.
            if !first {
                std::panic::resume_unwind(Box::new("the test's"));
            }
            async { Err::<DuplexStream, _>(io::ErrorKind::HostUnreachable.into()) }
        };
        let listener = Listener::v2(ours, connect, Config::default());
        let mut peer = Script::new(theirs);
        peer.say(&ready("/a")).await;
        assert_eq!(peer.line().await, failed("/a", "host unreachable"));
        peer.say(&ready("/b")).await;
        assert_eq!(peer.line().await, failed("/b", "the pick-up panicked"));
        assert!(!listener.is_closed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_announcements_makes_no_more_connections_than_are_allowed() {
    within(async {
        let mut config = Config::default();
        config.max_inbound_streams = 4;
        let (mut listener, mut peer, mut made) = listener(config);
        let storm = async {
            for _ in 0..500 {
                peer.say(&ready("/r")).await;
            }
            let refused = failed("/r", "4 connections are open, which is my limit");
            for _ in 0..496 {
                assert_eq!(peer.line().await, refused);
            }
            peer
        };
        let mut peer = storm.await;
        let mut servers = Vec::new();
        for _ in 0..4 {
            let mut server = made.recv().await.unwrap();
            request_head(&mut server).await;
            server
                .write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                .await
                .unwrap();
            servers.push(server);
        }
        assert!(made.try_recv().is_err());
        let mut conns = Vec::new();
        for _ in 0..4 {
            conns.push(listener.accept().await.unwrap());
        }
        // They count until they are dropped.
        peer.say(&ready("/r")).await;
        assert!(peer.line().await.contains("4 connections are open"));
        conns.pop();
        peer.say(&ready("/r")).await;
        made.recv().await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_provokes_failures_and_does_not_read_them_loses_the_link() {
    within(async {
        let mut config = Config::default();
        config.max_inbound_streams = 0;
        let (ours, mut theirs) = duplex(1024);
        let connect = || async { Err::<DuplexStream, _>(io::ErrorKind::Other.into()) };
        let listener = Listener::v2(ours, connect, config);
        let began = Instant::now();
        let storm =
            tokio::spawn(
                async move { while theirs.write_all(ready("/r").as_bytes()).await.is_ok() {} },
            );
        let reason = listener.closed().await;
        assert!(matches!(reason, CloseReason::Stalled(_)), "{reason:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(10));
        storm.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dialer_that_is_silent_for_90_seconds_is_dead() {
    within(async {
        let (mut listener, mut peer, _made) = listener(Config::default());
        sleep(Duration::from_secs(89)).await;
        peer.say(KEEP_ALIVE).await;
        let began = Instant::now();
        let reason = listener.accept().await.unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(90));
        assert!(matches!(reason, CloseReason::TimedOut(_)), "{reason:?}");

        let mut config = Config::default();
        config.keep_alive = Duration::ZERO;
        let (patient, _peer, _made) = self::listener(config);
        sleep(Duration::from_secs(600)).await;
        assert!(!patient.is_closed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_link_of_ours_lives_through_silence_and_dials_after_it() {
    within(async {
        let (dialer, mut listener) = link(&Config::default());
        sleep(Duration::from_secs(600)).await;
        let (ours, theirs) = connected(&dialer, &mut listener).await.unwrap();
        assert_eq!((ours.id(), theirs.id()), (1, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_wait_are_there_after_the_end_of_the_link() {
    within(async {
        let (dialer, mut listener) = link(&Config::default());
        let mut ours = dialer.dial().await.unwrap();
        drop(dialer);
        assert!(matches!(listener.closed().await, CloseReason::PeerClosed));
        let mut theirs = listener.accept().await.unwrap();
        ours.write_all(b"x").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'x');
        let reason = listener.accept().await.unwrap_err();
        assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pending_accept_ends_with_the_link() {
    within(async {
        let (mut listener, peer, _made) = listener(Config::default());
        let accepting = tokio::spawn(async move { listener.accept().await.map(drop) });
        tokio::task::yield_now().await;
        drop(peer);
        let reason = accepting.await.unwrap().unwrap_err();
        assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_listener_gives_up_what_is_being_made() {
    within(async {
        let (listener, mut peer, mut made) = listener(Config::default());
        peer.say(&ready("/r")).await;
        let mut server = made.recv().await.unwrap();
        request_head(&mut server).await;
        drop(listener);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(peer.line().await, "");
    })
    .await;
}
