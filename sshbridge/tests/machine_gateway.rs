//! A gateway's backend against the SSH server built into a machine, as a coordinator and a buildlet use them.

#![cfg(all(feature = "machine", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::backend::{
    Backend as _, BackendChannel, BackendConn, BackendError, ChannelEvent, ChannelRequest,
    ChannelSource, PtyRequest, WindowSize,
};
use sshbridge::hostkey::HostKeys;
use sshbridge::machine::{LocalSettings, MachineServer};
use tokio::task::JoinSet;

#[tokio::test]
async fn commands_run_with_their_streams_and_status() {
    within(async {
        let machine = Machine::new();
        let (_conn, mut channel) = machine.session().await;
        channel
            .control
            .request(exec("echo out; echo err >&2; exit 42"))
            .await
            .unwrap();
        let outcome = collect(&mut *channel.source).await;
        assert_eq!(outcome.stdout, b"out\n");
        assert_eq!(outcome.stderr, b"err\n");
        assert_eq!(outcome.exit, Some(ChannelEvent::ExitStatus(42)));
    })
    .await;
}

#[tokio::test]
async fn a_gateway_sets_the_environment_of_a_session() {
    within(async {
        let machine = Machine::new();
        let (_conn, mut channel) = machine.session().await;
        let (name, value) = ("GO_BUILDER_NAME".to_owned(), "linux".to_owned());
        let variable = ChannelRequest::Env { name, value };
        channel.control.request(variable).await.unwrap();
        channel
            .control
            .request(exec("echo $GO_BUILDER_NAME"))
            .await
            .unwrap();
        assert_eq!(collect(&mut *channel.source).await.stdout, b"linux\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_over_at_once_was_granted_all_the_same() {
    within(async {
        let machine = Machine::new();
        let (conn, _) = machine.session().await;
        for _ in 0..100 {
            let mut channel = conn.open_session().await.unwrap();
            channel.control.request(exec("exit 3")).await.unwrap();
            let exit = collect(&mut *channel.source).await.exit;
            assert_eq!(exit, Some(ChannelEvent::ExitStatus(3)));
        }
    })
    .await;
}

#[tokio::test]
async fn sixteen_mebibytes_are_echoed_whole() {
    within(async {
        let machine = Machine::new();
        let (_conn, channel) = machine.session().await;
        let (mut sink, mut source, control) = (channel.sink, channel.source, channel.control);
        control.request(exec("cat")).await.unwrap();
        let sent: Vec<u8> = (0..BULK)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let input = Bytes::from(sent.clone());
        let write = async {
            for start in (0..input.len()).step_by(CHUNK) {
                sink.data(input.slice(start..start + CHUNK)).await.unwrap();
            }
            sink.eof().await.unwrap();
        };
        let (outcome, ()) = tokio::join!(collect(&mut *source), write);
        assert!(outcome.stdout == sent);
        assert_eq!(outcome.exit, Some(ChannelEvent::ExitStatus(0)));
    })
    .await;
}

#[tokio::test]
async fn a_terminal_is_resized_and_interrupted() {
    within(async {
        let machine = Machine::new();
        let (_conn, mut channel) = machine.session().await;
        let size = |columns, rows| WindowSize {
            columns,
            rows,
            ..WindowSize::default()
        };
        let pty = PtyRequest::new("xterm", size(80, 24));
        channel
            .control
            .request(ChannelRequest::Pty(pty))
            .await
            .unwrap();
        channel
            .control
            .request(exec("stty size; read x; stty size; exec sleep 60"))
            .await
            .unwrap();
        until(&mut channel, "24 80").await;
        channel
            .control
            .request(ChannelRequest::WindowChange(size(132, 50)))
            .await
            .unwrap();
        channel.sink.data(Bytes::from_static(b"\r")).await.unwrap();
        until(&mut channel, "50 132").await;
        channel
            .sink
            .data(Bytes::from_static(b"\x03"))
            .await
            .unwrap();
        let exit = collect(&mut *channel.source).await.exit;
        assert!(matches!(exit, Some(ChannelEvent::ExitSignal { signal, .. }) if signal == "INT"));
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_breaks_ends_what_it_ran_and_is_no_success() {
    within(async {
        let machine = Machine::new();
        let (_conn, mut channel) = machine.session().await;
        channel
            .control
            .request(exec("echo $$; trap '' HUP; echo all; sleep 60; sleep 60"))
            .await
            .unwrap();
        let text = until(&mut channel, "all").await;
        let id: u32 = text.lines().next().unwrap().parse().unwrap();
        assert!(lives(id));
        machine.served.lock().unwrap().abort_all();
        assert_eq!(collect(&mut *channel.source).await.exit, None);
        while lives(id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_host_key_is_refused() {
    within(async {
        let mut machine = Machine::new();
        machine.host_key = HostKeys::ephemeral().public_line();
        let result = SshBackend::new(Arc::new(machine)).connect().await;
        assert!(matches!(result, Err(BackendError::HostKeyMismatch)));
    })
    .await;
}

/// A machine whose server is reached through pipes of 64 KiB.
#[derive(Clone)]
struct Machine {
    server: Arc<MachineServer>,
    host_key: String,
    /// The connections to it; aborting them is what a break is.
    served: Arc<Mutex<JoinSet<()>>>,
}

impl Machine {
    fn new() -> Self {
        let mut settings = LocalSettings::new("/");
        settings.shell = Some("/bin/sh".into());
        settings.grace = Duration::from_millis(200);
        let server = MachineServer::new(HostKeys::ephemeral(), settings);
        Self {
            host_key: server.host_key_line(),
            server: Arc::new(server),
            served: Arc::default(),
        }
    }

    async fn session(&self) -> (Box<dyn BackendConn>, BackendChannel) {
        let backend = SshBackend::new(Arc::new(self.clone()));
        let conn = backend.connect().await.unwrap();
        let channel = conn.open_session().await.unwrap();
        (conn, channel)
    }
}

#[async_trait]
impl SshDialer for Machine {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (server, key) = (Arc::clone(&self.server), authorized_key.to_owned());
        self.served.lock().unwrap().spawn(async move {
            // How a connection ended is what the client is asked for.
            let _ = server.serve(theirs, &key).await;
        });
        Ok(SshTarget::new(ours, "anybody").with_host_key(&self.host_key))
    }
}

struct Outcome {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: Option<ChannelEvent>,
}

async fn collect(source: &mut dyn ChannelSource) -> Outcome {
    let mut outcome = Outcome {
        stdout: Vec::new(),
        stderr: Vec::new(),
        exit: None,
    };
    while let Some(event) = source.next().await {
        match event {
            ChannelEvent::Data(ref data) => outcome.stdout.extend_from_slice(data),
            ChannelEvent::Stderr(ref data) => outcome.stderr.extend_from_slice(data),
            ChannelEvent::ExitStatus(_) | ChannelEvent::ExitSignal { .. } => {
                outcome.exit = Some(event);
            }
            ChannelEvent::Eof | _ => {}
        }
    }
    outcome
}

/// Reads output until `text` was in it.
async fn until(channel: &mut BackendChannel, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match channel.source.next().await {
            Some(ChannelEvent::Data(data)) => seen.push_str(&String::from_utf8_lossy(&data)),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    seen
}

fn exec(line: &'static str) -> ChannelRequest {
    ChannelRequest::Exec(Bytes::from_static(line.as_bytes()))
}

/// Whether a process runs; one that waits to be reaped does not.
fn lives(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), test)
        .await
        .expect("the test ends in time")
}

const CHUNK: usize = 32 * 1024;
const BULK: u32 = 16 << 20;
