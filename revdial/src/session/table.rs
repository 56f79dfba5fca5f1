//! The streams of a session: numbers, counts, the backlog, and the memory of those that are gone.

use std::collections::VecDeque;

use crate::config::Config;
use crate::frame::StreamId;
use crate::ids::{IdMap, IdSet};
use crate::session::Role;
use crate::session::stream::Stream;

/// What is known of a number that no stream has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Absent {
    /// A stream had it.
    Gone,
    /// None had it.
    Never,
}

/// The streams.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct StreamTable {
    role: Role,
    /// Boxed, as a table has up to twice as many places as entries.
    streams: IdMap<Box<Stream>>,
    inbound: usize,
    /// The next number of ours; `None` when they are used up.
    next: Option<StreamId>,
    /// The highest number that the peer used. A peer may use its numbers out of order (rust-yamux does: it sends SYN
    /// with the first write), so a new stream may lie below.
    highest: Option<StreamId>,
    /// Opened by the peer, not yet accepted.
    backlog: VecDeque<StreamId>,
    tombstones: Tombstones,
}

impl StreamTable {
    pub(super) fn new(role: Role, tombstones: usize) -> Self {
        Self {
            role,
            streams: IdMap::default(),
            inbound: 0,
            next: StreamId::new(role.first_id()),
            highest: None,
            backlog: VecDeque::new(),
            tombstones: Tombstones::new(tombstones),
        }
    }

    /// Adds a stream of ours; `None` if the numbers are used up.
    pub(super) fn open(&mut self, config: &Config) -> Option<StreamId> {
        let id = self.next?;
        self.next = id.next();
        let stream = Stream::outbound(config);
        self.streams.insert(id, Box::new(stream));
        Some(id)
    }

    /// Adds a stream of the peer to the backlog.
    pub(super) fn admit(&mut self, id: StreamId, config: &Config) {
        let stream = Stream::inbound(config);
        self.streams.insert(id, Box::new(stream));
        self.inbound += 1;
        self.backlog.push_back(id);
    }

    /// Notes that the peer used this number.
    pub(super) fn note(&mut self, id: StreamId) {
        self.highest = self.highest.max(Some(id));
    }

    /// Takes the oldest stream of the backlog.
    pub(super) fn accept(&mut self) -> Option<StreamId> {
        self.backlog.pop_front()
    }

    /// Removes a stream, which may wait in the backlog.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<Box<Stream>> {
        let stream = self.streams.remove(&id)?;
        if !self.is_ours(id) {
            self.inbound -= 1;
            self.backlog.retain(|waiting| *waiting != id);
        }
        Some(stream)
    }

    /// Remembers that a reset was sent for this number; `false` if it was known.
    pub(super) fn bury(&mut self, id: StreamId) -> bool {
        self.tombstones.insert(id)
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id).map(AsRef::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id).map(AsMut::as_mut)
    }

    /// What is known of a number that no stream has.
    pub(super) fn absent(&self, id: StreamId) -> Absent {
        let used = if self.is_ours(id) {
            self.next.is_none_or(|next| id < next)
        } else {
            self.highest.is_some_and(|highest| id <= highest)
        };
        if used { Absent::Gone } else { Absent::Never }
    }

    /// Says whether this side gives out the number.
    pub(super) fn is_ours(&self, id: StreamId) -> bool {
        id.is_odd() == (self.role == Role::Dialer)
    }

    /// Says whether the stream waits to be accepted.
    pub(super) fn is_in_backlog(&self, id: StreamId) -> bool {
        self.backlog.contains(&id)
    }

    /// Streams that the peer opened.
    pub(super) fn inbound(&self) -> usize {
        self.inbound
    }

    /// Streams that this side opened.
    pub(super) fn outbound(&self) -> usize {
        self.streams.len() - self.inbound
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.streams.values_mut().map(AsMut::as_mut)
    }

    /// The stream that holds most memory of received data.
    pub(super) fn largest(&self) -> Option<StreamId> {
        let held = self.streams.iter();
        let held = held.map(|(id, stream)| (stream.recv.held(), *id));
        held.filter(|(held, _)| *held > 0).max().map(|(_, id)| id)
    }

    /// The numbers of all streams.
    pub(super) fn ids(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }
}

/// The newest numbers for which a reset was sent.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Tombstones {
    limit: usize,
    order: VecDeque<StreamId>,
    known: IdSet,
}

impl Tombstones {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            order: VecDeque::new(),
            known: IdSet::default(),
        }
    }

    fn insert(&mut self, id: StreamId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
impl StreamTable {
    /// Says whether a stream waits to be accepted.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// All but the streams, in an order that does not depend on a hash.
    pub(super) fn numbers(&self) -> impl std::fmt::Debug {
        let Self {
            next,
            highest,
            backlog,
            tombstones,
            ..
        } = self;
        (next, highest, backlog, &tombstones.order)
    }
}
