//! A client's connections to one machine: who shares one, and who has one alone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Login, OneTimeKey};
use super::{HANDSHAKE, SshDialer};
use crate::backend::{
    BackendChannel, BackendConn, BackendError, BackendStream, Destination, Incoming,
    IncomingSource, ListenAddress,
};

/// What a client has open on a machine. It is several connections, because on the client side of russh a channel that is
/// not read can only be stopped by not reading its connection:
///
/// * each session has one, with its agent; nothing can freeze it but itself;
/// * what the client connects to through the machine shares a few, chosen by the number of channels on them;
/// * what listens for the client is on one of its own, for which it lives.
pub(super) struct SshConn {
    dialer: Arc<dyn SshDialer>,
    /// The first connection, until somebody has use for it.
    spare: Mutex<Option<Arc<Login>>>,
    pool: Mutex<Vec<Arc<Login>>>,
    /// Held by whoever makes another connection for the pool.
    growing: Semaphore,
    control: Arc<watch::Sender<Control>>,
    incoming: mpsc::Sender<Incoming>,
    offered: Mutex<Option<mpsc::Receiver<Incoming>>>,
    closed: CancellationToken,
    /// Ends all connections when this one is dropped.
    _open: DropGuard,
}

/// The connection that listens for the client.
#[derive(Default)]
struct Control {
    login: Option<Arc<Login>>,
    /// How many addresses it listens on.
    addresses: usize,
}

/// What the pool has for another stream.
enum Pooled {
    /// A connection that serves, but a new one would be better.
    Busy(Arc<Login>),
    /// A connection to use.
    Good(Arc<Login>),
    Nothing,
}

impl SshConn {
    /// Makes the first connection, so that a machine that cannot be reached is known at once.
    pub(super) async fn new(dialer: Arc<dyn SshDialer>) -> Result<Self, BackendError> {
        let (incoming, offered) = mpsc::channel(INCOMING);
        let closed = CancellationToken::new();
        let conn = Self {
            dialer,
            spare: Mutex::new(None),
            pool: Mutex::default(),
            growing: Semaphore::new(1),
            control: Arc::new(watch::Sender::new(Control::default())),
            incoming,
            offered: Mutex::new(Some(offered)),
            _open: closed.clone().drop_guard(),
            closed,
        };
        let first = conn.dial().await?;
        *lock(&conn.spare) = Some(first);
        Ok(conn)
    }

    /// A connection that nobody uses.
    async fn unused(&self) -> Result<Arc<Login>, BackendError> {
        let spare = lock(&self.spare).take();
        match spare {
            Some(login) if !login.gone().is_cancelled() => Ok(login),
            Some(_) | None => self.dial().await,
        }
    }

    async fn dial(&self) -> Result<Arc<Login>, BackendError> {
        let key = OneTimeKey::new()?;
        let target = self.dialer.dial(key.public_line()).await?;
        let login = Login::new(
            target,
            key,
            self.incoming.clone(),
            self.closed.child_token(),
        );
        let login = tokio::time::timeout(HANDSHAKE, login).await;
        Ok(Arc::new(login.map_err(|_| BackendError::TimedOut)??))
    }

    /// The connection that the next forwarded stream goes over. One is made at a time, and whoever needs it can do without
    /// it where there are others.
    async fn shared(&self) -> Result<Arc<Login>, BackendError> {
        let _growing = match (self.pooled(), self.growing.try_acquire()) {
            (Pooled::Good(login), _) | (Pooled::Busy(login), Err(_)) => return Ok(login),
            (_, Ok(growing)) => growing,
            (Pooled::Nothing, Err(_)) => {
                let growing = self.growing.acquire().await;
                let growing = growing.map_err(|_| BackendError::Closed)?;
                if let Pooled::Good(login) | Pooled::Busy(login) = self.pooled() {
                    return Ok(login);
                }
                growing
            }
        };
        let login = self.unused().await?;
        login.share();
        lock(&self.pool).push(login.clone());
        Ok(login)
    }

    /// The one in the pool with the least channels.
    fn pooled(&self) -> Pooled {
        let mut pool = lock(&self.pool);
        pool.retain(|login| !login.gone().is_cancelled() && !login.is_worn_out());
        let usable = pool.iter().filter(|login| login.may_open());
        let Some(best) = usable.min_by_key(|login| (login.is_crowded(), login.channels())) else {
            return Pooled::Nothing;
        };
        let busy = best.is_crowded() || best.channels() >= SHARE;
        if busy && pool.len() < POOL {
            Pooled::Busy(best.clone())
        } else {
            Pooled::Good(best.clone())
        }
    }

    /// The connection that listens for the client.
    async fn control(&self) -> Result<Arc<Login>, BackendError> {
        let live = |login: &Arc<Login>| (!login.gone().is_cancelled()).then(|| login.clone());
        let known = self.control.borrow().login.as_ref().and_then(live);
        if let Some(login) = known {
            return Ok(login);
        }
        let login = self.unused().await?;
        login.share();
        self.control.send_replace(Control {
            login: Some(login.clone()),
            addresses: 0,
        });
        Ok(login)
    }
}

#[async_trait]
impl BackendConn for SshConn {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        self.unused().await?.open_session().await
    }

    async fn open_stream(&self, destination: &Destination) -> Result<BackendStream, BackendError> {
        self.shared().await?.open_stream(destination).await
    }

    async fn listen(&self, address: &ListenAddress) -> Result<u16, BackendError> {
        let port = self.control().await?.listen(address).await?;
        self.control.send_modify(|control| control.addresses += 1);
        Ok(port)
    }

    async fn cancel(&self, address: &ListenAddress) -> Result<(), BackendError> {
        self.control().await?.cancel(address).await?;
        self.control
            .send_modify(|control| control.addresses = control.addresses.saturating_sub(1));
        Ok(())
    }

    fn incoming(&self) -> Option<Box<dyn IncomingSource>> {
        Some(Box::new(Source {
            offered: lock(&self.offered).take()?,
            control: self.control.subscribe(),
        }))
    }
}

/// What comes to the machine for the client, over whichever connection.
struct Source {
    offered: mpsc::Receiver<Incoming>,
    control: watch::Receiver<Control>,
}

#[async_trait]
impl IncomingSource for Source {
    async fn next(&mut self) -> Option<Incoming> {
        loop {
            let gone = {
                let control = self.control.borrow_and_update();
                let login = control.login.as_ref().filter(|_| control.addresses > 0);
                login.map(|login| login.gone().clone())
            };
            let lost = async {
                match gone {
                    Some(gone) => gone.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                incoming = self.offered.recv() => return incoming,
                changed = self.control.changed() => changed.ok()?,
                () = lost => return None,
            }
        }
    }
}

/// Locks what is never left half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many streams a machine may have opened that nobody has looked at; beyond that it is refused.
const INCOMING: usize = 64;

/// How many streams share a connection before another is made: one that is not read stops the others for 5 s at most.
const SHARE: usize = 4;

/// How many connections forwarded streams are spread over, each of which is a process of the machine's sshd and holds
/// 4 MiB at most.
const POOL: usize = 8;
