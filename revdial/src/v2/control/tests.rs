//! Both machines against peers that are literal bytes, in virtual time.

use bytes::Bytes;
use http::uri::PathAndQuery;

use super::*;
use crate::error::{DialError, PeerText, ProtocolError};
use crate::v2::id::PickUpId;

const KEEP_ALIVE_LINE: &str = "{\"command\":\"keep-alive\"}\n";

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn id(number: u8) -> PickUpId {
    PickUpId::new([number; 16])
}

/// The line that announces the dial with this number.
fn ready(number: u8) -> String {
    let id = id(number);
    format!("{{\"command\":\"conn-ready\",\"connPath\":\"/revdial?revdial.dialer={id}\"}}\n")
}

/// The line in which ours says that it could not pick up the connection with this number.
fn failed(number: u8, err: &str) -> String {
    let id = id(number);
    format!(
        "{{\"command\":\"pickup-failed\",\"connPath\":\"/revdial?revdial.dialer={id}\",\"err\":\"{err}\"}}\n"
    )
}

/// The line in which Go's says that it could not pick up a connection, after its server did not answer 101.
fn failed_unnamed(err: &str) -> String {
    format!("{{\"command\":\"pickup-failed\",\"err\":\"{err}\"}}\n")
}

fn dialer() -> DialerControl {
    DialerControl::new(PathAndQuery::from_static("/revdial"), 8)
}

/// A dialer whose peer was told of these dials.
fn dialer_with(dials: &[u8], now: Instant) -> DialerControl {
    let mut dialer = dialer();
    for number in dials {
        dialer.dial(id(*number)).unwrap();
    }
    sent(&mut dialer, now);
    dialer
}

/// All that the machine wants to write.
fn sent<C: Control>(machine: &mut C, now: Instant) -> String {
    let mut sent = String::new();
    while let Some(line) = machine.poll_transmit(now) {
        assert!(machine.poll_transmit(now).is_none(), "one at a time");
        machine.line_mut().handle_written();
        sent.push_str(std::str::from_utf8(&line).unwrap());
    }
    sent
}

/// All that happens when these bytes are read.
fn told<C: Control>(machine: &mut C, now: Instant, input: &str) -> Vec<C::Event> {
    assert!(machine.wants_input());
    let input = Bytes::copy_from_slice(input.as_bytes());
    machine.line_mut().handle_input(input);
    std::iter::from_fn(|| machine.poll_event(now)).collect()
}

/// The dials that fail, and the texts with which they do.
fn failures(machine: &mut DialerControl, now: Instant, input: &str) -> Vec<(u8, String)> {
    let events = told(machine, now, input);
    let failures = events
        .into_iter()
        .map(|DialerEvent::Failed { id: lost, err }| {
            let number = (0..=u8::MAX).find(|number| id(*number) == lost).unwrap();
            (number, err.to_string())
        });
    failures.collect()
}

fn lost(number: u8, err: &str) -> (u8, String) {
    (number, err.to_owned())
}

mod dialing {
    use super::*;

    #[test]
    fn keep_alives_go_at_once_each_30_seconds_and_behind_each_dial() {
        let mut now = start();
        let mut dialer = dialer();
        assert_eq!(sent(&mut dialer, now), KEEP_ALIVE_LINE);
        assert_eq!(dialer.poll_timeout(), Some(now + secs(30)));
        now += secs(29);
        assert_eq!(sent(&mut dialer, now), "");
        now += secs(1);
        dialer.handle_timeout(now);
        assert_eq!(sent(&mut dialer, now), KEEP_ALIVE_LINE);
        now += secs(20);
        dialer.dial(id(1)).unwrap();
        dialer.dial(id(2)).unwrap();
        let lines = [&ready(1), KEEP_ALIVE_LINE, &ready(2), KEEP_ALIVE_LINE];
        assert_eq!(sent(&mut dialer, now), lines.concat());
        assert_eq!(dialer.poll_timeout(), Some(now + secs(30)));
    }

    #[test]
    fn a_dial_before_the_first_keep_alive_comes_behind_it() {
        let mut dialer = dialer();
        dialer.dial(id(7)).unwrap();
        let first = dialer.poll_transmit(start()).unwrap();
        assert_eq!(first, KEEP_ALIVE_LINE);
    }

    #[test]
    fn the_path_gets_its_parameter_behind_others() {
        let path = PathAndQuery::from_static("/revdial?farm=1");
        let dialer = DialerControl::new(path, 8);
        assert_eq!(
            dialer.path_of(id(0xab)),
            "/revdial?farm=1&revdial.dialer=abababababababababababababababab"
        );
    }

