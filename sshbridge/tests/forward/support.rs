//! A machine, a gateway to it, and a client that takes what is forwarded.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use russh::client::{AuthResult, ChannelOpenHandle, Handle, Msg, Session};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg};
use sshbridge::auth::{AuthRequest, Authorizer, Denied, Grant, Machine, MachineResolver, Refusal};
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::backend::{Backend, BackendError};
use sshbridge::hostkey::HostKeys;
use sshbridge::machine::{LocalBackend, LocalSettings, MachineServer};
use sshbridge::server::{Server, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(crate) async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), test)
        .await
        .expect("the test ends in time")
}

/// Servers that lead to this machine.
pub(crate) struct Bench {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) server: Server,
    /// The connections of the gateway to the machine, where there is one; aborting them is what a loss is.
    pub(crate) served: Arc<Mutex<JoinSet<()>>>,
}

impl Bench {
    /// The machine's backend behind a server, without anything between, and the same with a gateway between.
    pub(crate) fn both() -> [Self; 2] {
        [Self::direct(), Self::gateway()]
    }

    pub(crate) fn direct() -> Self {
        Self::direct_with(|_| {}, |_| {})
    }

    pub(crate) fn direct_with(
        configure: impl FnOnce(&mut ServerConfig),
        grant: impl FnOnce(&mut Grant),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let backend = Arc::new(LocalBackend::new(settings(directory.path())));
        Self::of(directory, backend, Arc::default(), configure, grant)
    }

    pub(crate) fn gateway() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (backend, served) = machine(directory.path());
        let backend = Arc::new(backend);
        Self::of(directory, backend, served, |_| {}, |_| {})
    }

    fn of(
        directory: tempfile::TempDir,
        backend: Arc<dyn Backend>,
        served: Arc<Mutex<JoinSet<()>>>,
        configure: impl FnOnce(&mut ServerConfig),
        grant: impl FnOnce(&mut Grant),
    ) -> Self {
        let mut config = ServerConfig::new(HostKeys::ephemeral());
        configure(&mut config);
        let mut granted = Grant::new("anybody", "machine");
        grant(&mut granted);
        let machine = Machine::new("m-1", backend);
        let server = Server::new(config, Arc::new(Grants(granted)), Arc::new(Leads(machine)));
        Self {
            directory,
            server,
            served,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        let (near, far) = tokio::io::duplex(64 << 10);
        let server = self.server.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let _ = server.serve_stream(far, None).await;
        });
        let (forwarded, streams) = mpsc::channel(256);
        let handler = Taking(forwarded);
        let config = Arc::new(russh::client::Config::default());
        let connected = russh::client::connect_stream(config, near, handler).await;
        let mut handle = connected.unwrap();
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519);
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.unwrap()), None);
        let answer = handle.authenticate_publickey("machine", key).await;
        assert!(matches!(answer, Ok(AuthResult::Success)));
        Client {
            handle,
            streams,
            _serving: serving,
        }
    }
}

/// The way to a machine with a server of its own, and the connections to that.
pub(crate) fn machine(directory: &Path) -> (SshBackend, Arc<Mutex<JoinSet<()>>>) {
    let served: Arc<Mutex<JoinSet<()>>> = Arc::default();
    let dialer = Dialer {
        machine: MachineServer::new(HostKeys::ephemeral(), settings(directory)),
        served: Arc::clone(&served),
    };
    (SshBackend::new(Arc::new(dialer)), served)
}

fn settings(directory: &Path) -> LocalSettings {
    let mut settings = LocalSettings::new(directory);
    settings.shell = Some("/bin/sh".into());
    settings.grace = Duration::from_millis(200);
    settings
}

struct Dialer {
    machine: MachineServer,
    served: Arc<Mutex<JoinSet<()>>>,
}

#[async_trait]
impl SshDialer for Dialer {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (machine, key) = (self.machine.clone(), authorized_key.to_owned());
        self.served.lock().unwrap().spawn(async move {
            let _ = machine.serve(theirs, &key).await;
        });
        let target = SshTarget::new(ours, "anybody");
        Ok(target.with_host_key(self.machine.host_key_line()))
    }
}

struct Grants(Grant);

#[async_trait]
impl Authorizer for Grants {
    async fn authorize(&self, _request: &AuthRequest) -> Result<Grant, Denied> {
        Ok(self.0.clone())
    }
}

struct Leads(Machine);

#[async_trait]
impl MachineResolver for Leads {
    async fn resolve(&self, _grant: &Grant) -> Result<Machine, Refusal> {
        Ok(self.0.clone())
    }
}

pub(crate) struct Client {
    pub(crate) handle: Handle<Taking>,
    pub(crate) streams: mpsc::Receiver<Forwarded>,
    _serving: JoinSet<()>,
}

/// A stream that came to the client, and what it was called.
pub(crate) struct Forwarded {
    pub(crate) name: String,
    pub(crate) channel: Channel<Msg>,
}

impl Client {
    pub(crate) async fn to_port(&self, port: u16) -> Result<Channel<Msg>, russh::Error> {
        self.handle
            .channel_open_direct_tcpip("localhost", port.into(), "127.0.0.1", 1)
            .await
    }

    /// Runs a command to its end; what it printed.
    pub(crate) async fn run(&self, command: &str) -> String {
        let mut channel = self.handle.channel_open_session().await.unwrap();
        channel.exec(true, command).await.unwrap();
        String::from_utf8(read_all(&mut channel).await).unwrap()
    }
}

/// Takes what is forwarded, whatever it is.
pub(crate) struct Taking(mpsc::Sender<Forwarded>);

impl Taking {
    async fn take(&self, name: String, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        reply.accept().await;
        let _ = self.0.send(Forwarded { name, channel }).await;
    }
}

impl russh::client::Handler for Taking {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.take(format!("{address}:{port}"), channel, reply).await;
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.take(path.to_owned(), channel, reply).await;
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.take("agent".to_owned(), channel, reply).await;
        Ok(())
    }
}

/// Everything that comes on a channel, until its end.
pub(crate) async fn read_all(channel: &mut Channel<Msg>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(message) = channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            all.extend_from_slice(&data);
        }
    }
    all
}

/// A port of this machine that sends everything back; what is returned ends it.
pub(crate) async fn echo() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut streams = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            streams.spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    (port, tasks)
}

/// A port of this machine that sends without end; what is returned ends it.
pub(crate) async fn flood() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut streams = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            streams.spawn(async move {
                let zeros = vec![0; 64 << 10];
                while stream.write_all(&zeros).await.is_ok() {}
            });
        }
    });
    (port, tasks)
}

/// Sends over a socket and reads the answer to its end.
pub(crate) async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    text: &[u8],
) -> Vec<u8> {
    stream.write_all(text).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}
