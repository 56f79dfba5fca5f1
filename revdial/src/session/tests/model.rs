//! Every order of a few operations: a breadth-first search over two machines and two wires.
//!
//! Each scope starts from a fresh link with windows of a few bytes, gives each side some operations to spend, and
//! explores all that can happen. What a side does for its application is paid for; frames that are made, bytes that
//! arrive and reads are free. States that were seen are not entered again. The oracle of [`super::world`] checks every
//! step, and from a share of the states everybody must be able to finish.

use std::collections::{HashSet, VecDeque};

use super::world::{Op, Verb, World};
use super::*;

/// What is explored.
#[derive(Clone, Copy)]
struct Scope {
    name: &'static str,
    window: u32,
    send_buffer: usize,
    streams: usize,
    /// Bytes of one read.
    read: usize,
    /// Operations that each side may pay for.
    purse: [u8; 2],
    verbs: &'static [Verb],
    link_ops: &'static [Op],
    /// Lets frames arrive in two parts.
    halves: bool,
    /// Lets flushes lag behind frames.
    late_flush: bool,
}

/// A state, and what each side may still spend.
#[derive(Clone)]
struct Node {
    world: World,
    purse: [u8; 2],
    place: usize,
}

/// How each state was reached, for whoever has to find out why it is wrong.
struct Trail(Vec<(usize, Option<Op>)>);

impl Trail {
    fn print(&self, mut place: usize) {
        let mut ops = Vec::new();
        while let (before, Some(op)) = self.0[place] {
            ops.push(op);
            place = before;
        }
        for op in ops.iter().rev() {
            println!("  {op:?}");
        }
    }
}

/// Prints the way to the state in which a check failed.
struct Witness<'a> {
    trail: &'a Trail,
    place: usize,
    op: Option<Op>,
}

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the way to the fault:");
            self.trail.print(self.place);
            println!("  {:?}", self.op);
        }
    }
}

impl Scope {
    /// Explores everything; returns the number of states.
    fn explore(&self) -> usize {
        let config = Config {
            send_buffer: self.send_buffer,
            ..Config::default()
        };
        let mut world = World::new(self.window, &config);
        // With the round trip time known no credit asks for it: pings are a scope of their own.
        world.apply(Op::Ping(0));
        world.apply(Op::Ping(1));
        world.settle();
        let mut seen = HashSet::from([(world.fingerprint(), self.purse)]);
        let mut trail = Trail(vec![(0, None)]);
        let mut queue = VecDeque::from([Node {
            world,
            purse: self.purse,
            place: 0,
        }]);
        while let Some(node) = queue.pop_front() {
            if node.place.is_multiple_of(FINISH_SHARE) {
                let _witness = Witness {
                    trail: &trail,
                    place: node.place,
                    op: None,
                };
                node.world.clone().finish();
            }
            for (op, price) in self.choices(&node) {
                let mut next = node.clone();
                let witness = Witness {
                    trail: &trail,
                    place: node.place,
                    op: Some(op),
                };
                next.world.apply(op);
                if let Op::Transmit { side, .. } = op
                    && !self.late_flush
                {
                    next.world.apply(Op::Flushed(side));
                }
                drop(witness);
                if let Some(side) = price {
                    next.purse[side] -= 1;
                }
                if seen.insert((next.world.fingerprint(), next.purse)) {
                    next.place = trail.0.len();
                    trail.0.push((node.place, Some(op)));
                    queue.push_back(next);
                }
            }
        }
        println!("{}: {} states", self.name, seen.len());
        seen.len()
    }

    /// What can happen next, and which side pays for it.
    fn choices(&self, node: &Node) -> Vec<(Op, Option<usize>)> {
        let mut choices = Vec::new();
        for side in 0..2 {
            self.free_choices(side, &node.world, &mut choices);
            if node.purse[side] > 0 {
                self.paid_choices(side, &node.world, &mut choices);
            }
        }
        choices
    }

