//! Operations that are dropped at every one of their polls.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use revdial::{Config, Conn, Dialer, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::task::JoinSet;
use tokio::time::timeout;

async fn within<F: Future>(body: F) -> F::Output {
    timeout(Duration::from_secs(20), body)
        .await
        .expect("the test hangs")
}

/// Polls an operation so many times, then drops it; `None` if it was not ready by then.
async fn polled<F: Future>(times: usize, operation: F) -> Option<F::Output> {
    let mut operation = pin!(operation);
    let mut left = times;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let polled = operation.as_mut().poll(cx).map(Some);
        if polled.is_pending() && left == 0 {
            return Poll::Ready(None);
        }
        polled
    })
    .await
}

/// A link over a pipe so narrow that every frame takes several polls.
fn narrow() -> (Dialer, Listener) {
    let (a, b) = duplex(5);
    let dialer = Dialer::new(a, Config::default());
    (dialer, Listener::new(b, Config::default()))
}

async fn connected() -> (Dialer, Listener, Conn, Conn) {
    let (dialer, mut listener) = narrow();
    let ours = dialer.dial().await.unwrap();
    let theirs = listener.accept().await.unwrap();
    (dialer, listener, ours, theirs)
}

/// Lets the tasks of the link do what they can.
async fn rest() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dial_that_is_dropped_at_any_poll_leaves_nothing_behind() {
    within(async {
        let (dialer, mut listener) = narrow();
        let echo = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok(conn) = listener.accept().await {
                tasks.spawn(async move {
                    let (mut read, mut write) = conn.into_split();
                    tokio::io::copy(&mut read, &mut write).await.is_ok()
                });
            }
            let mut whole = 0;
            while let Some(echoed) = tasks.join_next().await {
                whole += usize::from(echoed.unwrap());
            }
            whole
        });
        let mut times = 0;
        let first = loop {
            times += 1;
            if let Some(dialed) = polled(times, dialer.dial()).await {
                break dialed.unwrap();
            }
        };
        drop(first);
        assert!(times > 1, "the dial was ready at once");
        let mut conn = dialer.dial().await.unwrap();
        conn.write_all(b"hello").await.unwrap();
        conn.shutdown().await.unwrap();
        let mut heard = [0; 5];
        conn.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        drop((conn, dialer));
        assert!(echo.await.unwrap() <= 1, "a dropped dial is no clean end");
    })
    .await;
}

#[tokio::test]
async fn an_accept_that_is_dropped_at_any_poll_loses_no_connection() {
    within(async {
        for times in 0..6 {
            let (dialer, mut listener) = narrow();
            let dialing = tokio::spawn(async move {
                let conn = dialer.dial().await.unwrap();
                (dialer, conn)
            });
            let early = polled(times, listener.accept()).await;
            let conn = match early {
                Some(accepted) => accepted.unwrap(),
                None => listener.accept().await.unwrap(),
            };
            let (_dialer, ours) = dialing.await.unwrap();
            assert_eq!(conn.id(), ours.id());
        }
    })
    .await;
}

#[tokio::test]
async fn reads_and_writes_that_are_dropped_at_any_poll_lose_and_double_nothing() {
    within(async {
        let (_dialer, _listener, mut ours, mut theirs) = connected().await;
        let data: Vec<u8> = (0..400_000usize)
            .map(|at| (at * 31 + at / 251).to_le_bytes()[0])
            .collect();
        let expected = data.clone();
        let writer = tokio::spawn(async move {
            let (mut done, mut times, mut dropped) = (0, 0, 0);
            while done < data.len() {
                times = times % 4 + 1;
                let end = data.len().min(done + 50_000);
                match polled(times, ours.write(&data[done..end])).await {
                    Some(written) => done += written.unwrap(),
                    None => {
                        dropped += 1;
                        rest().await;
                    }
                }
            }
            ours.shutdown().await.unwrap();
            (ours, dropped)
        });
        let (mut received, mut times, mut dropped) = (Vec::new(), 0, 0);
        let mut buffer = [0; 999];
        loop {
            times = times % 4 + 1;
            match polled(times, theirs.read(&mut buffer))
                .await
                .transpose()
                .unwrap()
            {
                Some(0) => break,
                Some(count) => received.extend_from_slice(&buffer[..count]),
                None => {
                    dropped += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        assert!(received == expected);
        let (_ours, writes_dropped) = writer.await.unwrap();
        assert!(
            dropped > 0 && writes_dropped > 0,
            "{dropped} {writes_dropped}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_that_is_dropped_at_any_poll_has_begun_and_ends_once() {
    within(async {
        for times in 1.. {
            let (_dialer, _listener, mut ours, mut theirs) = connected().await;
            let reader = tokio::spawn(async move {
                let mut heard = Vec::new();
                theirs.read_to_end(&mut heard).await.unwrap();
                heard
            });
            ours.write_all(b"all of it").await.unwrap();
            let done = polled(times, ours.shutdown()).await;
            let error = ours.write(b"more").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            ours.shutdown().await.unwrap();
            assert_eq!(reader.await.unwrap(), b"all of it");
            if done.is_some() {
                assert!(times > 1, "the shutdown was ready at once");
                break;
            }
        }
    })
    .await;
}
