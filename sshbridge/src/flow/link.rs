use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{HIGH_WATER, Inbox, OUTBOUND, SPOOL_LIMIT, WINDOW};

/// What one SSH connection holds in memory, and the end of that connection.
pub(crate) struct Link {
    budget: Budget,
    /// Bytes in all inboxes.
    backlog: AtomicUsize,
    inboxes: Mutex<Vec<Weak<Inbox>>>,
    outbound: Mutex<Outbound>,
    /// There may be room for more outbound data.
    room: Notify,
    /// There is something for the drain.
    spooled: Notify,
    /// Reading was stopped by the budget.
    over_budget: Notify,
    throttled: AtomicBool,
    /// How many answers are waited for that no data may hold up.
    urgent: AtomicUsize,
    read: AtomicUsize,
    /// Bytes that were read and written, of the transport.
    received: AtomicU64,
    sent: AtomicU64,
    reader: AtomicWaker,
    unused: CancellationToken,
    gone: CancellationToken,
}

/// How much input a connection may hold before it is no longer read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Budget {
    /// This many bytes.
    Fixed(usize),
    /// As much as the windows of the open channels allow, within [`Budget::CEILING`].
    PerChannel,
}

/// The connection is over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Gone;

impl Budget {
    /// What an open channel may legitimately bring into memory: a full inbox and what was granted around it.
    const CHANNEL: usize = HIGH_WATER + 2 * WINDOW as usize;
    /// Fits 21 channels that are stalled at the same time. With more of them the stall rule frees memory.
    const CEILING: usize = 128 << 20;

    /// Whether channels in this number may stay unread. A single one of a client's connection to a machine harms nobody;
    /// on a server it may wait for what is behind its own input.
    fn bears(self, channels: usize) -> bool {
        match self {
            Self::Fixed(_) => channels <= 1,
            Self::PerChannel => channels == 0,
        }
    }

    fn bytes(self, channels: usize) -> usize {
        match self {
            Self::Fixed(bytes) => bytes,
            Self::PerChannel => (channels.max(1) * Self::CHANNEL).min(Self::CEILING),
        }
    }
}

/// The way out: handed to the SSH library, encrypted by it but not yet written, spooled, being written.
#[derive(Default)]
struct Outbound {
    handed: usize,
    staged: usize,
    spool: BytesMut,
    writing: usize,
    ending: bool,
}

impl Outbound {
    fn total(&self) -> usize {
        self.handed + self.staged + self.spool.len() + self.writing
    }
}

