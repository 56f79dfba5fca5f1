//! The machine against literal bytes, hostile frames, and time.

use std::collections::HashMap;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::error::ProtocolError;
use crate::v1::frame::{HEADER_LEN, Header, Kind};

mod pressure;
mod wire;

/// A session, a clock and the frames that the session has sent.
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
        Self {
            session: Session::new(role, config),
            now: Instant::now(),
        }
    }

    fn input(&mut self, bytes: &[u8]) {
        self.session
            .handle_input(self.now, Bytes::copy_from_slice(bytes));
    }

    fn open(&mut self, value: u32) {
        self.input(&Header::new(Kind::Open, StreamId::new(value), 0).encode());
    }

    fn close(&mut self, value: u32) {
        self.input(&Header::new(Kind::Close, StreamId::new(value), 0).encode());
    }

    fn data(&mut self, value: u32, payload: &[u8]) {
        let length = u16::try_from(payload.len()).unwrap();
        let mut bytes = Header::new(Kind::Write, StreamId::new(value), length)
            .encode()
            .to_vec();
        bytes.extend_from_slice(payload);
        self.input(&bytes);
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
        headers(&self.output())
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
    fn expect_protocol_error(&self, expected: ProtocolError) {
        match self.session.closed() {
            Some(CloseReason::Protocol(error)) => assert_eq!(*error, expected),
            other => panic!("{other:?}"),
        }
    }
}

/// The heads of whole frames.
fn headers(mut bytes: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let header = Header::decode(head);
        bytes = &rest[usize::from(header.length)..];
        headers.push(header);
    }
    assert!(bytes.is_empty());
    headers
}

fn id(value: u32) -> StreamId {
    StreamId::new(value).unwrap()
}

fn close_of(value: u32) -> Header {
    Header::new(Kind::Close, StreamId::new(value), 0)
}

/// A listener with one accepted connection, number 1.
fn accepted() -> Bench {
    let mut bench = Bench::new(Role::Listener);
    bench.open(1);
    assert_eq!(bench.session.accept(), Some(id(1)));
    bench
}

/// A dialer with one connection that the peer knows of, number 1.
fn dialed() -> Bench {
    let mut bench = Bench::new(Role::Dialer);
    assert_eq!(bench.session.open().unwrap(), id(1));
    assert_eq!(bench.output(), b"N\0\0\0\x01\0\0");
    bench
}

#[test]
fn a_dial_succeeds_at_once() {
    let mut bench = Bench::new(Role::Dialer);
    let stream = bench.session.open().unwrap();
    assert!(matches!(
        bench.session.poll_opened(stream),
        Poll::Ready(Ok(()))
    ));
    bench.session.end(CloseReason::Local);
    assert!(matches!(
        bench.session.poll_opened(stream),
        Poll::Ready(Err(DialError::Closed(CloseReason::Local)))
    ));
    assert!(matches!(bench.session.open(), Err(DialError::Closed(_))));
}

#[test]
fn a_listener_has_no_numbers_to_dial_with() {
    let mut bench = Bench::new(Role::Listener);
    assert!(matches!(
        bench.session.open(),
        Err(DialError::NumbersUsedUp)
    ));
}

#[test]
fn after_our_end_the_peer_is_read_until_its_own() {
    for mut bench in [accepted(), dialed()] {
        assert!(bench.session.shutdown(id(1)).is_pending());
        assert_eq!(bench.output(), b"C\0\0\0\x01\0\0");
        assert!(matches!(bench.session.shutdown(id(1)), Poll::Ready(Ok(()))));
        assert_eq!(bench.output(), b"", "one C");
        assert!(matches!(
            bench.session.write(id(1), b"x"),
            Poll::Ready(Err(ConnError::Shutdown))
        ));
        bench.data(1, b"later");
        bench.expect_data(id(1), b"later");
        assert!(bench.read(id(1)).is_pending());
        bench.close(1);
        let mut events = std::iter::from_fn(|| bench.session.poll_event());
        assert!(events.any(|event| event == Event::Readable(id(1))));
        bench.expect_data(id(1), b"");
        bench.expect_data(id(1), b"");
        bench.session.release(id(1), bench.now);
        assert_eq!(bench.output(), b"");
        assert_eq!(bench.session.stream_count(), 0);
    }
}

