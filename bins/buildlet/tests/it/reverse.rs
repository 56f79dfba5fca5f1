//! Reverse mode, against a coordinator of a few lines.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use buildlet_proto::tls::Pin;
use clap::Parser;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use revdial::Dialer;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::support::supervisor;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: buildlet::Args,
}

struct Coordinator {
    listener: TcpListener,
    tls: TlsAcceptor,
    pin: Pin,
}

impl Coordinator {
    async fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned(), FARM.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let chain = vec![leaf.der().clone(), ca.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self {
            listener: TcpListener::bind("localhost:0").await.unwrap(),
            tls: TlsAcceptor::from(Arc::new(config)),
            pin: Pin::of_certificate(ca.der()).unwrap(),
        }
    }

    fn buildlet(
        &self,
        dir: &Path,
        shutdown: &CancellationToken,
    ) -> AbortOnDropHandle<anyhow::Result<()>> {
        let port = self.listener.local_addr().unwrap().port();
        let coordinator = format!("https://localhost:{port}");
        self.buildlet_at(&coordinator, &[], dir, shutdown)
    }

    /// A buildlet that dials `coordinator`.
    fn buildlet_at(
        &self,
        coordinator: &str,
        more: &[&str],
        dir: &Path,
        shutdown: &CancellationToken,
    ) -> AbortOnDropHandle<anyhow::Result<()>> {
        std::fs::write(dir.join("key"), "0123abcd\n").unwrap();
        let text = |path: &str| dir.join(path).to_str().unwrap().to_owned();
        let pin = self.pin.to_string();
        let args = [
            "buildlet",
            "--coordinator",
            coordinator,
            "--pin",
            &pin,
            "--host-type",
            "host-test",
            "--hostname",
            "here",
            "--key-file",
            &text("key"),
            "--workdir",
            &text("work"),
        ];
        let args = Cli::parse_from(args.iter().chain(more)).args;
        let shutdown = shutdown.clone().cancelled_owned();
        AbortOnDropHandle::new(tokio::spawn(buildlet::run(args, supervisor(), shutdown)))
    }

    /// Accepts one machine, and gives its request and the connection behind it.
    async fn accept(&self) -> (String, TlsStream<TcpStream>) {
        let accept = async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            let mut tls = self.tls.accept(tcp).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tls.read_u8().await.unwrap());
            }
            (String::from_utf8(head).unwrap(), tls)
        };
        tokio::time::timeout(Duration::from_secs(20), accept)
            .await
            .expect("a machine dials")
    }

    async fn register(&self) -> (String, Dialer) {
        let (head, mut tls) = self.accept().await;
        let reply =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: revdial\r\n\r\n";
        tls.write_all(reply).await.unwrap();
        tls.flush().await.unwrap();
        (head, Dialer::new(tls, revdial::Config::default()))
    }
}

