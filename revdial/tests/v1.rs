//! Links of dialect v1: what the handles promise on a wire that knows opening, data and an end.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use futures_util::future::join_all;
use revdial::{CloseReason, Config, Conn, ConnError, Dialer, Listener, PingError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Runs a test body within a minute, which a paused clock makes short.
async fn within<F: Future>(body: F) -> F::Output {
    timeout(Duration::from_secs(60), body)
        .await
        .expect("the test hangs")
}

fn pair() -> (Dialer, Listener) {
    let (a, b) = duplex(64 * 1024);
    let config = Config::default;
    (Dialer::v1(a, config()), Listener::v1(b, config()))
}

/// A link, and one connection on it.
async fn connected() -> (Dialer, Listener, Conn, Conn) {
    let (dialer, mut listener) = pair();
    let (ours, theirs) = another(&dialer, &mut listener).await;
    (dialer, listener, ours, theirs)
}

async fn another(dialer: &Dialer, listener: &mut Listener) -> (Conn, Conn) {
    let ours = dialer.dial().await.unwrap();
    let theirs = listener.accept().await.unwrap();
    (ours, theirs)
}

/// A listener, and the dialer's end of its transport for a peer that is played by hand.
fn raw() -> (DuplexStream, Listener) {
    let (a, b) = duplex(64 * 1024);
    (a, Listener::v1(b, Config::default()))
}

async fn expect_bytes(transport: &mut DuplexStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    transport.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 31 + seed + i / 251).to_le_bytes()[0])
        .collect()
}

/// Sends `len` bytes to a peer that sends them back; checks them.
async fn echo_round(conn: Conn, len: usize, seed: usize) {
    let (mut read, mut write) = conn.into_split();
    let sent = pattern(len, seed);
    let sending = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        write
    };
    let receiving = async {
        let mut received = Vec::new();
        read.read_to_end(&mut received).await.unwrap();
        received
    };
    let (_write, received) = tokio::join!(sending, receiving);
    assert!(received == sent, "{len} bytes came back changed");
}

