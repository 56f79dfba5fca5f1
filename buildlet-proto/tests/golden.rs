//! What Go's buildlet client and Go's buildlet said to each other, with ours in the place of either. `golden/README.md` says how
//! it was recorded.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::io;
use std::time::Duration;

use buildlet_proto::client::{Client, Connect};
use buildlet_proto::server::{Auth, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

/// Who speaks, and what they say, in turns.
type Capture = &'static [(&'static str, &'static [u8])];

const CONNECT_SSH: Capture = include!("golden/connect-ssh.rs");
const EXEC: Capture = include!("golden/exec.rs");
const STATUS: Capture = include!("golden/status.rs");
const WRITE: Capture = include!("golden/write.rs");

/// Go's client asks our server, which asks through our client, which Go's buildlet answers: the reply comes out as it went in.
#[tokio::test]
async fn gos_words_pass_through_our_server_and_client() {
    for capture in [STATUS, WRITE, EXEC] {
        let [("client", asked), ("machine", replied)] = capture else {
            panic!("a request and a reply");
        };
        let (client, mut connections) = client();
        let server = Server::new(client, Auth::open());
        let (mut near, far) = duplex(64 * 1024);
        let serving = async { server.serve(far).await };
        let machine = async {
            let mut machine = connections.recv().await.unwrap();
            read_request(&mut machine).await;
            machine.write_all(replied).await.unwrap();
            machine
        };
        let asking = async {
            near.write_all(asked).await.unwrap();
            let (head, body) = split_head(replied);
            let got = read_head(&mut near).await;
            assert_eq!(seen(&got), seen(head));
            let mut got = vec![0; body.len()];
            near.read_exact(&mut got).await.unwrap();
            assert_eq!(text(&got), text(body));
            drop(near);
        };
        let all = async { tokio::join!(serving, machine, asking) };
        let (served, ..) = tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .expect("the test hangs");
        served.unwrap();
    }
}

#[tokio::test]
async fn gos_stream_to_an_ssh_server_passes_through_ours() {
    let [
        ("client", asked),
        ("machine", head),
        ("client", hello),
        ("machine", banner),
    ] = CONNECT_SSH
    else {
        panic!("a request, a reply, and a word from each");
    };
    let (client, mut connections) = client();
    let server = Server::new(client, Auth::open());
    let (mut near, far) = duplex(64 * 1024);
    let serving = async { server.serve(far).await };
    let machine = async {
        let mut machine = connections.recv().await.unwrap();
        read_request(&mut machine).await;
        machine.write_all(head).await.unwrap();
        let mut got = vec![0; hello.len()];
        machine.read_exact(&mut got).await.unwrap();
        assert_eq!(text(&got), text(hello));
        machine.write_all(banner).await.unwrap();
        // The stream ends when the client leaves.
        assert_eq!(machine.read(&mut [0]).await.unwrap(), 0);
    };
    let session = async {
        near.write_all(asked).await.unwrap();
        let got = read_head(&mut near).await;
        assert_eq!(seen(&got), seen(head));
        near.write_all(hello).await.unwrap();
        let mut got = vec![0; banner.len()];
        near.read_exact(&mut got).await.unwrap();
        assert_eq!(text(&got), text(banner));
        drop(near);
    };
    let all = async { tokio::join!(serving, machine, session) };
    let (served, ..) = tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("the test hangs");
    served.unwrap();
}

/// A client, and the far ends of what it connects.
fn client() -> (Client<impl Connect>, mpsc::Receiver<DuplexStream>) {
    let (sender, receiver) = mpsc::channel(1);
    let connect = move || {
        let sender = sender.clone();
        async move {
            let (near, far) = duplex(64 * 1024);
            sender.send(far).await.map_err(io::Error::other)?;
            Ok(near)
        }
    };
    (Client::new(connect), receiver)
}

/// The lines of a reply's head that a client acts on, sorted: Go tells the length of what ours streams, and each its time.
fn seen(head: &[u8]) -> Vec<String> {
    let lines = text(head).lines().map(str::to_lowercase);
    let own = [
        "date:",
        "content-length:",
        "transfer-encoding:",
        "x-request-id:",
        "connection:",
    ];
    let mut lines: Vec<_> = lines
        .filter(|line| !own.iter().any(|name| line.starts_with(name)))
        .collect();
    lines.sort();
    lines
}

/// Reads a request to its end.
async fn read_request(machine: &mut DuplexStream) {
    let head = read_head(machine).await;
    let head = text(&head).to_lowercase();
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.lines().next().unwrap().parse().unwrap();
        machine.read_exact(&mut vec![0; length]).await.unwrap();
    } else if head.contains("transfer-encoding: chunked") {
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(machine.read_u8().await.unwrap());
        }
    }
}

async fn read_head(stream: &mut DuplexStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    head
}

/// A head, and what is behind it.
fn split_head(said: &[u8]) -> (&[u8], &[u8]) {
    let end = said
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    said.split_at(end + 4)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