#[test]
fn after_the_peers_end_writes_go_out_until_our_own() {
    let mut bench = accepted();
    bench.data(1, b"question");
    bench.close(1);
    bench.expect_data(id(1), b"question");
    bench.expect_data(id(1), b"");
    bench.write_all(id(1), b"answer");
    assert!(bench.session.shutdown(id(1)).is_pending());
    assert_eq!(bench.output(), b"W\0\0\0\x01\0\x06answerC\0\0\0\x01\0\0");
}

#[test]
fn a_dropped_connection_delivers_what_was_written_and_then_ends() {
    let mut bench = dialed();
    bench.write_all(id(1), b"half an answer");
    bench.session.stop_reading(id(1));
    bench.session.stop_writing(id(1));
    bench.session.release(id(1), bench.now);
    assert_eq!(bench.session.stream_count(), 1, "it lives until it is sent");
    assert_eq!(
        bench.output(),
        b"W\0\0\0\x01\0\x0ehalf an answerC\0\0\0\x01\0\0"
    );
    assert_eq!(bench.session.stream_count(), 0);
    bench.data(1, b"late");
    bench.close(1);
    assert_eq!(bench.output(), b"", "frames for what is gone mean nothing");
    assert!(bench.session.closed().is_none());
}

#[test]
fn a_dropped_connection_that_nobody_heard_of_is_withdrawn() {
    let mut bench = Bench::new(Role::Dialer);
    let first = bench.session.open().unwrap();
    bench.session.stop_writing(first);
    bench.session.release(first, bench.now);
    let second = bench.session.open().unwrap();
    bench.session.reset(second, 7);
    bench.session.release(second, bench.now);
    assert_eq!(bench.output(), b"");
    assert_eq!(bench.session.stream_count(), 0);
    let third = bench.session.open().unwrap();
    bench.session.close(third);
    assert_eq!(
        bench.output(),
        b"N\0\0\0\x03\0\0C\0\0\0\x03\0\0",
        "a close is meant"
    );
}

#[test]
fn a_reset_throws_away_what_waits_and_says_so_once() {
    let mut bench = dialed();
    bench.data(1, b"unread");
    bench.write_all(id(1), b"never sent");
    bench.session.reset(id(1), 42);
    assert!(matches!(
        bench.read(id(1)),
        Poll::Ready(Err(ConnError::Closed))
    ));
    assert!(matches!(
        bench.session.write(id(1), b"x"),
        Poll::Ready(Err(ConnError::Closed))
    ));
    bench.session.reset(id(1), 42);
    bench.session.close(id(1));
    bench.session.release(id(1), bench.now);
    assert_eq!(bench.output(), b"C\0\0\0\x01\0\0");
    assert_eq!(bench.session.stream_count(), 0);
}

#[test]
fn a_close_wakes_both_halves_and_keeps_what_was_written() {
    let mut bench = dialed();
    assert!(bench.read(id(1)).is_pending());
    bench.write_all(id(1), b"bye");
    assert!(bench.session.flush(id(1)).is_pending());
    bench.session.close(id(1));
    let mut events = [bench.session.poll_event(), bench.session.poll_event()];
    events.sort_by_key(|event| *event == Some(Event::Writable(id(1))));
    assert_eq!(
        events,
        [Some(Event::Readable(id(1))), Some(Event::Writable(id(1)))]
    );
    assert!(matches!(
        bench.session.flush(id(1)),
        Poll::Ready(Err(ConnError::Closed))
    ));
    assert_eq!(bench.output(), b"W\0\0\0\x01\0\x03byeC\0\0\0\x01\0\0");
}

#[test]
fn a_flush_waits_for_the_transport() {
    let mut bench = dialed();
    bench.write_all(id(1), b"x");
    assert!(bench.session.flush(id(1)).is_pending());
    assert!(bench.session.wants_flush());
    let frame = bench.session.poll_transmit(bench.now, 100).unwrap();
    assert!(bench.session.flush(id(1)).is_pending(), "it is only made");
    bench.session.handle_flushed(frame.ticket());
    assert_eq!(bench.session.poll_event(), Some(Event::Writable(id(1))));
    assert!(matches!(bench.session.flush(id(1)), Poll::Ready(Ok(()))));
}

