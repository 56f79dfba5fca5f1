//! Streams of this machine: connections that its user asked for, and connections to where it listens for its user.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::platform;
use crate::backend::{
    BackendError, BackendStream, Destination, Incoming, IncomingSource, ListenAddress, Origin,
    Originator, PendingStream,
};

/// Connects to `destination`; relative paths start in `work_dir`.
pub(super) async fn connect(
    destination: &Destination,
    work_dir: &Path,
    closed: CancellationToken,
) -> Result<BackendStream, BackendError> {
    let connected = match destination {
        Destination::Tcp { host, port, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            stream.map(Accepted::Tcp)
        }
        Destination::Unix { path } => {
            let stream = UnixStream::connect(work_dir.join(path)).await;
            stream.map(Accepted::Unix)
        }
    };
    let connected = connected.map_err(BackendError::ConnectFailed)?;
    Ok(connected.into_stream(closed))
}

/// Where this machine listens for one connection of its user, until that is dropped.
pub(super) struct Listeners {
    work_dir: PathBuf,
    listening: Mutex<HashMap<ListenAddress, Vec<Listener>>>,
    offers: Offers,
    offered: Mutex<Option<mpsc::Receiver<Incoming>>>,
}

/// Hands streams to whoever takes them, and waits where nobody does: then they wait in the system's queue, which is
/// bounded.
#[derive(Clone)]
pub(super) struct Offers {
    queue: mpsc::Sender<Incoming>,
    closed: CancellationToken,
}

impl Listeners {
    pub(super) fn new(work_dir: PathBuf, closed: CancellationToken) -> Self {
        let (queue, offered) = mpsc::channel(OFFERED);
        Self {
            work_dir,
            listening: Mutex::default(),
            offers: Offers { queue, closed },
            offered: Mutex::new(Some(offered)),
        }
    }

    /// Listens at `address`; the port, or 0 for a path. Ports are those of the loopback interface whatever host was asked
    /// for, as with an sshd that has no `GatewayPorts`: what a user forwards is nobody else's.
    pub(super) async fn listen(&self, address: &ListenAddress) -> Result<u16, BackendError> {
        let (address, listeners) = match address {
            ListenAddress::Tcp { host, port } => {
                let (port, sockets) = bind_loopback(*port).await.map_err(listen_failed)?;
                let host = host.clone();
                let address = ListenAddress::Tcp { host, port };
                let offers = sockets
                    .into_iter()
                    .map(|socket| Listener::tcp(socket, address.clone(), self.offers.clone()));
                let listeners = offers.collect();
                (address, listeners)
            }
            ListenAddress::Unix { path } => {
                let path = self.work_dir.join(path);
                let origin = Origin::Listener {
                    address: address.clone(),
                    originator: Originator::default(),
                };
                let listener = Listener::unix(path, origin, self.offers.clone());
                let listener = listener.map_err(listen_failed)?;
                (address.clone(), vec![listener])
            }
        };
        let port = address.port().unwrap_or(0);
        lock(&self.listening).insert(address, listeners);
        Ok(port)
    }

    pub(super) fn cancel(&self, address: &ListenAddress) -> Result<(), BackendError> {
        let removed = lock(&self.listening).remove(address);
        removed.map(drop).ok_or(BackendError::Refused)
    }

    /// What a session's agent socket offers its streams to.
    pub(super) fn offers(&self) -> Offers {
        self.offers.clone()
    }

    pub(super) fn incoming(&self) -> Option<Box<dyn IncomingSource>> {
        let offered = lock(&self.offered).take()?;
        Some(Box::new(Offered(offered)))
    }
}

impl Offers {
    async fn offer(&self, origin: Origin, accepted: Accepted) {
        let pending = Box::new(Pending {
            accepted,
            closed: self.closed.child_token(),
        });
        // Nobody takes any more when the connection is over, and then this task is too.
        let _ = self.queue.send(Incoming { origin, pending }).await;
    }
}

struct Offered(mpsc::Receiver<Incoming>);

#[async_trait]
impl IncomingSource for Offered {
    async fn next(&mut self) -> Option<Incoming> {
        self.0.recv().await
    }
}

/// A socket that is listened on until it is dropped.
pub(super) struct Listener {
    _accepting: AbortOnDropHandle<()>,
    _path: Option<platform::SocketPath>,
}

impl Listener {
    fn tcp(socket: TcpListener, address: ListenAddress, offers: Offers) -> Self {
        let accepting = tokio::spawn(async move {
            loop {
                match socket.accept().await {
                    Ok((stream, peer)) => {
                        let originator = Originator {
                            address: peer.ip().to_string(),
                            port: peer.port().into(),
                        };
                        let address = address.clone();
                        let origin = Origin::Listener {
                            address,
                            originator,
                        };
                        offers.offer(origin, Accepted::Tcp(stream)).await;
                    }
                    Err(error) => pause(&error).await,
                }
            }
        });
        Self {
            _accepting: AbortOnDropHandle::new(accepting),
            _path: None,
        }
    }

    /// Listens at `path`, which must not exist and which only this program's user may connect to.
    pub(super) fn unix(path: PathBuf, origin: Origin, offers: Offers) -> io::Result<Self> {
        let (socket, path) = platform::listen_privately(path)?;
        let socket = UnixListener::from_std(socket)?;
        let accepting = tokio::spawn(async move {
            loop {
                match socket.accept().await {
                    Ok((stream, _)) => offers.offer(origin.clone(), Accepted::Unix(stream)).await,
                    Err(error) => pause(&error).await,
                }
            }
        });
        Ok(Self {
            _accepting: AbortOnDropHandle::new(accepting),
            _path: Some(path),
        })
    }
}

/// Where descriptors ran out, some are free soon.
async fn pause(error: &io::Error) {
    tracing::warn!(%error, "accepting a connection to forward");
    tokio::time::sleep(ACCEPT_RETRY).await;
}

/// Listens on a port of the loopback interface, with IPv6 where that can be had.
async fn bind_loopback(port: u16) -> io::Result<(u16, Vec<TcpListener>)> {
    let first = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let port = first.local_addr()?.port();
    let second = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await;
    let mut sockets = vec![first];
    sockets.extend(second);
    Ok((port, sockets))
}

fn listen_failed(error: io::Error) -> BackendError {
    tracing::debug!(%error, "cannot listen for a user");
    BackendError::Refused
}

/// A connection of this machine.
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepted {
    fn into_stream(self, closed: CancellationToken) -> BackendStream {
        match self {
            Self::Tcp(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "setting TCP_NODELAY");
                }
                let (read, write) = stream.into_split();
                BackendStream::over(read, write, closed)
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                BackendStream::over(read, write, closed)
            }
        }
    }
}

struct Pending {
    accepted: Accepted,
    closed: CancellationToken,
}

#[async_trait]
impl PendingStream for Pending {
    async fn accept(self: Box<Self>) -> Result<BackendStream, BackendError> {
        Ok(self.accepted.into_stream(self.closed))
    }
}

/// Locks what is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many connections wait to be taken here; the system's own queue comes before it.
const OFFERED: usize = 16;

/// The pause after a failed `accept`.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);
