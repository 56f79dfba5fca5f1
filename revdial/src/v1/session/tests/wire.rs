//! The bytes that Go's programs send and expect, and those that none of them would send.

use super::*;

#[test]
fn dialing_is_the_bytes_of_gos_own_test() {
    let mut bench = Bench::new(Role::Dialer);
    let first = bench.session.open().unwrap();
    assert_eq!(bench.output(), b"N\0\0\0\x01\0\0");
    bench.session.close(first);
    bench.session.release(first, bench.now);
    assert_eq!(bench.output(), b"C\0\0\0\x01\0\0");
    let second = bench.session.open().unwrap();
    bench.write_all(second, b"hello, world");
    assert_eq!(
        bench.output(),
        b"N\0\0\0\x02\0\0W\0\0\0\x02\0\x0chello, world"
    );
}

#[test]
fn listening_is_the_bytes_of_gos_own_test() {
    let mut bench = Bench::new(Role::Listener);
    bench.input(b"N\0\0\0B\0\0");
    assert_eq!(bench.session.poll_event(), Some(Event::Incoming));
    assert_eq!(bench.session.accept(), Some(id(0x42)));
    bench.write_all(id(0x42), b"first write");
    assert_eq!(bench.output(), b"W\0\0\0B\0\x0bfirst write");
    bench.input(b"W\0\0\0B\0\x04some");
    bench.expect_data(id(0x42), b"some");
}

#[test]
fn a_short_life_is_these_bytes() {
    let mut bench = Bench::new(Role::Listener);
    bench.input(b"N\0\0\0\x01\0\0W\0\0\0\x01\0\x03hey");
    let stream = bench.session.accept().unwrap();
    bench.expect_data(stream, b"hey");
    bench.write_all(stream, b"ok");
    assert!(bench.session.shutdown(stream).is_pending());
    assert_eq!(bench.output(), b"W\0\0\0\x01\0\x02okC\0\0\0\x01\0\0");
    bench.input(b"C\0\0\0\x01\0\0");
    bench.expect_data(stream, b"");
    bench.session.release(stream, bench.now);
    assert_eq!(bench.output(), b"");
    bench.session.handle_eof();
    assert!(matches!(
        bench.session.closed(),
        Some(CloseReason::PeerClosed)
    ));
}

#[test]
fn the_largest_frame_is_read() {
    let mut bench = accepted();
    let mut frame = b"W\0\0\0\x01\xff\xff".to_vec();
    frame.extend(vec![7; 65_535]);
    bench.input(&frame);
    bench.expect_data(id(1), &[7; 65_535]);
}

#[test]
fn a_cut_at_any_byte_is_no_end() {
    let wire = b"N\0\0\0\x01\0\0W\0\0\0\x01\0\x05helloW\0\0\0\x01\0\x01!C\0\0\0\x01\0\0";
    for at in 1..wire.len() {
        let mut bench = Bench::new(Role::Listener);
        bench.input(&wire[..at]);
        let stream = bench.session.accept();
        bench.session.handle_eof();
        assert!(
            matches!(bench.session.closed(), Some(CloseReason::Cut)),
            "at {at}"
        );
        if let Some(stream) = stream {
            let mut heard = Vec::new();
            let error = loop {
                match bench.session.read_chunk(stream, 100) {
                    Poll::Ready(Ok(chunk)) if chunk.is_empty() => panic!("an end, cut at {at}"),
                    Poll::Ready(Ok(chunk)) => heard.extend(chunk),
                    Poll::Ready(Err(error)) => break error,
                    Poll::Pending => panic!("a wait, cut at {at}"),
                }
            };
            assert!(matches!(error, ConnError::Link(CloseReason::Cut)));
            assert!(b"hello!".starts_with(&heard));
        }
    }
}

