//! The SSH server: takes connections, asks who may log in, and joins each session channel to a machine.

mod channel;
mod connection;
mod events;
mod listening;
mod notice;
mod permit;
mod protocol;
mod sources;
mod startups;
mod stream;
mod window;
mod workers;

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use self::protocol::ProtocolConfig;
use self::sources::Sources;
use self::startups::{Startup, Startups};
use self::workers::Workers;
use crate::audit::AuditSink;
use crate::auth::{Authorizer, MachineResolver};
use crate::hostkey::HostKeys;

/// An SSH server. Cheap to clone; the clones count unauthenticated connections together.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What all connections of a server share.
struct Shared {
    config: ServerConfig,
    protocol: ProtocolConfig,
    authorizer: Arc<dyn Authorizer>,
    resolver: Arc<dyn MachineResolver>,
    startups: Startups,
    sources: Sources,
    /// How many connections there were.
    connections: AtomicU64,
}

impl Server {
    /// Puts a server together.
    pub fn new(
        config: ServerConfig,
        authorizer: Arc<dyn Authorizer>,
        resolver: Arc<dyn MachineResolver>,
    ) -> Self {
        let protocol = ProtocolConfig::from(&config);
        let startups = Startups::new(config.max_startups, config.max_startups_per_source);
        let sources = Sources::new(config.source_limits);
        Self {
            shared: Arc::new(Shared {
                sources,
                config,
                protocol,
                authorizer,
                resolver,
                startups,
                connections: AtomicU64::new(0),
            }),
        }
    }

