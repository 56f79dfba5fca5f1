//! Links over real and in-memory transports: what the handles promise.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use conn_conformance::fault::Rate;
use futures_util::future::join_all;
use revdial::{CloseReason, Config, Conn, ConnError, DialError, Dialer, Listener, PingError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Runs a test body within a minute, which a busy machine may need for what takes a second.
async fn within<F: Future>(body: F) -> F::Output {
    timeout(Duration::from_secs(60), body)
        .await
        .expect("the test hangs")
}

fn pair() -> (Dialer, Listener) {
    pair_with(Config::default(), Config::default())
}

fn pair_with(dialer: Config, listener: Config) -> (Dialer, Listener) {
    let (a, b) = duplex(64 * 1024);
    (Dialer::new(a, dialer), Listener::new(b, listener))
}

async fn tcp_pair() -> (Dialer, Listener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (dialed, accepted) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let dialer = Dialer::new(dialed.unwrap(), Config::default());
    let listener = Listener::new(accepted.unwrap().0, Config::default());
    (dialer, listener)
}

/// A link, and one connection on it.
async fn connected() -> (Dialer, Listener, Conn, Conn) {
    let (dialer, mut listener) = pair();
    let ours = dialer.dial().await.unwrap();
    let theirs = listener.accept().await.unwrap();
    (dialer, listener, ours, theirs)
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
    assert!(
        received == pattern(len, seed),
        "{len} bytes came back changed"
    );
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

#[tokio::test]
async fn a_dialed_connection_carries_bytes_both_ways_and_ends() {
    within(async {
        let (dialer, listener) = pair();
        let server = tokio::spawn(serve_echo(listener));
        echo_round(dialer.dial().await.unwrap(), 300_000, 1).await;
        drop(dialer);
        server.await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_connections_over_tcp_do_not_mix() {
    within(async {
        let (dialer, listener) = tcp_pair().await;
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
async fn more_than_a_window_passes_after_our_own_end_and_after_the_peers() {
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
async fn the_acceptor_may_speak_first() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        theirs.write_all(b"220 ready\r\n").await.unwrap();
        let mut greeting = [0; 11];
        ours.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ready\r\n");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_connection_is_a_reset_behind_its_data() {
    within(async {
        let (_dialer, _listener, ours, mut theirs) = connected().await;
        let mut ours = ours;
        ours.write_all(b"half an ans").await.unwrap();
        ours.flush().await.unwrap();
        drop(ours);
        let mut received = [0; 11];
        theirs.read_exact(&mut received).await.unwrap();
        let error = theirs.read(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(
            theirs.write(b"x").await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    })
    .await;
}

#[tokio::test]
async fn a_connection_dropped_after_its_shutdown_delivers_all_and_wakes_the_other_writer() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        let writer = tokio::spawn(async move {
            let mut count = 0;
            let error = loop {
                match theirs.write(&[0; 4096]).await {
                    Ok(written) => count += written,
                    Err(error) => break error,
                }
            };
            assert!(count >= 256 * 1024, "the window is open: {count}");
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).await.unwrap();
            (error, received)
        });
        ours.write_all(b"a whole answer").await.unwrap();
        ours.shutdown().await.unwrap();
        // The peer's writer is stuck by now or will be: nobody reads.
        ours.shutdown().await.unwrap();
        let (mut read, write) = ours.into_split();
        let mut some = vec![0; 200_000];
        read.read_exact(&mut some).await.unwrap();
        drop((read, write));
        let (error, received) = writer.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(received, b"a whole answer");
    })
    .await;
}

#[tokio::test]
async fn a_reset_carries_its_code() {
    within(async {
        let (_dialer, _listener, ours, mut theirs) = connected().await;
        ours.reset(42);
        let error = theirs.read_chunk(10).await.unwrap_err();
        assert!(matches!(error, ConnError::Reset { code: 42 }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_close_from_another_task_wakes_both_halves_and_keeps_what_was_written() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        ours.write_all(b"the last words").await.unwrap();
        let handle = ours.handle();
        let (mut read, mut write) = ours.into_split();
        let reader = tokio::spawn(async move { read.read(&mut [0; 8]).await.unwrap_err().kind() });
        let writer = tokio::spawn(async move {
            loop {
                if let Err(error) = write.write(&[0; 4096]).await {
                    break error.kind();
                }
            }
        });
        tokio::task::yield_now().await;
        handle.close();
        assert_eq!(reader.await.unwrap(), ErrorKind::NotConnected);
        assert_eq!(writer.await.unwrap(), ErrorKind::NotConnected);
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.unwrap();
        assert!(received.starts_with(b"the last words"));
    })
    .await;
}

#[tokio::test]
async fn one_dial_too_many_is_refused_alone() {
    within(async {
        let mut limits = Config::default();
        limits.max_inbound_streams = 2;
        let (dialer, mut listener) = pair_with(Config::default(), limits);
        let mut first = dialer.dial().await.unwrap();
        let _second = dialer.dial().await.unwrap();
        let refused = dialer.dial().await.unwrap_err();
        assert!(matches!(refused, DialError::Refused { .. }), "{refused}");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

        let mut accepted = listener.accept().await.unwrap();
        first.write_all(b"ok").await.unwrap();
        let mut received = [0; 2];
        accepted.read_exact(&mut received).await.unwrap();
        drop((first, accepted));
        dialer.dial().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn our_own_limit_fails_the_dial_and_nothing_else() {
    within(async {
        let mut limits = Config::default();
        limits.max_outbound_streams = 1;
        let (dialer, _listener) = pair_with(limits, Config::default());
        let conn = dialer.dial().await.unwrap();
        let error = dialer.dial().await.unwrap_err();
        assert!(matches!(error, DialError::TooManyConnections(1)), "{error}");
        drop(conn);
        dialer.dial().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_dial_to_a_dropped_listener_is_refused_while_its_connections_live() {
    within(async {
        let (dialer, listener, mut ours, mut theirs) = connected().await;
        drop(listener);
        let error = dialer.dial().await.unwrap_err();
        assert!(matches!(error, DialError::Refused { .. }), "{error}");
        ours.write_all(b"still here").await.unwrap();
        let mut received = [0; 10];
        theirs.read_exact(&mut received).await.unwrap();
        drop((ours, theirs));
        assert!(matches!(dialer.closed().await, CloseReason::PeerClosed));
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_dial_never_gives_its_connection_to_another() {
    within(async {
        let (a, b) = duplex(64 * 1024);
        let dialer = Dialer::new(a, Config::default());
        // Nobody answers yet.
        let cancelled = timeout(Duration::ZERO, dialer.dial()).await;
        assert!(cancelled.is_err());
        let mut listener = Listener::new(b, Config::default());
        let mut kept = dialer.dial().await.unwrap();
        kept.write_all(b"kept").await.unwrap();
        let mut accepted = loop {
            let mut conn = listener.accept().await.unwrap();
            match conn.read_u8().await {
                Ok(b'k') => break conn,
                Ok(other) => panic!("{other}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
            }
        };
        let mut rest = [0; 3];
        accepted.read_exact(&mut rest).await.unwrap();
        assert_eq!(accepted.id(), kept.id());
    })
    .await;
}

#[tokio::test]
async fn closing_the_link_wakes_everybody_with_the_same_reason() {
    within(async {
        let (dialer, mut listener, mut ours, mut theirs) = connected().await;
        let reading = tokio::spawn(async move { ours.read(&mut [0; 8]).await.unwrap_err() });
        let peer_reading = tokio::spawn(async move { theirs.read(&mut [0; 8]).await.unwrap_err() });
        let accepting = tokio::spawn(async move { listener.accept().await.unwrap_err() });
        let closed = tokio::spawn({
            let dialer = dialer.clone();
            async move { dialer.closed().await }
        });
        tokio::task::yield_now().await;
        dialer.close();
        assert_eq!(reading.await.unwrap().kind(), ErrorKind::NotConnected);
        assert!(matches!(closed.await.unwrap(), CloseReason::Local));
        assert!(dialer.is_closed());
        let error = dialer.dial().await.unwrap_err();
        assert!(
            matches!(error, DialError::Closed(CloseReason::Local)),
            "{error}"
        );
        assert!(matches!(
            dialer.ping().await,
            Err(PingError::Closed(CloseReason::Local))
        ));
        assert!(matches!(accepting.await.unwrap(), CloseReason::PeerClosed));
        assert_eq!(
            peer_reading.await.unwrap().kind(),
            ErrorKind::ConnectionAborted
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_aborted_looks_cut() {
    within(async {
        let (dialer, mut listener, mut ours, mut theirs) = connected().await;
        ours.write_all(b"last").await.unwrap();
        ours.flush().await.unwrap();
        dialer.abort();
        assert!(matches!(dialer.closed().await, CloseReason::Aborted));
        let mut last = Vec::new();
        let error = theirs.read_to_end(&mut last).await.unwrap_err();
        assert_eq!(last, b"last");
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        assert!(matches!(
            listener.accept().await.unwrap_err(),
            CloseReason::Cut
        ));
        assert!(ours.write_all(b"more").await.is_err());
    })
    .await;
}

#[tokio::test]
async fn the_transport_is_shut_down_when_the_last_handle_is_dropped() {
    within(async {
        let (dialer, listener) = pair();
        drop(dialer);
        assert!(matches!(listener.closed().await, CloseReason::PeerClosed));
        let (a, mut b) = duplex(1024);
        drop(Listener::new(a, Config::default()));
        let mut bytes = Vec::new();
        b.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "one farewell");
    })
    .await;
}

#[tokio::test]
async fn a_connection_outlives_its_dialer() {
    within(async {
        let (dialer, listener) = pair();
        let server = tokio::spawn(serve_echo(listener));
        let conn = dialer.dial().await.unwrap();
        drop(dialer);
        echo_round(conn, 100_000, 9).await;
        server.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_ping_measures_the_round_trip() {
    within(async {
        let (dialer, listener) = pair();
        let (a, b, c) = tokio::join!(dialer.ping(), dialer.ping(), listener.ping());
        assert!(a.unwrap() < Duration::from_secs(5));
        assert!(b.unwrap() < Duration::from_secs(5));
        assert!(c.unwrap() < Duration::from_secs(5));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_dead_within_twice_the_keep_alive() {
    within(async {
        let (a, _silent) = duplex(64 * 1024);
        let mut config = Config::default();
        config.keep_alive = Duration::from_secs(2);
        let began = Instant::now();
        let dialer = Dialer::new(a, config);
        let mut conn = dialer.dial_optimistic().await.unwrap();
        let error = conn.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(matches!(dialer.closed().await, CloseReason::TimedOut(_)));
        assert!(began.elapsed() <= Duration::from_secs(4));
        assert!(began.elapsed() >= Duration::from_secs(3));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_on_pings() {
    let (dialer, _listener) = pair();
    assert!(
        timeout(Duration::from_secs(3600), dialer.closed())
            .await
            .is_err()
    );
    dialer.ping().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deadlines_beat_data_wake_waiters_and_leave_the_connection_alone() {
    let (_dialer, _listener, mut ours, mut theirs) = connected().await;
    let past = Instant::now();
    theirs.write_all(b"data").await.unwrap();
    theirs.flush().await.unwrap();
    ours.set_deadline(Some(past));
    let mut buffer = [0; 4];
    let error = ours.read(&mut buffer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let error = ours.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);

    ours.set_deadline(None);
    ours.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"data");

    let handle = ours.handle();
    let waiting = tokio::spawn(async move {
        let error = ours.read(&mut [0; 4]).await.unwrap_err();
        (ours, error)
    });
    tokio::task::yield_now().await;
    handle.set_read_deadline(Some(past));
    let (mut ours, error) = waiting.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);

    ours.set_read_deadline(Some(Instant::now() + Duration::from_secs(5)));
    let error = ours.read(&mut [0; 4]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    ours.set_deadline(None);
    ours.write_all(b"well").await.unwrap();
    theirs.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"well");
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_else() {
    within(async {
        let (dialer, mut listener, mut slow, unread) = connected().await;
        let mut quick = dialer.dial().await.unwrap();
        let mut quick_peer = listener.accept().await.unwrap();
        let filler = tokio::spawn(async move {
            for _ in 0..100 {
                slow.write_all(b"1").await.unwrap();
                slow.flush().await.unwrap();
            }
            let mut sink = vec![7u8; 64 * 1024];
            loop {
                sink[0] = sink[0].wrapping_add(1);
                if slow.write_all(&sink).await.is_err() {
                    break;
                }
            }
        });
        for round in 0..500u32 {
            quick.write_u32(round).await.unwrap();
            assert_eq!(quick_peer.read_u32().await.unwrap(), round);
            quick_peer.write_u32(round).await.unwrap();
            assert_eq!(quick.read_u32().await.unwrap(), round);
        }
        drop(unread);
        filler.await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_unread_connection_takes_is_bounded() {
    within(async {
        let (_dialer, _listener, mut ours, _unread) = connected().await;
        let mut taken = 0;
        while let Ok(written) = timeout(Duration::from_millis(200), ours.write(&[0; 8192])).await {
            taken += written.unwrap();
        }
        assert_eq!(taken, 256 * 1024 + 64 * 1024, "a window and a send buffer");
    })
    .await;
}

#[tokio::test]
async fn reads_and_writes_of_nothing_are_nothing() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        assert_eq!(ours.write(&[]).await.unwrap(), 0);
        assert_eq!(ours.read(&mut []).await.unwrap(), 0);
        theirs.write_all(b"x").await.unwrap();
        theirs.flush().await.unwrap();
        assert_eq!(ours.read(&mut []).await.unwrap(), 0);
        assert_eq!(ours.read_u8().await.unwrap(), b'x');
        ours.shutdown().await.unwrap();
        let error = ours.write(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_read_loses_no_byte() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        let sent = pattern(20_000, 5);
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            for chunk in sent.chunks(37) {
                ours.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
            ours.shutdown().await.unwrap();
            ours
        });
        let mut received = Vec::new();
        let mut buffer = [0; 64];
        loop {
            tokio::select! {
                biased;
                count = theirs.read(&mut buffer) => match count.unwrap() {
                    0 => break,
                    count => received.extend_from_slice(&buffer[..count]),
                },
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(received == expected);
        writer.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn addresses_name_the_connection_and_survive_its_end() {
    within(async {
        let mut config = Config::default();
        config.peer_addr = Some("192.0.2.1:443".parse().unwrap());
        let (dialer, _listener) = pair_with(config, Config::default());
        let mut conn = dialer.dial().await.unwrap();
        assert_eq!(dialer.peer_addr().to_string(), "192.0.2.1:443");
        assert_eq!(conn.peer_addr().to_string(), "192.0.2.1:443#1");
        dialer.close();
        conn.read(&mut [0]).await.unwrap_err();
        assert_eq!(conn.local_addr().to_string(), "revdial#1");
    })
    .await;
}

/// TLS has such a buffer; a flush is done only when all of it is with the transport beneath.
#[tokio::test(start_paused = true)]
async fn a_flush_is_done_although_a_buffer_below_is_always_full() {
    let (a, b) = duplex(64 * 1024);
    let slow = BufWriter::with_capacity(64 * 1024, Rate::new(a, 10_000_000));
    let dialer = Dialer::new(slow, Config::default());
    let mut listener = Listener::new(b, Config::default());
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let mut bulk = dialer.dial().await.unwrap();
        let mut sink = listener.accept().await.unwrap();
        tasks.spawn(async move { while bulk.write_all(&[7; 64 * 1024]).await.is_ok() {} });
        tasks.spawn(async move { while sink.read_chunk(1 << 20).await.is_ok() {} });
    }
    let mut quiet = dialer.dial().await.unwrap();
    let _heard = listener.accept().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    quiet.write_all(b"x").await.unwrap();
    within(quiet.flush()).await.unwrap();
}
