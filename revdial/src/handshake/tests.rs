//! The upgrade against servers that are scripts.

use tokio::io::duplex;

use super::*;

fn request() -> Request<()> {
    Request::get("https://farm.example:8443/reverse?x=1")
        .header("X-Go-Host-Type", "host-linux-amd64")
        .header(Dialect::HEADER, "3")
        .body(())
        .unwrap()
}

/// Upgrades against a server that says `reply` in pieces of `size` bytes and then closes.
async fn against(
    reply: &[u8],
    size: usize,
) -> Result<(Upgraded<tokio::io::DuplexStream>, Response<()>), HandshakeError> {
    let (ours, mut theirs) = duplex(size);
    let reply = reply.to_vec();
    // It writes what nobody may want to read; it ends with the test at the latest.
    tokio::spawn(async move {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(theirs.read_u8().await.unwrap());
        }
        // A client that has heard enough goes away.
        let _ = theirs.write_all(&reply).await;
    });
    tokio::time::timeout(Duration::from_secs(10), upgrade(ours, &request()))
        .await
        .expect("the test hangs")
}

#[tokio::test]
async fn the_request_is_these_bytes() {
    let head = request_head(&request()).unwrap();
    assert_eq!(
        String::from_utf8(head).unwrap(),
        "GET /reverse?x=1 HTTP/1.1\r\nHost: farm.example:8443\r\n\
         x-go-host-type: host-linux-amd64\r\nx-revdial-version: 3\r\n\r\n"
    );
    let relative = Request::get("/reverse").body(()).unwrap();
    assert_eq!(
        request_head(&relative).unwrap(),
        b"GET /reverse HTTP/1.1\r\nHost: \r\n\r\n"
    );
    let post = Request::post("/reverse").body(()).unwrap();
    assert!(matches!(
        request_head(&post),
        Err(HandshakeError::BadRequest)
    ));
}

#[tokio::test]
async fn credentials_of_the_uri_are_not_sent_as_the_host() {
    let request = Request::get("http://user:secret@farm.example/")
        .body(())
        .unwrap();
    let head = String::from_utf8(request_head(&request).unwrap()).unwrap();
    assert!(head.contains("Host: farm.example\r\n"), "{head}");
    assert!(!head.contains("secret"));
}

#[tokio::test]
async fn both_kinds_of_101_are_accepted_and_bytes_behind_them_kept() {
    let replies: [&[u8]; 2] = [
        b"HTTP/0.0 101 Switching Protocols\r\n\r\nbehind the head",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: revdial\r\n\r\nbehind the head",
    ];
    for reply in replies {
        for size in [1, 7, 1024] {
            let (mut upgraded, response) = against(reply, size).await.unwrap();
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            let mut rest = Vec::new();
            upgraded.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"behind the head");
        }
    }
}

#[tokio::test]
async fn a_refusal_tells_its_status_body_and_when_to_come_again() {
    let reply = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 9\r\n\r\ntoo many\nand more";
    for size in [1, 1024] {
        let error = against(reply, size).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "want HTTP status 101; got 503 Service Unavailable:\n\ttoo many"
        );
        let HandshakeError::Refused { retry_after, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
}

#[tokio::test]
async fn a_long_body_is_cut_and_a_long_head_refused() {
    let mut reply = b"HTTP/1.1 500 Oops\r\n\r\n".to_vec();
    reply.extend(vec![b'x'; 100_000]);
    let error = against(&reply, 1024).await.unwrap_err();
    let HandshakeError::Refused { body, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(body.len(), BODY_MAX);

    let mut reply = b"HTTP/1.1 101 Switching Protocols\r\nX-Fill: ".to_vec();
    reply.extend(vec![b'x'; 100_000]);
    let error = against(&reply, 1024).await.unwrap_err();
    assert!(matches!(error, HandshakeError::HeadTooLong), "{error:?}");
}

#[tokio::test]
async fn a_reply_that_ends_early_or_is_none_is_an_error() {
    let whole = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
    for length in 0..whole.len() {
        let error = against(&whole[..length], 1024).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Cut), "{length}: {error:?}");
    }
    let error = against(b"SSH-2.0-OpenSSH\r\n", 1024).await.unwrap_err();
    assert!(matches!(error, HandshakeError::NotHttp(_)), "{error:?}");
}

#[test]
fn the_dialect_is_what_the_header_says() {
    let mut headers = HeaderMap::new();
    assert_eq!(Dialect::from_headers(&headers), Ok(Dialect::V1));
    for (value, dialect) in [("2", Ok(Dialect::V2)), ("3", Ok(Dialect::V3))] {
        headers.insert(Dialect::HEADER, HeaderValue::from_static(value));
        assert_eq!(Dialect::from_headers(&headers), dialect);
        assert_eq!(dialect.unwrap().header_value().unwrap(), value);
    }
    for value in ["1", "4", "", "2, 3"] {
        headers.insert(Dialect::HEADER, HeaderValue::from_static(value));
        assert_eq!(
            Dialect::from_headers(&headers),
            Err(UnknownDialect),
            "{value}"
        );
    }
    headers.insert(Dialect::HEADER, HeaderValue::from_static("3"));
    headers.append(Dialect::HEADER, HeaderValue::from_static("3"));
    assert_eq!(Dialect::from_headers(&headers), Err(UnknownDialect));
}
