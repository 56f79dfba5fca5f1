use std::time::Duration;

use proptest::prelude::*;

use super::super::Credentials;
use super::*;

fn pty() -> PtyRequest {
    let size = WindowSize {
        columns: 132,
        rows: 43,
        ..WindowSize::default()
    };
    PtyRequest::new("vt220", size)
}

fn session(login: TelnetLogin) -> (Session, Instant) {
    let now = Instant::now();
    let session = Session::new(login, TelnetSettings::default(), &pty(), now);
    (session, now)
}

fn auto() -> TelnetLogin {
    let credentials = Credentials::new("gopher").unwrap();
    TelnetLogin::Auto(credentials.with_password("s3cret"))
}

/// Takes what is to be sent.
fn sent(session: &mut Session) -> Vec<u8> {
    let sent = session.transmit().to_vec();
    session.sent(sent.len());
    sent
}

/// Lets the looks of the login happen.
fn wait(session: &mut Session, now: &mut Instant) {
    *now = session.timeout().unwrap_or(*now);
    session.handle_timeout(*now);
}

/// Windows Server 2008 R2 with NTLM: it says nothing more before AUTH is answered.
const WINDOWS: &[u8] =
    b"\xff\xfd\x25\xff\xfb\x01\xff\xfb\x03\xff\xfd\x27\xff\xfd\x1f\xff\xfd\x00\xff\xfb\x00";

#[test]
fn windows_is_answered_at_once() {
    let (mut session, now) = session(auto());
    session.handle_input(now, WINDOWS);
    let expected = b"\xff\xfc\x25\xff\xfd\x01\xff\xfd\x03\xff\xfb\x27\xff\xfb\x1f\
        \xff\xfa\x1f\0\x84\0\x2b\xff\xf0\xff\xfb\x00\xff\xfd\x00";
    assert_eq!(sent(&mut session), expected);
    session.handle_input(now, b"\xff\xfa\x27\x01\0USER\x03SFUTLNTVER\xff\xf0");
    assert_eq!(
        sent(&mut session),
        b"\xff\xfa\x27\0\0USER\x01gopher\xff\xf0"
    );
}

#[test]
fn a_login_is_not_shown_and_ends_with_enter() {
    let (mut session, mut now) = session(auto());
    session.handle_input(now, b"\xff\xfb\x01\xff\xfb\x03hello\r\nlogin: ");
    sent(&mut session);
    wait(&mut session, &mut now);
    assert_eq!(sent(&mut session), b"gopher\r\0");
    session.handle_input(now, b"gopher\r\nPassword: ");
    wait(&mut session, &mut now);
    assert_eq!(sent(&mut session), b"s3cret\r\0");
    assert!(!session.room_for_user());
    session.handle_input(now, b"\r\nWelcome\r\n$ ");
    assert!(!session.has_output());
    wait(&mut session, &mut now);
    assert!(session.room_for_user());
    assert_eq!(session.take_output(), "Welcome\r\n$ ");
    // The size was not asked for, so it is offered.
    assert_eq!(sent(&mut session), b"\xff\xfb\x1f");
}

#[test]
fn a_password_stays_in_the_session_where_the_server_would_show_it() {
    let (mut session, mut now) = session(auto());
    session.handle_input(now, b"Password: ");
    wait(&mut session, &mut now);
    assert_eq!(session.end(), Some(&End::Login(LoginError::WouldShow)));
    assert_eq!(sent(&mut session), b"");
}

#[test]
fn a_console_may_show_the_password_where_its_owner_says_so() {
    let mut now = Instant::now();
    let settings = TelnetSettings {
        password_echo: PasswordEcho::Accept,
        ..TelnetSettings::default()
    };
    let mut session = Session::new(auto(), settings, &pty(), now);
    session.handle_input(now, b"Password: ");
    wait(&mut session, &mut now);
    assert_eq!(sent(&mut session), b"s3cret\r");
}

