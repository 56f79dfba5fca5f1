use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

/// A key server on this machine, whose answers the test exchanges.
struct KeyServer {
    keys: UrlKeys,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    _task: JoinHandle<()>,
}

impl KeyServer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let template = format!("http://{}/{{account}}.keys", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(String::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(listener, answer.clone(), asked.clone()));
        let server = Self {
            keys: UrlKeys::new(template).unwrap(),
            answer,
            asked,
            _task: task,
        };
        server.answers("200 OK", KEY);
        server
    }

    fn answers(&self, status: &str, body: &str) {
        let length = body.len();
        *lock(&self.answer) = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nLocation: /elsewhere\r\nConnection: close\r\n\r\n{body}"
        );
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    async fn count(&self, now: Instant) -> Result<usize, KeySourceError> {
        self.keys
            .keys_at("gopher", now)
            .await
            .map(|keys| keys.len())
    }
}

async fn serve(listener: TcpListener, answer: Arc<Mutex<String>>, asked: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        assert!(request.starts_with(b"GET /gopher.keys HTTP/1.1\r\n"));
        let answer = lock(&answer).clone();
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_stands_for_five_minutes() {
    let server = KeyServer::start().await;
    let now = Instant::now();
    assert_eq!(server.count(now).await.unwrap(), 1);
    assert_eq!(server.count(now + FRESH - TIMEOUT).await.unwrap(), 1);
    assert_eq!(server.asked(), 1);
    server.answers("200 OK", "");
    assert_eq!(server.count(now + FRESH).await.unwrap(), 0);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn an_account_without_keys_is_asked_again_after_a_minute() {
    let server = KeyServer::start().await;
    let now = Instant::now();
    server.answers("404 Not Found", "not here");
    assert_eq!(server.count(now).await.unwrap(), 0);
    assert_eq!(server.count(now + TIMEOUT).await.unwrap(), 0);
    assert_eq!(server.asked(), 1);
    server.answers("200 OK", KEY);
    assert_eq!(server.count(now + NEGATIVE).await.unwrap(), 1);
}

#[tokio::test]
async fn the_last_answer_stands_for_a_day_while_the_server_fails() {
    let server = KeyServer::start().await;
    let now = Instant::now();
    assert_eq!(server.count(now).await.unwrap(), 1);
    server.answers("503 Service Unavailable", "");
    assert_eq!(server.count(now + FRESH).await.unwrap(), 1);
    assert_eq!(server.count(now + FRESH + TIMEOUT).await.unwrap(), 1);
    assert_eq!(server.asked(), 2);
    let error = server.count(now + STALE).await.unwrap_err();
    assert!(matches!(error, KeySourceError::Status(503)), "{error}");
}

#[tokio::test]
async fn a_deleted_account_has_no_keys_at_once() {
    let server = KeyServer::start().await;
    let now = Instant::now();
    assert_eq!(server.count(now).await.unwrap(), 1);
    server.answers("404 Not Found", "");
    assert_eq!(server.count(now + FRESH).await.unwrap(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = KeyServer::start().await;
    server.answers("302 Found", "");
    let error = server.count(Instant::now()).await.unwrap_err();
    assert!(matches!(error, KeySourceError::Status(302)), "{error}");
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_none() {
    let server = KeyServer::start().await;
    let large = format!("{KEY}\n").repeat(1000);
    server.answers("200 OK", &large);
    let error = server.count(Instant::now()).await.unwrap_err();
    assert!(matches!(error, KeySourceError::TooLarge), "{error}");
}

#[tokio::test]
async fn a_hundred_keys_are_enough_and_others_do_not_count() {
    let server = KeyServer::start().await;
    server.answers(
        "200 OK",
        &format!("ssh-dss AAAA\nnonsense\n\n{KEY} comment\n").repeat(200),
    );
    assert_eq!(server.count(Instant::now()).await.unwrap(), MAX_KEYS);
}

#[tokio::test]
async fn questions_at_the_same_time_are_one_question() {
    let server = KeyServer::start().await;
    let now = Instant::now();
    let (one, two) = tokio::join!(server.count(now), server.count(now));
    assert_eq!((one.unwrap(), two.unwrap()), (1, 1));
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn names_that_are_no_accounts_are_not_asked_for() {
    let server = KeyServer::start().await;
    for name in [
        "",
        "../etc",
        "a/b",
        "a.b",
        "a%2f",
        "a?b",
        "é",
        &"a".repeat(65),
    ] {
        let error = server.keys.keys(name).await.unwrap_err();
        assert!(matches!(error, KeySourceError::AccountName), "{name}");
    }
    assert_eq!(server.asked(), 0);
}

#[test]
fn questions_are_limited_to_one_per_second() {
    let now = Instant::now();
    let mut bucket = Bucket::new(now);
    let burst = (0..10).filter(|_| bucket.take(now)).count();
    assert_eq!(burst, 5);
    assert!(bucket.take(now + Duration::from_secs(1)));
    assert!(!bucket.take(now + Duration::from_secs(1)));
}

#[test]
fn keys_come_over_https_or_from_this_machine() {
    let new = |template: &str| UrlKeys::new(template).map(drop);
    assert!(new("https://github.com/{account}.keys").is_ok());
    assert!(new("http://localhost:3000/{account}.keys").is_ok());
    assert!(new("http://[::1]:3000/{account}.keys").is_ok());
    for template in [
        "http://github.com/{account}.keys",
        "ftp://localhost/{account}",
        "http://localhost.evil.org/{account}",
    ] {
        assert!(
            matches!(new(template), Err(UrlTemplateError::NotHttps)),
            "{template}"
        );
    }
    assert!(matches!(
        new("https://github.com/"),
        Err(UrlTemplateError::NoAccount)
    ));
    assert!(matches!(new("{account}"), Err(UrlTemplateError::Malformed)));
}