#[test]
fn a_writer_waits_for_room_and_is_told() {
    let mut bench = dialed();
    let limit = Config::default().send_buffer;
    let slices = [IoSlice::new(&[1; 50_000]), IoSlice::new(&[2; 50_000])];
    let outcome = bench.session.write_vectored(id(1), &slices);
    assert!(matches!(outcome, Poll::Ready(Ok(count)) if count == limit));
    assert!(bench.session.write(id(1), b"x").is_pending());
    let mut sent = 0;
    while bench.session.poll_event().is_none() {
        let frame = bench.session.poll_transmit(bench.now, usize::MAX).unwrap();
        assert!(frame.payload().len() <= 16 * 1024);
        sent += frame.payload().len();
    }
    assert_eq!(sent, limit / 2);
}

#[test]
fn a_bulk_transfer_lets_a_short_message_pass() {
    let mut bench = Bench::new(Role::Dialer);
    let bulk = bench.session.open().unwrap();
    let shell = bench.session.open().unwrap();
    bench.output();
    for _ in 0..100 {
        let _ = bench.session.write(bulk, &[0; 64 * 1024]);
        bench.session.poll_transmit(bench.now, usize::MAX).unwrap();
    }
    bench.write_all(shell, b"ls\n");
    let ids: Vec<_> = bench.headers().iter().take(2).map(|head| head.id).collect();
    assert!(ids.contains(&Some(shell)), "{ids:?}");
}

#[test]
fn numbers_go_round_and_leave_out_zero_and_those_in_use() {
    let mut bench = Bench::new(Role::Dialer);
    let first = bench.session.open().unwrap();
    let second = bench.session.open().unwrap();
    assert_eq!([first, second], [id(1), id(2)]);
    bench.output();
    bench.session.release(first, bench.now);
    bench.output();
    bench.session.streams.count_from(id(u32::MAX));
    assert_eq!(bench.session.open().unwrap(), id(u32::MAX));
    assert_eq!(bench.session.open().unwrap(), id(1), "free again");
    assert_eq!(bench.session.open().unwrap(), id(3), "2 is in use");
}

#[test]
fn our_own_limit_of_connections_fails_the_dial() {
    let config = Config {
        max_outbound_streams: 2,
        ..Config::default()
    };
    let mut bench = Bench::with(Role::Dialer, config);
    let first = bench.session.open().unwrap();
    bench.session.open().unwrap();
    assert!(matches!(
        bench.session.open(),
        Err(DialError::TooManyConnections(2))
    ));
    bench.session.release(first, bench.now);
    assert!(bench.session.open().is_ok());
}

#[test]
fn the_end_of_the_transport_is_a_goodbye_only_where_nothing_is_missing() {
    let reason = |prepare: fn(&mut Bench)| {
        let mut bench = accepted();
        prepare(&mut bench);
        bench.session.handle_eof();
        bench.session.closed().unwrap().clone()
    };
    assert!(matches!(reason(|_| {}), CloseReason::Cut));
    assert!(matches!(
        reason(|bench| bench.close(1)),
        CloseReason::PeerClosed
    ));
    assert!(matches!(
        reason(|bench| {
            bench.close(1);
            bench.input(b"N\0\0");
        }),
        CloseReason::Cut
    ));
    assert!(matches!(
        reason(|bench| {
            bench.session.reset(id(1), 0);
            bench.session.release(id(1), bench.now);
        }),
        CloseReason::PeerClosed
    ));
}

#[test]
fn the_end_of_the_link_is_an_error_behind_what_arrived() {
    let mut bench = accepted();
    bench.data(1, b"some");
    bench.open(2);
    bench.data(2, b"all");
    bench.close(2);
    assert_eq!(bench.session.accept(), Some(id(2)));
    bench.session.handle_eof();
    bench.expect_data(id(1), b"some");
    assert!(matches!(
        bench.read(id(1)),
        Poll::Ready(Err(ConnError::Link(CloseReason::Cut)))
    ));
    assert!(matches!(
        bench.session.write(id(1), b"x"),
        Poll::Ready(Err(ConnError::Link(CloseReason::Cut)))
    ));
    bench.expect_data(id(2), b"all");
    bench.expect_data(id(2), b"");
}

