//! One session with a telnet server, without a stream and without a clock.
//!
//! Bytes of the server go in at [`Session::handle_input`] and those for it come out at [`Session::transmit`]; what the
//! user types goes in at [`Session::handle_typed`] and what the user sees comes out at [`Session::take_output`]. Whoever
//! drives it stops giving it either where [`Session::room_for_server`] or [`Session::room_for_user`] says so: then nothing
//! in it grows without bound.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

use std::time::Instant;

use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

use super::codec::{Decoder, Event, IAC, IP};
pub use super::login::LoginError;
use super::login::{Echo, Login, Step};
use super::newline::{self, CR, Format, FromServer, INTERRUPT};
use super::options::{BINARY, ECHO, NAWS, Options, Outcome, Side};
use super::terminal::Terminal;
use super::{Interrupt, PasswordEcho, TelnetLogin, TelnetSettings};
use crate::backend::{PtyRequest, WindowSize};

/// A session.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    options: Options,
    newline: FromServer,
    terminal: Terminal,
    settings: TelnetSettings,
    /// The login, until the session is the user's.
    login: Option<Login>,
    /// The server has sent a telnet command: it is no plain console.
    speaks_telnet: bool,
    /// How often the server has changed its mind since the user typed something.
    changes: u32,
    transmit: Zeroizing<Vec<u8>>,
    output: Vec<u8>,
    end: Option<End>,
}

/// How a session ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum End {
    /// The server ended it.
    Closed,
    /// The connection to the server broke.
    Cut,
    /// The user's client ended it, by the signal of this name.
    HungUp(&'static str),
    /// The login failed.
    Login(LoginError),
    /// The server does not keep to the protocol.
    Protocol(ProtocolError),
}

/// What a server must not do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// It negotiates in a loop.
    #[error("the telnet server negotiates without end")]
    Loop,
    /// It sends a subnegotiation that is longer than any has to be.
    #[error("the telnet server sends an option that is too long")]
    TooLong,
}

impl Session {
    /// Begins a session over a connection that is open since `now`, for a user with the terminal `pty`.
    pub fn new(
        login: TelnetLogin,
        settings: TelnetSettings,
        pty: &PtyRequest,
        now: Instant,
    ) -> Self {
        let credentials = match login {
            TelnetLogin::Auto(credentials) => Some(credentials),
            TelnetLogin::Manual | TelnetLogin::None => None,
        };
        let user = credentials.as_ref().map(|credentials| credentials.user());
        let terminal = Terminal::new(&pty.term, pty.size, user);
        let deadline = now.checked_add(settings.login_time).unwrap_or(now);
        Self {
            decoder: Decoder::default(),
            options: Options::default(),
            newline: FromServer::default(),
            terminal,
            settings,
            login: credentials.map(|credentials| Login::new(credentials, now, deadline)),
            speaks_telnet: false,
            changes: 0,
            // As much as a login needs: a buffer that grows leaves copies of a password behind.
            transmit: Zeroizing::new(Vec::with_capacity(FIRST_TRANSMIT)),
            output: Vec::new(),
            end: None,
        }
    }

    /// Takes bytes of the server.
    pub fn handle_input(&mut self, now: Instant, mut input: &[u8]) {
        while self.end.is_none() {
            match self.decoder.next(&mut input) {
                Ok(Some(event)) => self.handle_event(now, event),
                Ok(None) => return,
                Err(_) => self.end_with(End::Protocol(ProtocolError::TooLong)),
            }
        }
    }

    /// Takes the end of the server's stream.
    pub fn handle_eof(&mut self) {
        self.handle_end(End::Closed);
    }

    /// Takes it that the server's stream broke. A server that closes while it is written to breaks it.
    pub fn handle_cut(&mut self) {
        self.handle_end(End::Cut);
    }

    /// A login fails the same, however its server leaves.
    fn handle_end(&mut self, of_a_session: End) {
        let end = match &self.login {
            Some(login) => End::Login(login.closed()),
            None => of_a_session,
        };
        self.end_with(end);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let shown = self.settings.password_echo == PasswordEcho::Accept;
        let echo = if shown || self.options.is_on(Side::Theirs, ECHO) {
            Echo::Server
        } else {
            Echo::Unknown
        };
        if self.end.is_none()
            && let Some(login) = &mut self.login
        {
            let step = login.handle_timeout(now, echo);
            self.step(step);
        }
    }

    /// Takes what the user typed.
    pub fn handle_typed(&mut self, typed: &[u8]) {
        if self.end.is_some() {
            return;
        }
        self.changes = 0;
        newline::to_server(typed, self.format(Side::Ours), &mut self.transmit);
        if self.shows_typed() {
            newline::echo(typed, &mut self.output);
        }
    }

    /// Takes the new size of the user's terminal.
    pub fn resize(&mut self, size: WindowSize) {
        self.terminal.resize(size);
        if self.end.is_none() && self.options.is_on(Side::Ours, NAWS) {
            self.terminal.tell_size(&mut self.transmit);
        }
    }

    /// Takes a signal that the user sends, by its name without `SIG`. Whether it means something here: `INT` interrupts,
    /// `QUIT` is the key for it, `HUP`, `TERM` and `KILL` end the session.
    pub fn signal(&mut self, name: &str) -> bool {
        match name {
            "INT" if self.login.is_none() => self.interrupt(),
            "INT" => self.end_with(End::HungUp("INT")),
            "QUIT" => self.handle_typed(&[QUIT]),
            "HUP" => self.end_with(End::HungUp("HUP")),
            "KILL" => self.end_with(End::HungUp("KILL")),
            "TERM" => self.end_with(End::HungUp("TERM")),
            _ => return false,
        }
        true
    }

