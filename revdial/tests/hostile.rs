//! What a hostile peer can make us hold, by an allocator that counts.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BufMut;
use revdial::Config;
use revdial::frame::{Flags, Header, INITIAL_WINDOW, StreamId};
use revdial::session::{Role, Session};

/// A session under attack: the peer's credit is counted, so that it stays within the protocol.
struct Target {
    session: Session,
    now: Instant,
    /// By stream: what the peer may send, and what it has sent.
    streams: Vec<(StreamId, u32)>,
    payload: Vec<u8>,
}

impl Target {
    #[expect(
        clippy::disallowed_methods,
        reason = "where the clock begins does not matter"
    )]
    fn new(role: Role, config: Config) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(role, config, now, 0),
            now,
            streams: Vec::new(),
            payload: vec![0xaa; INITIAL_WINDOW as usize],
        }
    }

    /// Opens streams, each with the credit of the specification.
    fn open(&mut self, count: u32) {
        for index in 0..count {
            let id = if self.session.role() == Role::Dialer {
                self.session.open().unwrap()
            } else {
                let id = StreamId::new(2 * index + 1).unwrap();
                self.update(id, Flags::SYN);
                self.session.accept().unwrap()
            };
            self.streams.push((id, INITIAL_WINDOW));
        }
        self.answers();
        for index in 0..self.streams.len() {
            self.update(self.streams[index].0, Flags::ACK);
        }
    }

    fn update(&mut self, id: StreamId, flags: Flags) {
        let delta = 0;
        let header = Header::WindowUpdate { id, flags, delta };
        self.session.handle_input(self.now, header.encode());
    }

    /// Sends one frame on a stream, as large as its credit allows; how large.
    fn send(&mut self, index: usize, length: u32) -> u32 {
        let (id, credit) = &mut self.streams[index];
        let length = length.min(*credit);
        *credit -= length;
        let flags = Flags::NONE;
        let header = Header::Data {
            id: *id,
            flags,
            length,
        };
        self.session.handle_input(self.now, header.encode());
        let payload = &self.payload[..length as usize];
        self.session.handle_input(self.now, payload);
        length
    }

    /// Takes the session's frames, the credit among them, and answers pings after `round_trip`; the resets.
    fn answers_after(&mut self, round_trip: Duration) -> Vec<StreamId> {
        let mut resets = Vec::new();
        while let Some(frame) = self.session.poll_transmit(self.now, usize::MAX) {
            match Header::decode(frame.head().try_into().unwrap()).unwrap() {
                Header::WindowUpdate { id, flags, .. } if flags.contains(Flags::RST) => {
                    resets.push(id);
                }
                Header::WindowUpdate { id, delta, .. } => {
                    let stream = self.streams.iter_mut().find(|(known, _)| *known == id);
                    if let Some((_, credit)) = stream {
                        *credit += delta;
                    }
                }
                Header::Ping { nonce } => {
                    self.now += round_trip;
                    let pong = Header::Pong { nonce };
                    self.session.handle_input(self.now, pong.encode());
                }
                Header::Data { .. } | Header::Pong { .. } | Header::GoAway { .. } | _ => {}
            }
        }
        while self.session.poll_event().is_some() {}
        resets
    }

    fn answers(&mut self) -> Vec<StreamId> {
        self.answers_after(Duration::ZERO)
    }

    fn read(&mut self, index: usize, max: usize) {
        let mut sink = Vec::new();
        let id = self.streams[index].0;
        let _ = self.session.read(id, &mut (&mut sink).limit(max));
    }

    /// Reads a stream as fast as it comes, a window in a round trip time, until the window is as large as it gets.
    fn grow(&mut self, index: usize) {
        let round_trip = Duration::from_secs(1);
        for _ in 0..10 {
            while self.send(index, 64 * 1024) > 0 {
                self.read(index, usize::MAX);
            }
            self.now += round_trip;
            self.answers_after(round_trip);
        }
    }

    /// Sends all that the credit allows, in frames of these sizes in turn.
    fn fill(&mut self, index: usize, sizes: &[u32]) {
        for size in sizes.iter().cycle() {
            if self.send(index, *size) == 0 {
                break;
            }
        }
    }
}