#[test]
fn the_end_says_nothing_that_a_peer_could_take_for_the_end_of_its_data() {
    let mut bench = accepted();
    bench.write_all(id(1), b"half");
    bench.session.end(CloseReason::Local);
    assert!(!bench.session.has_output());
    assert_eq!(bench.output(), b"");
}

#[test]
fn a_deserted_session_refuses_and_ends_with_its_last_connection() {
    let mut bench = accepted();
    bench.open(2);
    bench.session.release_endpoint(bench.now);
    assert_eq!(bench.headers(), [close_of(2)], "nobody will accept it");
    bench.open(3);
    assert_eq!(bench.headers(), [close_of(3)]);
    bench.write_all(id(1), b"last words");
    bench.session.release(id(1), bench.now);
    assert!(bench.session.closed().is_none());
    assert_eq!(
        bench.output(),
        b"W\0\0\0\x01\0\x0alast wordsC\0\0\0\x01\0\0"
    );
    assert!(matches!(bench.session.closed(), Some(CloseReason::Local)));
}

#[test]
fn what_dropped_handles_left_behind_is_given_up_in_time() {
    let mut bench = dialed();
    bench.write_all(id(1), b"nobody takes it");
    bench.session.release(id(1), bench.now);
    assert_eq!(bench.session.poll_timeout(), None);
    bench.session.release_endpoint(bench.now);
    let due = bench.session.poll_timeout().unwrap();
    assert_eq!(due, bench.now + Config::default().close_timeout);
    bench.session.handle_timeout(due - Duration::from_nanos(1));
    assert!(bench.session.closed().is_none());
    bench.session.handle_timeout(due);
    assert!(matches!(bench.session.closed(), Some(CloseReason::Local)));
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Close,
    Flush,
    Release,
    Reset,
    Shutdown,
    Stall,
    StopReading,
    StopWriting,
    Transmit,
    Write,
}

proptest! {
    #[test]
    fn of_each_connection_the_wire_shows_one_opening_then_data_then_one_end(
        acts in prop::collection::vec((0..3usize, prop::sample::select(vec![
            Act::Close, Act::Flush, Act::Release, Act::Reset, Act::Shutdown, Act::Stall,
            Act::StopReading, Act::StopWriting, Act::Transmit, Act::Write,
        ])), 0..40),
    ) {
        let mut bench = Bench::new(Role::Dialer);
        let ids: Vec<StreamId> = (0..3).map(|_| bench.session.open().unwrap()).collect();
        let mut held = [true; 3];
        let mut sent = Vec::new();
        for (stream, act) in acts {
            let (session, id) = (&mut bench.session, ids[stream]);
            if !held[stream] && !matches!(act, Act::Transmit) {
                continue;
            }
            match act {
                Act::Close => session.close(id),
                Act::Flush => { let _ = session.flush(id); }
                Act::Release => {
                    held[stream] = false;
                    session.release(id, bench.now);
                }
                Act::Reset => session.reset(id, 0),
                Act::Shutdown => { let _ = session.shutdown(id); }
                Act::Stall => session.stall(id),
                Act::StopReading => session.stop_reading(id),
                Act::StopWriting => session.stop_writing(id),
                Act::Transmit => {
                    if let Some(frame) = session.poll_transmit(bench.now, 10) {
                        sent.extend_from_slice(frame.head());
                        sent.extend_from_slice(frame.payload());
                    }
                }
                Act::Write => { let _ = session.write(id, b"some twenty bytes...."); }
            }
        }
        for (stream, held) in held.into_iter().enumerate() {
            if held {
                bench.session.release(ids[stream], bench.now);
            }
        }
        sent.extend(bench.output());
        prop_assert_eq!(bench.session.stream_count(), 0);
        let mut lives: HashMap<_, String> = HashMap::new();
        for header in headers(&sent) {
            lives.entry(header.id).or_default().push(char::from(header.encode()[0]));
        }
        for life in lives.values() {
            let data = life.strip_prefix('N').and_then(|life| life.strip_suffix('C'));
            prop_assert!(data.is_some_and(|data| data.chars().all(|kind| kind == 'W')), "{}", life);
        }
    }
}
