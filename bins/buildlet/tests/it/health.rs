//! Whether the machine is well, and who is told.

use std::time::Duration;

use buildlet_proto::api::Unhealthy;
use buildlet_proto::client::Client;
use buildlet_proto::{Buildlet, RelPath};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr};

use super::programs::{listening, program};

/// More than any disk has free.
const ALL: &str = "1099511627775";

/// What the program logs, from its start.
fn log(child: &mut Child) -> Lines<BufReader<ChildStderr>> {
    BufReader::new(child.stderr.take().unwrap()).lines()
}

/// The line with `text`, as soon as it is there.
async fn line(log: &mut Lines<BufReader<ChildStderr>>, text: &str) -> String {
    let find = async {
        while let Some(line) = log.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("the program ended without {text:?}")
    };
    tokio::time::timeout(Duration::from_secs(20), find)
        .await
        .unwrap()
}

async fn ask(address: &str, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    tcp.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn a_watchdog_is_answered_on_a_port_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, _) = listening(dir.path(), |program| {
        program.args(["--health-addr", "0"]);
    })
    .await;
    let mut log = log(&mut child);
    let told = line(&mut log, "GET /healthz").await;
    let address = told.split("address=").nth(1).unwrap().trim();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let reply = ask(address, "GET /healthz").await;
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    assert!(reply.ends_with("\r\n\r\nok\n"), "{reply}");
    for (request, status) in [
        ("POST /healthz", "400"),
        ("GET /status", "404"),
        ("GET /exec", "404"),
        ("GET /", "404"),
    ] {
        let reply = ask(address, request).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(reply.starts_with(&expected), "{request}: {reply}");
    }
}

#[tokio::test]
async fn a_machine_without_space_says_so_wherever_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, address) = listening(dir.path(), |program| {
        program.args(["--health-addr", "0", "--low-disk-mib", ALL]);
    })
    .await;
    let mut log = log(&mut child);
    let told = line(&mut log, "GET /healthz").await;
    let health = told.split("address=").nth(1).unwrap().trim();
    for address in [health, &address] {
        let reply = ask(address, "GET /healthz").await;
        assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        assert!(reply.ends_with("the disk is nearly full\n"), "{reply}");
    }
    let client = Client::new(move || TcpStream::connect(address.clone())).with_password("secret");
    let status = client.status().await.unwrap();
    assert_eq!(status.unhealthy, Some(Unhealthy::LowDisk));
    // It does what it is asked all the same: somebody has to make room.
    client.remove_all(vec![RelPath::ROOT]).await.unwrap();
}

#[tokio::test]
async fn a_machine_without_space_does_not_register() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let coordinator = listener.local_addr().unwrap().to_string();
    let key = dir.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    let pin = format!("sha256:{}", "0".repeat(64));
    let start = |low_disk: &str| {
        let mut program = program(dir.path());
        program
            .args(["--host-type", "t", "--coordinator", &coordinator])
            .args(["--pin", &pin, "--low-disk-mib", low_disk, "--key-file"])
            .arg(&key);
        program.spawn().unwrap()
    };
    let mut child = start(ALL);
    let told = line(&mut log(&mut child), "does not register").await;
    assert!(told.contains("the disk is nearly full"), "{told}");
    // It says so before it dials, or instead.
    let came = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
    assert!(came.is_err());
    child.kill().await.unwrap();
    let _well = start("0");
    listener.accept().await.unwrap();
}