/// The sizes of one attack for each stream: tiny frames, odd ones, those just above a block.
const SIZES: [&[u32]; 8] = [
    &[1],
    &[7, 64],
    &[1000],
    &[16_385],
    &[1, 16_384],
    &[40_000, 3],
    &[65_536],
    &[262_144],
];

/// Beyond the budget for the data itself: tables of streams and blocks.
const TABLES: isize = 64 * 1024;

fn budget(config: &Config) -> isize {
    isize::try_from(config.receive_budget()).unwrap()
}

#[test]
fn a_peer_that_fills_every_window_is_held_to_the_budget() {
    let config = Config::default();
    assert_eq!(config.receive_budget(), 64 * 1024 * 1024);
    let mut target = Target::new(Role::Listener, config.clone());
    let before = held();
    target.open(128);
    // Two streams are read fast enough to take all growth.
    for index in 0..3 {
        target.grow(index);
    }
    let grown: u64 = target
        .streams
        .iter()
        .map(|(_, credit)| u64::from(*credit))
        .sum();
    assert!(
        grown > 60 << 20,
        "the windows are as large as they get: {grown}"
    );
    for index in 0..target.streams.len() {
        // A test has no time to send megabytes byte by byte.
        let sizes = SIZES[if (4..8).contains(&index) {
            index - 4
        } else {
            2 + index % 6
        }];
        target.fill(index, sizes);
        // A reader that stops in the middle of a block leaves the block held.
        target.read(index, 9000);
        target.fill(index, sizes);
        assert!(held() - before <= budget(&config) + TABLES, "{index}");
    }
    assert!(target.session.closed().is_none());
    assert!(held() - before > 60 << 20, "the attack was one");
}

#[test]
fn a_dialer_with_more_streams_than_budget_resets_the_largest() {
    let mut config = Config::default();
    config.max_inbound_streams = 16;
    config.growth_budget = 0;
    let mut target = Target::new(Role::Dialer, config.clone());
    let before = held();
    target.open(200);
    let mut resets = Vec::new();
    for index in 0..target.streams.len() {
        target.fill(index, SIZES[2 + index % 6]);
        assert!(held() - before <= budget(&config) + TABLES, "{index}");
        resets.extend(target.answers());
    }
    assert!(target.session.closed().is_none());
    assert!((150..200).contains(&resets.len()), "{}", resets.len());
    let unread = target
        .streams
        .iter()
        .filter(|(id, _)| !resets.contains(id))
        .count();
    assert!(unread >= 14, "the budget is used: {unread}");
    let survivor = target
        .streams
        .iter()
        .find(|(id, _)| !resets.contains(id))
        .unwrap()
        .0;
    let outcome = target.session.read(survivor, &mut Vec::new().limit(10));
    assert!(matches!(outcome, Poll::Ready(Ok(10))), "{outcome:?}");
}

#[test]
fn tiny_frames_cost_no_more_than_their_bytes() {
    let mut target = Target::new(Role::Listener, Config::default());
    target.open(1);
    let before = held();
    target.fill(0, &[1]);
    let cost = held() - before;
    assert!(cost <= 256 * 1024 + 4 * 1024, "{cost}");
}

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// Bytes that this thread has allocated and not freed.
fn held() -> isize {
    HELD.with(Cell::get)
}

fn count(change: isize) {
    // A thread that is ending has no locals any more, and nobody measures it.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_add(change)));
}

/// No allocation is larger than `isize::MAX`.
fn size(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

/// The system's allocator, with a count of what each thread holds.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size(new_size) - size(layout.size()));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
