//! A machine that understands a few commands, a gateway to it, and clients.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::{AuthResult, Handle};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use sshbridge::auth::{AuthRequest, Authorizer, Denied, Grant, Machine, MachineResolver, Refusal};
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::backend::{
    Backend, BackendChannel, BackendConn, BackendError, ChannelControl, ChannelEvent,
    ChannelRequest, ChannelSink, ChannelSource,
};
use sshbridge::hostkey::HostKeys;
use sshbridge::server::{ServeError, Server, ServerConfig};
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};

/// Runs a test that must not take longer than it would to think that it hangs.
pub(crate) async fn within<T>(test: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(30);
    tokio::time::timeout(limit, test)
        .await
        .expect("the test hangs")
}

pub(crate) fn config() -> ServerConfig {
    let mut config = ServerConfig::new(HostKeys::ephemeral());
    config.rejection_time = Duration::from_millis(1);
    config
}

/// A server that lets everybody in to the fake machine.
pub(crate) fn server() -> Server {
    server_with(config(), Machine::new("fake", Arc::new(FakeBackend)))
}

pub(crate) fn server_with(config: ServerConfig, machine: Machine) -> Server {
    Server::new(config, Arc::new(Anybody), Arc::new(Resolves(Ok(machine))))
}

pub(crate) struct Anybody;

#[async_trait]
impl Authorizer for Anybody {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        Ok(Grant::new("anybody", &request.login))
    }
}

pub(crate) struct Resolves(pub(crate) Result<Machine, Refusal>);

#[async_trait]
impl MachineResolver for Resolves {
    async fn resolve(&self, _grant: &Grant) -> Result<Machine, Refusal> {
        self.0.clone()
    }
}

/// Connects to a server through a pipe of `size` bytes.
pub(crate) fn pipe(
    server: &Server,
    size: usize,
) -> (DuplexStream, JoinHandle<Result<(), ServeError>>) {
    let (near, far) = tokio::io::duplex(size);
    let server = server.clone();
    let served = tokio::spawn(async move { server.serve_stream(far, None).await });
    (near, served)
}

/// Dials a server of this process.
pub(crate) struct Dials {
    pub(crate) server: Server,
    pub(crate) pipe: usize,
    pub(crate) host_key: Option<String>,
}

#[async_trait]
impl SshDialer for Dials {
    async fn dial(&self, _authorized_key: &str) -> Result<SshTarget, BackendError> {
        let (stream, _) = pipe(&self.server, self.pipe);
        let target = SshTarget::new(stream, "user");
        Ok(match &self.host_key {
            Some(key) => target.with_host_key(key),
            None => target,
        })
    }
}

/// The ssh backend as a client of `server`.
pub(crate) fn backend_to(server: &Server, pipe: usize) -> SshBackend {
    let server = server.clone();
    SshBackend::new(Arc::new(Dials {
        server,
        pipe,
        host_key: None,
    }))
}

/// What a command did, as its client saw it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Everything that is not data, in order.
    pub(crate) order: Vec<&'static str>,
    pub(crate) status: Option<u32>,
    pub(crate) signal: Option<String>,
}

/// Reads a channel of russh to its end.
pub(crate) async fn read_out(channel: &mut Channel<russh::client::Msg>) -> Seen {
    let mut seen = Seen::default();
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => seen.stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, ext: 1 } => seen.stderr.extend_from_slice(&data),
            ChannelMsg::Eof => seen.order.push("eof"),
            ChannelMsg::Close => seen.order.push("close"),
            ChannelMsg::Success => seen.order.push("success"),
            ChannelMsg::Failure => seen.order.push("failure"),
            ChannelMsg::ExitStatus { exit_status } => {
                seen.order.push("status");
                seen.status = Some(exit_status);
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                seen.order.push("signal");
                seen.signal = Some(format!("{signal_name:?}"));
            }
            _ => {}
        }
    }
    seen
}

/// A client of russh that trusts any host key.
#[derive(Clone)]
pub(crate) struct Trusting;

impl russh::client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

pub(crate) fn new_key() -> Arc<PrivateKey> {
    Arc::new(PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap())
}

pub(crate) async fn connect(server: &Server) -> Handle<Trusting> {
    connect_with(server, russh::client::Config::default()).await
}

pub(crate) async fn connect_with(
    server: &Server,
    config: russh::client::Config,
) -> Handle<Trusting> {
    let (stream, _) = pipe(server, 64 << 10);
    russh::client::connect_stream(Arc::new(config), stream, Trusting)
        .await
        .unwrap()
}

pub(crate) async fn try_key(
    client: &mut Handle<Trusting>,
    user: &str,
    key: &Arc<PrivateKey>,
) -> bool {
    let key = PrivateKeyWithHashAlg::new(key.clone(), None);
    let answer = client.authenticate_publickey(user, key).await;
    matches!(answer, Ok(AuthResult::Success))
}

