//! Receive windows: what they start with, how they grow, and when credit is given back.

use super::*;

#[test]
fn credit_is_given_back_when_half_a_window_was_read() {
    let half = INITIAL_WINDOW / 2;
    let mut bench = accepted();
    bench.data(id(1), Flags::NONE, &vec![0; half as usize - 1]);
    assert!(bench.read(id(1)).is_ready());
    assert_eq!(bench.headers(), []);
    bench.data(id(1), Flags::NONE, &[0]);
    assert!(bench.read(id(1)).is_ready());
    let credit = Header::WindowUpdate {
        id: id(1),
        flags: Flags::NONE,
        delta: half,
    };
    assert!(bench.headers().contains(&credit));
}

#[test]
fn the_window_grows_while_the_round_trip_limits_and_within_its_budgets() {
    let config = Config {
        max_stream_window: 4 * INITIAL_WINDOW,
        growth_budget: 8 * INITIAL_WINDOW,
        ..Config::default()
    };
    let mut bench = Bench::with(Role::Listener, config);
    let mut windows = Vec::new();
    for value in (1..10).step_by(2) {
        bench.update(id(value), Flags::SYN, 0);
        let mut given = INITIAL_WINDOW;
        let mut sent = 0;
        for _ in 0..12 {
            let chunk = (given - sent).min(INITIAL_WINDOW / 2);
            bench.data(id(value), Flags::NONE, &vec![0; chunk as usize]);
            sent += chunk;
            assert!(bench.read(id(value)).is_ready());
            for header in bench.headers() {
                if let Header::WindowUpdate { delta, .. } = header {
                    given += delta;
                }
                if let Header::Ping { nonce } = header {
                    bench.now += Duration::from_millis(50);
                    bench.header(Header::Pong { nonce });
                }
            }
            bench.now += Duration::from_millis(10);
        }
        let stream = bench.session.streams.get(id(value)).unwrap();
        windows.push(1 + stream.recv.growth(INITIAL_WINDOW) / INITIAL_WINDOW);
    }
    assert_eq!(windows, [4, 4, 3, 1, 1], "in windows of 256 KiB");
}

#[test]
fn a_window_that_starts_larger_comes_with_the_opening_to_each_stream() {
    let config = Config {
        initial_stream_window: 4 * INITIAL_WINDOW,
        max_stream_window: INITIAL_WINDOW,
        growth_budget: 0,
        ..Config::default()
    };
    assert_eq!(config.receive_budget(), 128 * 4 * INITIAL_WINDOW as usize);
    let delta = 3 * INITIAL_WINDOW;
    let mut bench = Bench::with(Role::Dialer, config.clone());
    for _ in 0..2 {
        bench.session.open().unwrap();
    }
    let flags = Flags::SYN;
    let opened = [1, 3].map(|value| Header::WindowUpdate {
        id: id(value),
        flags,
        delta,
    });
    assert_eq!(bench.headers(), opened);

    let mut bench = Bench::with(Role::Listener, config);
    bench.update(id(1), Flags::SYN, 0);
    // A dialer that was told before need not wait for the answer.
    let whole = vec![0; INITIAL_WINDOW as usize];
    bench.data(id(1), Flags::NONE, &whole);
    bench.data(id(1), Flags::NONE, &whole);
    let flags = Flags::ACK;
    let answer = Header::WindowUpdate {
        id: id(1),
        flags,
        delta,
    };
    assert_eq!(bench.headers(), [answer]);
    bench.data(id(1), Flags::NONE, &whole);
    bench.data(id(1), Flags::NONE, &whole);
    assert!(bench.session.closed().is_none());
    bench.data(id(1), Flags::NONE, &[0]);
    bench.expect_protocol_error(ProtocolError::WindowExceeded(id(1)));
}

#[test]
fn a_window_that_is_known_before_is_used_before_the_answer_and_counts_once() {
    let known = 4 * INITIAL_WINDOW;
    let config = Config {
        peer_stream_window: known,
        send_buffer: 8 * known as usize,
        ..Config::default()
    };
    let mut bench = Bench::with(Role::Dialer, config);
    let first = bench.session.open().unwrap();
    let much = vec![0; 2 * known as usize];
    let sent = |bench: &mut Bench| -> u32 {
        let mut sum = 0;
        for header in bench.headers() {
            if let Header::Data { length, .. } = header {
                sum += length;
            }
        }
        sum
    };
    assert!(bench.session.write(first, &much).is_ready());
    assert_eq!(sent(&mut bench), known);
    // Of credit that comes with the answer, that which was known is no news.
    bench.update(first, Flags::ACK, known - INITIAL_WINDOW + 5);
    assert_eq!(sent(&mut bench), 5);
    bench.update(first, Flags::NONE, 7);
    assert_eq!(sent(&mut bench), 7);
    // A peer that does not keep its word gives nothing, and takes nothing back.
    let second = bench.session.open().unwrap();
    assert_eq!(sent(&mut bench), 0);
    bench.update(second, Flags::ACK, 1);
    assert!(bench.session.write(second, &much).is_ready());
    assert_eq!(sent(&mut bench), known);
}

#[test]
fn the_largest_window_and_what_was_read_before_the_answer_fit_into_it() {
    let config = Config {
        initial_stream_window: u32::MAX,
        max_stream_window: u32::MAX,
        ..Config::default()
    };
    let mut bench = Bench::with(Role::Listener, config);
    bench.update(id(1), Flags::SYN, 0);
    bench.session.accept().unwrap();
    // More than a sixteenth of the window: credit is due when ACK has not left yet.
    let chunk = vec![0; 1 << 20];
    for _ in 0..65 {
        bench.data(id(1), Flags::NONE, &chunk);
        assert!(bench.read(id(1)).is_ready());
    }
    let answer = Header::WindowUpdate {
        id: id(1),
        flags: Flags::ACK,
        delta: (1 << 30) - INITIAL_WINDOW + 65 * (1 << 20),
    };
    assert_eq!(bench.headers()[0], answer);
}

#[test]
fn an_unread_half_that_is_dropped_gives_its_credit_back() {
    let mut bench = accepted();
    bench.data(id(1), Flags::NONE, &vec![0; 200_000]);
    bench.session.stop_reading(id(1));
    let credit: Vec<Header> = bench.headers();
    assert!(
        credit.iter().any(
            |header| matches!(header, Header::WindowUpdate { delta, .. } if *delta == 200_000)
        )
    );
}

#[test]
fn a_close_gives_the_credit_of_what_it_drops_back_at_once() {
    let mut bench = accepted();
    bench.data(id(1), Flags::NONE, &vec![0; INITIAL_WINDOW as usize]);
    while bench.session.write(id(1), &[0; 60_000]).is_ready() {
        bench.output();
    }
    bench.session.close(id(1));
    let credit = Header::WindowUpdate {
        id: id(1),
        flags: Flags::NONE,
        delta: INITIAL_WINDOW,
    };
    let headers = bench.headers();
    assert!(headers.contains(&credit), "the peer is stuck: {headers:?}");
}
