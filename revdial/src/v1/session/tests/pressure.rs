//! Unread data: the bound, the pause, and who is closed in the end.

use super::*;

const BOUND: usize = 256 * 1024;

/// Sends `len` bytes of a connection, in frames as large as they get.
fn flood(bench: &mut Bench, value: u32, mut len: usize) {
    while len > 0 {
        let count = len.min(65_535);
        bench.data(value, &vec![b'x'; count]);
        len -= count;
    }
}

/// A listener with connections 1 and 2, of which the first has a byte too many.
fn full() -> Bench {
    let mut bench = accepted();
    bench.open(2);
    assert_eq!(bench.session.accept(), Some(id(2)));
    flood(&mut bench, 1, BOUND);
    assert!(bench.session.wants_input(), "the bound itself is allowed");
    bench.data(1, b"x");
    assert!(!bench.session.wants_input());
    bench
}

#[track_caller]
fn expect_stalled(bench: &mut Bench, value: u32) {
    let read = bench.read(id(value));
    assert!(
        matches!(read, Poll::Ready(Err(ConnError::Stalled))),
        "{read:?}"
    );
    for outcome in [
        bench.session.write(id(value), b"x").map_ok(|_| ()),
        bench.session.flush(id(value)),
        bench.session.shutdown(id(value)),
    ] {
        assert!(
            matches!(outcome, Poll::Ready(Err(ConnError::Stalled))),
            "{outcome:?}"
        );
    }
}

#[test]
fn unread_data_beyond_the_bound_pauses_the_link_until_it_is_read() {
    let mut bench = full();
    assert!(bench.session.poll_timeout().is_some());
    assert!(matches!(
        bench.session.read_chunk(id(1), 1),
        Poll::Ready(Ok(_))
    ));
    assert!(bench.session.wants_input());
    assert_eq!(bench.session.poll_timeout(), None);
}

#[test]
fn a_paused_link_still_writes() {
    let mut bench = full();
    bench.write_all(id(2), b"out");
    assert_eq!(bench.output(), b"W\0\0\0\x02\0\x03out");
}

#[test]
fn a_connection_that_stalls_the_link_is_closed_in_time_and_the_others_go_on() {
    let mut bench = full();
    assert!(bench.session.write(id(1), &[0; 100_000]).is_ready());
    assert!(bench.session.write(id(1), b"x").is_pending());
    let due = bench.session.poll_timeout().unwrap();
    assert_eq!(due, bench.now + Duration::from_secs(10));
    bench.session.handle_timeout(due - Duration::from_nanos(1));
    assert!(!bench.session.wants_input());
    bench.session.handle_timeout(due);
    assert!(bench.session.wants_input());
    assert_eq!(bench.session.poll_timeout(), None);
    let events: Vec<Event> = std::iter::from_fn(|| bench.session.poll_event()).collect();
    assert_eq!(events.last(), Some(&Event::Writable(id(1))));
    expect_stalled(&mut bench, 1);
    assert_eq!(bench.session.unread(id(1)), 0, "what it held is free");
    assert_eq!(
        bench.headers(),
        [close_of(1)],
        "the peer is told what can be told"
    );
    bench.session.close(id(1));
    expect_stalled(&mut bench, 1);
    flood(&mut bench, 1, 4 * BOUND);
    assert!(
        bench.session.wants_input(),
        "what still comes is thrown away"
    );
    bench.data(2, b"the other");
    bench.expect_data(id(2), b"the other");
    bench.session.release(id(1), bench.now);
    assert_eq!(bench.output(), b"", "one C");
}

#[test]
fn a_stalled_connection_whose_end_is_out_says_nothing_more() {
    let mut bench = full();
    assert!(bench.session.shutdown(id(1)).is_pending());
    assert_eq!(bench.headers(), [close_of(1)]);
    let due = bench.session.poll_timeout().unwrap();
    bench.session.handle_timeout(due);
    expect_stalled(&mut bench, 1);
    assert_eq!(bench.output(), b"");
}

#[test]
fn a_reader_that_dawdles_does_not_move_the_time() {
    let mut bench = full();
    flood(&mut bench, 1, 60_000);
    let due = bench.session.poll_timeout().unwrap();
    for _ in 0..9 {
        bench.now += Duration::from_secs(1);
        assert!(matches!(
            bench.session.read_chunk(id(1), 1),
            Poll::Ready(Ok(_))
        ));
        bench.session.handle_timeout(bench.now);
        assert_eq!(bench.session.poll_timeout(), Some(due));
    }
    bench.session.handle_timeout(due);
    expect_stalled(&mut bench, 1);
}

