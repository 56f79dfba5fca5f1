//! Two machines of one dialect, random operations and random segmentation, against an oracle that is a queue.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What a script may do. Streams are chosen by an index into those that exist.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Write {
        side: usize,
        stream: usize,
        len: usize,
    },
    Read {
        side: usize,
        stream: usize,
        len: usize,
    },
    Shutdown {
        side: usize,
        stream: usize,
    },
    Reset {
        side: usize,
        stream: usize,
    },
    Close {
        side: usize,
        stream: usize,
    },
    Release {
        side: usize,
        stream: usize,
    },
    Ping {
        side: usize,
    },
    /// Makes frames and moves some bytes of the wire that leads away from this side.
    Transmit {
        side: usize,
        bytes: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0..2usize;
    let stream = 0..6usize;
    prop_oneof![
        2 => Just(Step::Open),
        6 => (side.clone(), stream.clone(), 1..100_000usize)
            .prop_map(|(side, stream, len)| Step::Write { side, stream, len }),
        6 => (side.clone(), stream.clone(), 1..200_000usize)
            .prop_map(|(side, stream, len)| Step::Read { side, stream, len }),
        2 => (side.clone(), stream.clone()).prop_map(|(side, stream)| Step::Shutdown { side, stream }),
        1 => (side.clone(), stream.clone()).prop_map(|(side, stream)| Step::Reset { side, stream }),
        1 => (side.clone(), stream.clone()).prop_map(|(side, stream)| Step::Close { side, stream }),
        1 => (side.clone(), stream).prop_map(|(side, stream)| Step::Release { side, stream }),
        1 => side.clone().prop_map(|side| Step::Ping { side }),
        12 => (side, prop_oneof![1..30usize, 1..200_000usize])
            .prop_map(|(side, bytes)| Step::Transmit { side, bytes }),
    ]
}

/// What one direction of one stream has done.
#[derive(Debug, Default)]
struct Direction {
    written: u64,
    read: u64,
    /// The writer finished in good order, by `shutdown` or `close`.
    ended: bool,
    /// The reader saw the end.
    seen_end: bool,
    /// The writer did not finish, or the reader does not wait for it.
    broken: bool,
    /// The writer threw away what waited, and the wire cannot say so: the end may come before all data.
    cut_short: bool,
}

/// One stream as the oracle sees it: from each side to the other.
#[derive(Debug)]
struct Track {
    id: StreamId,
    directions: [Direction; 2],
    held: [bool; 2],
}

impl Track {
    fn break_both(&mut self) {
        for direction in &mut self.directions {
            direction.broken = true;
        }
    }
}

/// What the machines speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Dialect {
    V1,
    V3,
}

#[derive(Debug)]
struct World {
    dialect: Dialect,
    sides: [Machine; 2],
    wires: [VecDeque<u8>; 2],
    tracks: Vec<Track>,
    now: Instant,
}

