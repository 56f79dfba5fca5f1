//! The listening side of a v2 link.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{Id, JoinSet};
use tokio::time::timeout;
use tracing::debug;

use crate::addr::Addr;
use crate::config::Config;
use crate::conn::Conn;
use crate::direct::{BoxTransport, Parts};
use crate::error::CloseReason;
use crate::link::now;
use crate::v2::Numbers;
use crate::v2::control::{ListenerControl, ListenerEvent, Silence};
use crate::v2::driver::{Attend, Driver, Shared};
use crate::v2::switch::{SwitchError, switch};

/// Picks up what the peer of a control connection announces.
#[derive(Debug)]
pub(crate) struct PickUpListener {
    shared: Arc<Shared<ListenerControl>>,
    backlog: Arc<Backlog>,
}

/// Makes connections to the server.
pub(crate) type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

type Connecting = Pin<Box<dyn Future<Output = io::Result<BoxTransport>> + Send>>;

/// Boxes what makes connections.
pub(crate) fn connect_with<C, F, T>(connect: C) -> Connect
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    Arc::new(move || {
        let connecting = connect();
        Box::pin(async {
            let transport: BoxTransport = Box::pin(connecting.await?);
            Ok(transport)
        })
    })
}

impl PickUpListener {
    pub(crate) fn spawn(control: BoxTransport, connect: Connect, config: &Config) -> Self {
        let silence = match config.keep_alive {
            Duration::ZERO => Silence::Allowed,
            _ => Silence::Limited,
        };
        let shared = Shared::new(ListenerControl::new(silence, now()), config);
        let backlog = Arc::new(Backlog::default());
        let attendant = Attendant::new(connect, Arc::clone(&backlog), config);
        Driver::spawn(Arc::clone(&shared), control, attendant, config);
        Self { shared, backlog }
    }

    pub(crate) fn shared(&self) -> &Shared<ListenerControl> {
        &self.shared
    }

    /// Waits for the end of the control connection, without keeping it.
    pub(crate) fn when_closed(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.closed().await }
    }

    /// Takes the oldest connection that was picked up. Those that wait when the link ends are there for the taking.
    pub(crate) fn poll_accept(&self, cx: &Context<'_>) -> Poll<Result<Conn, CloseReason>> {
        let old = {
            let mut waiting = self.backlog.lock();
            if let Some(conn) = waiting.conns.pop_front() {
                return Poll::Ready(Ok(conn));
            }
            waiting.acceptor.replace(cx.waker().clone())
        };
        drop(old);
        match self.shared.ended() {
            Some(reason) => Poll::Ready(Err(reason)),
            None => Poll::Pending,
        }
    }
}

impl Drop for PickUpListener {
    fn drop(&mut self) {
        self.shared.end(CloseReason::Local);
    }
}

/// Connections that wait for `accept`. Each has a permit, which bounds them.
#[derive(Debug, Default)]
struct Backlog(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    conns: VecDeque<Conn>,
    acceptor: Option<Waker>,
}

impl Backlog {
    fn push(&self, conn: Conn) {
        let acceptor = {
            let mut waiting = self.lock();
            waiting.conns.push_back(conn);
            waiting.acceptor.take()
        };
        acceptor.into_iter().for_each(Waker::wake);
    }

    fn wake(&self) {
        let acceptor = self.lock().acceptor.take();
        acceptor.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Picks up what is ready, some at a time.
struct Attendant {
    connect: Connect,
    backlog: Arc<Backlog>,
    tasks: JoinSet<Result<BoxTransport, PickUpError>>,
    /// What each task is for.
    under_way: HashMap<Id, UnderWay>,
    /// One for each pick-up under way, each connection that waits and each that is open.
    permits: Arc<Semaphore>,
    limit: usize,
    pick_up_timeout: Duration,
    close_timeout: Duration,
    local_addr: Addr,
    peer_addr: Addr,
    numbers: Numbers,
}

struct UnderWay {
    conn_path: String,
    permit: OwnedSemaphorePermit,
}

/// Why a connection was not picked up. The texts are for the Dialer.
#[derive(Debug, thiserror::Error)]
enum PickUpError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("no connection within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Switch(#[from] SwitchError),
}

impl Attendant {
    fn new(connect: Connect, backlog: Arc<Backlog>, config: &Config) -> Self {
        let limit = config.max_inbound_streams.min(Semaphore::MAX_PERMITS);
        Self {
            connect,
            backlog,
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            permits: Arc::new(Semaphore::new(limit)),
            limit,
            pick_up_timeout: config.pick_up_timeout,
            close_timeout: config.close_timeout,
            local_addr: Addr::new(config.local_addr, None),
            peer_addr: Addr::new(config.peer_addr, None),
            numbers: Numbers::default(),
        }
    }

    /// Connects, and asks for the connection.
    fn begin(&mut self, conn_path: String, permit: OwnedSemaphorePermit) {
        let connect = Arc::clone(&self.connect);
        let limit = self.pick_up_timeout;
        let path = conn_path.clone();
        let pick_up = async move {
            let transport = connect().await.map_err(PickUpError::Connect)?;
            let (leftover, transport) = switch(transport, &path).await?.into_parts();
            let transport: BoxTransport = if leftover.is_empty() {
                transport
            } else {
                Box::pin(crate::handshake::Upgraded::new(leftover, transport))
            };
            Ok(transport)
        };
        let task = self.tasks.spawn(async move {
            timeout(limit, pick_up)
                .await
                .unwrap_or(Err(PickUpError::TimedOut(limit)))
        });
        self.under_way
            .insert(task.id(), UnderWay { conn_path, permit });
    }

    /// Has a connection wait for `accept`.
    fn finish(&self, transport: BoxTransport, permit: OwnedSemaphorePermit) {
        let number = self.numbers.next();
        self.backlog.push(Conn::direct(Parts {
            transport,
            number,
            local_addr: Addr::new(self.local_addr.socket(), Some(number)),
            peer_addr: Addr::new(self.peer_addr.socket(), Some(number)),
            close_timeout: self.close_timeout,
            permit,
        }));
    }
}

impl Attend<ListenerControl> for Attendant {
    fn handle(&mut self, event: ListenerEvent, shared: &Shared<ListenerControl>) {
        let ListenerEvent::ConnReady { conn_path } = event;
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => self.begin(conn_path, permit),
            Err(_) => {
                let err = format!("{} connections are open, which is my limit", self.limit);
                shared.with(|control| control.fail(conn_path, err));
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared<ListenerControl>) -> Poll<()> {
        let mut progress = Poll::Pending;
        while let Poll::Ready(Some(joined)) = self.tasks.poll_join_next_with_id(cx) {
            progress = Poll::Ready(());
            let (id, outcome) = match joined {
                Ok((id, outcome)) => (id, outcome.map_err(|error| error.to_string())),
                Err(error) => (error.id(), Err("the pick-up panicked".to_owned())),
            };
            let Some(UnderWay { conn_path, permit }) = self.under_way.remove(&id) else {
                continue;
            };
            match outcome {
                Ok(transport) => self.finish(transport, permit),
                Err(err) => {
                    debug!(err = err.as_str(), "a connection was not picked up");
                    drop(permit);
                    shared.with(|control| control.fail(conn_path, err));
                }
            }
        }
        progress
    }
}

impl Drop for Attendant {
    /// The link has ended: who waits for a connection is to look again.
    fn drop(&mut self) {
        self.backlog.wake();
    }
}

impl fmt::Debug for Attendant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attendant").finish_non_exhaustive()
    }
}
