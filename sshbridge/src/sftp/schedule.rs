//! Which requests may run beside each other.

use std::collections::VecDeque;
use std::ops::Range;

use super::handles::Handles;
use super::request::{ByPath, Handle, Request};
use super::response::MAX_DATA;
use super::{Creation, Writes};

/// The requests that are not answered yet, in the order in which they came.
///
/// A request waits for those before it that it could tell from a server which does one thing at a time: that is, where
/// both are about the same bytes or names and one of them changes them. Answers are given in the order of the requests.
/// The protocol does not ask for that, but `scp` of OpenSSH 9.0 and later cuts a file off behind the first answer that is
/// out of turn.
#[derive(Debug)]
pub(super) struct Schedule<R, A> {
    entries: VecDeque<Entry<R, A>>,
    next: u64,
    running: usize,
    bytes: usize,
}

/// A place in the schedule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
struct Entry<R, A> {
    ticket: Ticket,
    touches: Touches,
    cost: usize,
    state: State<R, A>,
}

#[derive(Debug)]
enum State<R, A> {
    Done(A),
    Running,
    Waiting(R),
}

/// What a request looks at or changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Touches {
    /// Names, or more than one file: it is alone.
    Everything,
    /// All of an open file or directory.
    File(Handle),
    /// Names and attributes, without changing them.
    Names,
    Nothing,
    /// Bytes that are read.
    Read(Handle, Range<u64>),
    /// Bytes that are written.
    Write(Handle, Range<u64>),
}

impl Touches {
    pub(super) fn of(request: &Request, handles: &Handles) -> Self {
        match request {
            Request::ByPath(request) => Self::of_path(request),
            Request::Limits | Request::Unknown => Self::Nothing,
            Request::Read {
                handle,
                offset,
                length,
            } => Self::Read(handle.clone(), range(*offset, u64::from(*length))),
            Request::Write {
                handle,
                offset,
                data,
            } => {
                if handles.writes(handle) == Writes::Append {
                    Self::File(handle.clone())
                } else {
                    Self::Write(handle.clone(), range(*offset, data.len() as u64))
                }
            }
            Request::Close { handle }
            | Request::FileAttributes { handle }
            | Request::FileFileSystem { handle }
            | Request::ReadDir { handle }
            | Request::SetFileAttributes { handle, .. }
            | Request::Sync { handle } => Self::File(handle.clone()),
            Request::CopyData { .. } => Self::Everything,
        }
    }

    fn of_path(request: &ByPath) -> Self {
        match request {
            ByPath::Attributes { .. }
            | ByPath::Canonical { .. }
            | ByPath::Expand { .. }
            | ByPath::FileSystem { .. }
            | ByPath::OpenDir { .. }
            | ByPath::ReadLink { .. } => Self::Names,
            ByPath::Open { options, .. } if options.creation == Creation::default() => Self::Names,
            ByPath::CreateDir { .. }
            | ByPath::HardLink { .. }
            | ByPath::Open { .. }
            | ByPath::RemoveDir { .. }
            | ByPath::RemoveFile { .. }
            | ByPath::Rename { .. }
            | ByPath::SetAttributes { .. }
            | ByPath::Symlink { .. } => Self::Everything,
        }
    }

    /// Whether the order of the two shows.
    fn conflicts_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nothing, _) | (_, Self::Nothing) => false,
            (Self::Everything, _) | (_, Self::Everything) => true,
            (Self::Names, Self::Names | Self::Read(..))
            | (Self::Read(..), Self::Names | Self::Read(..)) => false,
            (Self::Names, Self::File(_) | Self::Write(..))
            | (Self::File(_) | Self::Write(..), Self::Names) => true,
            (Self::Read(one, a) | Self::Write(one, a), Self::Write(other, b))
            | (Self::Write(one, a), Self::Read(other, b)) => {
                one == other && a.start < b.end && b.start < a.end
            }
            (Self::File(one), Self::File(other) | Self::Read(other, _) | Self::Write(other, _))
            | (Self::Read(one, _) | Self::Write(one, _), Self::File(other)) => one == other,
        }
    }
}

fn range(offset: u64, length: u64) -> Range<u64> {
    offset..offset.saturating_add(length)
}

impl<R, A> Schedule<R, A> {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            next: 0,
            running: 0,
            bytes: 0,
        }
    }

    /// Whether another request may be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < MAX_REQUESTS && self.bytes < MAX_BYTES
    }

    /// Whether every request is answered.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes in a request that holds `cost` bytes until it is answered.
    pub(super) fn push(&mut self, request: R, touches: Touches, cost: usize) {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.bytes += cost;
        self.entries.push_back(Entry {
            ticket,
            touches,
            cost,
            state: State::Waiting(request),
        });
    }

    /// The first request that may run.
    pub(super) fn start(&mut self) -> Option<(Ticket, R)> {
        if self.running >= MAX_RUNNING {
            return None;
        }
        let place = (0..self.entries.len()).find(|place| self.may_start(*place))?;
        let entry = self.entries.get_mut(place)?;
        let State::Waiting(request) = std::mem::replace(&mut entry.state, State::Running) else {
            return None;
        };
        self.running += 1;
        Some((entry.ticket, request))
    }

    /// A request is done, and this is its answer.
    pub(super) fn finish(&mut self, ticket: Ticket, answer: A) {
        if let Some(entry) = self.entries.iter_mut().find(|it| it.ticket == ticket) {
            entry.state = State::Done(answer);
            self.running -= 1;
        }
    }

    /// The next answer, where it is its turn.
    pub(super) fn answer(&mut self) -> Option<A> {
        match self.entries.pop_front()? {
            Entry {
                state: State::Done(answer),
                cost,
                ..
            } => {
                self.bytes -= cost;
                Some(answer)
            }
            entry => {
                self.entries.push_front(entry);
                None
            }
        }
    }

    fn may_start(&self, place: usize) -> bool {
        let entry = &self.entries[place];
        let unfinished = |it: &&Entry<R, A>| !matches!(it.state, State::Done(_));
        let mut earlier = self.entries.iter().take(place).filter(unfinished);
        matches!(entry.state, State::Waiting(_))
            && !earlier.any(|it| it.touches.conflicts_with(&entry.touches))
    }
}

