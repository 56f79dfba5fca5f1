//! The protocol's own client and this machine, together.

use std::time::Duration;

use buildlet_proto::api::ListRequest;
use buildlet_proto::client::Client;
use buildlet_proto::{Buildlet, Entry, ExecRequest, RelPath};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::files::{names, wait_for};
use super::support::Served;

fn rel(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn client(served: &Served, password: &str) -> impl Buildlet {
    let address = served.address();
    Client::new(move || TcpStream::connect(address)).with_password(password)
}

#[tokio::test]
async fn every_operation_works_through_the_client() {
    let served = Served::start().await;
    let client = client(&served, "secret");
    assert_eq!(client.status().await.unwrap().version, 26);
    assert_eq!(
        client.work_dir().await.unwrap(),
        served.work().to_str().unwrap()
    );

    let content = Box::pin(&b"#!/bin/sh\necho $1\nexit 42\n"[..]);
    client.write(rel("d/run"), 0o755, content).await.unwrap();
    let archive = client.read_tgz(rel("d")).await.unwrap();
    client.write_tgz(rel("e/copy"), archive).await.unwrap();

    let mut list = ListRequest::new(RelPath::ROOT);
    list.recursive = true;
    let mut lines = String::new();
    client
        .list(list)
        .await
        .unwrap()
        .read_to_string(&mut lines)
        .await
        .unwrap();
    let entries: Vec<Entry> = lines.lines().map(|line| line.parse().unwrap()).collect();
    let paths: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["d", "d/run", "e", "e/copy", "e/copy/run"]);

    let mut command = ExecRequest::new("e/copy/run");
    command.args = vec!["hello world".to_owned()];
    let mut execution = client.exec(command).await.unwrap();
    let mut output = String::new();
    execution.output.read_to_string(&mut output).await.unwrap();
    assert_eq!(output, "hello world\n");
    assert_eq!(execution.state.await.unwrap().exit_code(), Some(42));

    client.remove_all(vec![rel("d"), rel("e")]).await.unwrap();
    assert_eq!(names(&served), ["tmp"]);
    client.halt().await.unwrap();
}

#[tokio::test]
async fn errors_reach_the_client_with_their_sentence() {
    let served = Served::start().await;
    let error = client(&served, "wrong").status().await.unwrap_err();
    assert_eq!(error.status().status().as_u16(), 403);
    assert!(error.message().contains("invalid password"), "{error}");
    let garbage = Box::pin(tokio::io::repeat(b'x').take(10 << 20));
    let error = client(&served, "secret")
        .write_tgz(rel("x"), garbage)
        .await
        .unwrap_err();
    assert!(
        error.message().contains("requires gzip-compressed body"),
        "{error}"
    );
}

#[tokio::test]
async fn dropping_an_execution_kills_the_command() {
    let served = Served::start().await;
    let mut command = ExecRequest::system("/bin/sh");
    command.args = vec!["-c".to_owned(), "echo $$ > pid; sleep 600".to_owned()];
    let execution = client(&served, "secret").exec(command).await.unwrap();
    let pid = || std::fs::read_to_string(served.work().join("pid")).unwrap_or_default();
    wait_for("the command runs", || pid().ends_with('\n')).await;
    drop(execution);
    let stat = format!("/proc/{}/stat", pid().trim());
    let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z"));
    tokio::time::timeout(Duration::from_secs(10), wait_for("its end", gone))
        .await
        .unwrap();
}