pub(crate) async fn log_in(server: &Server) -> Handle<Trusting> {
    let mut client = connect(server).await;
    assert!(try_key(&mut client, "user", &new_key()).await);
    client
}

/// Runs one command and reads it out.
pub(crate) async fn run(server: &Server, command: &str) -> Seen {
    let client = log_in(server).await;
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    channel.eof().await.unwrap();
    read_out(&mut channel).await
}

/// A machine whose commands are written below.
pub(crate) struct FakeBackend;

#[async_trait]
impl Backend for FakeBackend {
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError> {
        Ok(Box::new(FakeConn))
    }
}

struct FakeConn;

#[async_trait]
impl BackendConn for FakeConn {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        let (stdin, input) = mpsc::channel(1);
        let (output, source) = mpsc::channel(1);
        Ok(BackendChannel {
            sink: Box::new(FakeSink(Some(stdin))),
            source: Box::new(FakeSource(source)),
            control: Box::new(FakeControl(Mutex::new(FakeState {
                parts: Some((input, output)),
                log: String::new(),
                tasks: JoinSet::new(),
            }))),
        })
    }
}

struct FakeSink(Option<mpsc::Sender<Bytes>>);

#[async_trait]
impl ChannelSink for FakeSink {
    async fn data(&mut self, data: Bytes) -> Result<(), BackendError> {
        let stdin = self.0.as_ref().ok_or(BackendError::Closed)?;
        stdin.send(data).await.map_err(|_| BackendError::Closed)
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        self.0 = None;
        Ok(())
    }
}

struct FakeSource(mpsc::Receiver<ChannelEvent>);

#[async_trait]
impl ChannelSource for FakeSource {
    async fn next(&mut self) -> Option<ChannelEvent> {
        self.0.recv().await
    }
}

struct FakeControl(Mutex<FakeState>);

struct FakeState {
    parts: Option<(mpsc::Receiver<Bytes>, mpsc::Sender<ChannelEvent>)>,
    /// The requests before the command, which `log` prints.
    log: String,
    tasks: JoinSet<()>,
}

#[async_trait]
impl ChannelControl for FakeControl {
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError> {
        let mut state = self.0.lock().await;
        let command = match request {
            ChannelRequest::Exec(command) => String::from_utf8_lossy(&command).into_owned(),
            ChannelRequest::Shell => "shell".to_owned(),
            ChannelRequest::Subsystem(name) => format!("subsystem {name}"),
            ChannelRequest::Agent => return Err(BackendError::Unsupported("agents")),
            ChannelRequest::Env { name, value } => {
                state.log += &format!("{name}={value}\n");
                return Ok(());
            }
            ChannelRequest::Pty(pty) => {
                let size = pty.size;
                state.log += &format!("{} {}x{}\n", pty.term, size.columns, size.rows);
                return Ok(());
            }
            _ => return Ok(()),
        };
        match command.as_str() {
            "refuse" => return Err(BackendError::Refused),
            "never answer" => std::future::pending().await,
            _ => {}
        }
        let (input, output) = state.parts.take().ok_or(BackendError::Refused)?;
        let log = std::mem::take(&mut state.log);
        state.tasks.spawn(async move {
            // The channel may be gone before the command is.
            let _ = command_of(&command, log, input, output).await;
        });
        Ok(())
    }
}

type Sent = Result<(), mpsc::error::SendError<ChannelEvent>>;

async fn command_of(
    command: &str,
    log: String,
    mut input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<ChannelEvent>,
) -> Sent {
    let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
    let data = |text: &str| ChannelEvent::Data(Bytes::copy_from_slice(text.as_bytes()));
    let mut status = 0;
    match word {
        "cat" => {
            while let Some(bytes) = input.recv().await {
                output.send(ChannelEvent::Data(bytes)).await?;
            }
        }
        "both" => {
            output.send(data("out")).await?;
            let err = Bytes::from_static(b"err");
            output.send(ChannelEvent::Stderr(err)).await?;
        }
        "deaf" => std::future::pending().await,
        "die" => {
            output.send(data("half")).await?;
            return Ok(());
        }
        "exit" => status = rest.parse().unwrap(),
        "flood" => loop {
            let block = Bytes::from(vec![b'x'; 32 << 10]);
            output.send(ChannelEvent::Data(block)).await?;
        },
        "killed" => {
            return output
                .send(ChannelEvent::ExitSignal {
                    signal: rest.to_owned(),
                    core_dumped: false,
                    message: String::new(),
                })
                .await;
        }
        "log" => output.send(data(&log)).await?,
        "shut" => {
            drop(input);
            output.send(ChannelEvent::Eof).await?;
            return output.send(ChannelEvent::ExitStatus(3)).await;
        }
        _ => output.send(data(command)).await?,
    }
    output.send(ChannelEvent::ExitStatus(status)).await?;
    output.send(ChannelEvent::Eof).await
}
