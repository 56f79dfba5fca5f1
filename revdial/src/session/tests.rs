//! The machine against literal bytes, hostile frames, and itself.

use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::control::MAX_PONGS;
use super::*;
use crate::error::ProtocolError;
use crate::frame::{Flags, FrameError, GoAwayCode, Header, INITIAL_WINDOW};

mod memory;
mod model;
mod random;
mod windows;
mod world;

/// A session, a clock and the bytes that the session has sent.
struct Bench {
    session: Session,
    now: Instant,
}

impl Bench {
    fn new(role: Role) -> Self {
        Self::with(role, Config::default())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "where the clock begins does not matter"
    )]
    fn with(role: Role, config: Config) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(role, config, now, 0),
            now,
        }
    }

    fn input(&mut self, bytes: &[u8]) {
        self.session
            .handle_input(self.now, Bytes::copy_from_slice(bytes));
    }

    fn header(&mut self, header: Header) {
        self.input(&header.encode());
    }

    fn data(&mut self, id: StreamId, flags: Flags, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        self.header(Header::Data { id, flags, length });
        self.input(payload);
    }

    fn update(&mut self, id: StreamId, flags: Flags, delta: u32) {
        self.header(Header::WindowUpdate { id, flags, delta });
    }

    /// All frames that wait, as bytes.
    fn output(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.session.poll_transmit(self.now, usize::MAX) {
            bytes.extend_from_slice(frame.head());
            bytes.extend_from_slice(frame.payload());
            self.session.handle_flushed(frame.ticket());
        }
        bytes
    }

    fn headers(&mut self) -> Vec<Header> {
        let mut headers = Vec::new();
        while let Some(frame) = self.session.poll_transmit(self.now, usize::MAX) {
            headers.push(Header::decode(frame.head().try_into().unwrap()).unwrap());
            self.session.handle_flushed(frame.ticket());
        }
        headers
    }

    fn read(&mut self, id: StreamId) -> Poll<Result<Vec<u8>, ConnError>> {
        let mut buffer = Vec::new();
        self.session.read(id, &mut buffer).map_ok(|_| buffer)
    }

    #[track_caller]
    fn write_all(&mut self, id: StreamId, data: &[u8]) {
        let outcome = self.session.write(id, data);
        assert!(matches!(outcome, Poll::Ready(Ok(count)) if count == data.len()));
    }

    /// Reads what waits; nothing means the end.
    #[track_caller]
    fn expect_data(&mut self, id: StreamId, expected: &[u8]) {
        let outcome = self.read(id);
        assert!(
            matches!(&outcome, Poll::Ready(Ok(data)) if data == expected),
            "{outcome:?}"
        );
    }

    #[track_caller]
    fn expect_protocol_error(&mut self, expected: ProtocolError) {
        match self.session.closed() {
            Some(CloseReason::Protocol(error)) => assert_eq!(*error, expected),
            other => panic!("{other:?}"),
        }
        let farewell = Header::GoAway {
            code: GoAwayCode::PROTOCOL_ERROR,
        };
        assert_eq!(self.headers().last(), Some(&farewell));
        assert!(self.session.poll_transmit(self.now, usize::MAX).is_none());
    }
}

fn id(value: u32) -> StreamId {
    StreamId::new(value).unwrap()
}

fn reset(value: u32, delta: u32) -> Header {
    Header::WindowUpdate {
        id: id(value),
        flags: Flags::RST,
        delta,
    }
}

/// A listener with one accepted stream, number 1.
fn accepted() -> Bench {
    let mut bench = Bench::new(Role::Listener);
    bench.update(id(1), Flags::SYN, 0);
    assert_eq!(bench.session.accept(), Some(id(1)));
    bench.output();
    bench
}

/// A dialer with one confirmed stream, number 1.
fn dialed() -> Bench {
    let mut bench = Bench::new(Role::Dialer);
    assert_eq!(bench.session.open().unwrap(), id(1));
    bench.output();
    bench.update(id(1), Flags::ACK, 0);
    bench
}