    #[test]
    fn a_message_that_is_not_taken_in_10_seconds_ends_the_link() {
        let now = start();
        let mut dialer = dialer();
        assert!(dialer.poll_transmit(now).is_some());
        assert_eq!(dialer.poll_timeout(), Some(now + secs(10)));
        dialer.handle_timeout(now + secs(9));
        assert!(dialer.line().closed().is_none());
        dialer.handle_timeout(now + secs(10));
        let reason = dialer.line().closed();
        assert!(
            matches!(reason, Some(CloseReason::Stalled(_))),
            "{reason:?}"
        );
        let error = dialer.dial(id(1)).unwrap_err();
        assert!(matches!(error, DialError::Closed(_)), "{error:?}");
    }

    #[test]
    fn dials_that_wait_are_bounded_those_nobody_waits_for_included() {
        let now = start();
        let mut dialer = dialer_with(&[0, 1, 2, 3], now);
        for number in 0..4 {
            dialer.withdraw(id(number), now);
        }
        for number in 4..8 {
            dialer.dial(id(number)).unwrap();
        }
        let error = dialer.dial(id(8)).unwrap_err();
        assert!(
            matches!(error, DialError::TooManyConnections(8)),
            "{error:?}"
        );
        dialer.withdraw(id(7), now);
        dialer.dial(id(8)).unwrap();
        dialer.handle_timeout(now + secs(60));
        dialer.dial(id(9)).unwrap();
    }

    #[test]
    fn a_dial_that_is_withdrawn_before_it_was_sent_is_not_sent() {
        let now = start();
        let mut dialer = dialer();
        dialer.dial(id(1)).unwrap();
        dialer.dial(id(2)).unwrap();
        dialer.withdraw(id(1), now);
        assert_eq!(
            sent(&mut dialer, now),
            [KEEP_ALIVE_LINE, &ready(2), KEEP_ALIVE_LINE].concat()
        );
    }
}

mod failing {
    use super::*;