#[test]
fn unknown_types_are_skipped_by_both_sides() {
    for mut bench in [accepted(), dialed()] {
        bench.input(b"P\0\0\0\x01\0\x03abc\0\xff\xff\xff\xff\0\0");
        bench.data(1, b"data");
        bench.expect_data(id(1), b"data");
        assert_eq!(bench.output(), b"");
        assert!(bench.session.closed().is_none());
    }
}

#[test]
fn payload_of_frames_that_have_none_is_skipped() {
    let mut bench = Bench::new(Role::Listener);
    bench.input(b"N\0\0\0\x01\0\x04junkW\0\0\0\x01\0\x02hiC\0\0\0\x01\0\x04junk");
    let stream = bench.session.accept().unwrap();
    bench.expect_data(stream, b"hi");
    bench.expect_data(stream, b"");
}

#[test]
fn number_zero_is_refused_and_harms_nobody() {
    let mut bench = accepted();
    bench.input(b"N\0\0\0\0\0\0W\0\0\0\0\0\x02hiC\0\0\0\0\0\0");
    assert_eq!(bench.output(), b"C\0\0\0\0\0\0");
    assert_eq!(bench.session.accept(), None);
    bench.data(1, b"data");
    bench.expect_data(id(1), b"data");
}

#[test]
fn a_listener_that_dials_ends_the_session() {
    let mut bench = dialed();
    bench.input(b"N\0\0\0\x07\0\0");
    bench.expect_protocol_error(ProtocolError::OpenedByListener);
    assert_eq!(bench.output(), b"");
}

#[test]
fn opening_a_number_in_use_ends_the_session() {
    let mut bench = accepted();
    bench.open(1);
    bench.expect_protocol_error(ProtocolError::DuplicateOpen(id(1)));
}

#[test]
fn a_number_that_nobody_uses_any_more_may_be_opened_again() {
    let mut bench = accepted();
    bench.close(1);
    bench.session.release(id(1), bench.now);
    assert_eq!(bench.headers(), [close_of(1)]);
    bench.open(1);
    assert_eq!(bench.session.accept(), Some(id(1)));
    bench.data(1, b"new");
    bench.expect_data(id(1), b"new");
}

#[test]
fn frames_for_numbers_that_nobody_uses_mean_nothing() {
    for mut bench in [accepted(), dialed()] {
        bench.data(9, b"who?");
        bench.close(9);
        bench.close(1);
        bench.data(1, b"the rest of a write that timed out in Go");
        bench.close(1);
        bench.expect_data(id(1), b"");
        assert_eq!(bench.output(), b"");
        assert!(bench.session.closed().is_none());
    }
}

#[test]
fn one_connection_too_many_is_closed_alone() {
    let mut bench = Bench::new(Role::Listener);
    let most = u32::try_from(Config::default().max_inbound_streams).unwrap();
    for value in 1..=most + 2 {
        bench.open(value);
    }
    assert_eq!(bench.headers(), [close_of(most + 1), close_of(most + 2)]);
    bench.data(most + 1, b"not for us");
    bench.data(1, b"for us");
    bench.expect_data(id(1), b"for us");
    assert_eq!(bench.session.accept(), Some(id(1)));
    bench.session.release(id(1), bench.now);
    assert_eq!(bench.headers(), [close_of(1)]);
    bench.open(most + 3);
    assert_eq!(bench.output(), b"", "there is room again");
}

#[test]
fn a_million_opens_cost_the_limits_and_end_the_session_unless_answers_are_read() {
    let config = Config::default();
    let mut bench = Bench::new(Role::Listener);
    let mut value = 0;
    while bench.session.closed().is_none() {
        value += 1;
        bench.open(value);
    }
    let most = config.max_inbound_streams + config.max_pending_resets + 1;
    assert_eq!(value as usize, most);
    bench.expect_protocol_error(ProtocolError::Flood);

    let mut bench = Bench::new(Role::Listener);
    for batch in 0..1000 {
        for value in 1..=1000 {
            bench.open(batch * 1000 + value);
        }
        bench.output();
    }
    assert!(bench.session.closed().is_none());
    assert_eq!(bench.session.stream_count(), config.max_inbound_streams);
}