#[test]
fn a_short_life_is_these_bytes() {
    let mut bench = Bench::new(Role::Dialer);
    let stream = bench.session.open().unwrap();
    assert!(bench.session.poll_opened(stream).is_pending());
    assert_eq!(bench.output(), [0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0], "SYN");
    bench.input(&[0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(matches!(
        bench.session.poll_opened(stream),
        Poll::Ready(Ok(()))
    ));
    bench.write_all(stream, b"hey");
    assert!(bench.session.shutdown(stream).is_pending());
    let data_then_fin = b"\0\0\0\0\0\0\0\x01\0\0\0\x03hey\0\0\0\x04\0\0\0\x01\0\0\0\0";
    assert_eq!(bench.output(), data_then_fin);
    assert!(matches!(
        bench.session.shutdown(stream),
        Poll::Ready(Ok(()))
    ));
    assert_eq!(bench.output(), b"", "one FIN");
    bench.input(b"\0\0\0\x04\0\0\0\x01\0\0\0\x02ok");
    bench.expect_data(stream, b"ok");
    bench.expect_data(stream, b"");
    bench.expect_data(stream, b"");
    bench.session.release(stream, bench.now);
    assert_eq!(bench.output(), b"", "both have finished");
    assert_eq!(bench.session.stream_count(), 0);
}

#[test]
fn an_open_is_confirmed_at_once() {
    let mut bench = Bench::new(Role::Listener);
    bench.update(id(1), Flags::SYN, 0);
    assert_eq!(bench.output(), [0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0], "ACK");
    assert_eq!(bench.session.poll_event(), Some(Event::Incoming));
}

#[test]
fn any_frame_of_the_peer_confirms_a_dial() {
    let mut bench = Bench::new(Role::Dialer);
    let stream = bench.session.open().unwrap();
    bench.output();
    assert!(bench.session.poll_opened(stream).is_pending());
    bench.data(stream, Flags::NONE, b"x");
    assert_eq!(bench.session.poll_event(), Some(Event::Writable(stream)));
    assert!(matches!(
        bench.session.poll_opened(stream),
        Poll::Ready(Ok(()))
    ));
}

#[test]
fn a_refused_dial_tells_the_code() {
    let mut bench = Bench::new(Role::Dialer);
    let stream = bench.session.open().unwrap();
    bench.output();
    bench.header(reset(1, 7));
    assert!(matches!(
        bench.session.poll_opened(stream),
        Poll::Ready(Err(DialError::Refused { code: 7 }))
    ));
}

#[test]
fn a_stream_dropped_before_its_syn_went_out_costs_no_frame() {
    let mut bench = Bench::new(Role::Dialer);
    for _ in 0..10_000 {
        let stream = bench.session.open().unwrap();
        bench.session.release(stream, bench.now);
    }
    assert_eq!(bench.output(), b"");
    assert_eq!(bench.session.stream_count(), 0);
}

#[test]
fn a_data_frame_larger_than_the_window_ends_the_session_before_its_payload() {
    // CVE-2026-32314: rust-yamux panicked on this frame.
    let mut bench = Bench::new(Role::Listener);
    bench.header(Header::Data {
        id: id(1),
        flags: Flags::SYN,
        length: INITIAL_WINDOW + 1,
    });
    bench.expect_protocol_error(ProtocolError::WindowExceeded(id(1)));
}

#[test]
fn data_beyond_the_window_ends_the_session() {
    let mut bench = accepted();
    bench.data(id(1), Flags::NONE, &[0; INITIAL_WINDOW as usize]);
    bench.data(id(1), Flags::NONE, &[0]);
    bench.expect_protocol_error(ProtocolError::WindowExceeded(id(1)));
}

#[test]
fn credit_that_overflows_ends_the_session() {
    let mut bench = accepted();
    bench.update(id(1), Flags::NONE, u32::MAX - INITIAL_WINDOW);
    assert!(bench.session.closed().is_none());
    bench.update(id(1), Flags::NONE, 1);
    bench.expect_protocol_error(ProtocolError::CreditOverflow(id(1)));
}

#[test]
fn bytes_that_are_no_frame_end_the_session() {
    let mut bench = accepted();
    bench.input(b"GET / HTTP/1.1\r\n\r\n");
    bench.expect_protocol_error(ProtocolError::Frame(FrameError::Version(b'G')));
    assert!(matches!(
        bench.read(id(1)),
        Poll::Ready(Err(ConnError::Link(CloseReason::Protocol(_))))
    ));
}

#[test]
fn opening_twice_or_with_a_number_of_the_other_side_ends_the_session() {
    let mut bench = accepted();
    bench.update(id(1), Flags::SYN, 0);
    bench.expect_protocol_error(ProtocolError::DuplicateOpen(id(1)));

    let mut bench = Bench::new(Role::Listener);
    bench.update(id(2), Flags::SYN, 0);
    bench.expect_protocol_error(ProtocolError::WrongParity(id(2)));
}

#[test]
fn frames_for_a_stream_that_nobody_opened_end_the_session() {
    let mut bench = Bench::new(Role::Listener);
    bench.data(id(1), Flags::NONE, b"x");
    bench.expect_protocol_error(ProtocolError::NeverOpened(id(1)));

    let mut bench = Bench::new(Role::Dialer);
    bench.session.open().unwrap();
    bench.update(id(1), Flags::ACK, 0);
    bench.expect_protocol_error(ProtocolError::NeverOpened(id(1)));
}

#[test]
fn behind_the_end_data_and_a_second_end_mean_nothing() {
    let mut bench = accepted();
    bench.data(id(1), Flags::FIN, b"all");
    bench.data(id(1), Flags::FIN, b"");
    bench.update(id(1), Flags::FIN, 0);
    bench.data(id(1), Flags::NONE, b"late");
    bench.data(id(1), Flags::FIN, b"later");
    bench.expect_data(id(1), b"all");
    bench.expect_data(id(1), b"");
    assert!(bench.session.closed().is_none());
    // It is taken from the credit, which nobody gives back.
    let rest = INITIAL_WINDOW as usize - "alllatelater".len();
    bench.data(id(1), Flags::NONE, &vec![0; rest]);
    bench.expect_data(id(1), b"");
    assert!(bench.session.closed().is_none());
    assert!(bench.output().is_empty());
    bench.data(id(1), Flags::NONE, b"x");
    bench.expect_protocol_error(ProtocolError::WindowExceeded(id(1)));
}

#[test]
fn an_end_in_a_frame_with_data_comes_behind_the_data() {
    let mut bench = accepted();
    bench.header(Header::Data {
        id: id(1),
        flags: Flags::FIN,
        length: 4,
    });
    bench.input(b"ab");
    bench.expect_data(id(1), b"ab");
    assert!(bench.read(id(1)).is_pending());
    bench.input(b"cd");
    bench.expect_data(id(1), b"cd");
    bench.expect_data(id(1), b"");
}

#[test]
fn an_unsolicited_pong_means_nothing_and_pings_are_answered_up_to_a_bound() {
    let mut bench = accepted();
    bench.header(Header::Pong { nonce: 99 });
    for nonce in [7, 8] {
        bench.header(Header::Ping { nonce });
    }
    assert_eq!(bench.headers(), [7, 8].map(|nonce| Header::Pong { nonce }));
    for nonce in 0..10_000 {
        bench.header(Header::Ping { nonce });
    }
    let newest = 10_000 - u32::try_from(MAX_PONGS).unwrap()..10_000;
    let newest: Vec<_> = newest.map(|nonce| Header::Pong { nonce }).collect();
    assert_eq!(bench.headers(), newest);
    assert!(bench.session.closed().is_none());
}

#[test]
fn data_for_a_stream_that_is_gone_is_answered_once() {
    let mut bench = accepted();
    bench.session.release(id(1), bench.now);
    assert_eq!(bench.headers(), [reset(1, 0)]);
    for _ in 0..100 {
        bench.data(id(1), Flags::NONE, b"late");
    }
    bench.update(id(1), Flags::FIN, 0);
    bench.header(reset(1, 0));
    assert_eq!(bench.headers(), []);
    assert!(bench.session.closed().is_none());
}

#[test]
fn a_stream_that_both_finished_resets_a_writer_that_goes_on() {
    let mut bench = accepted();
    bench.data(id(1), Flags::FIN, b"");
    assert!(bench.session.shutdown(id(1)).is_pending());
    bench.output();
    bench.session.release(id(1), bench.now);
    bench.data(id(1), Flags::NONE, b"x");
    bench.data(id(1), Flags::NONE, b"x");
    assert_eq!(bench.headers(), [reset(1, 0)]);
}

#[test]
fn a_hundred_thousand_opens_are_refused_beyond_the_limit_and_hold_nothing() {
    let config = Config {
        max_inbound_streams: 8,
        ..Config::default()
    };
    let mut bench = Bench::with(Role::Listener, config);
    for value in (1..200_001).step_by(2) {
        bench.update(id(value), Flags::SYN, 0);
        if value % 101 == 0 {
            bench.output();
        }
    }
    assert!(bench.session.closed().is_none());
    assert_eq!(bench.session.stream_count(), 8);
}

#[test]
fn a_peer_that_provokes_answers_and_reads_none_is_cut_off() {
    let mut bench = Bench::new(Role::Dialer);
    for value in (2..10_000).step_by(2) {
        bench.update(id(value), Flags::SYN, 0);
    }
    bench.expect_protocol_error(ProtocolError::Flood);
}

#[test]
fn opening_and_resetting_in_a_loop_costs_nothing_but_bytes() {
    let mut bench = Bench::new(Role::Listener);
    for value in (1..200_001).step_by(2) {
        bench.update(id(value), Flags::SYN, 0);
        bench.header(reset(value, 0));
    }
    assert_eq!(bench.session.stream_count(), 0);
    assert_eq!(bench.session.accept(), None);
    assert_eq!(bench.output(), b"");
}

#[test]
fn a_stream_that_said_all_before_its_reset_is_still_accepted() {
    let mut bench = Bench::new(Role::Listener);
    bench.update(id(1), Flags::SYN, 0);
    bench.data(id(1), Flags::FIN, b"fire and forget");
    bench.header(reset(1, 0));
    let stream = bench.session.accept().unwrap();
    bench.expect_data(stream, b"fire and forget");
    bench.expect_data(stream, b"");
}

#[test]
fn what_came_before_a_reset_is_read_first() {
    let mut bench = accepted();
    bench.data(id(1), Flags::NONE, b"part");
    bench.header(reset(1, 5));
    bench.expect_data(id(1), b"part");
    assert!(matches!(
        bench.read(id(1)),
        Poll::Ready(Err(ConnError::Reset { code: 5 }))
    ));
}

#[test]
fn frames_behind_a_reset_change_nothing() {
    let mut bench = dialed();
    bench.data(id(1), Flags::NONE, b"part");
    bench.header(reset(1, 5));
    bench.data(id(1), Flags::NONE, b" of it");
    bench.data(id(1), Flags::FIN, b"");
    bench.expect_data(id(1), b"part");
    for _ in 0..2 {
        let outcome = bench.read(id(1));
        assert!(
            matches!(outcome, Poll::Ready(Err(ConnError::Reset { code: 5 }))),
            "{outcome:?}"
        );
    }

    let mut bench = Bench::new(Role::Dialer);
    bench.session.open().unwrap();
    bench.output();
    bench.header(reset(1, 5));
    bench.update(id(1), Flags::ACK, 0);
    assert!(matches!(
        bench.session.poll_opened(id(1)),
        Poll::Ready(Err(DialError::Refused { code: 5 }))
    ));
}

#[test]
fn a_shutdown_whose_data_the_peer_refused_is_no_success() {
    let mut bench = dialed();
    assert!(matches!(
        bench.session.write(id(1), b"lost"),
        Poll::Ready(Ok(4))
    ));
    assert!(bench.session.shutdown(id(1)).is_pending());
    bench.header(reset(1, 3));
    assert!(matches!(
        bench.session.shutdown(id(1)),
        Poll::Ready(Err(ConnError::Shutdown | ConnError::Reset { code: 3 }))
    ));
    assert!(!matches!(bench.session.flush(id(1)), Poll::Ready(Ok(()))));
}

#[test]
fn a_reset_behind_all_that_was_written_fails_no_flush() {
    let mut bench = dialed();
    assert!(matches!(
        bench.session.write(id(1), b"asked"),
        Poll::Ready(Ok(5))
    ));
    bench.output();
    bench.data(id(1), Flags::FIN, b"answered");
    bench.header(reset(1, 0));
    assert!(matches!(bench.session.flush(id(1)), Poll::Ready(Ok(()))));
    bench.expect_data(id(1), b"answered");
    assert!(matches!(bench.read(id(1)), Poll::Ready(Ok(end)) if end.is_empty()));
    assert!(matches!(
        bench.session.write(id(1), b"more"),
        Poll::Ready(Err(ConnError::Reset { code: 0 }))
    ));
}

#[test]
fn an_own_reset_or_close_is_never_an_end_of_the_peers_data() {
    let ways: [fn(&mut Session); 2] = [
        |session| session.reset(id(1), 1),
        |session| session.close(id(1)),
    ];
    for end in ways {
        let mut bench = accepted();
        bench.data(id(1), Flags::FIN, b"unread");
        bench.header(reset(1, 0));
        end(&mut bench.session);
        let outcome = bench.read(id(1));
        assert!(
            matches!(outcome, Poll::Ready(Err(ConnError::Closed))),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_cut_is_never_an_end() {
    let mut bench = accepted();
    bench.data(id(1), Flags::NONE, b"half");
    bench.session.handle_eof();
    bench.expect_data(id(1), b"half");
    assert!(matches!(
        bench.read(id(1)),
        Poll::Ready(Err(ConnError::Link(CloseReason::Cut)))
    ));
}

#[test]
fn a_peer_that_leaves_is_dialed_no_more_and_its_streams_go_on() {
    let mut bench = dialed();
    bench.header(Header::GoAway {
        code: GoAwayCode::NORMAL,
    });
    assert!(matches!(bench.session.open(), Err(DialError::PeerLeaving)));
    assert!(matches!(
        bench.session.write(id(1), b"on"),
        Poll::Ready(Ok(2))
    ));
    bench.data(id(1), Flags::FIN, b"and on");
    bench.expect_data(id(1), b"and on");
    assert!(bench.session.shutdown(id(1)).is_pending());
    bench.output();
    bench.session.release(id(1), bench.now);
    assert!(matches!(
        bench.session.closed(),
        Some(CloseReason::PeerClosed)
    ));
}

#[test]
fn a_stream_that_is_dropped_in_its_flush_leaves_nobody_waiting() {
    let mut bench = dialed();
    bench.write_all(id(1), b"x");
    assert!(bench.session.flush(id(1)).is_pending());
    assert!(bench.session.wants_flush());
    bench.session.release(id(1), bench.now);
    assert!(!bench.session.wants_flush());
}

#[test]
fn a_dial_that_was_given_up_is_answered() {
    let ways: [fn(&mut Session); 2] = [
        |session| session.reset(id(1), 1),
        |session| session.close(id(1)),
    ];
    for end in ways {
        let mut bench = Bench::new(Role::Dialer);
        bench.session.open().unwrap();
        assert!(bench.session.poll_opened(id(1)).is_pending());
        end(&mut bench.session);
        assert_eq!(bench.session.poll_event(), Some(Event::Writable(id(1))));
        assert!(matches!(
            bench.session.poll_opened(id(1)),
            Poll::Ready(Err(DialError::Closed(CloseReason::Local)))
        ));
    }
}

#[test]
fn what_a_close_left_behind_is_given_up_in_time() {
    let mut bench = dialed();
    bench.update(id(1), Flags::NONE, 0);
    let mut written = 0;
    while let Poll::Ready(Ok(count)) = bench.session.write(id(1), &[0; 60_000]) {
        written += count;
        bench.output();
    }
    assert!(written > 300_000);
    bench.session.close(id(1));
    bench.session.release(id(1), bench.now);
    bench.session.release_endpoint(bench.now);
    assert!(bench.session.closed().is_none(), "the peer may still read");
    let due = bench.session.poll_timeout().unwrap();
    assert!(due <= bench.now + Config::default().close_timeout);
    bench.now = due;
    bench.session.handle_timeout(due);
    assert!(matches!(bench.session.closed(), Some(CloseReason::Local)));
}

#[test]
fn a_silent_peer_is_asked_once_and_then_given_up() {
    let mut bench = Bench::new(Role::Dialer);
    let began = bench.now;
    bench.now = bench.session.poll_timeout().unwrap();
    bench.session.handle_timeout(bench.now);
    assert_eq!(bench.headers(), [Header::Ping { nonce: 1 }]);
    // A second handling at the same time, as after a machine's sleep, is no second verdict.
    bench.session.handle_timeout(bench.now);
    assert!(bench.session.closed().is_none());
    bench.now = bench.session.poll_timeout().unwrap();
    bench.session.handle_timeout(bench.now);
    assert!(matches!(
        bench.session.closed(),
        Some(CloseReason::TimedOut(_))
    ));
    assert_eq!(bench.now - began, 2 * Config::default().keep_alive);
}
