//! One attempt, and what can go wrong with it.

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri};
use revdial::connector::{ConnectError, InvalidServer, Phase, Proxies};
use revdial::frame::{Flags, Header, StreamId};
use revdial::handshake::{Dialect, HandshakeError, RedirectError};
use revdial::v2::{PickUps, Tls};
use revdial::{Config, Connector, Dialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    SWITCHING, Server, connector, echo, expect_echo, fast, read_head, register, within,
};

#[tokio::test]
async fn a_registration_is_an_upgrade_with_the_callers_headers() {
    within(async {
        let server = Server::new().await;
        let mut key = HeaderValue::from_static("s3cret");
        key.set_sensitive(true);
        let connector = server
            .connector()
            .header(HeaderName::from_static("x-key"), key);
        let (listener, (head, dialer)) = tokio::join!(connector.connect(), server.register());
        assert_eq!(
            head,
            format!(
                "GET /reverse?x=1 HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: revdial\r\n\
                 x-revdial-version: 3\r\nx-key: s3cret\r\n\r\n",
                server.address
            )
        );
        let listener = listener.unwrap();
        assert_eq!(listener.peer_addr().socket(), Some(server.address));
        tokio::spawn(echo(listener));
        expect_echo(&dialer).await;
    })
    .await;
}

#[tokio::test]
async fn a_larger_window_is_announced_and_may_be_used_before_any_answer() {
    within(async {
        let mut config = Config::default();
        config.initial_stream_window = 1 << 20;
        let server = Server::new().await;
        let connector = server.connector().config(config);
        let eager = async {
            let mut tcp = server.accept().await;
            let head = read_head(&mut tcp).await;
            tcp.write_all(SWITCHING.as_bytes()).await.unwrap();
            let id = StreamId::new(1).unwrap();
            let (opened, data) = (Flags::SYN, Flags::NONE);
            let (delta, length) = (0, 1 << 20);
            let syn = Header::WindowUpdate {
                id,
                flags: opened,
                delta,
            };
            let frame = Header::Data {
                id,
                flags: data,
                length,
            };
            tcp.write_all(&syn.encode()).await.unwrap();
            tcp.write_all(&frame.encode()).await.unwrap();
            tcp.write_all(&[7; 1 << 20]).await.unwrap();
            (head, tcp)
        };
        let ((head, _tcp), data) = tokio::join!(eager, async {
            let mut listener = connector.connect().await.unwrap();
            let mut conn = listener.accept().await.unwrap();
            let mut data = vec![0; 1 << 20];
            conn.read_exact(&mut data).await.unwrap();
            data
        });
        assert!(head.contains("\r\nx-revdial-window: 1048576\r\n"), "{head}");
        assert!(data.iter().all(|byte| *byte == 7));

        // Go's dialects have no windows.
        let connector = connector.dialect(Dialect::V2);
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        let (refused, head) = tokio::join!(connector.connect(), server.answer(refusal));
        assert!(refused.is_err());
        assert!(!head.contains("x-revdial-window"), "{head}");
    })
    .await;
}

#[tokio::test]
async fn gos_dialects_are_spoken_as_well() {
    within(async {
        let server = Server::new().await;
        let connector = server.connector().dialect(Dialect::V1);
        let serving = async {
            let mut tcp = server.accept().await;
            let head = read_head(&mut tcp).await;
            tcp.write_all(SWITCHING.as_bytes()).await.unwrap();
            (head, Dialer::v1(tcp, Config::default()))
        };
        let (listener, (head, dialer)) = tokio::join!(connector.connect(), serving);
        assert!(!head.contains("x-revdial-version"), "{head}");
        tokio::spawn(echo(listener.unwrap()));
        expect_echo(&dialer).await;

        let connector = server.connector().dialect(Dialect::V2);
        let pick_ups = PickUps::new();
        let serving = async {
            let mut tcp = server.accept().await;
            let head = read_head(&mut tcp).await;
            tcp.write_all(SWITCHING.as_bytes()).await.unwrap();
            let path = PathAndQuery::from_static("/revdial");
            (head, Dialer::v2(tcp, &pick_ups, path, Config::default()))
        };
        let (listener, (head, dialer)) = tokio::join!(connector.connect(), serving);
        assert!(head.contains("\r\nx-revdial-version: 2\r\n"), "{head}");
        tokio::spawn(echo(listener.unwrap()));
        let picking_up = async {
            let mut tcp = server.accept().await;
            let head = read_head(&mut tcp).await;
            let path = head.split(' ').nth(1).unwrap();
            let request = Request::get(path).body(()).unwrap();
            let pick_up = pick_ups.begin_request(&request, Tls::Present).unwrap();
            tcp.write_all(SWITCHING.as_bytes()).await.unwrap();
            pick_up.complete(tcp);
        };
        tokio::join!(expect_echo(&dialer), picking_up);
    })
    .await;
}

