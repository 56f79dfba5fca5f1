//! What comes from a machine on one connection, and what the connection's callbacks know.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backend::Incoming;
use crate::flow::{Inbox, Link};
use crate::registry::{Registration, Registry};

/// The channels of a connection, by their numbers, and where its own go.
pub(super) struct Ports {
    pub(super) link: Arc<Link>,
    registry: Arc<Registry<u32, Arc<Port>>>,
    incoming: mpsc::Sender<Incoming>,
    agent_asked: AtomicBool,
    /// The tasks of channels, which end with the connection.
    tasks: Mutex<JoinSet<()>>,
    /// Cancelled when the connection is over.
    pub(super) gone: CancellationToken,
}

/// What comes from the machine on one channel.
pub(super) struct Port {
    pub(super) inbox: Arc<Inbox>,
    /// Who waits for the answers to requests, in the order of the requests (RFC 4254 §5.4).
    waiting: Mutex<VecDeque<oneshot::Sender<bool>>>,
    /// Cancelled when the channel is closed.
    pub(super) gone: CancellationToken,
}

impl Ports {
    pub(super) fn new(link: Arc<Link>, incoming: mpsc::Sender<Incoming>) -> Self {
        let gone = link.gone().child_token();
        Self {
            link,
            registry: Arc::new(Registry::new()),
            incoming,
            agent_asked: AtomicBool::new(false),
            tasks: Mutex::default(),
            gone,
        }
    }

    /// The port of a channel that a callback is about: it may be here before whoever opened the channel.
    pub(super) fn arrived(&self, id: u32) -> Arc<Port> {
        self.closed_where_over(self.registry.arrive(id, || self.new_port()))
    }

    /// The port of a channel, for whoever opened it or takes it.
    pub(super) fn claim(&self, id: u32) -> Arc<Port> {
        self.closed_where_over(self.registry.claim(id, || self.new_port()))
    }

    /// Keeps a channel's port until the result is dropped.
    pub(super) fn registration(&self, id: u32) -> Registration<u32, Arc<Port>> {
        self.registry.registration(id)
    }

    /// The machine has closed a channel.
    pub(super) fn close(&self, id: u32) {
        if let Some(port) = self.registry.close(id) {
            port.close();
        }
    }

    /// The connection is over.
    pub(super) fn end(&self) {
        self.gone.cancel();
        for port in self.registry.drain() {
            port.close();
        }
    }

    /// How many channels are open.
    pub(super) fn len(&self) -> usize {
        self.registry.len()
    }

    /// Offers a stream that the machine opened. Where too many wait already it is dropped, which refuses it.
    pub(super) fn offer(&self, incoming: Incoming) {
        if let Err(error) = self.incoming.try_send(incoming) {
            tracing::debug!(%error, "refused a stream of the machine");
        }
    }

    /// Whether this connection was asked to forward an agent.
    pub(super) fn agent_asked(&self) -> bool {
        self.agent_asked.load(Ordering::Acquire)
    }

    pub(super) fn ask_agent(&self) {
        self.agent_asked.store(true, Ordering::Release);
    }

    /// Runs a task of a channel as long as the connection at most.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn new_port(&self) -> Arc<Port> {
        Arc::new(Port {
            inbox: self.link.inbox(),
            waiting: Mutex::default(),
            gone: self.gone.child_token(),
        })
    }

    fn closed_where_over(&self, port: Arc<Port>) -> Arc<Port> {
        if self.gone.is_cancelled() {
            port.close();
        }
        port
    }
}

impl Port {
    pub(super) fn expect_answer(&self) -> oneshot::Receiver<bool> {
        let (answer, answered) = oneshot::channel();
        self.waiting().push_back(answer);
        answered
    }

    pub(super) fn answer(&self, granted: bool) {
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
