//! The only place that names the client side of russh.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::{AuthResult, ChannelOpenHandle, Handle, Msg, Session};
use russh::keys::{
    Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{
    Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Preferred, Pty, Sig, SshId, cipher,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::SshTarget;
use crate::backend::{
    BackendChannel, BackendConn, BackendError, ChannelControl, ChannelEvent, ChannelRequest,
    ChannelSink, ChannelSource,
};
use crate::flow::{self, Budget, Inbox, Link, WINDOW};
use crate::signal;

/// A key pair for one connection.
pub(super) struct OneTimeKey {
    key: PrivateKey,
    line: String,
}

impl OneTimeKey {
    pub(super) fn new() -> Result<Self, BackendError> {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
            .map_err(unreachable)?;
        let line = key.public_key().to_openssh().map_err(unreachable)?;
        Ok(Self { key, line })
    }

    pub(super) fn public_line(&self) -> &str {
        &self.line
    }
}

/// Logs in to an SSH server.
pub(super) async fn connect(target: SshTarget, key: OneTimeKey) -> Result<SshConn, BackendError> {
    let host_key = match target.host_key.as_deref().map(PublicKey::from_openssh) {
        Some(Ok(key)) => Some(key),
        Some(Err(_)) => return Err(BackendError::HostKeyMismatch),
        None => None,
    };
    let (link, transport, drain) = flow::layer(target.stream, Budget::Fixed(BUDGET));
    let drain = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = drain.run().await {
            tracing::debug!(%error, "the stream to a machine broke");
        }
    }));
    let ports = Arc::new(Ports::new(link.clone()));
    let handler = Handler {
        host_key,
        ports: ports.clone(),
    };
    let connected = russh::client::connect_stream(Arc::new(config()), transport, handler).await;
    let mut handle = connected.map_err(|error| {
        if matches!(error, russh::Error::UnknownKey) {
            BackendError::HostKeyMismatch
        } else {
            unreachable(error)
        }
    })?;
    let key = PrivateKeyWithHashAlg::new(Arc::new(key.key), None);
    match handle.authenticate_publickey(target.user, key).await {
        Ok(AuthResult::Success) => {}
        Ok(AuthResult::Failure { .. }) if !ports.gone.is_cancelled() => {
            return Err(unreachable("its SSH server refuses the key made for it"));
        }
        Ok(AuthResult::Failure { .. }) | Err(_) => return Err(BackendError::Closed),
    }
    let handle = Arc::new(handle);
    let keepalive = AbortOnDropHandle::new(tokio::spawn(keep_alive(handle.clone(), link.clone())));
    Ok(SshConn {
        handle,
        ports,
        link,
        _drain: drain,
        _keepalive: keepalive,
    })
}

/// A connection to a machine's SSH server.
pub(super) struct SshConn {
    handle: Arc<Handle<Handler>>,
    ports: Arc<Ports>,
    link: Arc<Link>,
    _drain: AbortOnDropHandle<()>,
    _keepalive: AbortOnDropHandle<()>,
}

#[async_trait]
impl BackendConn for SshConn {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        let channel = match self.handle.channel_open_session().await {
            Ok(channel) => channel,
            Err(russh::Error::ChannelOpenFailure(_)) => return Err(BackendError::Refused),
            Err(_) => return Err(BackendError::Closed),
        };
        let port = self.ports.port(channel.id());
        // Without its read half russh never waits for us with what it has read.
        let (_, write) = channel.split();
        let half = Arc::new(Half {
            write,
            port: port.clone(),
            link: self.link.clone(),
        });
        Ok(BackendChannel {
            sink: Box::new(Sink(half.clone())),
            source: Box::new(Source(port)),
            control: Box::new(Control(half)),
        })
    }
}

impl Drop for SshConn {
    fn drop(&mut self) {
        self.link.kill();
    }
}

/// The channels of a connection, as russh's callbacks find them.
struct Ports {
    link: Arc<Link>,
    by_id: Mutex<HashMap<ChannelId, Arc<Port>>>,
    /// Cancelled when the connection is over.
    gone: CancellationToken,
}

