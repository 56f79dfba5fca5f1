//! `coordinator serve`: the listeners, and what runs behind them until shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use buildlet_proto::hijack;
use buildlet_proto::tls::Pin;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use sshbridge::audit::AuditSink;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::audit::{AuditQueue, AuditWriter};
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::identity::Identity;
use crate::pool::Pool;
use crate::reload::{Current, Reload};
use crate::store::SqliteStore;
use crate::{ssh, web};

/// A coordinator whose ports are open but that does not serve yet.
pub struct Server {
    coordinator: Arc<Coordinator>,
    https: TcpListener,
    ssh: TcpListener,
    certificate: Arc<Current<ServerConfig>>,
    ssh_server: sshbridge::server::Server,
    audit: Option<AuditWriter>,
    /// Takes a changed configuration over, while it serves too.
    pub reload: Reload,
    /// Where it is, and how to know it.
    pub addresses: Addresses,
}

/// Where a coordinator is, and how to know it.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// HTTPS.
    pub https: SocketAddr,
    /// SSH.
    pub ssh: SocketAddr,
    /// The pin of the certificate authority.
    pub pin: Pin,
    /// The SSH gateway's host key, as an `authorized_keys` line.
    pub ssh_host_key: String,
}

impl Server {
    /// Opens the ports and reads or makes the keys. Nothing is served before [`Server::run`].
    ///
    /// # Errors
    ///
    /// An error that names the address or the file.
    pub async fn bind(config: Config, shutdown: CancellationToken) -> anyhow::Result<Self> {
        make_private_dir(&config.data_dir)?;
        let identity = Identity::load(&config.tls, &config.data_dir)?;
        let pin = identity.pin;
        let certificate = Arc::new(Current::new(identity.server_config()?));
        let https = listen(config.listen.https).await?;
        let ssh_listener = listen(config.listen.ssh).await?;
        let leases = config.data_dir.join(LEASES_FILE);
        let store = SqliteStore::open(&leases).await;
        let store = store.with_context(|| format!("leases in {}", leases.display()))?;
        let coordinator = Coordinator::new(config, Arc::new(store), shutdown).await?;
        let coordinator = Arc::new(coordinator);
        let config = coordinator.config();
        let audit_log = config.ssh.audit_log.as_deref();
        let (queue, audit) = audit_log.map(AuditQueue::open).transpose()?.unzip();
        let sink = queue.clone().map(|queue| queue as Arc<dyn AuditSink>);
        let users = Arc::new(Current::new(ssh::authorizer(&config)?));
        let (ssh_server, ssh_host_key) = ssh::server(&coordinator, users.clone(), sink)?;
        let reload = Reload::new(coordinator.clone(), certificate.clone(), users, queue);
        let addresses = Addresses {
            https: https.local_addr()?,
            ssh: ssh_listener.local_addr()?,
            pin,
            ssh_host_key,
        };
        Ok(Self {
            coordinator,
            https,
            ssh: ssh_listener,
            certificate,
            ssh_server,
            audit,
            reload,
            addresses,
        })
    }

    /// The machines, for those who wait for one to join.
    pub fn pool(&self) -> Arc<Pool> {
        self.coordinator.pool.clone()
    }

    /// Ends the leases that the last coordinator in this data directory has left.
    ///
    /// # Errors
    ///
    /// An error where the store fails.
    pub async fn end_leases(&self) -> anyhow::Result<()> {
        Ok(self.coordinator.instances.destroy_all().await?)
    }

    /// Serves until shutdown, then gives what is running a moment to end.
    pub async fn run(self) {
        let Self {
            coordinator,
            https,
            ssh,
            certificate,
            ssh_server,
            audit,
            ..
        } = self;
        let shutdown = coordinator.shutdown.clone();
        let no_more_events = CancellationToken::new();
        let writing = async {
            if let Some(audit) = audit {
                audit.run(no_more_events.clone()).await;
            }
        };
        tokio::join!(
            serve_https(coordinator.clone(), https, certificate),
            async {
                ssh_server.serve(ssh, shutdown).await;
                no_more_events.cancel();
            },
            writing,
            coordinator.keep_house(),
        );
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

async fn serve_https(
    coordinator: Arc<Coordinator>,
    listener: TcpListener,
    certificate: Arc<Current<ServerConfig>>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
            () = coordinator.shutdown.cancelled() => break,
        };
        let (stream, peer, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: connections that end give some back.
                warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (coordinator, tls) = (coordinator.clone(), TlsAcceptor::from(certificate.get()));
        connections.spawn(async move {
            let shutdown = coordinator.shutdown.clone();
            tokio::select! {
                () = serve_connection(coordinator, stream, peer, tls) => {}
                () = async { shutdown.cancelled().await; tokio::time::sleep(GRACE).await } => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.join_all().await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, slot))
}

async fn serve_connection(
    coordinator: Arc<Coordinator>,
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "cannot turn Nagle's algorithm off");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%peer, %error, "the TLS handshake failed"),
        Err(_) => return debug!(%peer, "the TLS handshake took too long"),
    };
    let service = TowerToHyperService::new(web::router(coordinator, peer));
    if let Err(error) = hijack::serve_connection(stream, service, hijack::Limits::default()).await {
        debug!(%peer, %error, "a connection ended");
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    info!(address = %listener.local_addr()?, "listening");
    Ok(listener)
}

fn make_private_dir(dir: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("making {}", dir.display()))
}

/// Where leases are, in the data directory.
const LEASES_FILE: &str = "leases.sqlite";
/// A pause after a failed accept, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection has after shutdown began.
const GRACE: Duration = Duration::from_secs(2);
/// Stops a client that connects and says nothing from holding a slot.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Stops a flood of connections from taking all descriptors; below the usual limit of 1024 per process.
const MAX_CONNECTIONS: usize = 800;
