//! HTTP over a link, with hyper at both ends.

#![cfg(all(feature = "hyper", feature = "tower"))]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use revdial::{Config, Conn, Dialer, Listener};
use tokio::io::duplex;
use tokio::task::JoinSet;

type HttpClient = Client<Dialer, Full<Bytes>>;

fn pair() -> (HttpClient, Listener) {
    let (a, b) = duplex(64 * 1024);
    let dialer = Dialer::new(a, Config::default());
    let client = Client::builder(TokioExecutor::new()).build(dialer);
    (client, Listener::new(b, Config::default()))
}

async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, hyper::Error> {
    Ok(Response::new(request.into_body()))
}

/// Serves each connection, in a wrapper or as it is.
async fn serve(mut listener: Listener, wrapped: impl Fn(u32) -> bool) {
    while let Ok(conn) = listener.accept().await {
        if wrapped(conn.id()) {
            let conn: TokioIo<Conn> = TokioIo::new(conn);
            tokio::spawn(http1::Builder::new().serve_connection(conn, service_fn(echo)));
        } else {
            tokio::spawn(http1::Builder::new().serve_connection(conn, service_fn(echo)));
        }
    }
}

async fn expect_echo(client: &HttpClient, length: usize) {
    let sent: Bytes = (0..length).map(|i| (i / 251).to_le_bytes()[0]).collect();
    let request = Request::post("http://machine/")
        .body(Full::new(sent.clone()))
        .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let received = response.into_body().collect().await.unwrap().to_bytes();
    assert!(received == sent, "{length} bytes came back changed");
}

#[tokio::test]
async fn bodies_larger_than_any_window_come_back_unchanged() {
    let body = async {
        for wrapped in [false, true] {
            let (client, listener) = pair();
            let server = tokio::spawn(serve(listener, move |_| wrapped));
            for length in [0, 1, 100_000, 5_000_000] {
                expect_echo(&client, length).await;
            }
            drop(client);
            server.await.unwrap();
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), body).await;
    outcome.expect("the test hangs");
}

#[tokio::test]
async fn a_client_uses_its_connection_again_and_dials_anew_when_it_is_gone() {
    let body = async {
        let (client, mut listener) = pair();
        for _ in 0..2 {
            let asking = async {
                expect_echo(&client, 10).await;
                expect_echo(&client, 20).await;
            };
            let mut connections = JoinSet::new();
            let serving = async {
                let conn = listener.accept().await.unwrap();
                let service = service_fn(echo);
                connections.spawn(http1::Builder::new().serve_connection(conn, service));
            };
            tokio::join!(asking, serving);
            assert!(connections.try_join_next().is_none(), "it was kept");
            connections.shutdown().await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), body).await;
    outcome.expect("the test hangs");
}