#[test]
fn what_was_sent_is_erased() {
    let (mut session, mut now) = session(auto());
    session.handle_input(now, b"\xff\xfb\x01Password: ");
    sent(&mut session);
    wait(&mut session, &mut now);
    let room = session.transmit.capacity();
    assert_eq!(room, FIRST_TRANSMIT, "the buffer grew and left a copy");
    session.sent(3);
    assert_eq!(session.transmit(), b"ret\r\0");
    sent(&mut session);
    session.transmit.resize(room, 0);
    assert!(!session.transmit.windows(3).any(|bytes| bytes == b"ret"));
}

#[test]
fn a_plain_console_is_not_negotiated_with() {
    let (mut session, now) = session(TelnetLogin::None);
    assert!(sent(&mut session).is_empty());
    session.handle_input(now, b"\r\0=> ");
    session.handle_typed(b"help\r");
    session.resize(pty().size);
    assert!(session.signal("INT"));
    assert_eq!(sent(&mut session), b"help\r\x03");
    assert_eq!(session.take_output(), &b"\r\0=> "[..]);
}

#[test]
fn a_user_cannot_speak_telnet_to_the_server() {
    let (mut session, _) = session(TelnetLogin::Manual);
    session.handle_typed(b"\xff\xfa\x27\0\0USER\x01-f root\xff\xf0");
    assert_eq!(
        sent(&mut session),
        b"\xff\xff\xfa\x27\0\0USER\x01-f root\xff\xff\xf0"
    );
}

#[test]
fn binary_is_for_each_direction() {
    let (mut session, now) = session(TelnetLogin::None);
    session.handle_input(now, b"\xff\xfb\x01\xff\xfd\x00");
    sent(&mut session);
    session.handle_typed(b"a\r\xff");
    assert_eq!(sent(&mut session), b"a\r\xff\xff");
    session.handle_input(now, b"x\r\0y");
    assert_eq!(session.take_output(), "x\ry");
    session.handle_input(now, b"\xff\xfb\x00x\r\0y");
    assert_eq!(session.take_output(), "x\r\0y");
}

#[test]
fn what_is_typed_is_shown_here_where_the_server_does_not() {
    let (mut session, now) = session(TelnetLogin::None);
    session.handle_input(now, b"\xff\xfd\x18");
    session.handle_typed(b"a\r");
    assert_eq!(session.take_output(), "a\r\n");
    session.handle_input(now, b"\xff\xfb\x01");
    session.handle_typed(b"a\r");
    assert!(!session.has_output());
    session.handle_input(now, b"\xff\xfc\x01");
    session.handle_typed(b"a");
    assert_eq!(session.take_output(), "a");
}

#[test]
fn a_new_size_is_told_where_the_server_wants_it() {
    let (mut session, now) = session(TelnetLogin::None);
    session.handle_input(now, b"\xff\xfd\x1f");
    assert_eq!(
        sent(&mut session),
        b"\xff\xfb\x1f\xff\xfa\x1f\0\x84\0\x2b\xff\xf0",
        "the offer crosses the request, which is its answer"
    );
    session.resize(WindowSize {
        columns: 80,
        rows: 24,
        ..WindowSize::default()
    });
    assert_eq!(sent(&mut session), b"\xff\xfa\x1f\0\x50\0\x18\xff\xf0");
}

#[test]
fn signals_are_what_the_settings_say() {
    let told = |interrupt| {
        let now = Instant::now();
        let settings = TelnetSettings {
            interrupt,
            ..TelnetSettings::default()
        };
        let mut session = Session::new(TelnetLogin::None, settings, &pty(), now);
        session.handle_input(now, b"\xff\xfb\x01");
        sent(&mut session);
        assert!(session.signal("INT"));
        sent(&mut session)
    };
    assert_eq!(told(Interrupt::Byte), b"\x03");
    assert_eq!(told(Interrupt::Ip), b"\xff\xf4");
    assert_eq!(told(Interrupt::Both), b"\xff\xf4\x03");
    let (mut session, _) = session(TelnetLogin::None);
    assert!(!session.signal("USR1"));
    assert!(session.signal("QUIT"));
    assert_eq!(sent(&mut session), b"\x1c");
    assert!(session.signal("TERM"));
    assert_eq!(session.end(), Some(&End::HungUp("TERM")));
}

#[test]
fn a_signal_ends_a_login() {
    let (mut session, _) = session(auto());
    assert!(session.signal("INT"));
    assert_eq!(session.end(), Some(&End::HungUp("INT")));
}

