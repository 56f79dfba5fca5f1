//! The pick-up handler: what it answers, and when.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use http::{Method, Request, StatusCode};
use revdial::Config;
use revdial::v2::{PickUpHandler, PickUps, Tls};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};

use crate::support::{dialer, serve_by_hand, serve_with_hyper, within};

/// What a transport was given, write by write.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Flush,
    Write(String),
}

/// A transport that takes note.
struct Noted<T>(T, Arc<Mutex<Vec<Step>>>);

impl<T: AsyncRead + Unpin> AsyncRead for Noted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Noted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.0).poll_write(cx, data))?;
        let text = String::from_utf8_lossy(&data[..count]).into_owned();
        self.1.lock().unwrap().push(Step::Write(text));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut steps = self.1.lock().unwrap();
        if steps.last() != Some(&Step::Flush) {
            steps.push(Step::Flush);
        }
        drop(steps);
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Picks up a dial that writes at once, and gives what the server's transport was given.
async fn picked_up<F>(
    serve: impl FnOnce(Noted<DuplexStream>, PickUps) -> F,
    headers: &str,
) -> Vec<Step>
where
    F: Future<Output = ()> + Send + 'static,
{
    let pick_ups = PickUps::new();
    let (dialer, mut peer) = dialer(&pick_ups, Config::default());
    let dialing = tokio::spawn(async move {
        let mut conn = dialer.dial().await.unwrap();
        conn.write_all(b"GET /status").await.unwrap();
        conn.flush().await.unwrap();
        conn
    });
    let id = peer.announced().await;
    let (mut ours, theirs) = duplex(64 * 1024);
    let steps = Arc::default();
    tokio::spawn(serve(Noted(theirs, Arc::clone(&steps)), pick_ups));
    let request = format!("GET /revdial?revdial.dialer={id} HTTP/1.1\r\nHost: \r\n{headers}\r\n");
    ours.write_all(request.as_bytes()).await.unwrap();
    let _conn = dialing.await.unwrap();
    let mut received = String::new();
    while !received.ends_with("GET /status") {
        received.push(char::from(ours.read_u8().await.unwrap()));
    }
    steps.lock().unwrap().clone()
}

/// The write that holds the end of the 101 holds nothing else, and is flushed before the next.
fn assert_alone(steps: &[Step]) {
    let end = steps.iter().position(
        |step| matches!(step, Step::Write(text) if text.contains("\r\n\r\n") || text == "\r\n"),
    );
    let end = end.unwrap();
    assert!(
        matches!(&steps[end], Step::Write(text) if text.ends_with("\r\n")),
        "{steps:?}"
    );
    assert_eq!(steps[end + 1], Step::Flush, "{steps:?}");
    assert_eq!(
        steps[end + 2],
        Step::Write("GET /status".to_owned()),
        "{steps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_101_is_flushed_before_anything_else_is_written() {
    within(async {
        let upgrade = "Connection: Upgrade\r\nUpgrade: revdial\r\n";
        let steps = picked_up(serve_with_hyper, upgrade).await;
        let Step::Write(head) = &steps[0] else {
            panic!("{steps:?}");
        };
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{head}"
        );
        assert!(
            head.contains("connection: Upgrade\r\nupgrade: revdial\r\n"),
            "{head}"
        );
        assert_alone(&steps);
        assert_alone(&picked_up(serve_by_hand, "").await);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn hyper_gives_no_connection_away_that_was_not_asked_for() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let dialing = tokio::spawn(async move { dialer.dial().await });
        let id = peer.announced().await;
        let (mut ours, theirs) = duplex(64 * 1024);
        tokio::spawn(serve_with_hyper(theirs, pick_ups));
        let bare = format!("GET /revdial?revdial.dialer={id} HTTP/1.1\r\nHost: \r\n\r\n");
        ours.write_all(bare.as_bytes()).await.unwrap();
        let error = dialing.await.unwrap().unwrap_err();
        assert!(
            matches!(error, revdial::DialError::PickUpBroken(_)),
            "{error:?}"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_answered_in_gos_words() {
    within(async {
        let pick_ups = PickUps::new();
        let (dialer, mut peer) = dialer(&pick_ups, Config::default());
        let dialing = tokio::spawn(async move { dialer.dial().await });
        let id = peer.announced().await;
        let request = |method: Method, id: &str| {
            Request::builder()
                .method(method)
                .uri(format!("/revdial?revdial.dialer={id}"))
                .body(())
                .unwrap()
        };
        let never = |_| async { Err::<DuplexStream, _>(io::Error::other("no upgrade")) };
        let plain = PickUpHandler::new(pick_ups.clone(), Tls::Missing, never);
        let handler = PickUpHandler::new(pick_ups.clone(), Tls::Present, never);
        let unknown = "00000000000000000000000000000000";
        for (response, status, text) in [
            (
                plain.answer(request(Method::GET, &id)),
                StatusCode::INTERNAL_SERVER_ERROR,
                "handler requires TLS\n",
            ),
            (
                handler.answer(request(Method::POST, &id)),
                StatusCode::METHOD_NOT_ALLOWED,
                "expected GET request to revdial conn handler\n",
            ),
            (
                handler.answer(request(Method::GET, unknown)),
                StatusCode::BAD_REQUEST,
                "unknown dialer\n",
            ),
            (
                handler.answer(Request::get("/revdial").body(()).unwrap()),
                StatusCode::BAD_REQUEST,
                "unknown dialer\n",
            ),
        ] {
            assert_eq!(response.status(), status);
            assert_eq!(response.body(), text);
            assert_eq!(
                response.headers()["content-type"],
                "text/plain; charset=utf-8"
            );
            let allow = response
                .headers()
                .get("allow")
                .map(|value| value.to_str().unwrap());
            let not_allowed = status == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(allow, not_allowed.then_some("GET"));
        }
        // None of these used the id up.
        let (ours, _theirs) = duplex(64);
        pick_ups.complete(&id, ours).unwrap();
        dialing.await.unwrap().unwrap();
    })
    .await;
}

#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn the_handler_is_a_tower_service() {
    use tower_service::Service;
    let never = |_| async { Err::<DuplexStream, _>(io::Error::other("no upgrade")) };
    let mut handler = PickUpHandler::new(PickUps::new(), Tls::Present, never);
    let response = handler.call(Request::new(())).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
