//! Two machines, long random scripts and random segmentation, against the oracle of [`super::world`].

use proptest::prelude::*;

use super::world::{Op, Verb, World};
use super::*;

fn verb() -> impl Strategy<Value = Verb> {
    let len = || prop_oneof![1..40usize, 1..100_000usize];
    prop_oneof![
        8 => len().prop_map(Verb::Write),
        8 => len().prop_map(Verb::Read),
        2 => Just(Verb::Opened),
        2 => Just(Verb::Flush),
        3 => Just(Verb::Shutdown),
        1 => Just(Verb::Reset),
        1 => Just(Verb::Close),
        1 => Just(Verb::StopReading),
        1 => Just(Verb::StopWriting),
        1 => Just(Verb::Release),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let side = || 0..2usize;
    let bytes = || prop_oneof![1..30usize, 1..200_000usize];
    prop_oneof![
        4 => Just(Op::Open),
        4 => Just(Op::Accept),
        40 => (side(), 0..STREAMS, verb())
            .prop_map(|(side, stream, verb)| Op::Stream { side, stream, verb }),
        2 => side().prop_map(Op::Ping),
        4 => (0..50u64).prop_map(Op::Wait),
        20 => (side(), bytes()).prop_map(|(side, max)| Op::Transmit { side, max }),
        6 => side().prop_map(Op::Flushed),
        20 => (side(), bytes()).prop_map(|(from, bytes)| Op::Deliver { from, bytes }),
    ]
}

/// An end of the link, which most scripts are to be spared.
fn link_op() -> impl Strategy<Value = Op> {
    let side = || 0..2usize;
    prop_oneof![
        side().prop_map(Op::Leave),
        side().prop_map(Op::End),
        side().prop_map(Op::Cut),
    ]
}

/// A script, with an end of the link somewhere in it or none.
fn script() -> impl Strategy<Value = Vec<Op>> {
    let ops = prop::collection::vec(op(), 1..150);
    let end = prop::option::of((link_op(), any::<prop::sample::Index>()));
    (ops, end).prop_map(|(mut ops, end)| {
        if let Some((op, place)) = end {
            ops.insert(place.index(ops.len()), op);
        }
        ops
    })
}

/// Windows from a few bytes to that of the specification, and what a stream starts with beyond that, known to the dialer or
/// not, or less than there is; buffers that are smaller and larger.
fn sizes() -> impl Strategy<Value = (u32, Config)> {
    let first = INITIAL_WINDOW..3 * INITIAL_WINDOW;
    let known = prop_oneof![Just(INITIAL_WINDOW), Just(u32::MAX), first.clone()];
    let windows = prop_oneof![
        (2..50u32, Just(INITIAL_WINDOW), Just(INITIAL_WINDOW)),
        (Just(INITIAL_WINDOW), first, known),
    ];
    let buffer = prop_oneof![1..50usize, Just(Config::default().send_buffer)];
    (windows, buffer).prop_map(|((window, first, known), send_buffer)| {
        let config = Config {
            send_buffer,
            initial_stream_window: first,
            peer_stream_window: known.min(first),
            ..Config::default()
        };
        (window, config)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn two_machines_agree_with_the_oracle((window, config) in sizes(), script in script()) {
        let mut world = World::new(window, &config);
        for op in script {
            let too_many = matches!(op, Op::Open) && world.tracks.len() == STREAMS;
            if !too_many && world.is_possible(op) {
                world.apply(op);
            }
        }
        world.finish();
    }

    #[test]
    fn any_bytes_end_in_a_session_or_an_error(
        role in prop_oneof![Just(Role::Dialer), Just(Role::Listener)],
        frames in prop::collection::vec((0..4u8, 0..16u16, 0..5u32, prop_oneof![0..20u32, any::<u32>()]), 0..60),
    ) {
        let mut bench = Bench::new(role);
        if role == Role::Dialer {
            bench.session.open().unwrap();
            bench.output();
        }
        let fed = frames.len();
        for (kind, flags, stream, length) in frames {
            let mut bytes = vec![0, kind];
            bytes.extend(flags.to_be_bytes());
            bytes.extend(stream.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(vec![0; length.min(20) as usize]);
            bench.input(&bytes);
            if let Some(stream) = bench.session.accept() {
                bench.session.release(stream, bench.now);
            }
        }
        prop_assert!(bench.headers().len() <= 2 * fed + 2, "at most an answer and an acknowledgement each");
    }
}

const STREAMS: usize = 6;
