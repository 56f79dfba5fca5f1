//! The connections of a session: numbers, and those that wait to be accepted.

use std::collections::{HashMap, VecDeque};

use crate::frame::StreamId;
use crate::session::Role;
use crate::v1::session::stream::{Opening, Stream};

/// The connections.
///
/// One that is gone is forgotten at once: frames for it are ignored, as the wire wants it for any unknown number.
#[derive(Debug)]
pub(super) struct StreamTable {
    role: Role,
    streams: HashMap<StreamId, Stream>,
    /// The number that is tried next.
    next: StreamId,
    /// Opened by the peer, not yet accepted.
    backlog: VecDeque<StreamId>,
}

impl StreamTable {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            streams: HashMap::new(),
            next: FIRST,
            backlog: VecDeque::new(),
        }
    }

    /// Adds a connection of ours, with the next number that is free; `None` if there is none.
    pub(super) fn open(&mut self) -> Option<StreamId> {
        if self.role != Role::Dialer || self.streams.len() >= NUMBERS {
            return None;
        }
        while self.streams.contains_key(&self.next) {
            self.next = behind(self.next);
        }
        let id = self.next;
        self.next = behind(id);
        self.streams.insert(id, Stream::new(Opening::Queued));
        Some(id)
    }

    /// Adds a connection of the peer to the backlog.
    pub(super) fn admit(&mut self, id: StreamId) {
        self.streams.insert(id, Stream::new(Opening::Done));
        self.backlog.push_back(id);
    }

    /// Takes the oldest connection of the backlog.
    pub(super) fn accept(&mut self) -> Option<StreamId> {
        self.backlog.pop_front()
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        self.streams.remove(&id)
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.streams.iter().map(|(id, stream)| (*id, stream))
    }

    /// Begins to count at `id`.
    #[cfg(test)]
    pub(super) fn count_from(&mut self, id: StreamId) {
        self.next = id;
    }
}

/// The number behind `id`. The count goes round, and leaves 0 out.
fn behind(id: StreamId) -> StreamId {
    StreamId::new(id.value().wrapping_add(1)).unwrap_or(FIRST)
}

/// The first number of a link.
const FIRST: StreamId = StreamId::new(1).expect("1 is not 0");

/// How many numbers there are.
const NUMBERS: usize = u32::MAX as usize;
