//! `/connect-tcp`: ports of the machine.

use std::time::Duration;

use buildlet_proto::client::Client;
use buildlet_proto::{Buildlet, ErrorStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::support::{AUTHORIZATION, Served};

fn client(served: &Served) -> impl Buildlet {
    let address = served.address();
    Client::new(move || TcpStream::connect(address)).with_password("secret")
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn request(port: &str) -> Vec<u8> {
    format!(
        "POST /connect-tcp HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: 0\r\nX-Target-Port: {port}\r\n\
         Authorization: Basic {AUTHORIZATION}\r\n\r\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn an_allowed_port_is_a_stream_whose_directions_end_apart() {
    let (listener, port) = listener().await;
    let served = Served::start_with_ports(&[port]).await;
    let server = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"login: ").await.unwrap();
        let mut heard = String::new();
        tcp.read_to_string(&mut heard).await.unwrap();
        tcp.write_all(heard.to_uppercase().as_bytes())
            .await
            .unwrap();
    };
    let client = client(&served);
    let user = async {
        let mut stream = client.connect_tcp(port).await.unwrap();
        let mut prompt = [0; 7];
        stream.read_exact(&mut prompt).await.unwrap();
        stream.write_all(b"glenda").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        (prompt, rest)
    };
    let both = async { tokio::join!(user, server) };
    let ((prompt, rest), ()) = tokio::time::timeout(Duration::from_secs(20), both)
        .await
        .unwrap();
    assert_eq!((&prompt, rest.as_str()), (b"login: ", "GLENDA"));
}

#[tokio::test]
async fn the_101_needs_no_upgrade_and_says_tcp() {
    let (listener, port) = listener().await;
    let served = Served::start_with_ports(&[port]).await;
    let mut tcp = served.connect().await;
    // What is sent with the request is the first of the stream.
    tcp.write_all(&[request(&port.to_string()), b"early".to_vec()].concat())
        .await
        .unwrap();
    let (mut machine, _) = listener.accept().await.unwrap();
    let mut early = [0; 5];
    machine.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    drop(machine);
    tcp.shutdown().await.unwrap();
    let mut head = String::new();
    tcp.read_to_string(&mut head).await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade"),
        "{head}"
    );
}

#[tokio::test]
async fn a_port_that_is_not_allowed_is_refused_with_the_way_to_allow_it() {
    let (listener, port) = listener().await;
    let served = Served::start_with_ports(&[port.wrapping_sub(1).max(1)]).await;
    let error = client(&served).connect_tcp(port).await.err().unwrap();
    assert_eq!(error.status(), ErrorStatus::FORBIDDEN);
    assert_eq!(
        error.message(),
        format!(
            "port {port} of this machine may not be reached; its buildlet allows it with --allow-tcp-port {port}"
        )
    );
    drop(listener);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_bad_gateway() {
    let (listener, port) = listener().await;
    drop(listener);
    let served = Served::start_with_ports(&[port]).await;
    let error = client(&served).connect_tcp(port).await.err().unwrap();
    assert_eq!(error.status(), ErrorStatus::BAD_GATEWAY);
    assert_eq!(
        error.message(),
        format!("nothing listens on port {port} of this machine")
    );
}

#[tokio::test]
async fn a_port_has_one_to_five_digits() {
    let served = Served::start_with_ports(&[1]).await;
    for bad in [
        "",
        "0",
        "-1",
        "65536",
        "ssh",
        "22 23",
        "99999999999999999999",
    ] {
        let reply = served.send(&request(bad)).await;
        assert_eq!(reply.status, 400, "{bad:?}");
        assert!(
            reply.text().starts_with("requires X-Target-Port"),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_is_gone_takes_the_stream_with_it() {
    let (listener, port) = listener().await;
    let served = Served::start_with_ports(&[port]).await;
    let stream = client(&served).connect_tcp(port).await.unwrap();
    let (mut machine, _) = listener.accept().await.unwrap();
    drop(stream);
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), machine.read_to_end(&mut rest));
    // An end or a reset, and nothing before it.
    let _ = read.await.unwrap();
    assert!(rest.is_empty());
}
