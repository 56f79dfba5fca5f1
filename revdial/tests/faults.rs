//! Transports that fail: no cut is ever taken for an end.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use revdial::{CloseReason, Config, Dialer, Listener};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::time::timeout;

async fn within<F: Future>(body: F) -> F::Output {
    timeout(Duration::from_secs(20), body)
        .await
        .expect("the test hangs")
}

/// A transport that carries some bytes to its reader and then ends in both directions.
struct Cut {
    inner: Option<DuplexStream>,
    left: usize,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            self.inner = None;
        }
        let left = self.left;
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Ok(()));
        };
        let mut part = buf.take(left);
        ready!(Pin::new(inner).poll_read(cx, &mut part))?;
        let filled = part.filled().len();
        // `take` shares the memory: what it filled is initialised.
        let data = part.filled().to_vec();
        buf.put_slice(&data);
        self.left -= filled;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_write(cx, data),
            None => Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// What both ends of a short exchange made of it.
#[derive(Debug)]
struct Outcome {
    asked: io::Result<Vec<u8>>,
    answered: io::Result<Vec<u8>>,
}

/// Asks and answers over a transport of which the dialer's or the listener's reading side is cut.
async fn exchange(dialer_hears: usize, listener_hears: usize) -> Outcome {
    let (a, b) = duplex(64 * 1024);
    let dialer = Dialer::new(
        Cut {
            inner: Some(a),
            left: dialer_hears,
        },
        Config::default(),
    );
    let mut listener = Listener::new(
        Cut {
            inner: Some(b),
            left: listener_hears,
        },
        Config::default(),
    );
    let asking = async move {
        let mut conn = dialer.dial().await?;
        conn.write_all(b"question").await?;
        conn.shutdown().await?;
        let mut answer = Vec::new();
        conn.read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let answering = async move {
        let mut conn = listener.accept().await?;
        let mut question = Vec::new();
        conn.read_to_end(&mut question).await?;
        conn.write_all(b"answer").await?;
        conn.shutdown().await?;
        Ok(question)
    };
    let (asked, answered) = tokio::join!(asking, answering);
    Outcome { asked, answered }
}

#[tokio::test]
async fn a_cut_at_any_byte_towards_the_listener_is_an_error_on_both_ends() {
    // SYN, data, FIN: 12 + 12 + 8 + 12 bytes.
    for bytes in 0..44 {
        let outcome = within(exchange(usize::MAX, bytes)).await;
        assert!(outcome.answered.is_err(), "{bytes}: {outcome:?}");
        assert!(outcome.asked.is_err(), "{bytes}: {outcome:?}");
    }
    let whole = within(exchange(usize::MAX, usize::MAX)).await;
    assert_eq!(whole.answered.unwrap(), b"question");
    assert_eq!(whole.asked.unwrap(), b"answer");
}

#[tokio::test]
async fn a_cut_at_any_byte_towards_the_dialer_is_an_error_there() {
    // ACK, data, FIN: 12 + 12 + 6 + 12 bytes.
    for bytes in 0..42 {
        let outcome = within(exchange(bytes, usize::MAX)).await;
        assert!(outcome.asked.is_err(), "{bytes}: {outcome:?}");
        if bytes < 12 {
            assert!(outcome.answered.is_err(), "{bytes}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn everybody_learns_that_the_transport_was_cut() {
    within(async {
        let (a, b) = duplex(1024);
        let dialer = Dialer::new(a, Config::default());
        let mut conn = dialer.dial_optimistic().await.unwrap();
        drop(b);
        let error = conn.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
        let reason = dialer.closed().await;
        assert!(
            matches!(reason, CloseReason::Cut | CloseReason::Transport(_)),
            "{reason:?}"
        );
        let pinged = dialer.ping().await.unwrap_err();
        assert_eq!(pinged.kind(), reason.kind());
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_speaks_something_else_is_a_protocol_error() {
    within(async {
        let (a, mut b) = duplex(1024);
        let mut listener = Listener::new(a, Config::default());
        b.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
        let reason = listener.accept().await.unwrap_err();
        assert!(matches!(reason, CloseReason::Protocol(_)), "{reason:?}");
        assert_eq!(reason.kind(), ErrorKind::InvalidData);
        let mut farewell = Vec::new();
        b.read_to_end(&mut farewell).await.unwrap();
        assert_eq!(farewell, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_although_the_peer_takes_no_byte() {
    let (a, b) = duplex(16);
    let dialer = Dialer::new(a, Config::default());
    let mut conn = dialer.dial_optimistic().await.unwrap();
    conn.write_all(&[0; 1000]).await.unwrap();
    tokio::task::yield_now().await;
    dialer.close();
    assert!(matches!(dialer.closed().await, CloseReason::Local));
    drop((dialer, conn));
    // The task gives the transport up in its time: then the other end sees it go.
    let mut b = b;
    tokio::time::advance(Config::default().close_timeout).await;
    let mut rest = Vec::new();
    timeout(Duration::from_secs(60), b.read_to_end(&mut rest))
        .await
        .expect("the transport is dropped")
        .unwrap();
}

#[tokio::test]
async fn what_was_finished_before_the_end_of_the_link_is_read_after_it() {
    within(async {
        let (a, b) = duplex(64 * 1024);
        let dialer = Dialer::new(a, Config::default());
        let mut listener = Listener::new(b, Config::default());
        let mut ours = dialer.dial().await.unwrap();
        let mut theirs = listener.accept().await.unwrap();
        theirs.write_all(b"all of it").await.unwrap();
        theirs.shutdown().await.unwrap();
        listener.close();
        assert!(matches!(dialer.closed().await, CloseReason::PeerClosed));
        let mut received = Vec::new();
        ours.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"all of it");
    })
    .await;
}

/// A transport whose peer asks for a sign of life, and answers the first data with a reset before anybody looks.
#[derive(Default)]
struct Abrupt {
    heard: usize,
    said: VecDeque<u8>,
    reader: Option<Waker>,
}

impl Abrupt {
    fn new() -> Self {
        Self {
            said: VecDeque::from([0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]),
            ..Self::default()
        }
    }
}

impl AsyncRead for Abrupt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.said.is_empty() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        while buf.remaining() > 0
            && let Some(byte) = self.said.pop_front()
        {
            buf.put_slice(&[byte]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Abrupt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        // SYN, the pong and one byte of data.
        let answers = self.heard < 37 && self.heard + data.len() >= 37;
        self.heard += data.len();
        if answers {
            self.said.extend([0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0]);
            self.said.extend([0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 3]);
            // So much that the task of the link lets others run before it is done.
            for _ in 0..1000 {
                self.said.extend([0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
            }
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_reset_that_answers_what_was_flushed_fails_no_flush() {
    within(async {
        let dialer = Dialer::new(Abrupt::new(), Config::default());
        let mut conn = dialer.dial_optimistic().await.unwrap();
        conn.write_all(b"x").await.unwrap();
        conn.flush().await.unwrap();
        let error = conn.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn a_runtime_that_goes_away_is_an_end_with_a_reason() {
    let (a, _b) = duplex(64);
    let (dialer, mut conn) = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let pair = runtime.block_on(async {
            let dialer = Dialer::new(a, Config::default());
            let conn = dialer.dial_optimistic().await.unwrap();
            (dialer, conn)
        });
        drop(runtime);
        pair
    })
    .await
    .unwrap();
    within(async {
        assert!(matches!(dialer.closed().await, CloseReason::Aborted));
        assert!(conn.read(&mut [0]).await.is_err());
    })
    .await;
}