/// What comes from the machine on one channel.
struct Port {
    inbox: Arc<Inbox>,
    /// Who waits for the answers to requests, in the order of the requests (RFC 4254 §5.4).
    waiting: Mutex<VecDeque<oneshot::Sender<bool>>>,
    /// Cancelled when the channel is closed.
    gone: CancellationToken,
}

impl Ports {
    fn new(link: Arc<Link>) -> Self {
        let gone = link.gone().child_token();
        Self {
            link,
            by_id: Mutex::default(),
            gone,
        }
    }

    /// The port of a channel: what comes from the machine may be here before whoever opened the channel.
    fn port(&self, id: ChannelId) -> Arc<Port> {
        let new = || {
            Arc::new(Port {
                inbox: self.link.inbox(),
                waiting: Mutex::default(),
                gone: self.gone.child_token(),
            })
        };
        let port = self.by_id().entry(id).or_insert_with(new).clone();
        if self.gone.is_cancelled() {
            port.close();
        }
        port
    }

    fn by_id(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<Port>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Port {
    fn expect_answer(&self) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        self.waiting().push_back(answer);
        answered
    }

    fn answer(&self, granted: bool) {
        let waiting = self.waiting().pop_front();
        if let Some(waiting) = waiting {
            // Whoever asked may have lost patience.
            let _ = waiting.send(granted);
        }
    }

    fn close(&self) {
        self.inbox.close();
        self.gone.cancel();
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<bool>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The direction to the machine on one channel.
struct Half {
    write: ChannelWriteHalf<Msg>,
    port: Arc<Port>,
    link: Arc<Link>,
}

impl Half {
    /// Runs `work` as long as the channel lasts. What is done counts even where the channel ended in the same moment: a
    /// command that is short is answered and over at once.
    async fn while_open<T>(
        &self,
        work: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.port.gone.cancelled() => Err(BackendError::Closed),
        }
    }

    async fn send(&self, request: ChannelRequest) -> Result<(), russh::Error> {
        let write = &self.write;
        match request {
            ChannelRequest::Env { name, value } => write.set_env(true, name, value).await,
            ChannelRequest::Exec(command) => write.exec(true, command).await,
            ChannelRequest::Pty(pty) => {
                let known = pty.modes.iter();
                let known = known.filter_map(|(mode, value)| Some((Pty::from_u8(*mode)?, *value)));
                let modes: Vec<_> = known.collect();
                let size = pty.size;
                write
                    .request_pty(
                        true,
                        &pty.term,
                        size.columns,
                        size.rows,
                        size.width_pixels,
                        size.height_pixels,
                        &modes,
                    )
                    .await
            }
            ChannelRequest::Shell => write.request_shell(true).await,
            ChannelRequest::Signal(name) => write.signal(signal::from_name(name)).await,
            ChannelRequest::Subsystem(name) => write.request_subsystem(true, name).await,
            ChannelRequest::WindowChange(size) => {
                write
                    .window_change(
                        size.columns,
                        size.rows,
                        size.width_pixels,
                        size.height_pixels,
                    )
                    .await
            }
        }
    }
}

struct Sink(Arc<Half>);

#[async_trait]
impl ChannelSink for Sink {
    async fn data(&mut self, mut data: Bytes) -> Result<(), BackendError> {
        let half = &self.0;
        half.while_open(async {
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(PIECE));
                let piece = half.link.reserve(piece, &half.port.gone).await;
                let piece = piece.map_err(|_| BackendError::Closed)?;
                let sent = half.write.data_bytes(piece).await;
                sent.map_err(|_| BackendError::Closed)?;
            }
            Ok(())
        })
        .await
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        let half = &self.0;
        half.while_open(async { half.write.eof().await.map_err(|_| BackendError::Closed) })
            .await
    }
}

struct Source(Arc<Port>);

#[async_trait]
impl ChannelSource for Source {
    async fn next(&mut self) -> Option<ChannelEvent> {
        self.0.inbox.take().await
    }
}

struct Control(Arc<Half>);

#[async_trait]
impl ChannelControl for Control {
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError> {
        let half = &self.0;
        let unanswered = matches!(
            request,
            ChannelRequest::Signal(_) | ChannelRequest::WindowChange(_)
        );
        half.while_open(async {
            let answered = (!unanswered).then(|| half.port.expect_answer());
            let sent = half.send(request).await;
            sent.map_err(|_| BackendError::Closed)?;
            let Some(answered) = answered else {
                return Ok(());
            };
            match answered.await {
                Ok(true) => Ok(()),
                Ok(false) => Err(BackendError::Refused),
                Err(_) => Err(BackendError::Closed),
            }
        })
        .await
    }
}

