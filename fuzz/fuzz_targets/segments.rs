//! The same bytes mean the same, however the transport splits them.

#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use revdial::Config;
use revdial::session::{Role, Session};
use revdial_fuzz::Script;

/// What a session made of its input: what it sent, and what was read from the streams that it accepted.
fn outcome(session: &mut Session, now: Instant) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut sent = Vec::new();
    while let Some(frame) = session.poll_transmit(now, usize::MAX) {
        sent.extend_from_slice(frame.head());
        sent.extend_from_slice(frame.payload());
    }
    let mut read = Vec::new();
    while let Some(id) = session.accept() {
        let mut bytes = Vec::new();
        let end = session.read(id, &mut bytes);
        bytes.extend(format!("{end:?} {:?}", session.read(id, &mut Vec::new())).bytes());
        read.push(bytes);
    }
    (sent, read)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (split, bytes) = input;
    let now = Instant::now();
    let mut whole = Session::new(Role::Listener, Config::default(), now, 0);
    let mut parts = Session::new(Role::Listener, Config::default(), now, 0);
    whole.handle_input(now, bytes.to_vec());
    let mut script = Script(bytes);
    let mut len = usize::from(split);
    while !script.is_over() {
        // Lengths that differ, and are a function of the first.
        len = len * 5 % 31;
        parts.handle_input(now, script.bytes(1 + len).to_vec());
    }
    let whole_closed = format!("{:?}", whole.closed());
    assert_eq!(whole_closed, format!("{:?}", parts.closed()));
    assert_eq!(outcome(&mut whole, now), outcome(&mut parts, now));
});
