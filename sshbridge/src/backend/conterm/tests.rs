//! Whole sessions with a machine of our own making, which Debian's drawterm takes for a real one (`interop/plan9`).

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use super::*;
use crate::backend::{
    BackendChannel, BackendError, ChannelEvent, ChannelRequest, PtyRequest, WindowSize,
};
use crate::sftp::{self, FileError};

/// Reaches a [`Peer`] in memory.
struct Near {
    peer: Arc<Peer>,
    protocol: ContermProtocol,
    cut: CancellationToken,
    tasks: Mutex<tokio::task::JoinSet<Option<()>>>,
    files: Option<Arc<dyn FileApi>>,
}

#[async_trait]
impl ContermDialer for Near {
    async fn dial(&self, service: Service) -> Result<Box<dyn Stream>, BackendError> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (peer, cut) = (self.peer.clone(), self.cut.clone());
        let protocol = self.protocol;
        let serving = async move {
            match (service, protocol) {
                (Service::Auth, _) => peer.auth(Box::new(theirs)).await,
                (Service::Machine, ContermProtocol::Cpu) => peer.cpu(Box::new(theirs)).await,
                (Service::Machine, ContermProtocol::Rcpu) => peer.rcpu(Box::new(theirs)).await,
            }
        };
        self.tasks.lock().unwrap().spawn(async move {
            tokio::select! {
                served = serving => served,
                () = cut.cancelled() => None,
            }
        });
        Ok(Box::new(ours))
    }

    fn files(&self) -> Option<Arc<dyn FileApi>> {
        self.files.clone()
    }
}

fn backend(
    protocol: ContermProtocol,
    auth: AuthProtocol,
    tickets: Tickets,
) -> (ContermBackend, CancellationToken) {
    let cut = CancellationToken::new();
    let near = Near {
        peer: Peer::new("glenda", b"glenda123"),
        protocol,
        cut: cut.clone(),
        tasks: Mutex::default(),
        files: None,
    };
    let login = ContermLogin::new(protocol, "glenda", b"glenda123");
    let login = login.with_auth([auth]).with_tickets(tickets);
    (ContermBackend::new(Arc::new(near), login), cut)
}

fn rcpu() -> (ContermBackend, CancellationToken) {
    backend(
        ContermProtocol::Rcpu,
        AuthProtocol::Dp9ik,
        Tickets::AuthServer,
    )
}

async fn exec(backend: &ContermBackend, command: &str) -> BackendChannel {
    let channel = backend.open_session().await.unwrap();
    let command = ChannelRequest::Exec(Bytes::from(command.to_owned()));
    channel.control.request(command).await.unwrap();
    channel
}

#[derive(Debug, Default, Eq, PartialEq)]
struct Outcome {
    output: Vec<u8>,
    error: Vec<u8>,
    status: Option<u32>,
}

async fn outcome(channel: &mut BackendChannel) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(event) = channel.source.next().await {
        match event {
            ChannelEvent::Data(data) => outcome.output.extend_from_slice(&data),
            ChannelEvent::Stderr(data) => outcome.error.extend_from_slice(&data),
            ChannelEvent::ExitStatus(status) => outcome.status = Some(status),
            ChannelEvent::Eof => {}
            ChannelEvent::ExitSignal { .. } => panic!("Plan 9 has no signals"),
        }
    }
    outcome
}

#[tokio::test]
async fn every_way_in_runs_a_command_with_two_outputs_and_a_status() {
    use AuthProtocol::{Dp9ik, P9sk1};
    use ContermProtocol::{Cpu, Rcpu};
    for (protocol, auth, tickets) in [
        (Rcpu, Dp9ik, Tickets::AuthServer),
        (Rcpu, Dp9ik, Tickets::HostOwner),
        (Rcpu, P9sk1, Tickets::AuthServer),
        (Cpu, P9sk1, Tickets::AuthServer),
        (Cpu, P9sk1, Tickets::HostOwner),
        (Cpu, Dp9ik, Tickets::AuthServer),
    ] {
        let (backend, _cut) = backend(protocol, auth, tickets);
        let mut channel = exec(&backend, "echo 'it''s' out; echo err >&2; exit 3").await;
        let expected = Outcome {
            output: b"its out\n".to_vec(),
            error: b"err\n".to_vec(),
            status: Some(3),
        };
        assert_eq!(
            outcome(&mut channel).await,
            expected,
            "{protocol:?} {auth:?}"
        );
    }
}