/// russh's callbacks of one connection.
struct Handler {
    host_key: Option<PublicKey>,
    ports: Arc<Ports>,
}

impl Drop for Handler {
    /// russh drops the handler when the connection is over, however it ended.
    fn drop(&mut self) {
        self.ports.gone.cancel();
        for (_, port) in self.ports.by_id().drain() {
            port.close();
        }
    }
}

impl russh::client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        offered: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(match (&self.host_key, offered) {
            (None, _) => true,
            (Some(announced), PublicKeyOrCertificate::PublicKey { key, .. }) => {
                announced.key_data() == key.key_data()
            }
            (Some(_), PublicKeyOrCertificate::Certificate(_)) => false,
        })
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.port(id).inbox.push_data(data);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        _code: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.port(id).inbox.push_stderr(data);
        Ok(())
    }

    async fn exit_status(
        &mut self,
        id: ChannelId,
        status: u32,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let event = ChannelEvent::ExitStatus(status);
        self.ports.port(id).inbox.push_event(event);
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        core_dumped: bool,
        message: &str,
        _language: &str,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        let event = ChannelEvent::ExitSignal {
            signal: signal::name(signal),
            core_dumped,
            message: message.to_owned(),
        };
        self.ports.port(id).inbox.push_event(event);
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.port(id).inbox.push_event(ChannelEvent::Eof);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        // It stays among the ports: whoever opened the channel may still have to find it, closed.
        self.ports.port(id).close();
        Ok(())
    }

    async fn channel_success(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.port(id).answer(true);
        Ok(())
    }

    async fn channel_failure(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        self.ports.port(id).answer(false);
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _address: &str,
        _port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_session(
        &mut self,
        _channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _channel: Channel<Msg>,
        _host: &str,
        _port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _channel: Channel<Msg>,
        _path: &str,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _channel: Channel<Msg>,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), russh::Error> {
        reject(reply).await
    }
}

/// Nothing that a machine opens by itself was asked for.
async fn reject(reply: ChannelOpenHandle) -> Result<(), russh::Error> {
    reply
        .reject(ChannelOpenFailure::AdministrativelyProhibited)
        .await;
    Ok(())
}

/// AES-GCM first: it costs a third less than ChaCha20 where processors have AES, and this leg chooses alone.
fn config() -> russh::client::Config {
    const CIPHERS: &[cipher::Name] = &[
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
        cipher::AES_128_CTR,
    ];
    russh::client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!(
            "SSH-2.0-sshbridge_",
            env!("CARGO_PKG_VERSION")
        ))),
        window_size: WINDOW,
        preferred: Preferred {
            cipher: Cow::Borrowed(CIPHERS),
            ..Preferred::DEFAULT
        },
        ..russh::client::Config::default()
    }
}

/// Ends the connection when the machine gives no sign of life. russh's own timer would also end one that we do not read
/// because its user does not.
async fn keep_alive(handle: Arc<Handle<Handler>>, link: Arc<Link>) {
    let mut unanswered = 0;
    loop {
        let reads = link.reads();
        tokio::time::sleep(KEEPALIVE).await;
        if link.reads() != reads || link.must_pause() {
            unanswered = 0;
            continue;
        }
        if unanswered == KEEPALIVE_MAX {
            tracing::debug!("a machine gives no sign of life");
            return link.kill();
        }
        unanswered += 1;
        // The queue may be full of what the machine does not take: it counts as silent then.
        let _ = tokio::time::timeout(KEEPALIVE, handle.send_keepalive(true)).await;
    }
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
    BackendError::Unreachable(io::Error::other(error))
}

/// What a connection may hold of its one channel's output before it is no longer read.
const BUDGET: usize = 4 << 20;

/// The size of the pieces that data is handed over in, that of a packet.
const PIECE: usize = 32 << 10;

/// How often a silent machine is asked for a sign of life, and how often in vain.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_MAX: u32 = 3;