/// Accepts connections and sends back what comes.
async fn serve_echo(mut listener: Listener) {
    let mut tasks = JoinSet::new();
    while let Ok(conn) = listener.accept().await {
        tasks.spawn(async move {
            let (mut read, mut write) = conn.into_split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
    }
    while tasks.join_next().await.is_some() {}
}

/// Ping-pong of one byte.
async fn round_trip(ours: &mut Conn, theirs: &mut Conn) {
    ours.write_all(b"?").await.unwrap();
    assert_eq!(theirs.read_u8().await.unwrap(), b'?');
    theirs.write_all(b"!").await.unwrap();
    assert_eq!(ours.read_u8().await.unwrap(), b'!');
}

/// Writes to `conn` until the other side has taken all that it takes unread, for as long as the link is paused.
async fn flood(conn: &mut Conn) {
    let paused = async {
        loop {
            conn.write_all(&[7; 16 * 1024]).await.unwrap();
        }
    };
    // Nothing but the clock moves when every task waits: the flood is as far as it gets.
    let outcome: Result<(), _> = timeout(Duration::from_millis(1), paused).await;
    assert!(outcome.is_err());
}

/// A link whose dialer has a connection that is written to and not read there, and a second one.
async fn flooded() -> (Dialer, Listener, [Conn; 2], [Conn; 2]) {
    let (dialer, mut listener, unread, mut writer) = connected().await;
    let other = another(&dialer, &mut listener).await;
    flood(&mut writer).await;
    (dialer, listener, [unread, other.0], [writer, other.1])
}

fn is_stalled(error: &std::io::Error) -> bool {
    let source = error.get_ref().unwrap().downcast_ref::<ConnError>();
    matches!(source, Some(ConnError::Stalled)) && error.kind() == ErrorKind::ConnectionAborted
}

#[tokio::test]
async fn many_connections_do_not_mix() {
    within(async {
        let (dialer, listener) = pair();
        let server = tokio::spawn(serve_echo(listener));
        let rounds = (0..16).map(|seed| {
            let dialer = dialer.clone();
            async move { echo_round(dialer.dial().await.unwrap(), 200_000, seed).await }
        });
        join_all(rounds).await;
        drop(dialer);
        server.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_over_tcp_do_not_mix() {
    within(async {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = tcp.local_addr().unwrap();
        let (dialed, accepted) = tokio::join!(TcpStream::connect(addr), tcp.accept());
        let dialer = Dialer::v1(dialed.unwrap(), Config::default());
        let listener = Listener::v1(accepted.unwrap().0, Config::default());
        let server = tokio::spawn(serve_echo(listener));
        let rounds = (0..16).map(|seed| {
            let dialer = dialer.clone();
            async move { echo_round(dialer.dial().await.unwrap(), 1_000_000, seed).await }
        });
        join_all(rounds).await;
        drop(dialer);
        server.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_goes_out_is_the_bytes_of_go() {
    within(async {
        let (mut peer, mut listener) = raw();
        peer.write_all(b"N\0\0\0B\0\0W\0\0\0B\0\x0chello, world")
            .await
            .unwrap();
        let mut conn = listener.accept().await.unwrap();
        assert_eq!(conn.id(), 0x42);
        let mut heard = [0; 12];
        conn.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello, world");
        conn.write_all(b"first write").await.unwrap();
        conn.shutdown().await.unwrap();
        expect_bytes(&mut peer, b"W\0\0\0B\0\x0bfirst writeC\0\0\0B\0\0").await;
        peer.write_all(b"W\0\0\0B\0\x01.C\0\0\0B\0\0")
            .await
            .unwrap();
        assert_eq!(conn.read_u8().await.unwrap(), b'.');
        assert_eq!(conn.read(&mut [0]).await.unwrap(), 0);
        drop(conn);
        drop(listener);
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"", "one C, then the end of the transport");
    })
    .await;
}

#[tokio::test]
async fn half_a_connection_can_be_closed() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        ours.shutdown().await.unwrap();
        assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
        let sent = pattern(4 << 20, 3);
        let sending = async {
            theirs.write_all(&sent).await.unwrap();
            theirs.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, count) = tokio::join!(sending, ours.read_to_end(&mut received));
        assert_eq!(count.unwrap(), sent.len());
        assert!(received == sent);
    })
    .await;
}

#[tokio::test]
async fn a_ping_is_not_supported() {
    within(async {
        let (dialer, listener) = pair();
        for outcome in [dialer.ping().await, listener.ping().await] {
            let error = outcome.unwrap_err();
            assert!(matches!(error, PingError::Unsupported));
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_and_says_nothing() {
    within(async {
        let (mut peer, listener) = raw();
        let silence = timeout(Duration::from_secs(50), peer.read_u8());
        assert!(silence.await.is_err());
        assert!(!listener.is_closed());
    })
    .await;
}

#[tokio::test]
async fn a_dial_that_nobody_takes_succeeds_and_then_ends() {
    within(async {
        let (dialer, mut listener, mut ours, mut theirs) = connected().await;
        let mut waiting = dialer.dial().await.unwrap();
        drop(listener.accept().await.unwrap());
        assert_eq!(waiting.read(&mut [0]).await.unwrap(), 0);
        drop(listener);
        let mut late = dialer.dial().await.unwrap();
        assert_eq!(late.read(&mut [0]).await.unwrap(), 0);
        round_trip(&mut ours, &mut theirs).await;
    })
    .await;
}

#[tokio::test]
async fn a_dropped_connection_delivers_what_was_written() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        ours.write_all(&pattern(60_000, 1)).await.unwrap();
        drop(ours);
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.unwrap();
        assert!(received == pattern(60_000, 1));
    })
    .await;
}

#[tokio::test]
async fn a_cut_transport_is_an_error_and_never_an_end() {
    within(async {
        let (mut peer, mut listener) = raw();
        peer.write_all(b"N\0\0\0\x01\0\0W\0\0\0\x01\0\x05hello")
            .await
            .unwrap();
        let mut conn = listener.accept().await.unwrap();
        drop(peer);
        let mut heard = Vec::new();
        let error = conn.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(heard, b"hello");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        let reason = listener.accept().await.unwrap_err();
        assert!(matches!(reason, CloseReason::Cut), "{reason:?}");
    })
    .await;
}

#[tokio::test]
async fn a_link_that_a_side_closes_is_cut_for_the_connections_of_the_other() {
    within(async {
        let (dialer, listener, mut ours, mut theirs) = connected().await;
        dialer.close();
        let error = ours.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        let error = theirs.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(listener.closed().await, CloseReason::Cut));
    })
    .await;
}

#[tokio::test]
async fn a_link_whose_handles_are_dropped_ends_in_good_order() {
    within(async {
        let (dialer, mut listener, mut ours, mut theirs) = connected().await;
        drop(dialer);
        round_trip(&mut ours, &mut theirs).await;
        ours.shutdown().await.unwrap();
        theirs.shutdown().await.unwrap();
        drop(ours);
        let reason = listener.accept().await.unwrap_err();
        assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deadlines_beat_data_wake_waiters_and_leave_the_connection_alone() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        theirs.write_all(b"x").await.unwrap();
        theirs.flush().await.unwrap();
        ours.set_read_deadline(Some(Instant::now()));
        let error = ours.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        ours.set_read_deadline(None);
        assert_eq!(ours.read_u8().await.unwrap(), b'x');
        let handle = ours.handle();
        let began = Instant::now();
        handle.set_read_deadline(Some(began + Duration::from_secs(3)));
        let error = ours.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        handle.set_deadline(None);
        round_trip(&mut ours, &mut theirs).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_close_from_another_task_wakes_both_halves_and_keeps_what_was_written() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        ours.write_all(b"said").await.unwrap();
        let handle = ours.handle();
        let (mut read, mut write) = ours.into_split();
        let reading = tokio::spawn(async move { read.read(&mut [0]).await.unwrap_err().kind() });
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = write.write_all(&[0; 100_000]).await {
                    return error.kind();
                }
            }
        });
        timeout(Duration::from_secs(1), std::future::pending::<()>())
            .await
            .unwrap_err();
        handle.close();
        assert_eq!(reading.await.unwrap(), ErrorKind::NotConnected);
        assert_eq!(writing.await.unwrap(), ErrorKind::NotConnected);
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert!(heard.starts_with(b"said"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unread_connection_holds_up_the_link_until_it_is_closed() {
    within(async {
        let began = Instant::now();
        let (_dialer, _listener, [mut unread, mut ours], [_writer, mut theirs]) = flooded().await;
        round_trip(&mut theirs, &mut ours).await;
        let waited = began.elapsed();
        assert!(waited >= Duration::from_secs(10), "{waited:?}");
        assert!(waited < Duration::from_secs(11), "{waited:?}");
        let error = unread.read(&mut [0]).await.unwrap_err();
        assert!(is_stalled(&error), "{error:?}");
        let error = unread.write(b"x").await.unwrap_err();
        assert!(is_stalled(&error), "{error:?}");
        assert_eq!(began.elapsed(), waited);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_writer_of_a_stalled_connection_learns_its_end() {
    within(async {
        let (_dialer, _listener, [_unread, _], [mut writer, _]) = flooded().await;
        assert_eq!(writer.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn reading_ends_the_pause_and_nothing_is_lost() {
    within(async {
        let (_dialer, _listener, [mut unread, mut ours], [mut writer, mut theirs]) =
            flooded().await;
        let began = Instant::now();
        let mut heard = Vec::new();
        let reading = unread.read_to_end(&mut heard);
        let (count, _, _) = tokio::join!(
            reading,
            async { writer.shutdown().await.unwrap() },
            round_trip(&mut theirs, &mut ours)
        );
        assert!(count.unwrap() > 256 * 1024);
        assert!(heard.iter().all(|byte| *byte == 7));
        assert_eq!(began.elapsed(), Duration::ZERO);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn giving_up_the_unread_connection_ends_the_pause_at_once() {
    let ways: [fn(Conn) -> Option<Conn>; 4] = [
        |_dropped| None,
        |conn| {
            conn.handle().close();
            Some(conn)
        },
        |conn| {
            conn.reset(1);
            Some(conn)
        },
        |conn| {
            let (read, write) = conn.into_split();
            drop(read);
            // Kept for as long as the runtime lives: only the reading half is given up.
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(write);
            });
            None
        },
    ];
    for give_up in ways {
        within(async {
            let (_dialer, _listener, [unread, mut ours], [_writer, mut theirs]) = flooded().await;
            let began = Instant::now();
            let waiting = tokio::spawn(async move {
                round_trip(&mut theirs, &mut ours).await;
            });
            timeout(Duration::from_secs(1), std::future::pending::<()>())
                .await
                .unwrap_err();
            assert!(!waiting.is_finished(), "the link is paused");
            let _kept = give_up(unread);
            waiting.await.unwrap();
            assert_eq!(began.elapsed(), Duration::from_secs(1));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_link_still_writes() {
    within(async {
        let (_dialer, _listener, [_unread, mut ours], [_writer, mut theirs]) = flooded().await;
        let began = Instant::now();
        let sent = pattern(500_000, 9);
        let mut heard = vec![0; sent.len()];
        let (written, read) = tokio::join!(ours.write_all(&sent), theirs.read_exact(&mut heard));
        written.unwrap();
        read.unwrap();
        assert!(heard == sent);
        assert_eq!(began.elapsed(), Duration::ZERO);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_unread_connection_takes_is_bounded() {
    within(async {
        let (_dialer, _listener, _unread, mut writer) = connected().await;
        let began = Instant::now();
        let mut taken = 0;
        let writing = async {
            loop {
                taken += writer.write(&[7; 16 * 1024]).await.unwrap();
            }
        };
        let outcome: Result<(), _> = timeout(Duration::from_secs(1), writing).await;
        assert!(outcome.is_err());
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        let bound = 256 * 1024;
        let queues = 64 * 1024 + 128 * 1024 + 64 * 1024;
        assert!(
            (bound..=bound + 64 * 1024 + queues).contains(&taken),
            "{taken}"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_dies_in_a_pause_is_noticed_behind_it() {
    within(async {
        let (mut peer, mut listener) = raw();
        peer.write_all(b"N\0\0\0\x01\0\0").await.unwrap();
        let conn = listener.accept().await.unwrap();
        let frame = [b"W\0\0\0\x01\xff\xff".as_slice(), &[0; 65_535]].concat();
        for _ in 0..5 {
            peer.write_all(&frame).await.unwrap();
        }
        let began = Instant::now();
        drop(peer);
        let reason = listener.closed().await;
        assert!(matches!(
            reason,
            CloseReason::Cut | CloseReason::Transport(_)
        ));
        let waited = began.elapsed();
        assert!(waited >= Duration::from_secs(10), "{waited:?}");
        assert!(waited < Duration::from_secs(11), "{waited:?}");
        drop(conn);
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_opens_a_connection_twice_is_a_protocol_error() {
    within(async {
        let (mut peer, listener) = raw();
        peer.write_all(b"N\0\0\0\x01\0\0N\0\0\0\x01\0\0")
            .await
            .unwrap();
        let reason = listener.closed().await;
        assert!(matches!(reason, CloseReason::Protocol(_)), "{reason:?}");
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
}
