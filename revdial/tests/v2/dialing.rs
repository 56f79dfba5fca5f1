//! The dialing side against scripts, in virtual time.

use std::io::ErrorKind;
use std::time::Duration;

use revdial::v2::PickUps;
use revdial::{CloseReason, Config, DialError, PingError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::{Instant, sleep};

use crate::support::{KEEP_ALIVE, Script, connected, dialer, link, path, within};

/// A failure as Go reports it where the server did not answer 101: without the path.
const UNNAMED: &str = "{\"command\":\"pickup-failed\",\"err\":\"EOF\"}\n";

fn failed(id: &str, err: &str) -> String {
    format!(
        "{{\"command\":\"pickup-failed\",\"connPath\":\"/revdial?revdial.dialer={id}\",\"err\":\"{err}\"}}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn the_peer_of_a_dial_reads_these_lines() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let began = Instant::now();
        assert_eq!(peer.line().await, KEEP_ALIVE);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(peer.line().await, KEEP_ALIVE);
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        let dialing = tokio::spawn(async move { dialer.dial().await });
        let line = peer.line().await;
        let id = line
            .strip_prefix("{\"command\":\"conn-ready\",\"connPath\":\"/revdial?revdial.dialer=")
            .unwrap()
            .strip_suffix("\"}\n")
            .unwrap();
        assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        assert_eq!(peer.line().await, KEEP_ALIVE);
        let (ours, mut theirs) = duplex(1024);
        pick_ups.complete(id, ours).unwrap();
        let mut conn = dialing.await.unwrap().unwrap();
        conn.write_all(b"hello").await.unwrap();
        let mut word = [0; 5];
        theirs.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_id_is_good_for_one_pick_up_of_its_own_dial() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let (first, second) = (dialer.clone(), dialer.clone());
        let first = tokio::spawn(async move { first.dial().await });
        let one = peer.announced().await;
        let second = tokio::spawn(async move { second.dial().await });
        let two = peer.announced().await;
        assert_ne!(one, two);

        // The second comes first, and gets its own.
        let (ours, mut theirs) = duplex(64);
        pick_ups.complete(&two, ours).unwrap();
        let mut conn = second.await.unwrap().unwrap();
        conn.write_all(b"2").await.unwrap();
        assert_eq!(theirs.read_u8().await.unwrap(), b'2');
        assert!(!first.is_finished());
        let (ours, mut theirs) = duplex(64);
        assert!(pick_ups.complete(&two, ours).is_err());
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0, "it is dropped");
        for wrong in [
            "",
            "00000000000000000000000000000000",
            &one[1..],
            &one.to_uppercase(),
        ] {
            if wrong != one {
                assert!(pick_ups.begin(wrong).is_err());
            }
        }

        let (ours, _theirs) = duplex(64);
        pick_ups.complete(&one, ours).unwrap();
        let conn = first.await.unwrap().unwrap();
        assert_eq!(
            (conn.id(), conn.local_addr().to_string()),
            (2, "revdial#2".to_owned())
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_dials_late_connection_reaches_nobody() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let ours = dialer.clone();
        let cancelled = tokio::spawn(async move { ours.dial().await });
        let id = peer.announced().await;
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        let waiting = tokio::spawn(async move { dialer.dial().await });
        let other = peer.announced().await;

        let (late, mut theirs) = duplex(64);
        assert!(pick_ups.complete(&id, late).is_err());
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        assert!(!waiting.is_finished());
        // Nor does its failure, in Go's words without a path.
        peer.say(UNNAMED).await;
        sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());

        let (ours, _theirs) = duplex(64);
        pick_ups.complete(&other, ours).unwrap();
        waiting.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_is_cancelled_within_its_pick_up_lets_the_connection_go() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let ours = dialer.clone();
        let cancelled = tokio::spawn(async move { ours.dial().await });
        let id = peer.announced().await;
        let pick_up = pick_ups.begin(&id).unwrap();
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        let (ours, mut theirs) = duplex(64);
        pick_up.complete(ours);
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);

        // And within the upgrade.
        let ours = dialer.clone();
        let cancelled = tokio::spawn(async move { ours.dial().await });
        let id = peer.announced().await;
        let (ours, mut theirs) = duplex(64);
        pick_ups.begin(&id).unwrap().complete_after(async move {
            std::future::pending::<()>().await;
            Ok(ours)
        });
        sleep(Duration::from_secs(1)).await;
        cancelled.abort();
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_nobody_picks_up_ends_after_30_seconds() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let began = Instant::now();
        let dialing = tokio::spawn(async move { dialer.dial().await });
        let id = peer.announced().await;
        let error = dialing.await.unwrap().unwrap_err();
        assert_eq!(began.elapsed(), Duration::from_secs(30));
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(
            error.to_string(),
            "the peer did not pick the connection up within 30s"
        );
        assert!(pick_ups.begin(&id).is_err());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_does_not_come_about_ends_with_the_dial() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        for (outcome, text) in [
            (None, "the peer did not pick the connection up within 30s"),
            (
                Some(ErrorKind::ConnectionReset),
                "the picked-up connection broke before it was handed over",
            ),
        ] {
            let ours = dialer.clone();
            let dialing = tokio::spawn(async move { ours.dial().await });
            let id = peer.announced().await;
            pick_ups
                .begin(&id)
                .unwrap()
                .complete_after::<tokio::io::DuplexStream, _>(async move {
                    match outcome {
                        Some(kind) => Err(kind.into()),
                        None => std::future::pending().await,
                    }
                });
            let error = dialing.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        let ours = dialer.clone();
        let dialing = tokio::spawn(async move { ours.dial().await });
        let id = peer.announced().await;
        drop(pick_ups.begin(&id).unwrap());
        let error = dialing.await.unwrap().unwrap_err();
        assert!(matches!(error, DialError::PickUpBroken(_)), "{error:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_reaches_its_dial_with_the_peers_words() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let (first, second) = (dialer.clone(), dialer.clone());
        let first = tokio::spawn(async move { first.dial().await });
        let one = peer.announced().await;
        let second = tokio::spawn(async move { second.dial().await });
        let two = peer.announced().await;
        peer.say(&failed(&two, "dial tcp:\\n\\tno\\u001b[1m route"))
            .await;
        let error = second.await.unwrap().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the peer could not pick the connection up: dial tcp: no [1m route"
        );
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(pick_ups.begin(&two).is_err());
        assert!(!first.is_finished());
        // The other is the only one left: this is about it.
        peer.say(UNNAMED).await;
        let error = first.await.unwrap().unwrap_err();
        assert!(error.to_string().ends_with(": EOF"), "{error}");
        assert!(pick_ups.begin(&one).is_err());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dials_fail_with_the_control_connection_and_connections_live_on() {
    within(async {
        let config = Config::default();
        let (dialer, mut listener) = link(&config);
        let (mut ours, mut theirs) = connected(&dialer, &mut listener).await.unwrap();
        assert!(!dialer.is_closed());
        assert!(matches!(dialer.ping().await, Err(PingError::Unsupported)));
        assert!(matches!(listener.ping().await, Err(PingError::Unsupported)));
        dialer.close();
        assert!(dialer.is_closed());
        assert!(matches!(dialer.closed().await, CloseReason::Local));
        assert!(matches!(listener.closed().await, CloseReason::PeerClosed));
        let error = listener.accept().await.unwrap_err();
        assert!(matches!(error, CloseReason::PeerClosed));
        let error = dialer.dial().await.unwrap_err();
        assert!(matches!(error, DialError::Closed(CloseReason::Local)));
        drop((dialer, listener));

        ours.write_all(b"still here").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut word = String::new();
        theirs.read_to_string(&mut word).await.unwrap();
        assert_eq!(word, "still here");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_dial_ends_when_the_peer_goes() {
    within(async {
        let pick_ups = PickUps::new();
        for (last_words, want) in [
            ("", "the peer closed the link"),
            ("{\"comm", "the transport was cut"),
        ] {
            let (dialer, mut peer) = dialer(&pick_ups, Config::default());
            let ours = dialer.clone();
            let dialing = tokio::spawn(async move { ours.dial().await });
            peer.announced().await;
            peer.say(last_words).await;
            drop(peer);
            let DialError::Closed(reason) = dialing.await.unwrap().unwrap_err() else {
                panic!("the link has ended");
            };
            assert_eq!(reason.to_string(), want);
            assert_eq!(dialer.closed().await.to_string(), want);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_that_is_dropped_ends_the_control_connection() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let clone = dialer.clone();
        drop(dialer);
        assert_eq!(peer.line().await, KEEP_ALIVE);
        assert_eq!(peer.line().await, KEEP_ALIVE);
        drop(clone);
        assert_eq!(peer.line().await, "");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_for_10_seconds_loses_the_link() {
    within(async {
        let pick_ups = PickUps::new();
        let (ours, _theirs) = duplex(8);
        let dialer = revdial::Dialer::v2(ours, &pick_ups, path(), Config::default());
        let began = Instant::now();
        let reason = dialer.closed().await;
        assert_eq!(began.elapsed(), Duration::from_secs(10));
        assert!(matches!(reason, CloseReason::Stalled(_)), "{reason:?}");
        assert_eq!(reason.kind(), ErrorKind::TimedOut);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_the_link() {
    within(async {
        for nonsense in ["HTTP/1.1 200 OK\r\n".to_owned(), "x".repeat(5000)] {
            let pick_ups = PickUps::new();
            let (ours, theirs) = duplex(64 * 1024);
            let dialer = revdial::Dialer::v2(ours, &pick_ups, path(), Config::default());
            Script::new(theirs).say(&nonsense).await;
            let reason = dialer.closed().await;
            assert!(matches!(reason, CloseReason::Protocol(_)), "{reason:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn connections_beyond_the_limit_are_not_dialed() {
    within(async {
        let mut config = Config::default();
        config.max_outbound_streams = 2;
        let (dialer, mut listener) = link(&config);
        let first = connected(&dialer, &mut listener).await.unwrap();
        let _second = connected(&dialer, &mut listener).await.unwrap();
        let error = dialer.dial().await.unwrap_err();
        assert!(
            matches!(error, DialError::TooManyConnections(2)),
            "{error:?}"
        );
        drop(first);
        connected(&dialer, &mut listener).await.unwrap();
    })
    .await;
}
