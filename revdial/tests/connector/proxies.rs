//! Through a proxy, which alone knows where the server is.

use std::net::SocketAddr;

use http::StatusCode;
use revdial::Connector;
use revdial::connector::{ConnectError, NoProxy, Proxies, ProxyError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Server, connector, echo, expect_echo, read_head, within};

/// A proxy that wants `user` and `s3cret`, and knows `farm.test`.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn new(farm: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(tunnel(tcp, farm));
            }
        });
        Self {
            address,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn through(&self, credentials: &str) -> Proxies {
        let proxy = format!("http://{credentials}{}", self.address);
        Proxies::new(proxy.parse().unwrap(), NoProxy::default())
    }
}

/// What a proxy does with one connection.
pub(crate) async fn tunnel<T: AsyncRead + AsyncWrite + Unpin>(mut client: T, farm: SocketAddr) {
    let head = read_head(&mut client).await;
    let refusal = if !head.starts_with("CONNECT farm.test:") {
        "HTTP/1.1 403 Forbidden\r\n\r\n"
    } else if !head.contains("\r\nProxy-Authorization: Basic dXNlcjpzM2NyZXQ=\r\n") {
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"test\"\r\n\r\n"
    } else {
        ""
    };
    if !refusal.is_empty() {
        // A client that has heard enough goes away.
        let _ = client.write_all(refusal.as_bytes()).await;
        let _ = client.shutdown().await;
        return;
    }
    let mut server = TcpStream::connect(farm).await.unwrap();
    // In two pieces, as a slow network would.
    client.write_all(b"HTTP/1.1 200 Connection ").await.unwrap();
    client.flush().await.unwrap();
    client.write_all(b"established\r\n\r\n").await.unwrap();
    client.flush().await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

fn farm() -> Connector {
    connector("http://farm.test/reverse")
}

#[tokio::test]
async fn a_server_is_reached_through_a_proxy_with_credentials() {
    within(async {
        let server = Server::new().await;
        let proxy = Proxy::new(server.address).await;
        let connector = farm().proxies(proxy.through("user:s3cret@"));
        let (listener, (head, dialer)) = tokio::join!(connector.connect(), server.register());
        assert!(!head.to_ascii_lowercase().contains("proxy"), "{head}");
        let listener = listener.unwrap();
        assert_eq!(listener.peer_addr().socket(), Some(proxy.address));
        tokio::spawn(echo(listener));
        expect_echo(&dialer).await;
    })
    .await;
}

async fn refusal(connector: Connector) -> ProxyError {
    let error = connector.connect().await.unwrap_err();
    assert!(error.is_refusal());
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("wrong"), "{shown}");
    let ConnectError::Proxy { source, .. } = error else {
        panic!("{error:?}");
    };
    source
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_from_a_server_that_does() {
    within(async {
        let server = Server::new().await;
        let proxy = Proxy::new(server.address).await;
        let without = refusal(farm().proxies(proxy.through(""))).await;
        assert!(
            matches!(without, ProxyError::CredentialsMissing),
            "{without:?}"
        );
        let wrong = refusal(farm().proxies(proxy.through("user:wrong@"))).await;
        assert!(matches!(wrong, ProxyError::CredentialsRefused), "{wrong:?}");
        let elsewhere = connector("http://other.test/").proxies(proxy.through("user:s3cret@"));
        let forbidden = refusal(elsewhere).await;
        assert!(
            matches!(forbidden, ProxyError::Refused(StatusCode::FORBIDDEN)),
            "{forbidden:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_is_something_else_is_an_error_of_the_proxy() {
    within(async {
        let ssh = Server::new().await;
        let proxies = format!("http://{}", ssh.address).parse().unwrap();
        let connector = farm().proxies(Proxies::new(proxies, NoProxy::default()));
        let (outcome, _) = tokio::join!(connector.connect(), ssh.answer("SSH-2.0-x\r\n"));
        let error = outcome.unwrap_err();
        let ConnectError::Proxy { source, proxy, .. } = error else {
            panic!("{error:?}");
        };
        assert!(matches!(source, ProxyError::NotHttp(_)), "{source:?}");
        assert_eq!(proxy.as_str(), ssh.address.to_string());
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_is_down_is_named() {
    within(async {
        let gone = Server::new().await;
        let address = gone.address;
        drop(gone);
        let proxy = format!("http://user:s3cret@{address}").parse().unwrap();
        let connector = farm().proxies(Proxies::new(proxy, NoProxy::default()));
        let error = connector.connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Connect { .. }), "{error:?}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    })
    .await;
}

#[tokio::test]
async fn loopback_is_reached_without_the_proxy() {
    within(async {
        let server = Server::new().await;
        let proxies = "http://proxy.invalid:1".parse().unwrap();
        let connector = server
            .connector()
            .proxies(Proxies::new(proxies, NoProxy::default()));
        let (listener, _) = tokio::join!(connector.connect(), server.register());
        listener.unwrap();
    })
    .await;
}
