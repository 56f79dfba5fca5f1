//! The only place that names the client side of russh: here its connections, in `channel` what is on them, in `handler` its
//! callbacks.

mod channel;
mod handler;

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use russh::client::{AuthResult, Handle};
use russh::keys::{Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{ChannelOpenFailure, Preferred, SshId, cipher};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::handler::Handler;
use super::SshTarget;
use super::ports::Ports;
use crate::backend::{
    BackendChannel, BackendError, BackendStream, Destination, Incoming, ListenAddress, Originator,
};
use crate::flow::{self, Budget, Link, WINDOW};

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

/// A connection to a machine's SSH server.
pub(super) struct Login {
    handle: Arc<Handle<Handler>>,
    ports: Arc<Ports>,
    opened: AtomicUsize,
    /// Streams that the machine has not opened yet.
    opening: Arc<AtomicUsize>,
    _drain: AbortOnDropHandle<()>,
    _keepalive: AbortOnDropHandle<()>,
}

impl Login {
    /// Logs in to an SSH server, until `closed` is cancelled. What it opens by itself goes to `incoming`.
    pub(super) async fn new(
        target: SshTarget,
        key: OneTimeKey,
        incoming: mpsc::Sender<Incoming>,
        closed: CancellationToken,
    ) -> Result<Self, BackendError> {
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
        let ports = Arc::new(Ports::new(link.clone(), incoming));
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
        let watched = handle.clone();
        let keepalive = AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => link.kill(),
                () = keep_alive(watched, link.clone()) => {}
            }
        }));
        Ok(Self {
            handle,
            ports,
            opened: AtomicUsize::new(0),
            opening: Arc::default(),
            _drain: drain,
            _keepalive: keepalive,
        })
    }

    /// From here on the connection carries streams that know nothing of each other: one that is not read is cut where it
    /// keeps others from being read.
    pub(super) fn share(&self) {
        let (link, gone) = (self.ports.link.clone(), self.ports.gone.clone());
        self.ports.spawn(async move {
            tokio::select! {
                () = link.watch_stalls() => {}
                () = gone.cancelled() => {}
            }
        });
    }

    /// Opens a session, which keeps the connection and ends it.
    pub(super) async fn open_session(self: Arc<Self>) -> Result<BackendChannel, BackendError> {
        let channel = self.handle.channel_open_session().await.map_err(refused)?;
        Ok(channel::session(self, channel))
    }

    /// Opens a stream, which closes itself.
    pub(super) async fn open_stream(
        &self,
        destination: &Destination,
    ) -> Result<BackendStream, BackendError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let opening = Opening::new(&self.opening);
        let (opened, awaited) = oneshot::channel();
        let (handle, ports) = (self.handle.clone(), self.ports.clone());
        let destination = destination.clone();
        // A task of its own: whoever waits may lose patience, and what is opened then must still be closed.
        self.ports.spawn(async move {
            let channel = match destination {
                Destination::Tcp {
                    host,
                    port,
                    originator,
                } => {
                    let Originator {
                        address,
                        port: from,
                    } = originator;
                    let port = port.into();
                    handle
                        .channel_open_direct_tcpip(host, port, address, from)
                        .await
                }
                Destination::Unix { path } => handle.channel_open_direct_streamlocal(path).await,
            };
            let stream = channel.map_err(refused).map(|channel| {
                let id = channel.id().into();
                channel::stream(&ports, id, channel.split().1)
            });
            drop(opening);
            let _ = opened.send(stream);
        });
        awaited.await.map_err(|_| BackendError::Closed)?
    }

    /// Lets the machine listen; the real port.
    pub(super) async fn listen(&self, address: &ListenAddress) -> Result<u16, BackendError> {
        let _urgent = self.ports.link.read_urgently();
        match address {
            ListenAddress::Tcp { host, port } => {
                let chosen = self.handle.tcpip_forward(host, u32::from(*port)).await;
                match chosen.map_err(denied)? {
                    0 if *port == 0 => Err(BackendError::Refused),
                    0 => Ok(*port),
                    chosen => u16::try_from(chosen).map_err(|_| BackendError::Refused),
                }
            }
            ListenAddress::Unix { path } => {
                let listens = self.handle.streamlocal_forward(path).await;
                listens.map(|()| 0).map_err(denied)
            }
        }
    }

    /// Ends what [`Self::listen`] began.
    pub(super) async fn cancel(&self, address: &ListenAddress) -> Result<(), BackendError> {
        let _urgent = self.ports.link.read_urgently();
        let cancelled = match address {
            ListenAddress::Tcp { host, port } => {
                let port = u32::from(*port);
                self.handle.cancel_tcpip_forward(host, port).await
            }
            ListenAddress::Unix { path } => self.handle.cancel_streamlocal_forward(path).await,
        };
        cancelled.map_err(denied)
    }

    /// Cancelled when the connection is over.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.ports.gone
    }

    /// How many channels are open or being opened.
    pub(super) fn channels(&self) -> usize {
        self.ports.len() + self.opening.load(Ordering::Relaxed)
    }

    /// Whether streams that are not read may soon keep the connection from being read.
    pub(super) fn is_crowded(&self) -> bool {
        self.ports.link.backlog() > BUDGET / 4
    }

    /// Whether it may take another stream. russh remembers every channel that we closed first.
    pub(super) fn may_open(&self) -> bool {
        self.opened.load(Ordering::Relaxed) < CHANNELS
    }

    /// Whether it took all the streams that it may, and they are closed.
    pub(super) fn is_worn_out(&self) -> bool {
        !self.may_open() && self.channels() == 0
    }
}

/// Counts a stream that is being opened.
struct Opening(Arc<AtomicUsize>);

impl Opening {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.ports.link.kill();
    }
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

/// Why a channel was not opened.
fn refused(error: russh::Error) -> BackendError {
    let russh::Error::ChannelOpenFailure(failure) = error else {
        return BackendError::Closed;
    };
    if matches!(failure, ChannelOpenFailure::ConnectFailed) {
        return BackendError::ConnectFailed(io::ErrorKind::ConnectionRefused.into());
    }
    BackendError::Refused
}

/// Why a request of the whole connection was not granted.
fn denied(error: russh::Error) -> BackendError {
    if matches!(error, russh::Error::RequestDenied) {
        BackendError::Refused
    } else {
        BackendError::Closed
    }
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackendError {
    BackendError::Unreachable(io::Error::other(error))
}

/// How many streams a connection carries in all; each may leave 1.5 kB behind.
const CHANNELS: usize = 1000;

/// What a connection may hold of its channels' output before it is no longer read.
const BUDGET: usize = 4 << 20;

/// How often a silent machine is asked for a sign of life, and how often in vain.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_MAX: u32 = 3;