#[test]
fn connections_that_are_accepted_and_reset_do_not_heap_up_answers() {
    let mut bench = Bench::new(Role::Listener);
    let mut value = 0;
    while bench.session.closed().is_none() && value < 10_000 {
        value += 1;
        bench.open(value);
        if let Some(stream) = bench.session.accept() {
            bench.session.reset(stream, 0);
            bench.session.release(stream, bench.now);
        }
    }
    bench.expect_protocol_error(ProtocolError::Flood);
    assert_eq!(value as usize, Config::default().max_pending_resets + 1);
}

#[test]
fn connections_that_are_accepted_and_dropped_count_until_their_end_is_sent() {
    let mut bench = Bench::new(Role::Listener);
    let most = Config::default().max_inbound_streams;
    for value in 1..=500 {
        bench.open(value);
        if let Some(stream) = bench.session.accept() {
            bench.session.release(stream, bench.now);
        }
    }
    assert_eq!(bench.session.stream_count(), most);
    assert_eq!(bench.headers().len(), 500, "an end for each");
    assert_eq!(bench.session.stream_count(), 0);
}

#[test]
fn a_storm_of_ends_costs_nothing() {
    let mut bench = accepted();
    while bench.session.poll_event().is_some() {}
    assert!(bench.read(id(1)).is_pending());
    let storm = b"C\0\0\0\x01\0\0C\0\0\0\x02\0\0".repeat(100_000);
    bench.input(&storm);
    assert_eq!(bench.session.events.len(), 1);
    assert_eq!(bench.output(), b"");
    bench.expect_data(id(1), b"");
    assert_eq!(bench.session.stream_count(), 1);
}

/// What a listener makes of bytes: the data and the end of each connection, and the end of the session.
fn heard(segments: &[&[u8]]) -> (Vec<(u32, Vec<u8>, bool)>, String) {
    let mut bench = Bench::new(Role::Listener);
    let mut conns = Vec::new();
    for segment in segments {
        bench.input(segment);
    }
    while let Some(stream) = bench.session.accept() {
        let mut data = Vec::new();
        let ended = loop {
            match bench.session.read_chunk(stream, 100) {
                Poll::Ready(Ok(chunk)) if chunk.is_empty() => break true,
                Poll::Ready(Ok(chunk)) => data.extend(chunk),
                Poll::Ready(Err(_)) | Poll::Pending => break false,
            }
        };
        conns.push((stream.value(), data, ended));
    }
    (conns, format!("{:?}", bench.session.closed()))
}

prop_compose! {
    /// A frame of any kind with a payload that is all there.
    fn frame()(
        kind in prop::sample::select(b"NCWWWx".to_vec()),
        value in 0..6u32,
        payload in prop::collection::vec(any::<u8>(), 0..40),
    ) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(value.to_be_bytes());
        bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes
    }
}

proptest! {
    #[test]
    fn any_segmentation_is_heard_alike(
        frames in prop::collection::vec(frame(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let wire = frames.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let segments: Vec<&[u8]> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
        prop_assert_eq!(heard(&segments), heard(&[&wire]));
    }

    #[test]
    fn any_bytes_end_in_a_session_or_an_error(
        role in prop_oneof![Just(Role::Dialer), Just(Role::Listener)],
        frames in prop::collection::vec(frame(), 0..60),
        junk in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bench = Bench::new(role);
        if role == Role::Dialer {
            bench.session.open().unwrap();
            bench.output();
        }
        for bytes in frames.iter().chain([&junk]) {
            bench.input(bytes);
            if let Some(stream) = bench.session.accept() {
                bench.session.release(stream, bench.now);
            }
        }
        let fed = frames.len() + junk.len() / HEADER_LEN;
        prop_assert!(bench.headers().len() <= fed, "at most one answer each");
    }
}