#[tokio::test]
async fn a_redirect_to_another_path_is_followed() {
    within(async {
        let server = Server::new().await;
        let connector = server.connector();
        let serving = async {
            let mut tcp = server.accept().await;
            read_head(&mut tcp).await;
            tcp.write_all(
                b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n",
            )
            .await
            .unwrap();
            register(tcp).await
        };
        let (listener, (head, dialer)) = tokio::join!(connector.connect(), serving);
        assert!(head.starts_with("GET /new HTTP/1.1\r\n"), "{head}");
        tokio::spawn(echo(listener.unwrap()));
        expect_echo(&dialer).await;
    })
    .await;
}

#[tokio::test]
async fn a_redirect_to_another_server_is_an_error_that_says_why() {
    within(async {
        let server = Server::new().await;
        let connector = server.connector();
        let moved =
            "HTTP/1.1 307 x\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n";
        let (outcome, _) = tokio::join!(connector.connect(), server.answer(moved));
        let error = outcome.unwrap_err();
        assert!(error.is_refusal());
        let ConnectError::Register(HandshakeError::Redirect(reason)) = error else {
            panic!("{error:?}");
        };
        assert!(matches!(reason, RedirectError::Absolute(_)), "{reason:?}");
        assert!(reason.to_string().contains("credentials"), "{reason}");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_tells_the_status_and_when_to_come_again() {
    within(async {
        let server = Server::new().await;
        let connector = server.connector();
        for (retry_after, expected) in [
            ("Retry-After: 120\r\n", Some(Duration::from_secs(120))),
            (
                "Date: Wed, 25 Nov 2026 12:00:00 GMT\r\nRetry-After: Wed, 25 Nov 2026 12:02:00 GMT\r\n",
                Some(Duration::from_secs(120)),
            ),
            ("", None),
        ] {
            let reply =
                format!("HTTP/1.1 429 Too Many Requests\r\n{retry_after}Content-Length: 4\r\n\r\nslow");
            let (outcome, _) = tokio::join!(connector.connect(), server.answer(&reply));
            let error = outcome.unwrap_err();
            assert!(error.is_refusal());
            assert_eq!(error.retry_after(), expected);
            let ConnectError::Register(HandshakeError::Refused { status, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_named_as_such() {
    within(async {
        let server = Server::new().await;
        let connector = server.connector();
        for garbage in ["SSH-2.0-OpenSSH_9.2\r\n", "\u{1}\u{2}\u{3}\u{4}\u{5}", ""] {
            let (outcome, _) = tokio::join!(connector.connect(), server.answer(garbage));
            let error = outcome.unwrap_err();
            assert!(!error.is_refusal());
            assert!(matches!(error, ConnectError::Register(_)), "{error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_time_of_its_phase() {
    within(async {
        let server = Server::new().await;
        let mut timing = fast();
        timing.register = Duration::from_millis(50);
        let connector = server.connector().timing(timing);
        let (outcome, _held) = tokio::join!(connector.connect(), server.accept());
        let error = outcome.unwrap_err();
        let ConnectError::TimedOut { phase, limit } = error else {
            panic!("{error:?}");
        };
        assert_eq!((phase, limit), (Phase::Register, Duration::from_millis(50)));
    })
    .await;
}

#[tokio::test]
async fn nobody_listening_and_no_such_name_are_told_apart() {
    within(async {
        let server = Server::new().await;
        let connector = server.connector();
        drop(server);
        let error = connector.connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Connect { .. }), "{error:?}");
        let error = self::connector("http://farm.invalid/").connect().await;
        let error = error.unwrap_err();
        assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
        assert!(error.to_string().contains("farm.invalid"), "{error}");
    })
    .await;
}

#[test]
fn a_server_is_an_http_uri_without_credentials() {
    for (uri, expected) in [
        ("https://farm.example/", InvalidServer::NeedsTls),
        ("ftp://farm.example/", InvalidServer::Scheme),
        ("/reverse", InvalidServer::Scheme),
        (
            "http://user:secret@farm.example/",
            InvalidServer::Credentials,
        ),
        ("http://farm.example:99999/", InvalidServer::Host),
    ] {
        let uri: Uri = uri.parse().unwrap();
        assert_eq!(Connector::new(&uri).unwrap_err(), expected, "{uri}");
    }
}

#[test]
fn credentials_are_not_shown() {
    let proxy = "http://user:hunter2@proxy.example:3128".parse().unwrap();
    let connector = connector("http://farm.example/reverse?key=hunter2")
        .header(
            HeaderName::from_static("x-key"),
            HeaderValue::from_static("hunter2"),
        )
        .proxies(Proxies::new(proxy, "".parse().unwrap()));
    let shown = format!("{connector:?} {:?}", connector.clone().links());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("dXNlcjpodW50ZXIy"), "{shown}");
    assert!(shown.contains("farm.example:80"), "{shown}");
}
