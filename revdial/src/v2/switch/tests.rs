//! The exchange against servers that are scripts.

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

const PATH: &str = "/revdial?revdial.dialer=00";

/// What a server that says these replies in turn made of the exchange, and the requests that it got.
async fn against(
    replies: &[&str],
    path: &str,
) -> (Result<Upgraded<DuplexStream>, SwitchError>, Vec<String>) {
    let (ours, mut theirs) = duplex(64 * 1024);
    let replies: Vec<String> = replies.iter().map(|reply| (*reply).to_owned()).collect();
    let server = tokio::spawn(async move {
        let mut requests = Vec::new();
        for reply in replies {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match theirs.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => return requests,
                }
            }
            requests.push(String::from_utf8(request).unwrap());
            theirs.write_all(reply.as_bytes()).await.unwrap();
        }
        requests
    });
    let outcome = switch(ours, path).await;
    (outcome, server.await.unwrap())
}

/// The text that the Dialer gets.
async fn error_of(replies: &[&str]) -> String {
    against(replies, PATH).await.0.unwrap_err().to_string()
}

#[tokio::test]
async fn the_request_is_these_bytes() {
    let (_, requests) = against(&["HTTP/0.0 101 Switching Protocols\r\n\r\n"], PATH).await;
    assert_eq!(
        requests,
        [
            "GET /revdial?revdial.dialer=00 HTTP/1.1\r\nHost: \r\nconnection: Upgrade\r\nupgrade: revdial\r\n\r\n"
        ]
    );
}

#[tokio::test]
async fn bytes_behind_the_101_are_kept() {
    let reply = "HTTP/0.0 101 Switching Protocols\r\n\r\nGET /status";
    let (mut upgraded, _) = against(&[reply], PATH).await.0.map(|u| (u, ())).unwrap();
    let mut rest = String::new();
    upgraded.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "GET /status");
}

#[tokio::test]
async fn one_redirect_is_followed_on_the_same_connection() {
    let (outcome, requests) = against(
        &[
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: /other?x=1\r\nContent-Length: 5\r\n\r\nthere",
            "HTTP/1.1 101 Switching Protocols\r\n\r\nhello",
        ],
        PATH,
    )
    .await;
    assert!(requests[1].starts_with("GET /other?x=1 HTTP/1.1\r\nHost: \r\n"));
    let mut rest = String::new();
    outcome.unwrap().read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "hello");
}

#[tokio::test]
async fn a_second_redirect_is_not_followed() {
    let redirect = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /r\r\nContent-Length: 0\r\n\r\n";
    let (outcome, requests) = against(&[redirect, redirect], PATH).await;
    assert_eq!(outcome.unwrap_err().to_string(), "too many redirects");
    assert_eq!(requests.len(), 2);
}

#[tokio::test]
async fn a_redirect_to_another_server_or_without_an_end_is_refused() {
    for location in [
        "https://elsewhere.example/revdial",
        "//elsewhere.example/revdial",
        "revdial",
        "",
        "/a b",
    ] {
        let reply = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        );
        let error = error_of(&[&reply]).await;
        assert!(
            error.contains("a redirect leads elsewhere"),
            "{location}: {error}"
        );
    }
    for rest in [
        "\r\n",
        "Content-Length: 4097\r\n\r\n",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 2\r\n\r\nmore",
    ] {
        let reply = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: /r\r\n{rest}");
        let error = error_of(&[&reply]).await;
        assert!(error.contains("the body of a redirect"), "{error}");
    }
    let cut = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /r\r\nContent-Length: 5\r\n\r\nthe";
    assert!(error_of(&[cut]).await.contains("ended before the reply"));
}

#[tokio::test]
async fn a_refusal_is_told_in_gos_words() {
    let reply = "HTTP/1.1 400 Bad Request\r\nContent-Length: 15\r\n\r\nunknown dialer\n";
    assert_eq!(
        error_of(&[reply]).await,
        "switch failed: want HTTP status 101 or 307; got 400 Bad Request:\n\tunknown dialer"
    );
}

#[tokio::test]
async fn what_is_no_reply_is_an_error() {
    assert_eq!(
        error_of(&["SSH-2.0-x\r\n"]).await,
        "switch failed: the answer is not an HTTP reply"
    );
    assert_eq!(
        error_of(&["HTTP/1.1 101 Switch"]).await,
        "switch failed: the connection ended before the reply"
    );
}

#[tokio::test]
async fn a_path_that_is_none_is_not_asked_for() {
    for path in [
        "",
        "revdial",
        "//x/y",
        "https://x/y",
        "/a b",
        "/a\r\nX-Evil: 1",
        "/a\u{7f}",
    ] {
        let (outcome, requests) = against(&[""], path).await;
        assert!(matches!(outcome, Err(SwitchError::BadPath)), "{path:?}");
        assert!(requests.is_empty());
    }
}