/// What a request holds until it is answered.
pub(super) fn cost(request: &Request, size: usize) -> usize {
    let answer = if let Request::Read { length, .. } = request {
        MAX_DATA.min(*length as usize)
    } else if matches!(request, Request::ReadDir { .. }) {
        READ_DIR
    } else {
        0
    };
    // Strings of a packet keep all of it.
    size + answer + ENTRY
}

/// How many requests may be unanswered: twice what OpenSSH's client sends.
const MAX_REQUESTS: usize = 128;

/// How many run at a time, each on a thread where the files are local.
const MAX_RUNNING: usize = 16;

/// The bytes of unanswered requests and of their answers: 2 MiB in SSH's window fill no more than a fourth of it.
const MAX_BYTES: usize = 8 << 20;

/// What a part of a directory may take.
const READ_DIR: usize = 64 << 10;

/// What a request costs besides its bytes.
const ENTRY: usize = 256;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn handle(number: u8) -> Handle {
        Bytes::copy_from_slice(&[number])
    }

    #[test]
    fn what_only_looks_runs_beside_everything_that_looks() {
        let mut schedule = Schedule::<_, ()>::new();
        schedule.push("stat", Touches::Names, 1);
        schedule.push("read", Touches::Read(handle(1), 0..10), 1);
        schedule.push("read again", Touches::Read(handle(1), 0..10), 1);
        let started: Vec<_> = std::iter::from_fn(|| schedule.start())
            .map(|it| it.1)
            .collect();
        assert_eq!(started, ["stat", "read", "read again"]);
    }

    #[test]
    fn writes_run_together_where_they_do_not_overlap() {
        let mut schedule = Schedule::new();
        schedule.push(1, Touches::Write(handle(1), 0..10), 1);
        schedule.push(2, Touches::Write(handle(1), 10..20), 1);
        schedule.push(3, Touches::Write(handle(1), 5..6), 1);
        schedule.push(4, Touches::Write(handle(2), 5..6), 1);
        schedule.push(5, Touches::Read(handle(1), 19..30), 1);
        let (first, _) = schedule.start().unwrap();
        let (second, _) = schedule.start().unwrap();
        assert_eq!(schedule.start().unwrap().1, 4);
        assert!(schedule.start().is_none());
        schedule.finish(first, ());
        assert_eq!(schedule.start().unwrap().1, 3);
        schedule.finish(second, ());
        assert_eq!(schedule.start().unwrap().1, 5);
    }

    #[test]
    fn a_close_waits_for_what_came_before_and_what_comes_after_waits_for_it() {
        let mut schedule = Schedule::new();
        schedule.push("write", Touches::Write(handle(1), 0..10), 1);
        schedule.push("close", Touches::File(handle(1)), 1);
        schedule.push("rename", Touches::Everything, 1);
        schedule.push("stat", Touches::Names, 1);
        for expected in ["write", "close", "rename", "stat"] {
            let (ticket, started) = schedule.start().unwrap();
            assert_eq!(started, expected);
            assert!(schedule.start().is_none());
            schedule.finish(ticket, expected);
        }
        let answers: Vec<_> = std::iter::from_fn(|| schedule.answer()).collect();
        assert_eq!(answers, ["write", "close", "rename", "stat"]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn answers_keep_the_order_of_the_requests() {
        let mut schedule = Schedule::new();
        for number in 0..3 {
            schedule.push(number, Touches::Nothing, 1);
        }
        let started: Vec<_> = std::iter::from_fn(|| schedule.start()).collect();
        for (ticket, number) in started.into_iter().rev() {
            assert_eq!(schedule.answer(), None);
            schedule.finish(ticket, number);
        }
        let answers: Vec<_> = std::iter::from_fn(|| schedule.answer()).collect();
        assert_eq!(answers, [0, 1, 2]);
        assert_eq!(schedule.bytes, 0);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut schedule = Schedule::<_, ()>::new();
        while schedule.has_room() {
            schedule.push((), Touches::Nothing, 1);
        }
        assert_eq!(schedule.entries.len(), MAX_REQUESTS);
        let mut schedule = Schedule::<_, ()>::new();
        while schedule.has_room() {
            schedule.push((), Touches::Nothing, 512 << 10);
        }
        assert_eq!(schedule.bytes, MAX_BYTES);
        let running = std::iter::from_fn(|| schedule.start()).count();
        assert_eq!(running, MAX_RUNNING);
    }
}