/// The byte at a place of the stream that a side sends: a reader can tell a lost or doubled byte.
fn byte(side: usize, at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 7).to_le_bytes()[0] ^ [0, 0x55][side]
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "where the clock begins does not matter"
    )]
    fn new(dialect: Dialect) -> Self {
        let now = Instant::now();
        let machine = |role| match dialect {
            Dialect::V1 => Machine::v1(role, Config::default()),
            Dialect::V3 => Machine::v3(role, Config::default(), now, 0),
        };
        Self {
            dialect,
            sides: [machine(Role::Dialer), machine(Role::Listener)],
            wires: [VecDeque::new(), VecDeque::new()],
            tracks: Vec::new(),
            now,
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Open => self.open(),
            Step::Write { side, stream, len } => self.write(side, stream, len),
            Step::Read { side, stream, len } => self.read(side, stream, len),
            Step::Shutdown { side, stream } => {
                if let Some(track) = self.tracks.get_mut(stream).filter(|t| t.held[side]) {
                    let outcome = self.sides[side].shutdown(track.id);
                    let accepted = !matches!(outcome, Poll::Ready(Err(_)));
                    track.directions[side].ended |= accepted;
                }
            }
            Step::Reset { side, stream } => {
                if let Some(track) = self.tracks.get_mut(stream).filter(|t| t.held[side]) {
                    self.sides[side].reset(track.id, 1);
                    track.break_both();
                    track.directions[side].cut_short = self.dialect == Dialect::V1;
                }
            }
            Step::Close { side, stream } => {
                if let Some(track) = self.tracks.get_mut(stream).filter(|t| t.held[side]) {
                    self.sides[side].close(track.id);
                    track.directions[side].ended = true;
                    track.directions[1 - side].broken = true;
                }
            }
            Step::Release { side, stream } => {
                if let Some(track) = self.tracks.get_mut(stream).filter(|t| t.held[side]) {
                    track.held[side] = false;
                    track.break_both();
                    // A dropped connection is reset in v3; in v1 it is closed.
                    track.directions[side].ended |= self.dialect == Dialect::V1;
                    self.sides[side].release(track.id, self.now);
                }
            }
            Step::Ping { side } => {
                self.sides[side].ping();
            }
            Step::Transmit { side, bytes } => self.transmit(side, bytes),
        }
        self.accept();
    }

    fn open(&mut self) {
        if self.tracks.len() < 6 {
            self.tracks.push(Track {
                id: self.sides[0].open().unwrap(),
                directions: [Direction::default(), Direction::default()],
                held: [true, false],
            });
        }
    }

    fn accept(&mut self) {
        while let Some(id) = self.sides[1].accept() {
            let track = self.tracks.iter_mut().find(|track| track.id == id).unwrap();
            track.held[1] = true;
        }
    }

    fn write(&mut self, side: usize, stream: usize, len: usize) {
        let Some(track) = self.tracks.get_mut(stream).filter(|t| t.held[side]) else {
            return;
        };
        let direction = &mut track.directions[side];
        let from = direction.written;
        let data: Vec<u8> = (from..from + len as u64).map(|at| byte(side, at)).collect();
        if let Poll::Ready(Ok(count)) = self.sides[side].write(track.id, &data) {
            assert!(!direction.ended, "a write behind the end was accepted");
            direction.written += count as u64;
            let queued = match &self.sides[side] {
                Machine::V1(session) => session.queued(track.id),
                Machine::V3(session) => session.queued(track.id),
            };
            assert!(queued <= Config::default().send_buffer);
        }
    }

    fn read(&mut self, side: usize, stream: usize, len: usize) {
        let Some(track) = self.tracks.get_mut(stream).filter(|t| t.held[side]) else {
            return;
        };
        let from = &mut track.directions[1 - side];
        let Poll::Ready(Ok(chunk)) = self.sides[side].read_chunk(track.id, len) else {
            return;
        };
        if chunk.is_empty() {
            assert!(from.ended || from.cut_short, "an end that nobody sent");
            let whole = from.read == from.written;
            assert!(whole || from.cut_short, "an end before all data");
            from.seen_end = true;
        }
        for received in chunk {
            assert_eq!(received, byte(1 - side, from.read), "at {}", from.read);
            from.read += 1;
            assert!(from.read <= from.written, "a byte that nobody wrote");
        }
    }

    /// Moves bytes; the wire holds more than the receiver got, as a transport's buffers do.
    fn transmit(&mut self, side: usize, bytes: usize) {
        while self.wires[side].len() < bytes {
            let Some(frame) = self.sides[side].poll_transmit(self.now, bytes) else {
                break;
            };
            self.wires[side].extend(frame.head());
            self.wires[side].extend(frame.payload());
            self.sides[side].handle_flushed(frame.ticket());
        }
        let mut left = bytes.min(self.wires[side].len());
        while left > 0 && self.sides[1 - side].wants_input() {
            let moved: Vec<u8> = self.wires[side].drain(..left.min(READ_SIZE)).collect();
            left -= moved.len();
            self.sides[1 - side].handle_input(self.now, &moved);
        }
        self.check_memory();
        for session in &mut self.sides {
            assert!(session.closed().is_none(), "{:?}", session.closed());
            let mut events = 0;
            while session.poll_event().is_some() {
                events += 1;
            }
            assert!(events <= 64, "events are bounded by the streams");
        }
    }

    /// What arrived and was not read is bounded, without credit by not reading the transport.
    fn check_memory(&self) {
        for side in &self.sides {
            if let Machine::V1(session) = side {
                let unread = self.tracks.iter().map(|track| session.unread(track.id));
                let bound = Config::default().v1_receive_buffer;
                assert!(unread.clone().all(|unread| unread <= bound + READ_SIZE));
                let excess: usize = unread.map(|unread| unread.saturating_sub(bound)).sum();
                assert!(excess <= READ_SIZE, "one read is all the excess there is");
            }
        }
    }

    /// Moves everything and reads everything until nothing changes.
    fn settle(&mut self) {
        for _ in 0..400 {
            for side in 0..2 {
                self.transmit(side, 1 << 20);
                self.accept();
                for stream in 0..self.tracks.len() {
                    for _ in 0..8 {
                        self.read(side, stream, 1 << 20);
                    }
                }
            }
        }
    }

    /// At rest, whoever ended in good order was heard in full by a reader that held on.
    fn check_at_rest(&self) {
        for session in &self.sides {
            assert!(!session.has_output(), "something is left to send");
        }
        for track in &self.tracks {
            for direction in &track.directions {
                assert!(
                    direction.seen_end || direction.broken || !direction.ended,
                    "{track:?}: the end was not heard"
                );
            }
        }
    }
}

/// Lets two machines follow a script, then checks that nothing is lost.
fn run(dialect: Dialect, steps: Vec<Step>) {
    let mut world = World::new(dialect);
    for step in steps {
        world.apply(step);
    }
    world.settle();
    world.check_at_rest();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn two_machines_of_v1_agree_with_the_oracle(steps in prop::collection::vec(step(), 1..120)) {
        run(Dialect::V1, steps);
    }

    #[test]
    fn two_machines_of_v3_agree_with_the_oracle(steps in prop::collection::vec(step(), 1..120)) {
        run(Dialect::V3, steps);
    }
}

/// What one read of a transport brings.
const READ_SIZE: usize = 64 * 1024;