    #[test]
    fn a_failure_with_a_path_concerns_that_dial_alone() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2, 3], now);
        let input = failed(2, "dial tcp: refused");
        let lost_dials = failures(&mut dialer, now, &input);
        assert_eq!(lost_dials, [lost(2, "dial tcp: refused")]);
        assert_eq!(failures(&mut dialer, now, &input), [], "once");
        assert_eq!(failures(&mut dialer, now, &failed(3, "x")), [lost(3, "x")]);
    }

    #[test]
    fn a_path_in_gos_escapes_is_understood() {
        let now = start();
        let path = PathAndQuery::from_static("/revdial?farm=1");
        let mut dialer = DialerControl::new(path, 8);
        dialer.dial(id(1)).unwrap();
        dialer.dial(id(2)).unwrap();
        let announced = sent(&mut dialer, now);
        assert!(
            announced.contains("farm=1\\u0026revdial.dialer=0101"),
            "{announced}"
        );
        let input = format!(
            "{{\"command\":\"pickup-failed\",\"connPath\":\"/revdial?farm=1\\u0026revdial.dialer={}\",\"err\":\"a \\u003c b\"}}\n",
            id(2)
        );
        assert_eq!(failures(&mut dialer, now, &input), [lost(2, "a < b")]);
    }

    #[test]
    fn a_failure_without_a_path_is_that_of_the_only_dial() {
        let now = start();
        let mut dialer = dialer_with(&[1], now);
        assert_eq!(
            failures(&mut dialer, now, &failed_unnamed("EOF")),
            [lost(1, "EOF")]
        );
    }

    #[test]
    fn a_failure_whose_path_was_overwritten_counts_as_one_without() {
        let now = start();
        let mut dialer = dialer_with(&[1], now);
        let input = "{\"command\":\"pickup-failed\",\"connPath\":\"/elsewhere?x=1\",\"err\":\"too many redirects\"}\n";
        assert_eq!(
            failures(&mut dialer, now, input),
            [lost(1, "too many redirects")]
        );
    }

    #[test]
    fn a_failure_without_any_dial_is_nobodys() {
        let now = start();
        let mut dialer = dialer_with(&[], now);
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("EOF")), []);
        dialer.dial(id(1)).unwrap();
        sent(&mut dialer, now);
        assert!(told(&mut dialer, now, KEEP_ALIVE_LINE).is_empty());
        assert_eq!(
            failures(&mut dialer, now, &failed_unnamed("EOF")),
            [lost(1, "EOF")]
        );
    }

    #[test]
    fn of_several_dials_none_fails_before_as_many_failures_came() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2, 3], now);
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("a")), []);
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("b")), []);
        assert_eq!(
            failures(&mut dialer, now, &failed_unnamed("c")),
            [lost(1, "a"), lost(2, "b"), lost(3, "c")]
        );
    }

    #[test]
    fn a_failure_concerns_no_dial_that_was_announced_behind_it() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2], now);
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("a")), []);
        dialer.dial(id(3)).unwrap();
        sent(&mut dialer, now);
        // The second is of any of the three, but both of the first two have failed if it is not the third's.
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("b")), []);
        dialer.complete(id(3));
        let events: Vec<_> = std::iter::from_fn(|| dialer.poll_event(now)).collect();
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn a_connection_that_came_leaves_the_failure_to_the_other_dial() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2], now);
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("EOF")), []);
        dialer.complete(id(1));
        let err = PeerText::new("EOF");
        assert_eq!(
            dialer.poll_event(now),
            Some(DialerEvent::Failed { id: id(2), err })
        );
        assert_eq!(dialer.poll_event(now), None);
    }

    #[test]
    fn a_failure_with_a_path_leaves_the_other_to_the_other_dial() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2], now);
        let input = failed_unnamed("a") + &failed(1, "b");
        assert_eq!(
            failures(&mut dialer, now, &input),
            [lost(1, "b"), lost(2, "a")]
        );
    }

    #[test]
    fn a_dial_that_was_not_sent_yet_cannot_have_failed() {
        let now = start();
        let mut dialer = dialer_with(&[1], now);
        dialer.dial(id(2)).unwrap();
        assert_eq!(
            failures(&mut dialer, now, &failed_unnamed("EOF")),
            [lost(1, "EOF")]
        );
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("EOF")), []);
    }

    #[test]
    fn a_withdrawn_dials_failure_is_not_taken_for_anothers() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2], now);
        dialer.withdraw(id(1), now);
        // This may be the first's, of which nobody wants to hear, or the second's.
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("a")), []);
        // Now both are known to have failed.
        assert_eq!(
            failures(&mut dialer, now, &failed_unnamed("b")),
            [lost(2, "b")]
        );
    }

    #[test]
    fn a_withdrawn_dial_that_is_forgotten_takes_a_failure_with_it() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2], now);
        dialer.withdraw(id(1), now);
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("a")), []);
        assert_eq!(
            dialer.poll_timeout(),
            Some(now + secs(30)),
            "the keep-alive"
        );
        sent(&mut dialer, now + secs(50));
        assert_eq!(dialer.poll_timeout(), Some(now + secs(60)));
        dialer.handle_timeout(now + secs(60));
        assert_eq!(dialer.poll_event(now), None, "the second may yet succeed");
        assert_eq!(
            failures(&mut dialer, now, &failed_unnamed("b")),
            [lost(2, "b")]
        );
    }

    #[test]
    fn a_late_failure_with_the_path_of_a_forgotten_dial_is_nobodys() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2], now);
        dialer.withdraw(id(1), now);
        assert_eq!(failures(&mut dialer, now, &failed(1, "late")), []);
        assert_eq!(failures(&mut dialer, now, &failed(1, "again")), []);
        assert_eq!(
            failures(&mut dialer, now, &failed_unnamed("b")),
            [lost(2, "b")]
        );
    }

    #[test]
    fn a_flood_of_failures_is_not_remembered() {
        let now = start();
        let mut dialer = dialer_with(&[1, 2, 3], now);
        dialer.withdraw(id(3), now);
        let flood = failed_unnamed("x").repeat(1000);
        assert_eq!(
            failures(&mut dialer, now, &flood),
            [lost(1, "x"), lost(2, "x")]
        );
        dialer.dial(id(4)).unwrap();
        dialer.dial(id(5)).unwrap();
        sent(&mut dialer, now);
        assert_eq!(failures(&mut dialer, now, &failed_unnamed("x")), []);
    }
}

mod listening {
    use super::*;

    fn listener(now: Instant) -> ListenerControl {
        ListenerControl::new(Silence::Limited, now)
    }

    fn ready_event(number: u8) -> ListenerEvent {
        let conn_path = format!("/revdial?revdial.dialer={}", id(number));
        ListenerEvent::ConnReady { conn_path }
    }

    #[test]
    fn it_says_nothing_by_itself_and_hears_what_is_ready() {
        let now = start();
        let mut listener = listener(now);
        assert_eq!(sent(&mut listener, now), "");
        let input = [KEEP_ALIVE_LINE, &ready(1), KEEP_ALIVE_LINE, &ready(2)].concat();
        assert_eq!(
            told(&mut listener, now, &input),
            [ready_event(1), ready_event(2)]
        );
    }