#[test]
fn the_end_is_clean_after_the_login_alone() {
    let (mut session, _) = session(TelnetLogin::None);
    session.handle_eof();
    assert_eq!(session.end(), Some(&End::Closed));
    let (mut session, now) = self::session(auto());
    session.handle_input(now, b"Go away\r\n");
    session.handle_eof();
    let last_line = "Go away".to_owned();
    assert_eq!(
        session.end(),
        Some(&End::Login(LoginError::Closed { last_line }))
    );
}

#[test]
fn a_negotiation_loop_ends_the_session() {
    let (mut session, now) = session(TelnetLogin::None);
    let looping = b"\xff\xfb\x01\xff\xfc\x01".repeat(MAX_CHANGES as usize);
    session.handle_input(now, &looping);
    assert_eq!(session.end(), Some(&End::Protocol(ProtocolError::Loop)));
}

#[test]
fn a_server_that_hides_each_password_is_no_loop() {
    let (mut session, now) = session(TelnetLogin::None);
    for _ in 0..MAX_CHANGES {
        session.handle_input(now, b"\xff\xfb\x01\xff\xfc\x01");
        session.handle_typed(b"x\r");
        sent(&mut session);
    }
    assert_eq!(session.end(), None);
}

#[test]
fn questions_without_end_end_the_session() {
    let (mut session, now) = session(TelnetLogin::None);
    session.handle_input(now, b"\xff\xfd\x18");
    session.handle_input(now, &b"\xff\xfa\x18\x01\xff\xf0".repeat(1000));
    assert_eq!(session.end(), Some(&End::Protocol(ProtocolError::Loop)));
    assert!(session.transmit().len() < 8 << 10);
}

#[test]
fn nothing_is_taken_where_there_is_no_room() {
    let (mut session, now) = session(TelnetLogin::None);
    session.handle_input(now, &[b'x'; ROOM]);
    assert!(!session.room_for_server());
    session.take_output();
    assert!(session.room_for_server());
    // Refusals are bounded by what is read.
    session.handle_input(now, &b"\xff\xfd\x22".repeat(ANSWERS / 3 + 1));
    assert!(!session.room_for_server());
    assert!(!session.room_for_user());
}

#[test]
fn what_is_typed_does_not_keep_the_server_from_being_read() {
    let (mut session, now) = session(TelnetLogin::None);
    session.handle_input(now, b"\xff\xfb\x01");
    while session.room_for_user() {
        session.handle_typed(&[b'\r'; 16 << 10]);
    }
    assert!(session.room_for_server());
    session.handle_input(now, &[b'x'; ROOM]);
    assert!(!session.room_for_server());
    sent(&mut session);
    assert!(
        session.room_for_user(),
        "the user types on while the screen stands still"
    );
}

/// What a session makes of `pieces`, and of its login's looks after that.
fn outcome<'a>(
    login: TelnetLogin,
    now: Instant,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> String {
    let mut session = Session::new(login, TelnetSettings::default(), &pty(), now);
    for piece in pieces {
        session.handle_input(now, piece);
    }
    session.handle_timeout(now + Duration::from_secs(1));
    session.handle_typed(b"a\r");
    format!(
        "{:?} {:?} {:?}",
        sent(&mut session),
        session.take_output(),
        session.end()
    )
}

fn server() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(240..=255u8, 1..4),
        proptest::collection::vec(any::<u8>(), 1..8),
        Just(b"\r\0".to_vec()),
        Just(b"login: ".to_vec()),
        Just(b"\r\nPassword: ".to_vec()),
        Just(b"\xff\xfb\x01".to_vec()),
        Just(b"\xff\xfd\x1f".to_vec()),
        Just(b"\xff\xfa\x27\x01\xff\xf0".to_vec()),
    ];
    proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_split_changes_nothing(bytes in server(), size in 1..7usize) {
        let now = Instant::now();
        for login in [auto(), TelnetLogin::None] {
            let whole = outcome(login.clone(), now, [&bytes[..]]);
            prop_assert_eq!(whole, outcome(login, now, bytes.chunks(size)));
        }
    }
}
