//! Against Go's own `revdial/v2`, run by `interop/go/run`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;

use http::{Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use revdial::handshake::upgrade;
use revdial::v2::PickUps;
use revdial::{Config, Conn, DialError, Dialer, Listener};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use crate::support::{accept_tls, answer_by_hand, connect_tls, path, pem, request_head, within};

fn peer(args: &[&str]) -> Child {
    let program = std::env::var_os("REVDIAL_GO_PEER").expect("interop/go/run sets it");
    Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// A server for registrations and pick-ups; it ends when the set is dropped.
async fn server(
    pick_ups: PickUps,
) -> (
    SocketAddr,
    mpsc::Receiver<TlsStream<TcpStream>>,
    JoinSet<()>,
) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    let (registered, registrations) = mpsc::channel(1);
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut tasks = JoinSet::new();
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let (pick_ups, registered) = (pick_ups.clone(), registered.clone());
            tasks.spawn(async move {
                let mut stream = accept_tls(stream).await.unwrap();
                let head = request_head(&mut stream).await;
                if head.starts_with("GET /reverse HTTP/1.1\r\nHost: \r\n") {
                    assert!(head.contains("\r\nX-Revdial-Version: 2\r\n"), "{head}");
                    let answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                    registered.send(stream).await.unwrap();
                } else {
                    answer_by_hand(stream, &head, pick_ups).await;
                }
            });
        }
    });
    (addr, registrations, server)
}

/// Asks Go's HTTP server, and keeps the connection.
async fn ask(dialer: &Dialer, word: u32) -> Result<Conn, DialError> {
    let mut conn = dialer.dial().await?;
    let request = format!("GET /?word={word} HTTP/1.1\r\nHost: machine\r\n\r\n");
    conn.write_all(request.as_bytes()).await.unwrap();
    let head = request_head(&mut conn).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let want = format!("you said {word}");
    let mut body = vec![0; want.len()];
    conn.read_exact(&mut body).await.unwrap();
    assert_eq!(body, want.as_bytes());
    Ok(conn)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go"]
async fn gos_listener_picks_up_what_we_dial() {
    within(async {
        let pick_ups = PickUps::new();
        let (addr, mut registrations, _server) = server(pick_ups.clone()).await;
        let addr = addr.to_string();
        let _peer = peer(&["listener", &addr, &addr]);
        let control = registrations.recv().await.unwrap();
        let dialer = Dialer::v2(control, &pick_ups, path(), Config::default());
        let mut asking = JoinSet::new();
        for word in 0..16 {
            let dialer = dialer.clone();
            asking.spawn(async move { ask(&dialer, word).await.unwrap() });
        }
        let mut open = asking.join_all().await;
        assert_eq!(open.len(), 16);

        // Dials that are given up: Go comes for them, and is sent away.
        for word in 16..32 {
            drop(tokio::time::timeout(std::time::Duration::ZERO, dialer.dial()).await);
            open.push(ask(&dialer, word).await.unwrap());
        }
        assert!(!dialer.is_closed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go"]
async fn gos_listener_says_why_it_cannot() {
    within(async {
        let pick_ups = PickUps::new();
        let (addr, mut registrations, _server) = server(pick_ups.clone()).await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let unreachable = nobody.local_addr().unwrap().to_string();
        drop(nobody);
        let _peer = peer(&["listener", &addr.to_string(), &unreachable]);
        let control = registrations.recv().await.unwrap();
        let dialer = Dialer::v2(control, &pick_ups, path(), Config::default());
        let error = dialer.dial().await.unwrap_err().to_string();
        assert!(error.contains("connection refused"), "{error}");
    })
    .await;
}

/// Another server answers the pick-up: Go's failure names no path, and is the only dial's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go"]
async fn gos_nameless_failure_is_that_of_the_only_dial() {
    within(async {
        let pick_ups = PickUps::new();
        let (addr, mut registrations, _server) = server(pick_ups.clone()).await;
        let (elsewhere, _none, _server) = server(PickUps::new()).await;
        let _peer = peer(&["listener", &addr.to_string(), &elsewhere.to_string()]);
        let control = registrations.recv().await.unwrap();
        let dialer = Dialer::v2(control, &pick_ups, path(), Config::default());
        let error = dialer.dial().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the peer could not pick the connection up: switch failed: want HTTP status 101 or 307; \
             got 400 Bad Request: unknown dialer"
        );
    })
    .await;
}

/// Answers as Go's machine does.
async fn serve(conn: Conn) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
        let query = request.uri().query().unwrap_or_default();
        let word = query.strip_prefix("word=").unwrap_or_default();
        Ok::<_, Infallible>(Response::new(format!("you said {word}")))
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(conn), service);
    // Go leaves when it has asked.
    let _ = connection.await;
}

/// Registers with Go's server, and gives what it prints.
async fn registered_at(conn_path: &str) -> Vec<String> {
    let mut peer = peer(&["dialer"]);
    let mut stdin = peer.stdin.take().unwrap();
    stdin.write_all(pem().as_bytes()).await.unwrap();
    drop(stdin);
    let mut lines = BufReader::new(peer.stdout.take().unwrap()).lines();
    let addr = lines.next_line().await.unwrap().unwrap();
    let addr: SocketAddr = addr.parse().unwrap();

    let control = connect_tls(TcpStream::connect(addr).await.unwrap())
        .await
        .unwrap();
    let request = Request::get(format!("/reverse?path={conn_path}"))
        .body(())
        .unwrap();
    let (control, _) = upgrade(control, &request).await.unwrap();
    let mut config = Config::default();
    config.max_inbound_streams = 16;
    let connect = move || async move { connect_tls(TcpStream::connect(addr).await?).await };
    let mut listener = Listener::v2(control, connect, config);
    let mut conns = JoinSet::new();
    while let Ok(conn) = listener.accept().await {
        conns.spawn(serve(conn));
    }
    let mut printed = Vec::new();
    for _ in 0..2 {
        printed.push(lines.next_line().await.unwrap().unwrap());
    }
    printed
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go"]
async fn we_pick_up_what_gos_dialer_announces_and_say_what_we_cannot() -> io::Result<()> {
    within(async {
        for conn_path in ["/revdial", "/moved"] {
            assert_eq!(
                registered_at(conn_path).await,
                [
                    "asked",
                    "one too many: revdial listener failed to pick up connection: \
                     16 connections are open, which is my limit"
                ]
            );
        }
        Ok(())
    })
    .await
}