#[tokio::test]
async fn a_command_has_clean_streams_in_both_directions() {
    let (backend, _cut) = rcpu();
    let mut channel = exec(&backend, "cat").await;
    let sent: Vec<u8> = (0..2_000_003_u32)
        .map(|i| (i * 7 % 256).to_le_bytes()[0])
        .collect();
    let mut sink = std::mem::replace(&mut channel.sink, Box::new(Nowhere));
    let input = async {
        for piece in sent.chunks(32 << 10) {
            sink.data(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        sink.eof().await.unwrap();
    };
    let ((), outcome) = tokio::join!(input, outcome(&mut channel));
    assert_eq!(outcome.status, Some(0));
    assert!(outcome.output == sent, "{} bytes", outcome.output.len());
}

struct Nowhere;

#[async_trait]
impl crate::backend::ChannelSink for Nowhere {
    async fn data(&mut self, _: Bytes) -> Result<(), BackendError> {
        Ok(())
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_terminal_has_a_banner_an_echo_and_an_interrupt() {
    let (backend, _cut) = rcpu();
    let mut channel = backend.open_session().await.unwrap();
    let size = WindowSize {
        columns: 80,
        rows: 24,
        ..WindowSize::default()
    };
    let pty = ChannelRequest::Pty(PtyRequest::new("xterm", size));
    channel.control.request(pty).await.unwrap();
    let command = Bytes::from_static(
        b"trap 'echo caught; exit 7' TERM; echo ready; read x; echo got $x; read y",
    );
    let command = ChannelRequest::Exec(command);
    channel.control.request(command).await.unwrap();
    let mut seen = Vec::new();
    for (wanted, typed) in [
        ("ready\r\n", "hex\x7fllo\r"),
        ("got hello\r\n", "never\x03"),
    ] {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            match channel.source.next().await {
                Some(ChannelEvent::Data(data)) => seen.extend_from_slice(&data),
                other => panic!("{other:?} after {}", String::from_utf8_lossy(&seen)),
            }
        }
        channel
            .sink
            .data(Bytes::from_static(typed.as_bytes()))
            .await
            .unwrap();
    }
    let outcome = outcome(&mut channel).await;
    seen.extend_from_slice(&outcome.output);
    let seen = String::from_utf8(seen).unwrap();
    assert!(
        seen.starts_with("# A Plan 9 console by rcpu, as glenda."),
        "{seen}"
    );
    assert!(seen.contains("hex\x08 \x08llo\r\n"), "{seen:?}");
    assert!(seen.contains("never^C\r\ncaught\r\n"), "{seen:?}");
    assert_eq!(outcome.status, Some(7));
}

#[tokio::test]
async fn a_signal_reaches_what_runs() {
    let (backend, _cut) = rcpu();
    let mut channel = exec(
        &backend,
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done",
    )
    .await;
    assert_eq!(
        channel.source.next().await,
        Some(ChannelEvent::Data("ready\n".into()))
    );
    let signal = ChannelRequest::Signal("INT".to_owned());
    channel.control.request(signal).await.unwrap();
    assert_eq!(outcome(&mut channel).await.status, Some(5));
    let (backend, _cut) = rcpu();
    let channel = exec(&backend, "exec sleep 1000").await;
    let signal = ChannelRequest::Signal("USR1".to_owned());
    channel.control.request(signal).await.unwrap_err();
}

#[tokio::test]
async fn a_cut_connection_is_no_success() {
    let (backend, cut) = rcpu();
    let mut channel = exec(&backend, "echo ready; exec sleep 1000").await;
    assert_eq!(
        channel.source.next().await,
        Some(ChannelEvent::Data("ready\n".into()))
    );
    cut.cancel();
    assert_eq!(outcome(&mut channel).await, Outcome::default());
    assert!(channel.sink.data(Bytes::from_static(b"x")).await.is_err());
}

#[tokio::test]
async fn what_stays_in_the_background_does_not_hold_the_session() {
    let (backend, _cut) = rcpu();
    let mut channel = exec(&backend, "sleep 5 >/dev/null 2>&1 & echo left").await;
    let outcome = outcome(&mut channel).await;
    assert_eq!(
        (outcome.output, outcome.status),
        (b"left\n".to_vec(), Some(0))
    );
}

/// What a user is told who gets no session.
async fn refusal(backend: &ContermBackend) -> String {
    let outcome = outcome(&mut exec(backend, "true").await).await;
    assert_eq!((outcome.output, outcome.status), (Vec::new(), Some(255)));
    String::from_utf8(outcome.error).unwrap()
}

#[tokio::test]
async fn a_wrong_password_is_called_that() {
    for (protocol, auth) in [
        (ContermProtocol::Rcpu, AuthProtocol::Dp9ik),
        (ContermProtocol::Cpu, AuthProtocol::P9sk1),
    ] {
        let (mut backend, _cut) = backend(protocol, auth, Tickets::AuthServer);
        backend.login = ContermLogin::new(protocol, "glenda", b"wrong").with_auth([auth]);
        let told = |error: ContermError| format!("{error}\n");
        assert_eq!(refusal(&backend).await, told(ContermError::WrongPassword));
        backend.login = ContermLogin::new(protocol, "mallory", b"glenda123")
            .with_auth([auth])
            .with_tickets(Tickets::HostOwner);
        assert_eq!(refusal(&backend).await, told(ContermError::NotHostOwner));
    }
}

#[tokio::test]
async fn a_protocol_that_is_not_allowed_is_not_spoken() {
    for (offer, accepted) in [
        ("p9sk1@test", false),
        ("dp9ik@test p9sk1@test", true),
        ("v.2 p9sk1@test dp9ik@test", true),
    ] {
        let near = Near {
            peer: Arc::new(Peer {
                user: "glenda".to_owned(),
                keys: Keys::new("glenda", b"glenda123"),
                offer,
            }),
            protocol: ContermProtocol::Rcpu,
            cut: CancellationToken::new(),
            tasks: Mutex::default(),
            files: None,
        };
        let login = ContermLogin::new(ContermProtocol::Rcpu, "glenda", b"glenda123");
        let backend = ContermBackend::new(Arc::new(near), login);
        let outcome = outcome(&mut exec(&backend, "true").await).await;
        let status = if accepted { 0 } else { 255 };
        assert_eq!(outcome.status, Some(status), "{offer}");
    }
}

/// Files of which nothing is there but the root.
struct NoFiles;

#[async_trait]
impl FileApi for NoFiles {
    async fn open(
        &self,
        _: &Bytes,
        _: sftp::OpenOptions,
        _: sftp::Attributes,
    ) -> Result<Arc<dyn sftp::OpenFile>, FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn open_dir(&self, _: &Bytes) -> Result<Arc<dyn sftp::OpenDirectory>, FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn attributes(&self, _: &Bytes, _: sftp::Links) -> Result<sftp::Attributes, FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn set_attributes(
        &self,
        _: &Bytes,
        _: sftp::Links,
        _: sftp::Attributes,
    ) -> Result<(), FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn create_dir(&self, _: &Bytes, _: sftp::Attributes) -> Result<(), FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn remove_dir(&self, _: &Bytes) -> Result<(), FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn remove_file(&self, _: &Bytes) -> Result<(), FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn rename(&self, _: &Bytes, _: &Bytes, _: sftp::Existing) -> Result<(), FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn symlink(&self, _: &Bytes, _: &Bytes) -> Result<(), FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn read_link(&self, _: &Bytes) -> Result<Bytes, FileError> {
        Err(FileError::NoSuchFile)
    }

    async fn canonical(&self, _: &Bytes) -> Result<Bytes, FileError> {
        Ok(Bytes::from_static(b"/"))
    }
}

/// A channel to a machine that has files, and a user whose password is wrong.
async fn channel_with_files() -> BackendChannel {
    let near = Near {
        peer: Peer::new("glenda", b"glenda123"),
        protocol: ContermProtocol::Rcpu,
        cut: CancellationToken::new(),
        tasks: Mutex::default(),
        files: Some(Arc::new(NoFiles)),
    };
    let login = ContermLogin::new(ContermProtocol::Rcpu, "glenda", b"wrong");
    let backend = ContermBackend::new(Arc::new(near), login);
    backend.open_session().await.unwrap()
}

#[tokio::test]
async fn files_are_served_without_a_login() {
    let mut channel = channel_with_files().await;
    // The first packet may come before what it is for.
    let version = Bytes::from_static(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
    channel.sink.data(version).await.unwrap();
    let request = ChannelRequest::Subsystem("sftp".to_owned());
    channel.control.request(request).await.unwrap();
    let canonical = [&[0, 0, 0, 10, 16, 0, 0, 0, 7, 0, 0, 0, 1][..], b"."].concat();
    let sent = channel.sink.data(Bytes::from(canonical)).await;
    sent.unwrap();
    channel.sink.eof().await.unwrap();
    let outcome = outcome(&mut channel).await;
    assert_eq!(outcome.status, Some(0));
    assert_eq!(&outcome.output[4..9], [2, 0, 0, 0, 3]);
    let answer = [104, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 1, b'/'];
    let answered = outcome.output.windows(answer.len()).any(|it| it == answer);
    assert!(answered, "{:?}", outcome.output);
}

#[tokio::test]
async fn a_client_that_does_not_speak_sftp_is_not_waited_for() {
    let mut channel = channel_with_files().await;
    let request = ChannelRequest::Subsystem("sftp".to_owned());
    channel.control.request(request).await.unwrap();
    let words = Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n");
    channel.sink.data(words).await.unwrap();
    assert_eq!(outcome(&mut channel).await.status, Some(255));
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_what_to_use() {
    let (backend, _cut) = rcpu();
    for request in [
        ChannelRequest::Subsystem("sftp".to_owned()),
        ChannelRequest::Exec(Bytes::from_static(b"scp -t /tmp")),
    ] {
        let mut channel = backend.open_session().await.unwrap();
        channel.control.request(request).await.unwrap();
        let outcome = outcome(&mut channel).await;
        let sentence = String::from_utf8(outcome.error).unwrap();
        assert!(
            sentence.contains("use `ssh INSTANCE 'cat >FILE' <FILE`"),
            "{sentence}"
        );
        assert_eq!(outcome.status, Some(1));
    }
}

#[test]
fn nothing_of_a_password_is_printed() {
    let login = ContermLogin::new(ContermProtocol::Rcpu, "glenda", b"glenda123");
    let printed = format!(
        "{login:?} {:?} {:?}",
        login.identity.keys, login.identity.keys.des
    );
    assert!(!printed.contains("glenda123"), "{printed}");
    assert!(
        printed.contains("Rcpu") && printed.contains("Keys DesKey"),
        "{printed}"
    );
}

/// Serves clients of other makes on each port in `CONTERM_PORTS`: of `cpu`, `rcpu`, the authentication server, and an `rcpu`
/// that offers p9sk1 alone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "interop/plan9/run serves drawterm and the coordinator by it"]
async fn serve_on_ports() {
    let ports = std::env::var("CONTERM_PORTS").unwrap();
    let peer = Peer::new("glenda", b"glenda123");
    let old = Arc::new(Peer {
        user: peer.user.clone(),
        keys: peer.keys.clone(),
        offer: "p9sk1@test",
    });
    let mut servers = tokio::task::JoinSet::new();
    for (index, port) in ports.split(' ').enumerate() {
        let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}"))
            .await
            .unwrap();
        let peer = if index < 3 { peer.clone() } else { old.clone() };
        servers.spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let peer = peer.clone();
                sessions.spawn(async move {
                    stream.flush().await.ok()?;
                    let stream: Box<dyn Stream> = Box::new(stream);
                    match index {
                        0 => peer.cpu(stream).await,
                        2 => peer.auth(stream).await,
                        _ => peer.rcpu(stream).await,
                    }
                });
            }
        });
    }
    servers.join_next().await;
}
