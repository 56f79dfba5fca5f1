//! The side that announces connections.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;

use super::{Control, KEEP_ALIVE, Line};
use crate::error::{DialError, PeerText};
use crate::v2::id::{PARAMETER, PickUpId};
use crate::v2::message::Message;

/// The Dialer's side: it says what is to be picked up, and hears what could not be.
#[derive(Debug)]
pub(crate) struct DialerControl {
    line: Line,
    conn_path: PathAndQuery,
    limit: usize,
    keep_alive: KeepAlive,
    /// Dials that the peer is to be told of.
    queue: VecDeque<PickUpId>,
    /// Dials that the peer was told of, and whose outcome is not known, in the order of the telling.
    announced: Vec<Announced>,
    /// How many dials the peer was told of.
    count: u64,
    /// Failures that may concern more than one dial, in the order in which they came.
    failures: Vec<Failure>,
    events: VecDeque<DialerEvent>,
}

/// What has happened.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum DialerEvent {
    /// The peer could not pick up the connection of this dial.
    Failed { id: PickUpId, err: PeerText },
}

#[derive(Clone, Copy, Debug)]
enum KeepAlive {
    DueAt(Instant),
    Owed,
}

/// A dial that the peer may yet pick up, or say that it cannot.
#[derive(Clone, Copy, Debug)]
struct Announced {
    id: PickUpId,
    number: u64,
    waits: Waits,
}

/// Who waits for a dial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Waits {
    /// Nobody any more. The peer's failure may still come, and must not be taken for that of another dial.
    Nobody {
        until: Instant,
    },
    Somebody,
}

/// A failure that names no dial.
#[derive(Debug)]
struct Failure {
    /// It concerns one of the dials with lower numbers.
    before: u64,
    err: PeerText,
}