    /// Serves everybody who connects to `listener`, each on one of [`ServerConfig::threads`], until `shutdown`: then users are told, and the call returns when all
    /// connections have ended, which takes [`ServerConfig::shutdown_grace`] at most. An error of `accept` is logged and
    /// survived.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends all connections at once.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) {
        let workers = Workers::start(self.shared.config.threads);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let served = self.clone().serve_accepted(stream, peer, shutdown.clone());
                    workers.spawn(&mut connections, served);
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_RETRY) => {}
                        () = shutdown.cancelled() => break,
                    }
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Serves one connection to its end. `peer` is where it comes from, where that means something.
    ///
    /// # Errors
    ///
    /// [`ServeError`] where the connection did not end as a client ends it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the connection, and what runs on it, at once.
    pub async fn serve_stream<S>(
        &self,
        stream: S,
        peer: Option<SocketAddr>,
    ) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Connection::new(self.shared.clone(), peer);
        Box::pin(connection.run(stream, CancellationToken::new())).await
    }

    async fn serve_accepted(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        shutdown: CancellationToken,
    ) {
        // What wakes its tasks is to be their own thread's.
        let stream = match stream.into_std().and_then(TcpStream::from_std) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%peer, %error, "taking a connection over"),
        };
        let Some(startup) = self.admit(peer).await else {
            tracing::debug!(%peer, "refused a connection: too many, or too many that failed");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "setting TCP_NODELAY");
        }
        self.serve_admitted(stream, peer, startup, shutdown).await;
    }

    async fn serve_admitted<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        startup: Startup,
        shutdown: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = Connection::new(self.shared.clone(), Some(peer)).holding(startup);
        let offence = connection.offence();
        let ended = Box::pin(connection.run(stream, shutdown.clone())).await;
        if let Some(offence) = offence.of(&ended)
            && !shutdown.is_cancelled()
        {
            self.shared.sources.blame(peer.ip(), offence);
        }
        match ended {
            Ok(()) => tracing::debug!(%peer, "connection closed"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%peer, error, "connection ended");
            }
        }
    }

    /// Waits for a connection's turn and place.
    async fn admit(&self, peer: SocketAddr) -> Option<Startup> {
        let turn = self.shared.sources.admit(peer.ip())?;
        if turn.is_zero() {
            return self.shared.startups.admit(peer.ip()).await;
        }
        let _waiting = self.shared.startups.wait()?;
        tokio::time::sleep(turn).await;
        self.shared.startups.admit(peer.ip()).await
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// How a [`Server`] presents itself and what it bears.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The key by which clients recognise the server.
    pub host_keys: HostKeys,
    /// A text that clients show before authentication, each line ended by a line feed. Default: none.
    pub banner: Option<String>,
    /// How long a client may take to log in, against connections that only hold a place. Default: 30 s.
    pub login_grace: Duration,
    /// How many keys a client may offer, against guessing which keys are known. An agent with many keys offers them all.
    /// Default: 20.
    pub max_offers: usize,
    /// How many times a client may prove a key that is not granted. Default: 6, as OpenSSH. Where certificates are taken
    /// ([`Authorizer::takes_certificates`]) every key has to be proven, and `max_offers` is the limit.
    pub max_rejections: usize,
    /// What every rejection takes at least, so that its time tells nothing. Default: 300 ms.
    pub rejection_time: Duration,
    /// Connections that have not logged in yet, beyond which others wait for 2 s and are then closed. Default: 100.
    pub max_startups: usize,
    /// The same for one source: an IPv4 address or an IPv6 /64. Default: 20.
    pub max_startups_per_source: usize,
    /// Threads that serve connections, each of which stays on one; with none of them they are served by the runtime that
    /// calls [`Server::serve`]. Default: one for each processor.
    pub threads: usize,
    /// What a source of connections may use up. Default: [`SourceLimits::default`].
    pub source_limits: SourceLimits,
    /// Which environment variables of a client are passed on. Default: [`AcceptEnv::Harmless`].
    pub accept_env: AcceptEnv,
    /// Channels that a connection may have at a time, sessions and forwarded streams together, whether they are open or
    /// being opened, against one client that takes all tasks and descriptors of the machine. Each may hold 6 MiB, all of
    /// them 128 MiB. A browser behind `ssh -D` uses a hundred. Default: 256.
    pub max_channels: usize,
    /// Addresses that the machine listens on for a connection at a time, against one client that takes all its ports.
    /// Default: 32.
    pub max_forwards: usize,
    /// Streams that came to the machine and wait for the client to take them, against a client that answers none while
    /// others connect: what is beyond that waits on the machine, where the system bounds it. Default: 32.
    pub max_pending: usize,
    /// How long finding a machine and opening a channel on it may take. Default: 30 s.
    pub connect_timeout: Duration,
    /// How long a machine may take to answer a request. A request to listen on the machine holds up the connection's other
    /// channels for as long. Default: 10 s.
    pub request_timeout: Duration,
    /// After this time without a sign of life the client is asked for one; at the fourth time the connection ends. A
    /// client that is suspended for that long loses its connection. Default: 30 s; `None` never asks.
    pub keepalive: Option<Duration>,
    /// New keys are made after this many bytes in either direction, at most 1 GiB: AES-GCM and ChaCha20 want them within
    /// that (RFC 4253 §9), and strangers to our traffic get less to work on. Default: 1 GiB.
    pub rekey_bytes: usize,
    /// New keys are made after this time as well. Default: one hour (RFC 4253 §9).
    pub rekey_time: Duration,
    /// How long before the end of their time users at a terminal are told of it, in a line among their output. It ends with
    /// [`Grant::not_after`](crate::auth::Grant::not_after) or with the machine's
    /// [`Tenure`](crate::auth::Tenure). Default: 5 min.
    pub end_notice: Duration,
    /// How often the authorizer is asked whether it has taken a login back ([`Authorizer::is_revoked`]). Default: 2 s, so that the
    /// connection is closed within 10 s.
    pub revocation_check: Duration,
    /// Who is told what happens. Default: nobody.
    pub audit: Option<Arc<dyn AuditSink>>,
    /// How long clients have to leave after they were told that the server or their time ends. A connection is closed 2 s
    /// after that at the latest. Default: 5 s.
    pub shutdown_grace: Duration,
}