impl Link {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            backlog: AtomicUsize::new(0),
            inboxes: Mutex::default(),
            outbound: Mutex::default(),
            room: Notify::new(),
            spooled: Notify::new(),
            over_budget: Notify::new(),
            throttled: AtomicBool::new(false),
            urgent: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            reader: AtomicWaker::new(),
            unused: CancellationToken::new(),
            gone: CancellationToken::new(),
        }
    }

    /// Makes the inbox of a new channel.
    pub(crate) fn inbox(self: &Arc<Self>) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::new(self.clone()));
        let mut inboxes = self.inboxes();
        inboxes.retain(|inbox| inbox.strong_count() > 0);
        inboxes.push(Arc::downgrade(&inbox));
        inbox
    }

    /// Ends the connection at once: reads see the end, writes fail, everybody who waits is told.
    pub(crate) fn kill(&self) {
        self.gone.cancel();
        self.reader.wake();
        self.room.notify_waiters();
        self.spooled.notify_one();
    }

    /// Cancelled when the connection is over.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Waits until less than [`OUTBOUND`] bytes are on their way, then counts `data` among them. The result is handed to
    /// the SSH library for a channel that ends with `channel_gone`.
    ///
    /// # Cancel safety
    ///
    /// Nothing is counted for a call that is dropped.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        data: Bytes,
        channel_gone: &CancellationToken,
    ) -> Result<Bytes, Gone> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.gone.is_cancelled() {
                return Err(Gone);
            }
            {
                let mut outbound = self.outbound();
                if outbound.total() < OUTBOUND {
                    outbound.handed += data.len();
                    drop(outbound);
                    return Ok(Bytes::from_owner(Handed {
                        data,
                        link: self.clone(),
                        channel_gone: channel_gone.clone(),
                    }));
                }
            }
            room.await;
        }
    }

    /// Makes the transport wait for 3 ms before the next read: a peer that sends its two bytes at once would otherwise be
    /// answered at the speed of the network.
    pub(crate) fn throttle(&self) {
        self.throttled.store(true, Ordering::Relaxed);
    }

    /// Reads on above the budget, by as much as may be on its way, until the result is dropped: what waits for an answer
    /// of the peer may be what keeps the input from being taken.
    pub(crate) fn read_urgently(&self) -> Urgent<'_> {
        self.urgent.fetch_add(1, Ordering::AcqRel);
        self.reader.wake();
        Urgent(self)
    }

    /// Cuts the channels that hold input and have taken none for 5 s, whenever they keep another from being read. Runs as
    /// long as the connection.
    pub(crate) async fn watch_stalls(&self) {
        loop {
            self.over_budget.notified().await;
            while self.is_over_budget() {
                tokio::time::sleep(STALL_CHECK).await;
                let inboxes = self.live_inboxes();
                if !self.budget.bears(inboxes.len()) && self.is_over_budget() {
                    for inbox in inboxes {
                        inbox.cut_if_stalled(STALL_LIMIT);
                    }
                }
            }
        }
    }

    /// Bytes that wait in inboxes.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Acquire)
    }

    /// How many reads have brought something. Wraps around.
    pub(crate) fn reads(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes that came from the peer and that went to it.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let count = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        (count(&self.received), count(&self.sent))
    }

    pub(super) fn count_read(&self, bytes: usize) {
        self.read.fetch_add(1, Ordering::Relaxed);
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_backlog(&self, bytes: usize) {
        self.backlog.fetch_add(bytes, Ordering::AcqRel);
    }

    pub(super) fn credit(&self, bytes: usize) {
        self.backlog.fetch_sub(bytes, Ordering::AcqRel);
        self.reader.wake();
    }

    pub(super) fn take_throttle(&self) -> bool {
        self.throttled.swap(false, Ordering::Relaxed)
    }

    pub(super) fn register_reader(&self, waker: &Waker) {
        self.reader.register(waker);
    }

    /// Whether there is too much input or too much unread output to read on.
    pub(crate) fn must_pause(&self) -> bool {
        if self.is_over_budget() {
            self.over_budget.notify_one();
            return true;
        }
        self.outbound().spool.len() > SPOOL_LIMIT
    }

    /// Takes encrypted bytes from the SSH library, which writes all it has prepared at once.
    pub(super) fn spool(&self, bytes: &[u8]) {
        {
            let mut outbound = self.outbound();
            outbound.spool.extend_from_slice(bytes);
            outbound.staged = 0;
        }
        self.spooled.notify_one();
        self.room.notify_waiters();
    }

    /// Announces that nothing more will be spooled.
    pub(super) fn end_spool(&self) {
        self.outbound().ending = true;
        self.spooled.notify_one();
    }

    /// Announces that nobody will read or write any more.
    pub(super) fn leave(&self) {
        self.end_spool();
        self.unused.cancel();
    }

    /// Cancelled when nobody reads or writes any more.
    pub(super) fn unused(&self) -> &CancellationToken {
        &self.unused
    }

    /// Whether nothing more will be spooled.
    pub(super) fn is_ending(&self) -> bool {
        self.outbound().ending
    }

    /// Waits for something to write. `None` when there will be nothing more.
    pub(super) async fn next_spooled(&self) -> Option<Bytes> {
        loop {
            {
                let mut outbound = self.outbound();
                if !outbound.spool.is_empty() {
                    let bytes = outbound.spool.split().freeze();
                    outbound.writing = bytes.len();
                    return Some(bytes);
                }
                if outbound.ending || self.gone.is_cancelled() {
                    return None;
                }
            }
            self.spooled.notified().await;
        }
    }

    /// Uncounts what was written.
    pub(super) fn written(&self, bytes: usize) {
        self.outbound().writing -= bytes;
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.room.notify_waiters();
        self.reader.wake();
    }

    fn is_over_budget(&self) -> bool {
        let mut backlog = self.backlog.load(Ordering::Acquire);
        if self.urgent.load(Ordering::Acquire) > 0 {
            backlog = backlog.saturating_sub(URGENT);
        }
        // Counting the channels takes a lock, and most connections never hold as much as one of them may.
        backlog > self.budget.bytes(1) && backlog > self.budget.bytes(self.live_inboxes().len())
    }

    /// The inboxes that are still in use.
    pub(crate) fn live_inboxes(&self) -> Vec<Arc<Inbox>> {
        self.inboxes()
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|inbox| !inbox.is_done())
            .collect()
    }

    fn inboxes(&self) -> MutexGuard<'_, Vec<Weak<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outbound(&self) -> MutexGuard<'_, Outbound> {
        self.outbound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("budget", &self.budget)
            .field("backlog", &self.backlog)
            .finish_non_exhaustive()
    }
}

/// Data that the SSH library holds. It drops it when it has encrypted it, which moves the bytes from handed to staged;
/// data for a channel that is gone is dropped unwritten, and nothing would ever unstage it.
struct Handed {
    data: Bytes,
    link: Arc<Link>,
    channel_gone: CancellationToken,
}

impl AsRef<[u8]> for Handed {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let written = !self.channel_gone.is_cancelled();
        {
            let mut outbound = self.link.outbound();
            outbound.handed -= self.data.len();
            if written {
                outbound.staged += self.data.len();
            }
        }
        if !written {
            self.link.room.notify_waiters();
        }
    }
}

/// Lets a connection be read above its budget.
pub(crate) struct Urgent<'a>(&'a Link);

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.urgent.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How far an urgent answer may be behind data: what a peer and the network hold of a few channels' windows.
const URGENT: usize = 16 << 20;

/// How often a connection over its budget is looked at.
const STALL_CHECK: Duration = Duration::from_millis(200);

/// How long a channel may take nothing while it keeps the others from being read.
const STALL_LIMIT: Duration = Duration::from_secs(5);