#[tokio::test]
async fn a_machine_registers_serves_and_comes_back() {
    let coordinator = Coordinator::new().await;
    let dir = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let running = coordinator.buildlet(dir.path(), &shutdown);
    let mut processes = BTreeSet::new();
    for _ in 0..2 {
        let (head, dialer) = coordinator.register().await;
        for line in [
            "GET /reverse HTTP/1.1",
            "x-revdial-version: 3",
            "x-go-host-type: host-test",
            "x-go-builder-key: 0123abcd",
            "x-go-builder-hostname: here",
            "x-go-builder-version: 26",
        ] {
            let found = head.lines().any(|l| l.eq_ignore_ascii_case(line));
            assert!(found, "{line} in {head}");
        }
        let process = head
            .lines()
            .find_map(|l| l.strip_prefix("x-buildlet-process: "));
        processes.insert(process.unwrap().parse::<u64>().unwrap());
        let mut conn = dialer.dial().await.unwrap();
        conn.write_all(b"GET /status HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut reply = String::new();
        conn.read_to_string(&mut reply).await.unwrap();
        assert!(reply.ends_with("\r\n\r\n{\"Version\":26}"), "{reply}");
        dialer.close();
    }
    assert_eq!(processes.len(), 1, "it is one process");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_ssh_server_is_reached_with_the_key_of_the_request() {
    let coordinator = Coordinator::new().await;
    let dir = tempfile::tempdir().unwrap();
    let _running = coordinator.buildlet(dir.path(), &CancellationToken::new());
    let (_, dialer) = coordinator.register().await;
    for (agent, early) in [
        ("", ""),
        ("User-Agent: Go-http-client/1.1\r\n", "SSH-2.0-test\r\n"),
    ] {
        let mut conn = dialer.dial().await.unwrap();
        let request = format!(
            "POST /connect-ssh HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n{agent}X-Go-Ssh-User: root\r\n\
             X-Go-Authorized-Key: {KEY}\r\n\r\n{early}"
        );
        conn.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\nSSH-2.0-") {
            reply.push(conn.read_u8().await.unwrap());
        }
        let reply = String::from_utf8(reply).unwrap();
        assert!(
            reply.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
            "{reply}"
        );
        let lower = reply.to_ascii_lowercase();
        for line in [
            "upgrade: ssh\r\n",
            "connection: upgrade\r\n",
            "x-ssh-host-key: ssh-ed25519 ",
        ] {
            assert!(lower.contains(line), "{line} in {reply}");
        }
    }
    let mut conn = dialer.dial().await.unwrap();
    conn.write_all(
        b"POST /connect-ssh HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    )
    .await
    .unwrap();
    let mut reply = String::new();
    conn.read_to_string(&mut reply).await.unwrap();
    assert!(
        reply.starts_with("HTTP/1.1 400 ") && reply.contains("X-Go-Authorized-Key"),
        "{reply}"
    );
}

#[tokio::test]
async fn a_refusal_is_not_retried_at_once() {
    let coordinator = Coordinator::new().await;
    let dir = tempfile::tempdir().unwrap();
    let _running = coordinator.buildlet(dir.path(), &CancellationToken::new());
    let (_, mut tls) = coordinator.accept().await;
    tls.write_all(
        b"HTTP/1.1 412 Precondition Failed\r\nRetry-After: 600\r\nContent-Length: 4\r\n\r\nno!\n",
    )
    .await
    .unwrap();
    // The buildlet has heard enough, and may be gone.
    let _ = tls.shutdown().await;
    let again = tokio::time::timeout(Duration::from_secs(2), coordinator.listener.accept()).await;
    assert!(again.is_err(), "the machine waits as long as it was told");
}

#[tokio::test]
async fn a_machine_gets_out_through_a_proxy_that_wants_credentials() {
    let coordinator = Coordinator::new().await;
    let address = coordinator.listener.local_addr().unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://machine:s3cret@{}", proxy.local_addr().unwrap());
    let tunnelling = async {
        let (mut client, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let mut server = TcpStream::connect(address).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        String::from_utf8(head).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let _running = coordinator.buildlet_at(
        FARM,
        &["--proxy", &url],
        dir.path(),
        &CancellationToken::new(),
    );
    let (head, (_, dialer)) = tokio::join!(tunnelling, coordinator.register());
    assert_eq!(
        head,
        // `printf machine:s3cret | base64`
        "CONNECT farm.test:443 HTTP/1.1\r\nHost: farm.test:443\r\n\
         Proxy-Authorization: Basic bWFjaGluZTpzM2NyZXQ=\r\n\r\n"
    );
    dialer.ping().await.unwrap();
}

#[tokio::test]
async fn a_proxy_that_is_not_understood_is_told_without_its_password() {
    let coordinator = Coordinator::new().await;
    let dir = tempfile::tempdir().unwrap();
    let proxy = ["--proxy", "socks5://machine:s3cret@proxy.example"];
    let running = coordinator.buildlet_at(FARM, &proxy, dir.path(), &CancellationToken::new());
    let error = running.await.unwrap().unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("SOCKS") && !text.contains("s3cret"), "{text}");
}

/// A name that no resolver knows.
const FARM: &str = "farm.test";

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
