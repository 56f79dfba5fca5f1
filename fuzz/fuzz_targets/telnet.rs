//! A telnet server's bytes mean the same, however the stream splits them, and no server makes a session panic or hold more
//! than its bounds.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sshbridge::backend::telnet::session::Session;
use sshbridge::backend::telnet::{Credentials, TelnetLogin, TelnetSettings};
use sshbridge::backend::{PtyRequest, WindowSize};

/// What a session makes of the pieces, with the looks of its login behind them.
fn outcome<'a>(
    login: u8,
    now: Instant,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<u8>, Vec<u8>, String) {
    let login = match login % 3 {
        0 => TelnetLogin::None,
        1 => TelnetLogin::Manual,
        _ => {
            let credentials = Credentials::new("gopher").expect("the name is one");
            TelnetLogin::Auto(credentials.with_password("password"))
        }
    };
    let pty = PtyRequest::new("xterm", WindowSize::default());
    let mut session = Session::new(login, TelnetSettings::default(), &pty, now);
    let mut given = 0;
    for piece in pieces {
        session.handle_input(now, piece);
        given += piece.len();
    }
    let mut at = now;
    for _ in 0..16 {
        let Some(due) = session.timeout() else { break };
        at = at.max(due);
        session.handle_timeout(at);
    }
    session.handle_typed(b"\x03a\r\n\xff");
    session.resize(WindowSize::default());
    // An answer is longer than its question only as often as the loop counter allows.
    assert!(session.transmit().len() <= given + (8 << 10));
    let sent = session.transmit().to_vec();
    session.sent(sent.len());
    session.handle_eof();
    assert!(at <= now + Duration::from_secs(76));
    let shown = session.take_output().to_vec();
    (sent, shown, format!("{:?}", session.end()))
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (login, split, bytes) = input;
    let now = Instant::now();
    let whole = outcome(login, now, std::iter::once(bytes));
    let parts = outcome(login, now, bytes.chunks(1 + usize::from(split % 13)));
    assert_eq!(whole, parts);
});