    fn free_choices(&self, side: usize, world: &World, choices: &mut Vec<(Op, Option<usize>)>) {
        let mut push = |op| choices.push((op, None));
        if world.sides[side].has_output() && world.frames_under_way(side) < WIRE_FRAMES {
            push(Op::Transmit {
                side,
                max: usize::MAX,
            });
        }
        if self.late_flush && world.has_unflushed(side) {
            push(Op::Flushed(side));
        }
        if let Some(bytes) = world.frame_under_way(side) {
            push(Op::Deliver { from: side, bytes });
            if self.halves && bytes >= 12 {
                let part = if bytes > 13 { 13 } else { 5 };
                push(Op::Deliver {
                    from: side,
                    bytes: part,
                });
            }
        }
        if side == 0 && world.tracks.len() < self.streams && world.is_possible(Op::Open) {
            push(Op::Open);
        }
        if side == 1 && world.is_possible(Op::Accept) {
            push(Op::Accept);
        }
        for stream in 0..world.tracks.len() {
            if world.is_held(side, stream) {
                let verb = Verb::Read(self.read);
                push(Op::Stream { side, stream, verb });
            }
        }
    }

    fn paid_choices(&self, side: usize, world: &World, choices: &mut Vec<(Op, Option<usize>)>) {
        let mut push = |op| choices.push((op, Some(side)));
        for op in self.link_ops {
            if matches!(op, Op::Leave(of) | Op::End(of) | Op::Cut(of) | Op::Ping(of) if *of == side)
            {
                push(*op);
            }
        }
        for stream in 0..world.tracks.len() {
            if world.is_held(side, stream) {
                for verb in self.verbs.iter().copied() {
                    let op = Op::Stream { side, stream, verb };
                    if world.is_possible(op) {
                        push(op);
                    }
                }
            }
        }
    }
}

#[test]
fn every_order_of_two_operations_on_one_stream_is_sound() {
    let scope = Scope {
        purse: [1, 1],
        ..ONE_STREAM
    };
    assert!(scope.explore() > 5_000);
}

#[test]
#[ignore = "three quarters of a minute with optimisation: .ci/run runs it"]
fn every_order_of_a_few_operations_is_sound() {
    let states: usize = SCOPES.iter().map(Scope::explore).sum();
    println!("{states} states in all");
    assert!(states > 600_000, "{states} states: the model was cut down");
}

/// Frames on one wire.
const WIRE_FRAMES: usize = 1;

/// One state in so many must be able to finish; it costs as much as some dozens of states.
const FINISH_SHARE: usize = 16;

const SCOPES: &[Scope] = &[
    Scope {
        purse: [3, 1],
        ..ONE_STREAM
    },
    Scope {
        name: "frames in two parts",
        verbs: &[Verb::Write(3), Verb::Shutdown, Verb::Close],
        purse: [2, 1],
        halves: true,
        ..SCOPE
    },
    Scope {
        name: "two streams",
        streams: 2,
        verbs: &[Verb::Write(1), Verb::Shutdown, Verb::Release],
        purse: [1, 1],
        ..SCOPE
    },
    Scope {
        name: "the end of the link",
        verbs: &[Verb::Write(1), Verb::Close, Verb::Release],
        link_ops: &[
            Op::Ping(0),
            Op::Ping(1),
            Op::Leave(0),
            Op::Leave(1),
            Op::End(0),
            Op::End(1),
            Op::Cut(0),
            Op::Cut(1),
        ],
        purse: [1, 2],
        ..SCOPE
    },
    Scope {
        name: "flushes",
        verbs: &[
            Verb::Opened,
            Verb::Write(3),
            Verb::Flush,
            Verb::Shutdown,
            Verb::Reset,
        ],
        purse: [2, 1],
        late_flush: true,
        ..SCOPE
    },
];

/// The widest scope.
const ONE_STREAM: Scope = Scope {
    name: "all that can be done to one stream",
    verbs: &[
        Verb::Write(1),
        Verb::Write(3),
        Verb::Shutdown,
        Verb::Close,
        Verb::Reset,
        Verb::StopReading,
        Verb::StopWriting,
        Verb::Release,
    ],
    purse: [2, 1],
    ..SCOPE
};

/// What most scopes have in common.
const SCOPE: Scope = Scope {
    name: "",
    window: 2,
    send_buffer: 2,
    streams: 1,
    read: 1,
    verbs: &[],
    link_ops: &[],
    purse: [0, 0],
    halves: false,
    late_flush: false,
};