    /// Drops the first `length` bytes of [`Self::transmit`], and erases them.
    pub fn sent(&mut self, length: usize) {
        let total = self.transmit.len();
        let rest = total.saturating_sub(length);
        self.transmit.copy_within(total.saturating_sub(rest).., 0);
        if let Some(spare) = self.transmit.get_mut(rest..) {
            spare.zeroize();
        }
        self.transmit.truncate(rest);
    }

    /// Takes what the user is to see.
    pub fn take_output(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.output))
    }

    /// What is to be sent to the server.
    pub fn transmit(&self) -> &[u8] {
        &self.transmit
    }

    /// Whether the user is to see something.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether the server's bytes may be taken, in pieces of 64 KiB at most.
    pub fn room_for_server(&self) -> bool {
        self.end.is_none() && self.transmit.len() < ANSWERS && self.output.len() < ROOM
    }

    /// Whether what the user types may be taken, in pieces of 16 KiB at most: not while the login is done.
    ///
    /// What is typed never fills the room that the server's bytes need: a server that shows what it gets has to be read
    /// before it takes more.
    pub fn room_for_user(&self) -> bool {
        self.end.is_none()
            && self.login.is_none()
            && self.transmit.len() < ROOM
            && (self.output.len() < ROOM || !self.shows_typed())
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn timeout(&self) -> Option<Instant> {
        let login = self.login.as_ref().filter(|_| self.end.is_none());
        login.map(Login::next_look)
    }

    /// How it ended, where it did.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn handle_event(&mut self, now: Instant, event: Event<'_>) {
        if let Event::Data(data) = event {
            return self.show(now, data);
        }
        if !self.speaks_telnet {
            self.speaks_telnet = true;
            self.offer_size();
        }
        match event {
            Event::Data(_) | Event::Command(_) => {}
            Event::Negotiation(verb, option) => {
                let outcome = self.options.negotiate(verb, option, &mut self.transmit);
                match (outcome, option) {
                    (Outcome::On, NAWS) => self.terminal.tell_size(&mut self.transmit),
                    (Outcome::Same, _) => return,
                    (Outcome::On | Outcome::Off, _) => {}
                }
                self.count_change();
            }
            Event::Subnegotiation(option, payload) => {
                if self.options.is_on(Side::Ours, option) {
                    self.terminal.answer(option, &payload, &mut self.transmit);
                    self.count_change();
                }
            }
        }
    }

    fn show(&mut self, now: Instant, data: &[u8]) {
        let format = self.format(Side::Theirs);
        for &byte in data {
            if self.end.is_some() {
                return;
            }
            if !self.newline.shows(byte, format) {
                continue;
            }
            match &mut self.login {
                None => self.output.push(byte),
                Some(login) => {
                    let step = login.push(now, byte);
                    self.step(step);
                }
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Fail(error) => self.end_with(End::Login(error)),
            Step::HandOver(text) => {
                self.login = None;
                self.output.extend(text);
                if self.speaks_telnet {
                    self.offer_size();
                }
            }
            Step::SendPassword(password) => self.send_line(password.as_bytes()),
            Step::SendUser(user) => self.send_line(user.as_bytes()),
        }
    }

    /// Sends a line as if it were typed, without showing it.
    fn send_line(&mut self, line: &[u8]) {
        let format = self.format(Side::Ours);
        newline::to_server(line, format, &mut self.transmit);
        newline::to_server(&[CR], format, &mut self.transmit);
    }

    fn interrupt(&mut self) {
        let interrupt = self.settings.interrupt;
        if interrupt != Interrupt::Byte && self.speaks_telnet {
            self.transmit.extend([IAC, IP]);
        }
        if interrupt != Interrupt::Ip || !self.speaks_telnet {
            self.handle_typed(&[INTERRUPT]);
        }
    }

    /// Offers to tell the size to a server that does not ask for it by itself, once the session is the user's.
    fn offer_size(&mut self) {
        if self.login.is_none() {
            self.options.offer(NAWS, &mut self.transmit);
        }
    }

    fn count_change(&mut self) {
        self.changes = self.changes.saturating_add(1);
        if self.changes > MAX_CHANGES {
            self.end_with(End::Protocol(ProtocolError::Loop));
        }
    }

    /// The first reason is the one that counts.
    fn end_with(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Whether it is us who show what is typed (RFC 857).
    fn shows_typed(&self) -> bool {
        self.speaks_telnet && !self.options.is_on(Side::Theirs, ECHO)
    }

    fn format(&self, side: Side) -> Format {
        if !self.speaks_telnet || self.options.is_on(side, BINARY) {
            Format::Plain
        } else {
            Format::Nvt
        }
    }
}

/// `^\`.
const QUIT: u8 = 28;

/// The room of the first transmissions: an account and a password are 1 KiB each at most, with every byte doubled.
const FIRST_TRANSMIT: usize = 8 << 10;

/// What may wait in either direction before nothing more is taken.
const ROOM: usize = 64 << 10;

/// What may wait for the server before its own bytes are not taken. Above [`ROOM`] and one piece of what is typed, all of
/// it doubled, there are answers alone, which a server that asks has to take.
const ANSWERS: usize = 128 << 10;

/// How often a server may change options and ask questions while the user types nothing. The busiest that we know of
/// needs 20 to begin a session.
const MAX_CHANGES: u32 = 128;

#[cfg(test)]
mod tests;
