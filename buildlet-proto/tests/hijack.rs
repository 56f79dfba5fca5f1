//! Raw bytes against a connection that handlers may take over.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::Duration;

use buildlet_proto::hijack::{ConnectionError, Hijack, Limits, serve_connection, service};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

type Reply = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>>;

/// Answers `/echo` by echoing the taken-over stream, `/trailers` with a trailer, anything else with `plain`.
async fn handle(request: Request<Incoming>) -> Reply {
    let mut response = Response::new(
        Full::from("plain")
            .map_err(std::io::Error::other)
            .boxed_unsync(),
    );
    match request.uri().path() {
        "/echo" => {
            let hijack = request.extensions().get::<Hijack>().unwrap();
            hijack.take_over(|stream| async move {
                let (mut read, mut write) = tokio::io::split(stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        "/changed-its-mind" => {
            let hijack = request.extensions().get::<Hijack>().unwrap();
            hijack.take_over(|_| async { panic!("taken over without a 101") });
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("process-state", HeaderValue::from_static("ok"));
            let frames = [
                Ok(Frame::data(Bytes::from("hello"))),
                Ok(Frame::trailers(trailers)),
            ];
            *response.body_mut() =
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            response
                .headers_mut()
                .insert("trailer", HeaderValue::from_static("Process-State"));
        }
        "/cut" => {
            let frames = [
                Ok(Frame::data(Bytes::from("hello"))),
                Err(std::io::Error::other("broken")),
            ];
            *response.body_mut() =
                StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
            if request.uri().query().is_some() {
                response
                    .headers_mut()
                    .insert("trailer", HeaderValue::from_static("Process-State"));
            }
        }
        _ => {}
    }
    response
}

fn connect() -> (DuplexStream, JoinHandle<Result<(), ConnectionError>>) {
    // Smaller than a head, so that heads are written in pieces.
    let (client, server) = duplex(16);
    let serving = tokio::spawn(async move {
        let handle = service(handle);
        serve_connection(server, handle, Limits::default()).await
    });
    (client, serving)
}

/// Sends `request`, ends the client's side where asked to, and reads to the end.
async fn exchange(request: &str) -> String {
    let (client, serving) = connect();
    let (mut read, mut write) = tokio::io::split(client);
    let mut reply = String::new();
    let (sent, received) = tokio::time::timeout(Duration::from_secs(10), async {
        tokio::join!(
            write.write_all(request.as_bytes()),
            read.read_to_string(&mut reply)
        )
    })
    .await
    .expect("the exchange ends");
    // Who is refused may not have been heard to the end.
    drop(sent);
    received.unwrap();
    drop((read, write));
    drop(serving.await.unwrap());
    reply
}

fn without_date(reply: &str) -> String {
    let kept = reply
        .split("\r\n")
        .filter(|line| !line.starts_with("Date: "));
    kept.collect::<Vec<_>>().join("\r\n")
}

#[tokio::test]
async fn a_handler_takes_over_without_an_upgrade_header() {
    let (client, serving) = connect();
    let (mut read, mut write) = tokio::io::split(client);
    let mut head = vec![0; b"HTTP/1.1 101 Switching Protocols\r\n".len()];
    let request = b"POST /echo HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\nearly ";
    let (sent, received) = tokio::join!(write.write_all(request), read.read_exact(&mut head));
    sent.unwrap();
    received.unwrap();
    assert_eq!(head, b"HTTP/1.1 101 Switching Protocols\r\n");

    let mut rest = Vec::new();
    let say = async {
        write.write_all(b"late").await.unwrap();
        write.shutdown().await.unwrap();
    };
    let ((), received) = tokio::join!(say, read.read_to_end(&mut rest));
    received.unwrap();
    assert!(rest.ends_with(b"\r\n\r\nearly late"), "{rest:?}");
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_takeover_without_a_101_is_forgotten() {
    let reply =
        exchange("GET /changed-its-mind HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(reply.ends_with("\r\n\r\nplain"), "{reply:?}");
}

#[tokio::test]
async fn trailers_reach_clients_that_did_not_ask_for_them() {
    let reply = exchange("GET /trailers HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let want = "HTTP/1.1 200 OK\r\nTrailer: Process-State\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                5\r\nhello\r\n0\r\nProcess-State: ok\r\n\r\n";
    assert_eq!(without_date(&reply), want);
}

#[tokio::test]
async fn an_answer_before_the_trailers_is_not_lost() {
    let reply =
        exchange("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /trailers HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
    assert!(
        reply.contains("\r\n\r\nplainHTTP/1.1 200 OK\r\n"),
        "{reply:?}"
    );
    assert!(reply.ends_with("Process-State: ok\r\n\r\n"), "{reply:?}");
}

#[tokio::test]
async fn a_body_that_fails_has_no_clean_end() {
    for path in ["/cut", "/cut?trailer"] {
        let reply = exchange(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(!reply.ends_with("0\r\n\r\n"), "{path}: {reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_dropped() {
    let (mut client, serving) = connect();
    client.write_all(b"GET / HT").await.unwrap();
    assert!(serving.await.unwrap().is_err());
}

#[tokio::test]
async fn garbage_is_answered_400() {
    let (mut client, server) = duplex(4096);
    let serving = serve_connection(server, service(handle), Limits::default());
    client
        .write_all(b"\x16\x03\x01 this is TLS\r\n\r\n")
        .await
        .unwrap();
    assert!(serving.await.is_err());
    let mut reply = String::new();
    client.read_to_string(&mut reply).await.unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{reply:?}"
    );
}
