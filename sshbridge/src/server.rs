//! The SSH server: takes connections, asks who may log in, and joins each session channel to a machine.

mod channel;
mod connection;
mod protocol;
mod startups;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use self::protocol::ProtocolConfig;
use self::startups::Startups;
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
        Self {
            shared: Arc::new(Shared {
                config,
                protocol,
                authorizer,
                resolver,
                startups,
            }),
        }
    }

    /// Serves everybody who connects to `listener`, until `shutdown`: then users are told, and the call returns when all
    /// connections have ended, which takes [`ServerConfig::shutdown_grace`] at most. An error of `accept` is logged and
    /// survived.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends all connections at once.
    pub async fn serve(&self, listener: TcpListener, shutdown: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(self.clone().serve_accepted(stream, peer, shutdown.clone()));
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
        let Some(startup) = self.shared.startups.admit(peer.ip()).await else {
            tracing::debug!(%peer, "refused a connection: too many are logging in");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "setting TCP_NODELAY");
        }
        let connection = Connection::new(self.shared.clone(), Some(peer)).holding(startup);
        match Box::pin(connection.run(stream, shutdown)).await {
            Ok(()) => tracing::debug!(%peer, "connection closed"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%peer, error, "connection ended");
            }
        }
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
    /// How many times a client may prove a key that is not granted. Default: 6, as OpenSSH.
    pub max_rejections: usize,
    /// What every rejection takes at least, so that its time tells nothing. Default: 300 ms.
    pub rejection_time: Duration,
    /// Connections that have not logged in yet, beyond which others wait for 2 s and are then closed. Default: 100.
    pub max_startups: usize,
    /// The same for one source: an IPv4 address or an IPv6 /64. Default: 20.
    pub max_startups_per_source: usize,
    /// Which environment variables of a client are passed on. Default: [`AcceptEnv::Harmless`].
    pub accept_env: AcceptEnv,
    /// Channels that a connection may have at a time. Each may hold 6 MiB. Default: 64.
    pub max_channels: usize,
    /// How long finding a machine and opening a channel on it may take. Default: 30 s.
    pub connect_timeout: Duration,
    /// How long a machine may take to answer a request. Default: 10 s.
    pub request_timeout: Duration,
    /// After this time without a sign of life the client is asked for one; at the fourth time the connection ends. A
    /// client that is suspended for that long loses its connection. Default: 30 s; `None` never asks.
    pub keepalive: Option<Duration>,
    /// How long clients have to leave after they were told that the server ends. Default: 5 s.
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
            accept_env: AcceptEnv::Harmless,
            max_channels: 64,
            connect_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            keepalive: Some(Duration::from_secs(30)),
            shutdown_grace: Duration::from_secs(5),
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

/// The pause after a failed `accept`: where file descriptors ran out, some are free soon.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
