//! A coordinator and real buildlets over loopback TLS, driven by the client library.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "farm/dialects.rs"]
mod dialects;
#[path = "farm/reload.rs"]
mod reload;
#[path = "farm/restart.rs"]
mod restart;
#[path = "farm/ssh.rs"]
mod ssh;
#[path = "farm/support.rs"]
mod support;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use buildlet_proto::client::JobEvent;
use buildlet_proto::coordinator::{BuilderType, Instance, Waiting};
use buildlet_proto::jobs::{JobRequest, JobStdin, OutputRequest, StdinRequest};
use buildlet_proto::{ApiError, Buildlet, ExecRequest, RelPath, tls};
use coordinator::config::Config;
use coordinator::secret::Secret;
use coordinator::server::Server;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_leased_commanded_and_given_back() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let alice = farm.client("alice", ALICE);
        let mut types = vec![BuilderType::new("type", "host")];
        (types[0].machines, types[0].idle) = (1, 1);
        assert_eq!(alice.types().await.unwrap(), types);
        let instance = alice.create("type", |_| {}).await.unwrap();
        assert_eq!(instance.name, "user-alice-type-0");
        types[0].idle = 0;
        assert_eq!(alice.types().await.unwrap(), types);
        assert_eq!(
            (instance.user.as_str(), instance.host_type.as_str()),
            ("user-alice", "host")
        );

        let buildlet = alice.instance(&instance.name).unwrap();
        let script: &[u8] = b"#!/bin/sh\necho $FARM $GO_BUILDER_NAME $1\nexit 42\n";
        buildlet
            .write(path("hello"), 0o755, Box::pin(script))
            .await
            .unwrap();
        let mut request = ExecRequest::new("hello");
        request.args = vec!["you".into()];
        assert_eq!(
            run(&buildlet, request).await,
            ("green type you\n".into(), "exit status 42".into())
        );

        alice
            .instance(&instance.name)
            .unwrap()
            .halt()
            .await
            .unwrap();
        assert!(alice.list().await.unwrap().is_empty());
        let error = buildlet.work_dir().await.unwrap_err();
        assert_eq!(error.message(), "unknown or expired buildlet");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_user_finds_an_empty_machine() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let (alice, bob) = (farm.client("alice", ALICE), farm.client("bob", BOB));
        let hers = alice.create("type", |_| {}).await.unwrap();
        let buildlet = alice.instance(&hers.name).unwrap();
        buildlet
            .write(path("secret"), 0o600, Box::pin(&b"x"[..]))
            .await
            .unwrap();
        buildlet.halt().await.unwrap();
        let his = bob.create("type", |_| {}).await.unwrap();
        let listing = bob
            .instance(&his.name)
            .unwrap()
            .list(buildlet_proto::api::ListRequest::new(RelPath::ROOT))
            .await;
        let mut text = String::new();
        listing.unwrap().read_to_string(&mut text).await.unwrap();
        assert!(!text.contains("secret"), "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_go_through_the_proxy_with_the_environment_and_end_with_the_lease() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let alice = farm.client("alice", ALICE);
        let instance = alice.create("type", |_| {}).await.unwrap();
        let buildlet = alice.instance(&instance.name).unwrap();
        let script = "echo $FARM $GO_BUILDER_NAME; cat; (setsid sleep 9701 &); exec sleep 9702";
        let mut request = JobRequest::shell(script);
        request.stdin = JobStdin::Pipe;
        let job = buildlet.start_job(request, None).await.unwrap();
        let typed = Box::pin(&b"typed\n"[..]);
        let place = StdinRequest::at(0).and_close();
        let taken = buildlet.write_job_stdin(job.id, place, typed).await;
        assert_eq!(taken.unwrap().taken, 6);
        let mut output = buildlet.follow_job(job.id, OutputRequest::following(0, 0));
        let mut text = Vec::new();
        while text.len() < "green type\ntyped\n".len() {
            match output.next().await.unwrap() {
                JobEvent::Data { bytes, .. } => text.extend(bytes),
                event @ (JobEvent::End(_)
                | JobEvent::Gap { .. }
                | JobEvent::Retrying { .. }
                | _) => panic!("{event:?}"),
            }
        }
        assert_eq!(text, b"green type\ntyped\n");

        buildlet.halt().await.unwrap();
        let error = output.next().await.unwrap_err();
        assert_eq!(error.message(), "unknown or expired buildlet");
        // Nobody has leased the machine since.
        while processes("sleep 9701") + processes("sleep 9702") > 0 {
            tokio::task::yield_now().await;
        }
        let bob = farm.client("bob", BOB);
        let his = bob.create("type", |_| {}).await.unwrap();
        let jobs = bob.instance(&his.name).unwrap().list_jobs().await.unwrap();
        assert!(jobs.is_empty(), "{jobs:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gomote_runs_jobs() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let alice = farm.client("alice", ALICE);
        alice.create("type", |_| {}).await.unwrap();

        let script = "cat; echo $FARM; echo error >&2; exit 42";
        let ran = farm
            .gomote(&["run", "type-0", "sh", "-c", script], "typed ")
            .await;
        assert_eq!(ran, (42, "typed green\n".into(), "error\n".into()));
        let ran = farm.gomote(&["run", "type-0", "nonesuch"], "").await;
        assert_eq!(ran.0, 127, "{}", ran.2);
        let ran = farm.gomote(&["run", "--debug", "type-0", "true"], "").await;
        assert!(ran.1.starts_with(":: Running "), "{}", ran.1);

        let script = "echo begun; while ! test -e go; do sleep 0.01; done; kill -9 $$";
        let detach = ["run", "--detach", "type-0", "sh", "-c", script];
        let (exit, id, _) = farm.gomote(&detach, "").await;
        assert_eq!(exit, 0);
        let id = id.trim();
        let (_, list, _) = farm.gomote(&["jobs", "type-0"], "").await;
        let line = format!("{id}\trunning\tsh -c {script}\n");
        assert!(list.ends_with(&line), "{list}");
        let go = farm.gomote(&["put", "type-0", "-", "go"], "").await;
        assert_eq!(go.0, 0, "{}", go.2);
        let waited = farm.gomote(&["wait", "type-0", id], "").await;
        assert_eq!((waited.0, waited.1.as_str()), (137, ""));
        let logs = farm.gomote(&["logs", "-f", "type-0", id], "").await;
        assert_eq!(logs, (0, "begun\n".into(), String::new()));
        let attached = farm.gomote(&["attach", "type-0", id], "").await;
        assert_eq!((attached.0, attached.1.as_str()), (137, "begun\n"));

        let detach = ["run", "--detach", "type-0", "setsid", "sleep", "9711"];
        let (_, id, _) = farm.gomote(&detach, "").await;
        let killed = farm.gomote(&["kill", "type-0", id.trim()], "").await;
        assert_eq!(killed, (0, String::new(), String::new()));
        assert_eq!(processes("sleep 9711"), 0);
        let gone = farm.gomote(&["wait", "type-0", "0000000000"], "").await;
        assert_eq!(gone.0, 255, "{}", gone.2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_gomote_kills_its_command() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let alice = farm.client("alice", ALICE);
        alice.create("type", |_| {}).await.unwrap();
        let mut command = farm.gomote_command();
        command.args(["run", "--no-stdin", "type-0", "sleep", "9721"]);
        let mut gomote = command.spawn().unwrap();
        while processes("sleep 9721") == 0 {
            tokio::task::yield_now().await;
        }
        let pid = gomote.id().unwrap().to_string();
        let asked = tokio::process::Command::new("kill")
            .args(["-INT", &pid])
            .status();
        assert!(asked.await.unwrap().success());
        assert_eq!(gomote.wait().await.unwrap().code(), Some(130));
        assert_eq!(processes("sleep 9721"), 0);
    })
    .await;
}