impl DialerControl {
    /// Starts on a fresh control connection. At most `limit` dials wait for the peer at once.
    pub(crate) fn new(conn_path: PathAndQuery, limit: usize) -> Self {
        Self {
            line: Line::default(),
            conn_path,
            limit,
            keep_alive: KeepAlive::Owed,
            queue: VecDeque::new(),
            announced: Vec::new(),
            count: 0,
            failures: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Has the peer told of a dial.
    pub(crate) fn dial(&mut self, id: PickUpId) -> Result<(), DialError> {
        if let Some(reason) = self.line.closed() {
            return Err(DialError::Closed(reason.clone()));
        }
        if self.queue.len() + self.announced.len() >= self.limit {
            return Err(DialError::TooManyConnections(self.limit));
        }
        self.queue.push_back(id);
        Ok(())
    }

    /// Notes that a dial has its connection. A failure that can only be another's now is another's.
    pub(crate) fn complete(&mut self, id: PickUpId) {
        self.announced.retain(|dial| dial.id != id);
        self.attribute();
    }

    /// Notes that nobody waits for a dial any more.
    pub(crate) fn withdraw(&mut self, id: PickUpId, now: Instant) {
        self.queue.retain(|queued| *queued != id);
        let dial = self.announced.iter_mut().find(|dial| dial.id == id);
        if let Some(dial) = dial {
            let until = now + FAILURE_LIMIT;
            dial.waits = Waits::Nobody { until };
        }
    }

    /// The path that the peer is told for a dial.
    pub(crate) fn path_of(&self, id: PickUpId) -> String {
        let separator = match self.conn_path.query() {
            None => '?',
            Some(_) => '&',
        };
        format!("{}{separator}{PARAMETER}={id}", self.conn_path)
    }

    /// Notes a failure that the peer reports.
    ///
    /// Ours names the path that it was told. Go's names none where its request was answered with other than 101, and
    /// another where it was redirected: then it is one of the dials that it was told of.
    fn fail(&mut self, conn_path: &str, err: &str) {
        let err = PeerText::new(err);
        let query = conn_path.split_once('?').map(|(_, query)| query);
        if let Some(id) = query.and_then(PickUpId::from_query) {
            if let Some(at) = self.announced.iter().position(|dial| dial.id == id) {
                let dial = self.announced.remove(at);
                self.tell(dial, err);
            }
        } else {
            self.failures.push(Failure {
                before: self.count,
                err,
            });
        }
        self.attribute();
    }

    /// Fails the dials of which it is certain that they failed.
    ///
    /// Each failure without a name concerns one of the dials announced before it, and no dial fails twice. So the first
    /// `n` failures have hit every dial that was announced before the last of them as soon as these are `n`.
    fn attribute(&mut self) {
        let mut known = 0;
        while let Some(failure) = self.failures.get(known) {
            known += 1;
            let hit = self.announced_before(failure.before);
            if hit <= known {
                let failures: Vec<Failure> = self.failures.drain(..known).collect();
                let dials: Vec<Announced> = self.announced.drain(..hit).collect();
                for (dial, failure) in dials.into_iter().zip(failures) {
                    self.tell(dial, failure.err);
                }
                known = 0;
            }
        }
    }

    /// How many of the announced dials have a number below this one.
    fn announced_before(&self, number: u64) -> usize {
        self.announced.partition_point(|dial| dial.number < number)
    }

    fn tell(&mut self, dial: Announced, err: PeerText) {
        if dial.waits == Waits::Somebody {
            let id = dial.id;
            self.events.push_back(DialerEvent::Failed { id, err });
        }
    }

    /// Forgets dials for which nobody waits and of which no failure is to be expected any more.
    fn forget(&mut self, now: Instant) {
        let is_over =
            |dial: &Announced| matches!(dial.waits, Waits::Nobody { until } if until <= now);
        while let Some(at) = self.announced.iter().position(is_over) {
            let dial = self.announced.remove(at);
            // The first failure that can have been its own is taken for it: that blames the others least.
            let own = self.failures.partition_point(|f| f.before <= dial.number);
            if own < self.failures.len() {
                self.failures.remove(own);
            }
        }
        self.attribute();
    }
}

impl Control for DialerControl {
    type Event = DialerEvent;

    fn line(&self) -> &Line {
        &self.line
    }

    fn line_mut(&mut self) -> &mut Line {
        &mut self.line
    }

    fn poll_event(&mut self, _: Instant) -> Option<DialerEvent> {
        while self.events.is_empty() {
            if let Message::PickUpFailed { conn_path, err } = self.line.poll_message()? {
                self.fail(&conn_path, &err);
            }
        }
        self.events.pop_front()
    }

    fn poll_message(&mut self, now: Instant) -> Option<Message> {
        let due = match self.keep_alive {
            KeepAlive::DueAt(time) => time <= now,
            KeepAlive::Owed => true,
        };
        if due {
            self.keep_alive = KeepAlive::DueAt(now + KEEP_ALIVE);
            return Some(Message::KeepAlive);
        }
        let id = self.queue.pop_front()?;
        self.keep_alive = KeepAlive::Owed;
        self.announced.push(Announced {
            id,
            number: self.count,
            waits: Waits::Somebody,
        });
        self.count += 1;
        let conn_path = self.path_of(id);
        Some(Message::ConnReady { conn_path })
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let keep_alive = match self.keep_alive {
            KeepAlive::DueAt(time) if self.line.write_limit.is_none() => Some(time),
            KeepAlive::DueAt(_) | KeepAlive::Owed => None,
        };
        let forgotten = self.announced.iter().filter_map(|dial| match dial.waits {
            Waits::Nobody { until } => Some(until),
            Waits::Somebody => None,
        });
        let times = forgotten.chain(keep_alive).chain(self.line.write_limit);
        times.min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.line.handle_timeout(now);
        self.forget(now);
    }
}

/// How long the failure of a dial may take after nobody waits for it any more. Go's side gives up dialing after 20 s, and
/// our server's answer takes no longer than that.
const FAILURE_LIMIT: Duration = Duration::from_secs(60);