    #[test]
    fn a_failure_is_these_bytes() {
        let now = start();
        let mut listener = listener(now);
        let err =
            "switch failed: want HTTP status 101 or 307; got 400 Bad Request:\n\tunknown dialer";
        listener.fail("/revdial?revdial.dialer=00".to_owned(), err.to_owned());
        assert_eq!(
            sent(&mut listener, now),
            "{\"command\":\"pickup-failed\",\"connPath\":\"/revdial?revdial.dialer=00\",\"err\":\"switch \
             failed: want HTTP status 101 or 307; got 400 Bad Request:\\n\\tunknown dialer\"}\n"
        );
    }

    #[test]
    fn ninety_seconds_without_a_message_are_a_dead_dialer() {
        let now = start();
        let mut listener = listener(now);
        listener.handle_timeout(now + secs(89));
        assert!(listener.line().closed().is_none());
        assert!(told(&mut listener, now + secs(89), KEEP_ALIVE_LINE).is_empty());
        assert_eq!(listener.poll_timeout(), Some(now + secs(179)));
        listener.handle_timeout(now + secs(90));
        assert!(listener.line().closed().is_none());
        // Bytes that are no message are no sign of life.
        assert!(told(&mut listener, now + secs(100), "{\"comm").is_empty());
        listener.handle_timeout(now + secs(179));
        let reason = listener.line().closed();
        assert!(matches!(reason, Some(CloseReason::TimedOut(limit)) if *limit == secs(90)));
    }

    #[test]
    fn silence_may_be_allowed() {
        let listener = ListenerControl::new(Silence::Allowed, start());
        assert_eq!(listener.poll_timeout(), None);
    }

    #[test]
    fn a_storm_is_not_heard_further_until_its_failures_are_sent() {
        let now = start();
        let mut listener = listener(now);
        let input = Bytes::from(ready(1).repeat(1000));
        listener.line_mut().handle_input(input);
        let mut heard = 0;
        while let Some(ListenerEvent::ConnReady { conn_path }) = listener.poll_event(now) {
            listener.fail(conn_path, "too many".to_owned());
            heard += 1;
        }
        assert_eq!(heard, 16);
        assert!(!listener.wants_input());
        assert_eq!(sent(&mut listener, now).lines().count(), 16);
        assert!(listener.poll_event(now).is_some());
    }
}

#[test]
fn a_line_that_is_no_message_ends_either_link() {
    let now = start();
    for (input, error) in [
        (
            "GET / HTTP/1.1\r\n".to_owned(),
            ProtocolError::InvalidMessage,
        ),
        ("x".repeat(4096), ProtocolError::LineTooLong),
    ] {
        let mut dialer = dialer_with(&[1], now);
        assert!(told(&mut dialer, now, &input).is_empty());
        let reason = dialer.line().closed();
        assert!(matches!(reason, Some(CloseReason::Protocol(seen)) if *seen == error));
        assert!(!dialer.wants_input());

        let mut listener = ListenerControl::new(Silence::Limited, now);
        assert_eq!(told(&mut listener, now, &(ready(1) + &input)).len(), 1);
        let reason = listener.line().closed();
        assert!(matches!(reason, Some(CloseReason::Protocol(seen)) if *seen == error));
        listener.fail("/".to_owned(), "late".to_owned());
        assert_eq!(sent(&mut listener, now), "");
    }
}

#[test]
fn messages_for_the_other_role_are_no_mistakes() {
    let now = start();
    let mut dialer = dialer_with(&[1], now);
    let input = [KEEP_ALIVE_LINE, &ready(1), "{\"command\":\"new\"}\n"].concat();
    assert!(told(&mut dialer, now, &input).is_empty());
    let mut listener = ListenerControl::new(Silence::Limited, now);
    assert!(told(&mut listener, now, &failed(1, "x")).is_empty());
    assert!(dialer.line().closed().is_none() && listener.line().closed().is_none());
}

#[test]
fn an_end_between_lines_is_a_goodbye_and_one_within_a_cut() {
    let now = start();
    for (input, want) in [
        ("", "PeerClosed"),
        (KEEP_ALIVE_LINE, "PeerClosed"),
        ("{", "Cut"),
    ] {
        let mut listener = ListenerControl::new(Silence::Limited, now);
        told(&mut listener, now, input);
        listener.line_mut().handle_eof();
        assert_eq!(
            format!("{:?}", listener.line().closed().unwrap()),
            want,
            "{input:?}"
        );
    }
    for (kind, want) in [
        (
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionAborted,
        ),
        (
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
        ),
    ] {
        let mut listener = ListenerControl::new(Silence::Limited, now);
        listener.line_mut().handle_transport_error(kind.into());
        assert_eq!(listener.line().closed().unwrap().kind(), want);
    }
}

#[test]
fn the_first_reason_stays() {
    let mut dialer = dialer();
    dialer.line_mut().end(CloseReason::Local);
    dialer.line_mut().handle_eof();
    assert!(matches!(dialer.line().closed(), Some(CloseReason::Local)));
}
