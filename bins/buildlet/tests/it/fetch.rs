//! `POST /writetgz`: archives that the machine fetches.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use buildlet_proto::api::Fetched;
use buildlet_proto::client::Client;
use buildlet_proto::{Buildlet, RelPath};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::support::{Served, form};

/// A web server that answers each path with bytes, and remembers what it was asked.
struct Web {
    address: std::net::SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Web {
    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        let log = asked.clone();
        serving.spawn(async move {
            loop {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let head = read_head(&mut tcp).await;
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(head);
                // Who has heard enough hangs up.
                let _ = tcp.write_all(&answer(&path)).await;
            }
        });
        Self {
            address,
            asked,
            _serving: serving,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read_head(tcp: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// An archive with one file, `hello`, as two members.
fn archive() -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..5].copy_from_slice(b"hello");
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(b"00000000005");
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut content = [0_u8; 1536];
    content[..5].copy_from_slice(b"world");
    [gzip(&header), gzip(&content)].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, bytes).unwrap();
    gzip.finish().unwrap()
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

async fn fetch(served: &Served, dir: &str, url: &str) -> (u16, String) {
    let target = format!("/writetgz?dir={dir}");
    let reply = served.ask("POST", &target, form(&[("url", url)])).await;
    (reply.status, reply.text())
}

fn left(served: &Served) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(served.work())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_archive_is_fetched_in_every_framing() {
    let web = Web::start(|path| match path {
        "/length" => ok(&archive()),
        "/chunked" => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut reply = head.as_bytes().to_vec();
            for chunk in archive().chunks(7) {
                reply.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                reply.extend(chunk);
                reply.extend(b"\r\n");
            }
            [&reply, &b"0\r\n\r\n"[..]].concat()
        }
        "/close" => [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &archive()].concat(),
        _ => redirect("length"),
    })
    .await;
    let served = Served::start().await;
    for dir in ["length", "chunked", "close", "moved"] {
        let url = web.url(&format!("/{dir}"));
        assert_eq!(
            fetch(&served, &format!("to/{dir}"), &url).await,
            (200, "OK".to_owned())
        );
        let file = served.work().join("to").join(dir).join("hello");
        assert_eq!(std::fs::read(file).unwrap(), b"world", "{dir}");
    }
    let asked = &web.asked()[0];
    assert!(asked.starts_with("GET /length HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked
            .to_lowercase()
            .contains("accept-encoding: identity\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn failures_have_gos_texts_and_leave_nothing() {
    let web = Web::start(|path| match path {
        "/none" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        "/text" => ok(b"<html>"),
        "/cut" => {
            let whole = ok(&archive());
            whole[..whole.len() - 30].to_vec()
        }
        "/silent" => Vec::new(),
        "/ssh" => b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        _ => redirect("/again"),
    })
    .await;
    let served = Served::start().await;
    for (url, status, text) in [
        (
            web.url("/none"),
            500,
            format!(
                "writetgz: fetching provided URL {:?}: 404 Not Found\n",
                web.url("/none")
            ),
        ),
        (
            web.url("/text"),
            400,
            "requires gzip-compressed body: gzip: invalid header\n".to_owned(),
        ),
        (
            web.url("/cut"),
            500,
            format!(
                "fetching URL {}: the server cut the connection",
                web.url("/cut")
            ),
        ),
        (
            web.url("/silent"),
            500,
            format!("fetching URL {}: ", web.url("/silent")),
        ),
        (
            web.url("/ssh"),
            500,
            format!("fetching URL {}: ", web.url("/ssh")),
        ),
        (
            web.url("/loop"),
            500,
            format!(
                "fetching URL {}: stopped after 10 redirects\n",
                web.url("/loop")
            ),
        ),
    ] {
        check_refused(&served, &url, status, &text).await;
    }
}

#[tokio::test]
async fn urls_that_lead_nowhere_are_refused() {
    let served = Served::start().await;
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = format!("http://{}/", unused.local_addr().unwrap());
    drop(unused);
    for (url, status, text) in [
        (refusing.clone(), 500, format!("fetching URL {refusing}: ")),
        (
            "http://x:99999/".to_owned(),
            500,
            "fetching URL http://x:99999/: ".to_owned(),
        ),
        (
            "ftp://x/y".to_owned(),
            500,
            "fetching URL ftp://x/y: unsupported protocol scheme \"ftp\"\n".to_owned(),
        ),
        (
            "file:///etc/passwd".to_owned(),
            500,
            "fetching URL file:///etc/passwd: unsupported protocol scheme \"file\"\n".to_owned(),
        ),
        (String::new(), 400, "missing url POST param\n".to_owned()),
    ] {
        check_refused(&served, &url, status, &text).await;
    }
}

/// Asks for `url`, and sees that the text is as expected and that nothing is left.
async fn check_refused(served: &Served, url: &str, status: u16, text: &str) {
    let (got, said) = fetch(served, "d", url).await;
    assert_eq!(got, status, "{url}: {said}");
    assert!(said.starts_with(text), "{url}: {said}");
    assert_eq!(left(served), Vec::<String>::new(), "{url}");
}

#[tokio::test]
async fn go1_4_that_is_there_is_not_fetched_again() {
    let web = Web::start(|_| ok(&archive())).await;
    let served = Served::start().await;
    let address = served.address();
    let client = Client::new(move || TcpStream::connect(address)).with_password("secret");
    let dir = || RelPath::new("go1.4").unwrap();
    let fetched = client.fetch_tgz(dir(), web.url("/go.tgz")).await.unwrap();
    assert_eq!(fetched, Fetched::Unpacked);
    let fetched = client.fetch_tgz(dir(), web.url("/go.tgz")).await.unwrap();
    assert_eq!((fetched, web.asked().len()), (Fetched::AlreadyThere, 1));
    let error = client
        .fetch_tgz(RelPath::ROOT, "x".to_owned())
        .await
        .unwrap_err();
    assert_eq!(error.message(), "fetching URL x: no URL");
}

#[tokio::test]
async fn credentials_of_a_url_go_to_its_server_alone_and_into_no_text() {
    let web = Web::start(|path| match path {
        "/moved" => redirect("/none"),
        _ => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_vec(),
    })
    .await;
    let served = Served::start().await;
    let url = format!("http://me:secret@{}/moved", web.address);
    let (status, text) = fetch(&served, "", &url).await;
    assert_eq!(status, 500);
    assert!(
        text.contains("403 Forbidden") && !text.contains("secret"),
        "{text}"
    );
    let asked = web.asked();
    assert!(asked[0].contains("Basic bWU6c2VjcmV0"), "{asked:?}");
    assert!(
        !asked[1].to_lowercase().contains("authorization"),
        "{asked:?}"
    );
}

/// A web server with a certificate for `localhost`, that of an authority in a file. It redirects `/down` to plain http.
async fn serve_tls(dir: &std::path::Path) -> (u16, std::path::PathBuf, JoinSet<()>) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let authorities = dir.join("authorities.pem");
    std::fs::write(&authorities, ca.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let mut head = [0; 4096];
            let length = tls.read(&mut head).await.unwrap();
            let reply = if head[..length].starts_with(b"GET /down ") {
                redirect("http://localhost/")
            } else {
                ok(&archive())
            };
            tls.write_all(&reply).await.unwrap();
            // Who has the whole answer may be gone.
            let _ = tls.shutdown().await;
        }
    });
    (port, authorities, serving)
}

#[tokio::test]
async fn https_is_verified_by_the_systems_authorities_and_not_left_for_http() {
    let dir = tempfile::tempdir().unwrap();
    let (port, authorities, _serving) = serve_tls(dir.path()).await;
    let (child, address) = super::programs::listening(dir.path(), |program| {
        program.env("SSL_CERT_FILE", &authorities);
    })
    .await;
    let client = Client::new(move || TcpStream::connect(address.clone())).with_password("secret");
    let fetch = |path: String| client.fetch_tgz(RelPath::new("d").unwrap(), path);
    let fetched = fetch(format!("https://localhost:{port}/x")).await.unwrap();
    assert_eq!(fetched, Fetched::Unpacked);
    let hello = std::fs::read(dir.path().join("work/d/hello")).unwrap();
    assert_eq!(hello, b"world");
    let error = fetch(format!("https://localhost:{port}/down")).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("a redirect from https to http"), "{error}");
    // The certificate is not for the address.
    let error = fetch(format!("https://127.0.0.1:{port}/x")).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("cannot verify 127.0.0.1"), "{error}");
    drop(child);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_download() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let served = Served::start().await;
    let address = served.address();
    let client = Client::new(move || TcpStream::connect(address)).with_password("secret");
    let fetching = tokio::spawn(async move { client.fetch_tgz(RelPath::ROOT, url).await });
    let (mut tcp, _) = listener.accept().await.unwrap();
    read_head(&mut tcp).await;
    let begun = [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"[..],
        &archive()[..20],
    ];
    tcp.write_all(&begun.concat()).await.unwrap();
    fetching.abort();
    let gone = tokio::time::timeout(Duration::from_secs(20), tcp.read_u8());
    assert!(gone.await.unwrap().is_err());
    super::files::wait_for("nothing is left", || {
        !left(&served)
            .iter()
            .any(|name| name.starts_with(".buildlet"))
    })
    .await;
}
