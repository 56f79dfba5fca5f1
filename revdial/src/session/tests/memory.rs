//! The budget of received data: first blocks are packed, then the largest unread stream goes.

use super::*;

/// A dialer whose budget is one window, with `count` confirmed streams.
fn tight(count: u32) -> (Bench, Vec<StreamId>) {
    let config = Config {
        max_inbound_streams: 1,
        growth_budget: 0,
        ..Config::default()
    };
    assert_eq!(config.receive_budget(), INITIAL_WINDOW as usize);
    let mut bench = Bench::with(Role::Dialer, config);
    let ids: Vec<StreamId> = (0..count).map(|_| bench.session.open().unwrap()).collect();
    bench.output();
    for id in &ids {
        bench.update(*id, Flags::ACK, 0);
    }
    (bench, ids)
}

fn is_overrun(bench: &mut Bench, id: StreamId) -> bool {
    matches!(bench.read(id), Poll::Ready(Err(ConnError::Overrun)))
}

#[test]
fn over_the_budget_the_largest_unread_stream_is_reset_alone() {
    let (mut bench, ids) = tight(3);
    bench.data(ids[0], Flags::NONE, &[1; 60_000]);
    bench.data(ids[1], Flags::NONE, &[2; 150_000]);
    bench.data(ids[2], Flags::NONE, &[3; 60_000]);
    assert_eq!(bench.headers(), [reset(ids[1].value(), 0)]);
    assert!(is_overrun(&mut bench, ids[1]));
    bench.expect_data(ids[0], &[1; 60_000]);
    bench.expect_data(ids[2], &[3; 60_000]);
    assert!(bench.session.closed().is_none());
    assert!(matches!(
        bench.session.write(ids[1], b"x"),
        Poll::Ready(Err(ConnError::Overrun))
    ));
}

#[test]
fn a_stream_that_is_over_the_budget_wakes_who_writes_to_it() {
    let (mut bench, ids) = tight(2);
    bench.data(ids[1], Flags::NONE, &[2; 200_000]);
    while bench.session.write(ids[1], &[0; 60_000]).is_ready() {}
    while bench.session.poll_event().is_some() {}
    bench.data(ids[0], Flags::NONE, &[1; 100_000]);
    assert_eq!(bench.session.poll_event(), Some(Event::Writable(ids[1])));
}

#[test]
fn blocks_are_packed_before_anybody_is_reset() {
    let (mut bench, ids) = tight(2);
    bench.data(ids[0], Flags::NONE, &[1; 190_000]);
    bench.data(ids[1], Flags::NONE, &[2; 50_000]);
    let mut some = Vec::new();
    let outcome = bench.session.read(ids[1], &mut (&mut some).limit(15_000));
    assert!(matches!(outcome, Poll::Ready(Ok(15_000))));
    // The block of the bytes that were read is held: together with what comes that is too much.
    bench.data(ids[0], Flags::NONE, &[1; 30_000]);
    assert_eq!(bench.headers(), []);
    bench.expect_data(ids[0], &[1; 220_000]);
    bench.expect_data(ids[1], &[2; 35_000]);
}

#[test]
fn data_that_arrived_before_a_reset_counts_and_can_go() {
    let (mut bench, ids) = tight(2);
    bench.data(ids[0], Flags::NONE, &[1; 200_000]);
    bench.header(reset(ids[0].value(), 7));
    bench.data(ids[1], Flags::NONE, &[2; 100_000]);
    assert_eq!(bench.headers(), [], "there is nobody to tell");
    assert!(is_overrun(&mut bench, ids[0]));
    bench.expect_data(ids[1], &[2; 100_000]);
}

#[test]
fn spare_blocks_are_given_up_when_the_session_rests() {
    let mut bench = dialed();
    bench.write_all(id(1), &[0; 60_000]);
    while let Some(frame) = bench.session.poll_transmit(bench.now, usize::MAX) {
        bench.session.recycle(frame);
    }
    assert!(bench.session.memory.held() > 0);
    bench.now = bench.session.poll_timeout().unwrap();
    bench.session.handle_timeout(bench.now);
    assert_eq!(bench.session.memory.held(), 0);
}

#[test]
fn a_window_does_not_grow_for_a_reader_that_is_slower_than_the_road() {
    let mut bench = accepted();
    bench.session.ping();
    let Some(Header::Ping { nonce }) = bench.headers().pop() else {
        panic!("no ping");
    };
    bench.now += Duration::from_millis(10);
    bench.header(Header::Pong { nonce });
    for _ in 0..40 {
        // A half window in three round trip times.
        bench.data(id(1), Flags::NONE, &vec![0; INITIAL_WINDOW as usize / 2]);
        bench.now += Duration::from_millis(30);
        assert!(bench.read(id(1)).is_ready());
        bench.output();
    }
    let stream = bench.session.streams.get(id(1)).unwrap();
    assert_eq!(stream.recv.growth(INITIAL_WINDOW), 0);
}

#[test]
fn queues_of_our_own_making_do_not_count_as_distance() {
    let mut bench = accepted();
    for (waited, expected) in [(20, 20), (500, 20), (15, 15), (900, 15)] {
        bench.session.ping();
        let Some(Header::Ping { nonce }) = bench.headers().pop() else {
            panic!("no ping");
        };
        bench.now += Duration::from_millis(waited);
        bench.header(Header::Pong { nonce });
        let distance = bench.session.liveness.distance();
        assert_eq!(distance, Some(Duration::from_millis(expected)));
    }
    // After a minute the road may be a longer one.
    bench.now += Duration::from_secs(60);
    bench.session.ping();
    let Some(Header::Ping { nonce }) = bench.headers().pop() else {
        panic!("no ping");
    };
    bench.now += Duration::from_millis(80);
    bench.header(Header::Pong { nonce });
    let distance = bench.session.liveness.distance();
    assert_eq!(distance, Some(Duration::from_millis(80)));
}