impl ServerConfig {
    /// The defaults, with a host key.
    pub fn new(host_keys: HostKeys) -> Self {
        Self {
            host_keys,
            banner: None,
            login_grace: Duration::from_secs(30),
            max_offers: 20,
            max_rejections: 6,
            rejection_time: Duration::from_millis(300),
            max_startups: 100,
            max_startups_per_source: 20,
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            source_limits: SourceLimits::default(),
            accept_env: AcceptEnv::Harmless,
            max_channels: 256,
            max_forwards: 32,
            max_pending: 32,
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            keepalive: Some(Duration::from_secs(30)),
            rekey_bytes: MAX_REKEY_BYTES,
            rekey_time: Duration::from_secs(3600),
            end_notice: Duration::from_secs(5 * 60),
            revocation_check: Duration::from_secs(2),
            audit: None,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// What one source may use up of a server that listens: an IPv4 address or an IPv6 /64. Connections from the loopback
/// interface are not counted, which come from a proxy before the server or from its own machine.
///
/// A source that fails is given penalties, as by OpenSSH's `PerSourcePenalties`: 10 s for one that holds its place until
/// the login grace is over, 5 s for one whose keys are all rejected, 1 s for one that leaves without trying or does not
/// speak SSH. They add up while they run, and are nothing until they exceed `patience`; then the source is refused until
/// they are over. Many users behind one address share its penalties.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SourceLimits {
    /// Connections in a second, against a client that keeps the server busy with key exchanges. Those beyond wait for
    /// their turn, 2 s at most, and are refused beyond that. Default: 10; 0 is no limit.
    pub rate: u32,
    /// Connections that may come at once before the rate counts: a tool may open fifty. Default: 40.
    pub burst: u32,
    /// The sum of penalties that is borne, against a mistyped name being punished. Default: 15 s.
    pub patience: Duration,
    /// The most that penalties add up to, against users being kept out for good by their neighbours. Default: 10 min;
    /// one that is not over `patience` turns penalties off.
    pub max_penalty: Duration,
}

impl Default for SourceLimits {
    fn default() -> Self {
        Self {
            rate: 10,
            burst: 40,
            patience: Duration::from_secs(15),
            max_penalty: Duration::from_secs(10 * 60),
        }
    }
}

/// Which environment variables of a client are passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AcceptEnv {
    /// Any: for clients that may run what they like anyway, such as the gateway of a machine.
    Any,
    /// What says how to talk to the user and to git: `COLORTERM`, `GIT_PROTOCOL`, `LANG`, `LC_*`, `TERM`.
    Harmless,
}

/// Why a connection ended other than by the client's wish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The client broke the protocol, or no algorithm is common.
    #[error("the client does not keep to the protocol: {0}")]
    Protocol(#[source] ProtocolError),
    /// The client sent more than it was allowed to.
    #[error("the client sends more than its windows allow")]
    Flood,
    /// The client did not log in in time.
    #[error("the client did not log in in time")]
    LoginTimeout,
    /// The client gave no sign of life.
    #[error("the client gives no sign of life")]
    Silent,
    /// The client tried too many keys.
    #[error("the client tried too many keys")]
    TooManyAttempts,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Transport(#[source] std::io::Error),
}

/// What the SSH library found wrong.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ProtocolError(Box<dyn std::error::Error + Send + Sync>);

/// The most that one set of keys is used for.
const MAX_REKEY_BYTES: usize = 1 << 30;

/// The pause after a failed `accept`: where file descriptors ran out, some are free soon.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use async_trait::async_trait;

    use super::*;
    use crate::auth::{AuthRequest, Denied, Grant, Machine, Refusal};

    struct Nobody;

    #[async_trait]
    impl Authorizer for Nobody {
        async fn authorize(&self, _request: &AuthRequest) -> Result<Grant, Denied> {
            Err(Denied)
        }
    }

    #[async_trait]
    impl MachineResolver for Nobody {
        async fn resolve(&self, _grant: &Grant) -> Result<Machine, Refusal> {
            Err(Refusal::new("there is none"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_never_logs_in_is_refused_after_a_while() {
        let config = ServerConfig::new(HostKeys::ephemeral());
        let server = Server::new(config, Arc::new(Nobody), Arc::new(Nobody));
        let peer = |last| SocketAddr::from((IpAddr::from([192, 0, 2, last]), 4321));
        let mut served = 0;
        while let Some(startup) = server.admit(peer(1)).await {
            // A client that says nothing and leaves.
            let stream = tokio::io::empty();
            let shutdown = CancellationToken::new();
            server
                .serve_admitted(stream, peer(1), startup, shutdown)
                .await;
            served += 1;
            assert!(served < 100, "nobody stops it");
        }
        assert!(served > 10, "refused after {served}");
        assert!(server.admit(peer(2)).await.is_some());
    }
}