/// How many processes run this command, by whatever path; gomote, which was asked for it, is none.
fn processes(command: &str) -> usize {
    let line = |entry: io::Result<std::fs::DirEntry>| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    };
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(line);
    let runs = |line: &String| line.trim_end().ends_with(command) && !line.contains("gomote");
    lines.filter(runs).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_machine_waits_in_the_queue_and_hears_of_it() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let (alice, bob) = (farm.client("alice", ALICE), farm.client("bob", BOB));
        let hers = alice.create("type", |_| {}).await.unwrap();
        let (told, mut heard) = tokio::sync::mpsc::channel(8);
        let waiting = AbortOnDropHandle::new(tokio::spawn(async move {
            bob.create("type", move |waiting: Waiting| {
                let _ = told.try_send(waiting);
            })
            .await
        }));
        let status = heard.recv().await.expect("a status while waiting");
        assert_eq!(
            (status.ahead, status.reason.as_str()),
            (0, "machines connected: 1, in use: 1")
        );
        alice.instance(&hers.name).unwrap().halt().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().name, "user-bob-type-0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_killed_comes_back_to_its_lease() {
    in_time(async {
        let farm = Farm::start("").await;
        let machine = farm.machine("m1").await;
        let alice = farm.client("alice", ALICE);
        let instance = alice.create("type", |_| {}).await.unwrap();
        let buildlet = alice.instance(&instance.name).unwrap();
        let mut running = buildlet.exec(sleeper()).await.unwrap();
        first_line(&mut running.output).await;
        machine.kill(&farm.pool).await;
        let mut rest = Vec::new();
        let read = running.output.read_to_end(&mut rest).await;
        let state = running.state.await;
        assert!(
            read.is_err() || state.is_err(),
            "a cut command is no success: {read:?} {state:?}"
        );
        let error = buildlet.work_dir().await.unwrap_err();
        assert!(error.message().contains("not connected"), "{error}");

        assert_eq!(alice.list().await.unwrap()[0].restarted, None);
        let _machine = farm.machine("m1").await;
        let after = &alice.list().await.unwrap()[0];
        assert_eq!(after.name, instance.name);
        assert!(after.restarted.unwrap() >= after.created);
        assert_eq!(run(&buildlet, ExecRequest::system("true")).await.1, "ok");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_cuts_what_is_running() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let alice = farm.client("alice", ALICE);
        let instance = alice.create("type", |_| {}).await.unwrap();
        let buildlet = alice.instance(&instance.name).unwrap();
        let mut running = buildlet.exec(sleeper()).await.unwrap();
        first_line(&mut running.output).await;
        buildlet.halt().await.unwrap();
        let mut rest = Vec::new();
        let read = running.output.read_to_end(&mut rest).await;
        let state = running.state.await;
        assert!(
            read.is_err() || state.is_err(),
            "a cut command is no success: {read:?} {state:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_sees_and_reaches_their_own_alone() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let instance = farm
            .client("alice", ALICE)
            .create("type", |_| {})
            .await
            .unwrap();
        let bob = farm.client("bob", BOB);
        assert!(bob.list().await.unwrap().is_empty());
        let error = bob
            .instance(&instance.name)
            .unwrap()
            .work_dir()
            .await
            .unwrap_err();
        assert_eq!(
            (error.status().status().as_u16(), error.message()),
            (401, "you don't own that buildlet")
        );
        let error = farm.client("alice", BOB).list().await.unwrap_err();
        assert_eq!(
            (error.status().status().as_u16(), error.message()),
            (401, "bad username or password")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_get_their_texts() {
    in_time(async {
        let farm = Farm::start("").await;
        let auth = "Authorization: Basic YWxpY2U6YWxpY2UtdG9rZW4=\r\n";
        for (request, status, text) in [
            (
                "GET /buildlet/list HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
                400,
                "missing required authentication\n",
            ),
            (
                format!(
                    "POST /buildlet/list HTTP/1.1\r\nHost: \r\n{auth}Content-Length: 0\r\n\r\n"
                ),
                400,
                "GET required\n",
            ),
            (
                "GET /buildlet/types HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
                400,
                "missing required authentication\n",
            ),
            (
                format!("GET /buildlet/create HTTP/1.1\r\nHost: \r\n{auth}\r\n"),
                400,
                "POST required\n",
            ),
            (
                create(auth, "builderType=type"),
                400,
                "gomote client version \"\" is too old; predates server version",
            ),
            (
                create(auth, "version=20160922"),
                400,
                "missing 'builderType' parameter\n",
            ),
            (
                create(auth, "version=20160922&builderType=x"),
                400,
                "unknown builder type in 'builderType' parameter; there are: type",
            ),
            (
                format!("GET /x HTTP/1.1\r\nHost: \r\n{auth}X-Buildlet-Proxy: nonesuch\r\n\r\n"),
                502,
                "unknown or expired buildlet\n",
            ),
            (
                "GET /nonesuch HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
                404,
                "404 page not found\n",
            ),
            (
                "GET /healthz HTTP/1.1\r\nHost: \r\n\r\n".to_owned(),
                200,
                "ok\n",
            ),
        ] {
            let reply = farm.raw(&request).await;
            assert!(
                reply.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}{reply}"
            );
            assert!(reply.contains(text), "{request}{reply}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_may_not_register_are_told_why() {
    in_time(async {
        let farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        for (headers, status, text) in [
            ("", 400, "missing X-Go-Host-Type"),
            ("X-Go-Builder-Type: a\r\nX-Go-Host-Type: host\r\n", 400, "X-Go-Builder-Type is not understood"),
            ("X-Go-Host-Type: host\r\n", 400, "missing X-Go-Builder-Hostname"),
            ("X-Go-Host-Type: host\r\nX-Go-Builder-Hostname: <b>\r\n", 400, "X-Go-Builder-Hostname: letters"),
            ("X-Go-Host-Type: host\r\nX-Go-Builder-Hostname: m2\r\n", 412, "bad key for mode \"host\""),
            ("X-Go-Host-Type: other\r\nX-Go-Builder-Hostname: m2\r\nX-Go-Builder-Key: machine-key\r\n", 412, "bad key for mode \"other\""),
            (
                "X-Go-Host-Type: host\r\nX-Go-Builder-Hostname: m2\r\nX-Go-Builder-Key: machine-key\r\nX-Revdial-Version: 9\r\n",
                400,
                "unknown revdial version",
            ),
            (
                "X-Go-Host-Type: host\r\nX-Go-Builder-Hostname: m1\r\nX-Go-Builder-Key: machine-key\r\nX-Revdial-Version: 3\r\n",
                409,
                "a machine named \"m1\" of host type \"host\" is connected from",
            ),
        ] {
            let reply = farm.raw(&format!("GET /reverse HTTP/1.1\r\nHost: \r\n{headers}\r\n")).await;
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}{reply}");
            assert!(reply.contains(text), "{headers}{reply}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_page_shows_what_there_is() {
    in_time(async {
        let farm = Farm::start("[host_types.host.machines.absent]\n").await;
        let _machine = farm.machine("m1").await;
        let instance: Instance = farm
            .client("alice", ALICE)
            .create("type", |_| {})
            .await
            .unwrap();
        let page = farm.raw("GET / HTTP/1.1\r\nHost: \r\n\r\n").await;
        for text in [
            "id=\"remote\"",
            "id=\"pools\"",
            &instance.name,
            "m1",
            "1/1",
            "absent",
            "missing",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(
            !page.contains("alice-token") && !page.contains("127.0.0.1"),
            "{page}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_registers_and_then_says_nothing_harms_nobody() {
    in_time(async {
        let farm = Farm::start("").await;
        let mut mute = farm.connect().await.unwrap();
        mute.write_all(REGISTER).await.unwrap();
        let mut head = [0; 12];
        mute.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        let _machine = farm.machine("m1").await;
        farm.client("alice", ALICE)
            .create("type", |_| {})
            .await
            .unwrap();
    })
    .await;
}

async fn run(buildlet: &impl Buildlet, request: ExecRequest) -> (String, String) {
    let result = async {
        let mut execution = buildlet.exec(request).await?;
        let mut output = String::new();
        execution
            .output
            .read_to_string(&mut output)
            .await
            .map_err(|e| ApiError::internal(e.to_string()))?;
        Ok::<_, ApiError>((output, execution.state.await?.to_string()))
    };
    result.await.unwrap()
}

/// A command that says that it runs, and goes on.
fn sleeper() -> ExecRequest {
    let mut request = ExecRequest::system("sh");
    request.args = vec!["-c".into(), "echo running; exec sleep 600".into()];
    request
}

async fn first_line(output: &mut (impl AsyncRead + Unpin)) {
    let mut line = String::new();
    BufReader::with_capacity(1, output)
        .read_line(&mut line)
        .await
        .unwrap();
    assert_eq!(line, "running\n");
}

fn create(auth: &str, form: &str) -> String {
    let kind = "Content-Type: application/x-www-form-urlencoded";
    let length = form.len();
    format!(
        "POST /buildlet/create HTTP/1.1\r\nHost: \r\n{auth}{kind}\r\nContent-Length: {length}\r\n\r\n{form}"
    )
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// A lost wake-up anywhere must not hold up the whole run.
async fn in_time(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), Box::pin(test))
        .await
        .expect("the test took more than a minute");
}

/// What a machine asks for that is a test itself.
const REGISTER: &[u8] =
    b"GET /reverse HTTP/1.1\r\nHost: \r\nX-Go-Host-Type: host\r\nX-Go-Builder-Hostname: fake\r\n\
    X-Go-Builder-Key: machine-key\r\nX-Revdial-Version: 3\r\n\r\n";
