use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Link;
use crate::backend::ChannelEvent;

/// What came from the peer on one channel and was not taken yet. It does not wait and has no bound of its own: the
/// windows bound it, and where a peer disregards them, the connection ends.
pub(crate) struct Inbox {
    link: Arc<Link>,
    state: Mutex<State>,
    changed: Notify,
    cut: CancellationToken,
}

struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    last_take: Instant,
    closed: bool,
}

/// Data is kept growable, so that small packets can be merged: a byte in a queue entry of its own costs a hundred.
enum Entry {
    Data(BytesMut),
    Event(ChannelEvent),
    Stderr(BytesMut),
}

impl Entry {
    fn cost(&self) -> usize {
        match self {
            Self::Data(bytes) | Self::Stderr(bytes) => bytes.len() + ENTRY_COST,
            Self::Event(ChannelEvent::ExitSignal {
                signal, message, ..
            }) => signal.len() + message.len() + ENTRY_COST,
            Self::Event(_) => ENTRY_COST,
        }
    }

    fn into_event(self) -> ChannelEvent {
        match self {
            Self::Data(bytes) => ChannelEvent::Data(bytes.freeze()),
            Self::Event(event) => event,
            Self::Stderr(bytes) => ChannelEvent::Stderr(bytes.freeze()),
        }
    }
}

impl Inbox {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            state: Mutex::new(State {
                entries: VecDeque::new(),
                bytes: 0,
                last_take: Instant::now(),
                closed: false,
            }),
            changed: Notify::new(),
            cut: CancellationToken::new(),
        }
    }

    /// Queues a copy of `data`.
    pub(crate) fn push_data(&self, data: &[u8]) {
        self.push_bytes(data, Entry::Data);
    }

    /// Queues a copy of `data`, which came as standard error.
    pub(crate) fn push_stderr(&self, data: &[u8]) {
        self.push_bytes(data, Entry::Stderr);
    }

    /// Queues an event that is not data.
    pub(crate) fn push_event(&self, event: ChannelEvent) {
        let mut state = self.state();
        if !state.closed {
            self.append(&mut state, Entry::Event(event));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Announces that nothing more will come. What is queued can still be taken.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// Throws away what is queued, and all that comes later.
    pub(crate) fn discard(&self) {
        let mut state = self.state();
        state.closed = true;
        state.entries.clear();
        let bytes = std::mem::take(&mut state.bytes);
        drop(state);
        self.link.credit(bytes);
        self.changed.notify_one();
    }

    /// Waits for the next event; `None` when the inbox was closed, or the connection is gone, and nothing is left. For
    /// one task at a time.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has taken nothing.
    pub(crate) async fn take(&self) -> Option<ChannelEvent> {
        loop {
            {
                let mut state = self.state();
                state.last_take = Instant::now();
                if let Some(entry) = state.entries.pop_front() {
                    let cost = entry.cost();
                    state.bytes -= cost;
                    drop(state);
                    self.link.credit(cost);
                    return Some(entry.into_event());
                }
                if state.closed || self.link.gone().is_cancelled() {
                    return None;
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.link.gone().cancelled() => {}
            }
        }
    }

    /// Cancelled when the stall rule has cut the channel.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Bytes in the queue, with the cost of keeping them.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    /// Whether nothing will come and nothing is left.
    pub(super) fn is_done(&self) -> bool {
        let state = self.state();
        state.closed && state.entries.is_empty()
    }

    /// Cuts the channel if it holds something and nothing was taken for `limit`.
    pub(super) fn cut_if_stalled(&self, limit: Duration) {
        {
            let state = self.state();
            if state.entries.is_empty() || state.last_take.elapsed() < limit {
                return;
            }
        }
        tracing::warn!(
            bytes = self.bytes(),
            "a channel that took no input was closed, it kept its connection from being read"
        );
        self.cut.cancel();
        self.discard();
    }

    fn push_bytes(&self, data: &[u8], entry: fn(BytesMut) -> Entry) {
        let mut state = self.state();
        if state.closed || data.is_empty() {
            return;
        }
        let new = entry(BytesMut::new());
        if data.len() < MERGE_BELOW
            && let Some(last) = state.entries.back_mut()
            && std::mem::discriminant(last) == std::mem::discriminant(&new)
            && let Entry::Data(bytes) | Entry::Stderr(bytes) = last
            && bytes.len() + data.len() <= MERGED_MAX
        {
            bytes.extend_from_slice(data);
            state.bytes += data.len();
            self.link.add_backlog(data.len());
        } else {
            self.append(&mut state, entry(BytesMut::from(data)));
        }
        drop(state);
        self.changed.notify_one();
    }

    fn append(&self, state: &mut State, entry: Entry) {
        let cost = entry.cost();
        state.bytes += cost;
        state.entries.push_back(entry);
        self.link.add_backlog(cost);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.discard();
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// Packets smaller than this are merged into the entry before.
const MERGE_BELOW: usize = 4 << 10;

/// Entries are not merged beyond this size, that of the largest packet.
const MERGED_MAX: usize = 32 << 10;

/// What an entry costs besides its bytes: the entry itself and the allocator's share.
const ENTRY_COST: usize = 128;
