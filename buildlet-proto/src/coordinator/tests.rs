use std::io;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::*;
use crate::{Buildlet, ErrorStatus};

const INSTANCE: &str = r#"{"User":"user-al","Name":"user-al-linux-0","HostType":"host-linux","BuilderType":"linux","Created":"2026-11-23T20:00:00.25Z","Expires":"2026-11-23T21:30:00+01:00"}"#;

#[test]
fn an_instance_reads_as_go_writes_it() {
    let instance: Instance = serde_json::from_str(INSTANCE).unwrap();
    assert_eq!(instance.name, "user-al-linux-0");
    let lease = instance.expires.duration_since(instance.created).unwrap();
    assert_eq!(lease, Duration::from_millis(30 * 60 * 1000 - 250));
    let json = serde_json::to_string(&instance).unwrap();
    assert_eq!(json, INSTANCE.replace("21:30:00+01:00", "20:30:00Z"));
    assert_eq!(serde_json::from_str::<Instance>(&json).unwrap(), instance);
}

#[test]
fn a_restart_is_told_where_there_was_one() {
    let restarted = INSTANCE.replace('}', r#","Restarted":"2026-11-23T20:10:00Z"}"#);
    let mut instance: Instance = serde_json::from_str(&restarted).unwrap();
    let restart = instance.restarted.unwrap();
    let since = restart.duration_since(instance.created).unwrap();
    assert_eq!(since, Duration::from_millis(10 * 60 * 1000 - 250));
    let json = serde_json::to_string(&instance).unwrap();
    assert!(
        json.ends_with(r#","Restarted":"2026-11-23T20:10:00Z"}"#),
        "{json}"
    );
    instance.restarted = None;
    let json = serde_json::to_string(&instance).unwrap();
    assert!(!json.contains("Restarted"), "{json}");
}

#[test]
fn strange_times_do_no_harm() {
    let at = |time: &str| {
        serde_json::from_str::<Instance>(&INSTANCE.replace("2026-11-23T20:00:00.25Z", time))
    };
    assert_eq!(
        at("0001-01-01T00:00:00Z").unwrap().created,
        SystemTime::UNIX_EPOCH
    );
    at("9999-12-31T23:59:59-23:59").unwrap();
    for time in [
        "",
        "now",
        "2026-13-01T00:00:00Z",
        "2026-11-23",
        "99999-01-01T00:00:00Z",
    ] {
        assert!(at(time).is_err(), "{time:?}");
    }
}

#[test]
fn what_is_left_of_a_lease_is_never_negative() {
    let instance: Instance = serde_json::from_str(INSTANCE).unwrap();
    assert_eq!(
        instance.remaining(instance.expires + Duration::from_secs(1)),
        Duration::ZERO
    );
    assert_eq!(
        instance.remaining(instance.expires - Duration::from_secs(1)),
        Duration::from_secs(1)
    );
}

#[tokio::test]
async fn an_instance_in_the_form_of_2017_is_read() {
    let json = INSTANCE.replace(",\"", ",\n  \"");
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    let (created, waits, request) = create(&reply).await;
    assert_eq!(created.unwrap().name, "user-al-linux-0");
    assert_eq!(waits, []);
    let head = "POST /buildlet/create HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                host: farm.example.org\r\nauthorization: Basic YWw6dG9rZW4=\r\ncontent-length: 34\r\n\r\n";
    assert_eq!(request, format!("{head}version=20191119&builderType=linux"));
}

#[tokio::test]
async fn the_queue_is_reported_line_by_line() {
    let lines = [
        r#"{"status":{"message":"busy","ahead":2}}"#,
        r#"{"status":{"ahead":0,"reason":"one in use"}}"#,
    ];
    let (created, waits, _) = create(&streamed(&[
        lines[0],
        lines[1],
        &format!(r#"{{"buildlet":{INSTANCE}}}"#),
    ]))
    .await;
    assert_eq!(created.unwrap().name, "user-al-linux-0");
    let wait = |message: &str, ahead, reason: &str| Waiting {
        message: message.to_owned(),
        ahead,
        reason: reason.to_owned(),
    };
    assert_eq!(waits, [wait("busy", 2, ""), wait("", 0, "one in use")]);
}

#[tokio::test]
async fn an_error_in_the_middle_has_the_coordinators_text() {
    let (created, ..) = create(&streamed(&[
        r#"{"status":{"ahead":1}}"#,
        r#"{"error":"no more machines"}"#,
    ]))
    .await;
    let error = created.unwrap_err();
    assert_eq!(
        (error.status(), error.message()),
        (ErrorStatus::UNAVAILABLE, "no more machines")
    );
}

#[tokio::test]
async fn a_reply_that_ends_without_an_instance_is_an_error() {
    let (created, ..) = create(&streamed(&[r#"{"status":{"ahead":1}}"#])).await;
    assert_eq!(
        created.unwrap_err().message(),
        "the coordinator ended its reply without an instance"
    );
    let cut = streamed(&[r#"{"status":{"ahead":1}}"#]);
    let (created, ..) = create(cut.strip_suffix("0\r\n\r\n").unwrap()).await;
    assert!(created.unwrap_err().message().contains("cut"));
}

#[tokio::test]
async fn nonsense_is_an_error_and_not_a_lot_of_memory() {
    let endless = "x".repeat(80 * 1024);
    for line in ["{}", "[]", "{\"buildlet\":{}}", endless.as_str()] {
        let (created, ..) = create(&streamed(&[line])).await;
        assert_eq!(
            created.unwrap_err().message(),
            "the coordinator's reply is not as expected"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_falls_silent_is_not_waited_for() {
    let (client, mut server) = peer();
    let serve = async {
        let mut conn = server.recv().await.unwrap();
        read_request(&mut conn).await;
        let reply = streamed(&[r#"{"status":{"ahead":1}}"#]);
        let reply = reply.strip_suffix("0\r\n\r\n").unwrap();
        conn.write_all(reply.as_bytes()).await.unwrap();
        conn
    };
    let (created, _conn) = tokio::join!(client.create("linux", |_| {}), serve);
    let error = created.unwrap_err();
    assert_eq!(error.message(), "the coordinator has stopped answering");
}

#[tokio::test]
async fn instances_are_listed() {
    let (client, mut server) = peer();
    let json = format!("[\n{INSTANCE}\n]\n");
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    let (listed, request) =
        within_seconds(async { tokio::join!(client.list(), serve(&mut server, &reply)) }).await;
    assert_eq!(listed.unwrap()[0].builder_type, "linux");
    assert!(
        request.starts_with("GET /buildlet/list HTTP/1.1\r\n"),
        "{request}"
    );
}

#[tokio::test]
async fn what_there_is_to_lease_is_listed() {
    let json = r#"[{"Name":"linux","HostType":"host","Machines":2,"Idle":1,"Waiting":0,"New":{}}]"#;
    let (client, mut server) = peer();
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    );
    let (listed, request) =
        within_seconds(async { tokio::join!(client.types(), serve(&mut server, &reply)) }).await;
    let mut want = BuilderType::new("linux", "host");
    (want.machines, want.idle) = (2, 1);
    assert_eq!(listed.unwrap(), [want]);
    assert!(
        request.starts_with("GET /buildlet/types HTTP/1.1\r\n"),
        "{request}"
    );

    let (client, mut server) = peer();
    let reply = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
    let (listed, _) =
        within_seconds(async { tokio::join!(client.types(), serve(&mut server, reply)) }).await;
    let error = listed.unwrap_err();
    assert_eq!(
        error.message(),
        "the list of builder types is not as expected"
    );
}

#[tokio::test]
async fn an_instance_is_reached_through_the_proxy() {
    let (client, mut server) = peer();
    let buildlet = client.instance("user-al-linux-0").unwrap();
    let reply = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n/work";
    let (dir, request) =
        within_seconds(async { tokio::join!(buildlet.work_dir(), serve(&mut server, reply)) })
            .await;
    assert_eq!(dir.unwrap(), "/work");
    let want = "GET /workdir HTTP/1.1\r\nhost: farm.example.org\r\nauthorization: Basic YWw6dG9rZW4=\r\n\
                x-buildlet-proxy: user-al-linux-0\r\n\r\n";
    assert_eq!(request, want);
}

#[tokio::test]
async fn a_name_that_would_not_reach_the_proxy_is_no_instance() {
    let (client, _server) = peer();
    for name in ["", "a\r\nX-Evil: 1", "a\0"] {
        assert_eq!(
            client.instance(name).unwrap_err().status(),
            ErrorStatus::NOT_FOUND,
            "{name:?}"
        );
    }
}

/// Creates an instance, and is given `reply`, after which the connection is closed.
async fn create(reply: &str) -> (Result<Instance, ApiError>, Vec<Waiting>, String) {
    let (client, mut server) = peer();
    let mut waits = Vec::new();
    let call = client.create("linux", |waiting| waits.push(waiting));
    let (created, request) =
        within_seconds(async { tokio::join!(call, serve(&mut server, reply)) }).await;
    (created, waits, request)
}

async fn serve(server: &mut mpsc::Receiver<DuplexStream>, reply: &str) -> String {
    let mut conn = server.recv().await.unwrap();
    let request = read_request(&mut conn).await;
    conn.write_all(reply.as_bytes()).await.unwrap();
    request
}

async fn read_request(conn: &mut DuplexStream) -> String {
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        request.push(conn.read_u8().await.unwrap().into());
    }
    let length = request
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    conn.read_exact(&mut body).await.unwrap();
    request + std::str::from_utf8(&body).unwrap()
}

fn streamed(lines: &[&str]) -> String {
    let head =
        "HTTP/1.1 200 OK\r\nX-Supported-Version: 20191119\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = lines
        .iter()
        .map(|line| format!("{:x}\r\n{line}\n\r\n", line.len() + 1));
    format!("{head}{}0\r\n\r\n", chunks.collect::<String>())
}

fn peer() -> (
    CoordinatorClient<impl Connect>,
    mpsc::Receiver<DuplexStream>,
) {
    let (sender, receiver) = mpsc::channel(16);
    let connect = move || {
        let sender = sender.clone();
        async move {
            let (near, far) = tokio::io::duplex(256 * 1024);
            sender.send(far).await.map_err(io::Error::other)?;
            Ok(near)
        }
    };
    let authority = "farm.example.org".parse().unwrap();
    (
        CoordinatorClient::new(connect, &authority, "al", "token"),
        receiver,
    )
}

async fn within_seconds<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), Box::pin(test))
        .await
        .expect("the test ends within ten seconds")
}
