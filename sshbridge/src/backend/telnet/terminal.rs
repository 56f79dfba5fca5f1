//! What a server is told of the user's terminal: its kind, its size, and one variable.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

use super::codec::encode_subnegotiation;
use super::options::{NAWS, NEW_ENVIRON, TTYPE};
use crate::backend::WindowSize;

/// The user's terminal.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    names: Vec<String>,
    /// Which name the next question gets (RFC 1091).
    next: usize,
    size: (u16, u16),
    /// The account, which is told as `USER`. Nothing else of an environment is ever told: variables are a way into
    /// servers (CVE-2026-24061, CVE-2026-28372) and out of clients (CVE-2026-32772).
    user: Option<String>,
}

impl Terminal {
    /// A terminal of kind `term`, which a client may choose freely.
    pub(super) fn new(term: &str, size: WindowSize, user: Option<&str>) -> Self {
        let fallbacks = ["xterm", "vt100", "ansi"];
        let mut names = Vec::new();
        if is_name(term) {
            names.push(term.to_owned());
        }
        let other = fallbacks
            .into_iter()
            .filter(|name| !name.eq_ignore_ascii_case(term));
        names.extend(other.map(str::to_owned));
        Self {
            names,
            next: 0,
            size: cells(size),
            user: user.map(str::to_owned),
        }
    }

    /// Changes the size.
    pub(super) fn resize(&mut self, size: WindowSize) {
        self.size = cells(size);
    }

    /// Appends the size (RFC 1073).
    pub(super) fn tell_size(&self, out: &mut Vec<u8>) {
        let (columns, rows) = self.size;
        let ([a, b], [c, d]) = (columns.to_be_bytes(), rows.to_be_bytes());
        encode_subnegotiation(NAWS, &[a, b, c, d], out);
    }

    /// Appends the answer to a question of the server, where it is one.
    pub(super) fn answer(&mut self, option: u8, question: &[u8], out: &mut Vec<u8>) {
        match (option, question.split_first()) {
            (TTYPE, Some((&SEND, _))) => self.tell_name(out),
            (NEW_ENVIRON, Some((&SEND, names))) => self.tell_variables(names, out),
            _ => {}
        }
    }

    /// One name for each question, and the last one again.
    fn tell_name(&mut self, out: &mut Vec<u8>) {
        let Some(name) = self.names.get(self.next).or_else(|| self.names.last()) else {
            return;
        };
        let mut payload = vec![IS];
        payload.extend(name.bytes());
        encode_subnegotiation(TTYPE, &payload, out);
        self.next = self.next.saturating_add(1).min(self.names.len());
    }

    /// RFC 1572: what is asked for by name and may be told, or what we like where no name is given.
    fn tell_variables(&self, names: &[u8], out: &mut Vec<u8>) {
        let mut payload = vec![IS];
        if let Some(user) = &self.user
            && asks_for_user(names)
        {
            payload.push(VAR);
            payload.extend(b"USER");
            payload.push(VALUE);
            // An account's name holds none of the bytes that would have to be escaped.
            payload.extend(user.bytes());
        }
        encode_subnegotiation(NEW_ENVIRON, &payload, out);
    }
}

/// Whether a list of names has `USER` in it, or all variables.
fn asks_for_user(names: &[u8]) -> bool {
    let mut rest = names;
    let mut any = names.is_empty();
    while let Some((&kind, behind)) = rest.split_first() {
        let length = behind
            .iter()
            .take_while(|byte| !matches!(**byte, VAR | USERVAR))
            .count();
        let (name, next) = behind.split_at(length);
        any |= kind == VAR && (name.is_empty() || name == b"USER");
        rest = next;
    }
    any
}

/// A name that is one of a terminal, and not Windows' own protocol.
fn is_name(term: &str) -> bool {
    term.len() <= MAX_NAME
        && term.starts_with(|c: char| c.is_ascii_alphanumeric())
        && term
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+'))
        && !term.eq_ignore_ascii_case("vtnt")
}

/// What the option has room for. 0 is a size that is not known.
fn cells(size: WindowSize) -> (u16, u16) {
    let cells = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    (cells(size.columns), cells(size.rows))
}

const IS: u8 = 0;
const SEND: u8 = 1;
const VAR: u8 = 0;
const VALUE: u8 = 1;
const USERVAR: u8 = 3;

/// RFC 1091 allows 40.
const MAX_NAME: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn terminal(term: &str, user: Option<&str>) -> Terminal {
        let size = WindowSize {
            columns: 255,
            rows: 70_000,
            ..WindowSize::default()
        };
        Terminal::new(term, size, user)
    }

    fn answer(terminal: &mut Terminal, option: u8, question: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        terminal.answer(option, question, &mut out);
        out
    }

    #[test]
    fn names_are_told_one_by_one_and_the_last_again() {
        let mut terminal = terminal("vt220", None);
        let mut told = Vec::new();
        for _ in 0..6 {
            let answer = answer(&mut terminal, TTYPE, &[SEND]);
            let name = answer.strip_prefix(b"\xff\xfa\x18\0").unwrap();
            let name = name.strip_suffix(b"\xff\xf0").unwrap();
            told.push(String::from_utf8(name.to_vec()).unwrap());
        }
        assert_eq!(told, ["vt220", "xterm", "vt100", "ansi", "ansi", "ansi"]);
    }

    #[test]
    fn a_name_that_is_none_is_not_told() {
        for term in ["", "-f", "a b", "a\u{e9}", "VTNT", &"x".repeat(41)] {
            assert_eq!(terminal(term, None).names[0], "xterm", "{term:?}");
        }
    }

    #[test]
    fn a_size_is_told_within_its_bounds() {
        let mut out = Vec::new();
        terminal("xterm", None).tell_size(&mut out);
        assert_eq!(out, b"\xff\xfa\x1f\0\xff\xff\xff\xff\xff\xff\xff\xf0");
    }

    #[test]
    fn the_account_is_all_that_is_told_of_an_environment() {
        let mut terminal = terminal("xterm", Some("alice"));
        let user = b"\xff\xfa\x27\0\0USER\x01alice\xff\xf0".to_vec();
        let nothing = b"\xff\xfa\x27\0\xff\xf0".to_vec();
        for (question, told) in [
            (&b"\x01"[..], &user),
            (b"\x01\0", &user),
            (b"\x01\0USER", &user),
            (b"\x01\x03A\0USER\0B", &user),
            (b"\x01\0CREDENTIALS_DIRECTORY", &nothing),
            (b"\x01\x03SFUTLNTVER\x03SFUTLNTMODE", &nothing),
            (b"\x01\x03", &nothing),
        ] {
            assert_eq!(&answer(&mut terminal, NEW_ENVIRON, question), told);
        }
        terminal.user = None;
        assert_eq!(answer(&mut terminal, NEW_ENVIRON, b"\x01"), nothing);
    }

    #[test]
    fn what_is_no_question_is_not_answered() {
        let mut terminal = terminal("xterm", Some("alice"));
        for (option, payload) in [
            (TTYPE, &[IS][..]),
            (TTYPE, &[]),
            (NAWS, &[SEND]),
            (34, &[SEND]),
        ] {
            assert_eq!(answer(&mut terminal, option, payload), []);
        }
    }
}
