//! The connections that hold up the link: those with more unread bytes than one may have.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::frame::StreamId;

/// Which connections are over the bound, and since when.
///
/// While there is one the transport is not read. So the excess is what one read of the transport brought, and the
/// list is as short as that read had connections.
#[derive(Debug)]
pub(super) struct Pressure {
    bound: usize,
    patience: Duration,
    /// The one that has been over the bound longest in front.
    full: VecDeque<(StreamId, Instant)>,
}

impl Pressure {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            bound: config.v1_receive_buffer,
            patience: config.v1_stall_timeout,
            full: VecDeque::new(),
        }
    }

    /// Notes that data came: the connection has `unread` bytes.
    pub(super) fn rise(&mut self, id: StreamId, unread: usize, now: Instant) {
        if unread > self.bound && !self.full.iter().any(|(full, _)| *full == id) {
            self.full.push_back((id, now));
        }
    }

    /// Notes that data was read or thrown away: the connection has `unread` bytes.
    pub(super) fn fall(&mut self, id: StreamId, unread: usize) {
        if unread <= self.bound {
            self.full.retain(|(full, _)| *full != id);
        }
    }

    /// Says whether nobody is over the bound.
    pub(super) fn is_none(&self) -> bool {
        self.full.is_empty()
    }

    /// A connection that has been over the bound for too long.
    pub(super) fn due(&self, now: Instant) -> Option<StreamId> {
        let (id, _) = self.full.front()?;
        (self.timeout()? <= now).then_some(*id)
    }

    /// When that is.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let (_, since) = self.full.front()?;
        since.checked_add(self.patience)
    }
}