#[test]
fn a_reader_that_keeps_up_is_never_closed() {
    let mut bench = full();
    for _ in 0..20 {
        flood(&mut bench, 1, 60_000);
        bench.now += Duration::from_secs(9);
        bench.session.handle_timeout(bench.now);
        assert!(
            bench
                .session
                .read(id(1), &mut vec![0; 60_001].as_mut_slice())
                .is_ready()
        );
        assert!(bench.session.wants_input());
        bench.data(1, b"x");
    }
}

#[test]
fn giving_the_connection_up_ends_the_pause_at_once() {
    let ways: [fn(&mut Bench); 5] = [
        |bench| bench.session.close(id(1)),
        |bench| bench.session.reset(id(1), 0),
        |bench| bench.session.stop_reading(id(1)),
        |bench| bench.session.stop_writing(id(1)),
        |bench| bench.session.release(id(1), bench.now),
    ];
    for (way, give_up) in ways.into_iter().enumerate() {
        let mut bench = full();
        give_up(&mut bench);
        assert!(bench.session.wants_input(), "way {way}");
        assert_eq!(bench.session.poll_timeout(), None);
        flood(&mut bench, 1, 4 * BOUND);
        assert!(bench.session.wants_input(), "way {way}");
    }
}

#[test]
fn a_connection_that_nobody_accepts_is_closed_as_well() {
    let mut bench = Bench::new(Role::Listener);
    bench.open(1);
    flood(&mut bench, 1, BOUND + 1);
    let due = bench.session.poll_timeout().unwrap();
    bench.session.handle_timeout(due);
    assert!(bench.session.wants_input());
    assert_eq!(bench.headers(), [close_of(1)]);
    assert_eq!(bench.session.accept(), Some(id(1)));
    expect_stalled(&mut bench, 1);
}

#[test]
fn each_connection_has_its_own_time() {
    let mut bench = full();
    bench.now += Duration::from_secs(4);
    flood(&mut bench, 2, BOUND + 1);
    bench.now += Duration::from_secs(6);
    bench.session.handle_timeout(bench.now);
    expect_stalled(&mut bench, 1);
    assert!(!bench.session.wants_input());
    let due = bench.session.poll_timeout().unwrap();
    assert_eq!(due, bench.now + Duration::from_secs(4));
    bench.session.handle_timeout(due);
    expect_stalled(&mut bench, 2);
}

#[test]
fn an_end_of_the_link_in_a_pause_lets_what_arrived_be_read() {
    let mut bench = full();
    bench
        .session
        .handle_transport_error(std::io::ErrorKind::BrokenPipe.into());
    assert_eq!(bench.session.poll_timeout(), None);
    let mut heard = Vec::new();
    while let Poll::Ready(Ok(chunk)) = bench.session.read_chunk(id(1), BOUND) {
        heard.extend(chunk);
    }
    assert_eq!(heard.len(), BOUND + 1);
}

#[test]
fn all_connections_together_hold_their_bounds_and_one_read() {
    let config = Config {
        v1_receive_buffer: 2 * 1024,
        ..Config::default()
    };
    let (bound, most) = (config.v1_receive_buffer, config.max_inbound_streams);
    for payload in [1, 100, 4096, 65_535] {
        let mut bench = Bench::with(Role::Listener, config.clone());
        for value in 1..=u32::try_from(most).unwrap() {
            bench.open(value);
        }
        // What the driver does: it reads 64 KiB at a time, and nothing in a pause.
        let mut wire = Vec::new();
        let mut value = 0;
        let mut reads = 0;
        while bench.session.wants_input() && reads < 1000 {
            while wire.len() < 64 * 1024 {
                value = value % u32::try_from(most).unwrap() + 1;
                let length = u16::try_from(payload).unwrap();
                wire.extend(Header::new(Kind::Write, StreamId::new(value), length).encode());
                wire.extend(vec![0; payload]);
            }
            let rest = wire.split_off(64 * 1024);
            bench.input(&wire);
            wire = rest;
            reads += 1;
        }
        assert!(!bench.session.wants_input());
        let unread = |value| bench.session.unread(id(value));
        let held: usize = (1..=u32::try_from(most).unwrap()).map(unread).sum();
        assert!(
            held <= most * bound + 64 * 1024,
            "{held} bytes in frames of {payload}"
        );
    }
}
