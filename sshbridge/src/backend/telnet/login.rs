//! The login that the gateway does for its user: what a server asks, and what it says to the answers.
//!
//! Nothing is judged before the server has been quiet for a moment, so it does not matter how the network cuts its text.
//! There is one attempt: servers lock accounts.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::credentials::Credentials;

/// A login on its way.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    stage: Stage,
    line: Line,
    /// The last whole line with something in it, before the password was sent.
    said: Vec<u8>,
    heard: Instant,
    looked: Looked,
    deadline: Instant,
}

/// What the server is to say next.
#[derive(Debug)]
enum Stage {
    /// For a question for the account, or for the password where the account is known.
    Question,
    /// The account is sent. Whether something was said to it that is not its echo.
    Password { answered: bool },
    /// The password is sent, and this is what came since, which is the user's.
    Verdict { since: Vec<u8> },
}

/// When we looked at what was heard last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Looked {
    AtPause,
    AtSilence,
    NotYet,
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    Fail(LoginError),
    /// The session is the user's, beginning with this text.
    HandOver(Vec<u8>),
    SendPassword(Zeroizing<String>),
    SendUser(String),
    Wait,
}

/// Whether the server shows what is typed, or would leave that to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Echo {
    /// The server's business: it can keep a password hidden.
    Server,
    /// Nobody has promised to hide a password.
    Unknown,
}

/// Why a login failed. The sentences are what the user reads.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The server asks again after the password.
    #[error("the telnet server did not accept the account and its password: it asks again")]
    AsksAgain,
    /// The server closed the connection, perhaps with a last line.
    #[error("the telnet server closed the connection during the login{}", last_words(.last_line))]
    Closed {
        /// The last line that it wrote before the password was sent, in printable ASCII, perhaps empty.
        last_line: String,
    },
    /// There is no password to answer with.
    #[error("the telnet server asks for a password, and the gateway has none for this machine")]
    NoPassword,
    /// The server refuses.
    #[error("the telnet server refused the login: {0}")]
    Refused(&'static str),
    /// The server did not ask in time.
    #[error("the telnet server did not ask for an account and a password in time")]
    TimedOut,
    /// The server might show the password on the screen, so it was not sent.
    #[error(
        "the telnet server would show the password, so it was not sent; the owner may allow it for this machine"
    )]
    WouldShow,
}

fn last_words(line: &str) -> String {
    if line.is_empty() {
        String::new()
    } else {
        format!(": {line}")
    }
}

impl Login {
    /// Begins with a connection that is open since `now`, and may take until `deadline`.
    pub(super) fn new(credentials: Credentials, now: Instant, deadline: Instant) -> Self {
        Self {
            credentials,
            stage: Stage::Question,
            line: Line::default(),
            said: Vec::new(),
            heard: now,
            looked: Looked::AtPause,
            deadline,
        }
    }

    /// Takes a byte that the server shows.
    pub(super) fn push(&mut self, now: Instant, byte: u8) -> Step {
        self.heard = now;
        self.looked = Looked::NotYet;
        if let Stage::Verdict { since } = &mut self.stage {
            if !(since.is_empty() && matches!(byte, b'\r' | b'\n')) {
                since.push(byte);
            }
            if since.len() >= MAX_SINCE {
                return Step::HandOver(std::mem::take(since));
            }
        }
        if byte == b'\n' {
            self.end_line();
            return Step::Wait;
        }
        self.line.push(byte);
        match self.refusal() {
            Some(phrase) => Step::Fail(LoginError::Refused(phrase)),
            None => Step::Wait,
        }
    }

    /// Looks at what there is, where it is time to.
    pub(super) fn handle_timeout(&mut self, now: Instant, echo: Echo) -> Step {
        if now < self.next_look() {
            return Step::Wait;
        }
        self.looked = match self.looked {
            Looked::NotYet => Looked::AtPause,
            Looked::AtPause | Looked::AtSilence => Looked::AtSilence,
        };
        match &mut self.stage {
            Stage::Verdict { since } => {
                if self.line.is_question(&LOGIN) || self.line.is_password_question() {
                    return Step::Fail(LoginError::AsksAgain);
                }
                Step::HandOver(std::mem::take(since))
            }
            Stage::Question if now >= self.deadline => Step::Fail(LoginError::TimedOut),
            Stage::Password { .. } if now >= self.deadline => Step::Fail(LoginError::TimedOut),
            Stage::Question | Stage::Password { .. } if self.line.is_password_question() => {
                self.send_password(now, echo)
            }
            Stage::Question if self.line.is_question(&LOGIN) => {
                self.heard = now;
                self.line = Line::default();
                self.stage = Stage::Password { answered: false };
                Step::SendUser(self.credentials.user().to_owned())
            }
            Stage::Password { answered: false } if self.line.is_question(&LOGIN) => {
                Step::Fail(LoginError::AsksAgain)
            }
            Stage::Password { answered }
                if now.duration_since(self.heard) >= NO_PASSWORD
                    && (*answered || !self.line.is_blank_or(self.credentials.user())) =>
            {
                // An account without a password: what was said is its session.
                Step::HandOver(self.line.text.clone())
            }
            Stage::Question | Stage::Password { .. } => Step::Wait,
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(super) fn next_look(&self) -> Instant {
        let wait = match (&self.stage, self.looked) {
            (Stage::Verdict { since }, _) if since.iter().all(u8::is_ascii_whitespace) => SILENCE,
            (Stage::Verdict { .. }, _) => VERDICT_QUIET,
            (_, Looked::NotYet) => PROMPT_QUIET,
            (Stage::Password { .. }, Looked::AtPause) => NO_PASSWORD,
            (_, Looked::AtPause | Looked::AtSilence) => return self.deadline,
        };
        let look = self.heard.checked_add(wait).unwrap_or(self.deadline);
        look.min(self.deadline)
    }

    /// Why a login failed in whose midst the server closed the connection.
    pub(super) fn closed(&self) -> LoginError {
        let mut last = match self.stage {
            Stage::Verdict { .. } => &[],
            Stage::Question | Stage::Password { .. } if self.line.text.is_empty() => &self.said[..],
            Stage::Question | Stage::Password { .. } => &self.line.text[..],
        };
        last = last.trim_ascii();
        let printable = last.iter().filter(|byte| matches!(**byte, b' '..=b'~'));
        LoginError::Closed {
            last_line: printable.map(|byte| char::from(*byte)).collect(),
        }
    }

    fn send_password(&mut self, now: Instant, echo: Echo) -> Step {
        if echo == Echo::Unknown {
            return Step::Fail(LoginError::WouldShow);
        }
        let Some(password) = self.credentials.take_password() else {
            return Step::Fail(LoginError::NoPassword);
        };
        self.heard = now;
        self.line = Line::default();
        self.said.clear();
        self.stage = Stage::Verdict { since: Vec::new() };
        Step::SendPassword(password)
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        match &mut self.stage {
            Stage::Password { answered } => {
                *answered |= !line.is_blank_or(self.credentials.user());
            }
            Stage::Verdict { .. } => return,
            Stage::Question => {}
        }
        if !line.text.trim_ascii().is_empty() {
            self.said = line.text;
        }
    }

    /// The refusal that the line has just become.
    fn refusal(&self) -> Option<&'static str> {
        let refusals = match self.stage {
            Stage::Question => &REFUSALS[..UNASKED],
            Stage::Password { .. } | Stage::Verdict { .. } => &REFUSALS[..],
        };
        let is = |phrase: &&str| self.line.text.eq_ignore_ascii_case(phrase.as_bytes());
        refusals.iter().copied().find(is)
    }
}

/// The line that a server is writing, as far as a question is recognised by it: without what moves a cursor or paints.
#[derive(Debug, Default)]
struct Line {
    text: Vec<u8>,
    escape: Escape,
}

#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    /// Behind ESC.
    Begun,
    /// Behind `ESC [`.
    Control,
    #[default]
    None,
}

impl Line {
    fn push(&mut self, byte: u8) {
        match (self.escape, byte) {
            (Escape::None, ESC) => self.escape = Escape::Begun,
            (Escape::Begun, b'[') => self.escape = Escape::Control,
            (Escape::Begun, _) | (Escape::Control, 0x40..=0x7e) => self.escape = Escape::None,
            (Escape::Control, _) => {}
            // A line begins with its first letter.
            (Escape::None, b' ' | b'\t') if self.text.is_empty() => {}
            (Escape::None, 0..0x20) => {}
            (Escape::None, _) => {
                if self.text.len() >= MAX_LINE {
                    self.text.remove(0);
                }
                self.text.push(byte);
            }
        }
    }

    /// Whether the line ends with one of `words` and a colon.
    fn is_question(&self, words: &[&str]) -> bool {
        let Some(text) = self.text.trim_ascii_end().strip_suffix(b":") else {
            return false;
        };
        words.iter().any(|word| {
            let start = text.len().checked_sub(word.len());
            let end = start.and_then(|start| text.get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(word.as_bytes()))
        })
    }

    /// Whether the line asks for a password, with whatever words behind that one.
    fn is_password_question(&self) -> bool {
        let Some(text) = self.text.trim_ascii_end().strip_suffix(b":") else {
            return false;
        };
        let last = text.rsplit(|byte| *byte == b':').next().unwrap_or(text);
        last.windows(PASS.len())
            .any(|window| window.eq_ignore_ascii_case(PASS))
    }

    fn is_blank_or(&self, user: &str) -> bool {
        let text = self.text.trim_ascii();
        text.is_empty() || text == user.as_bytes()
    }
}

/// How questions for an account end.
const LOGIN: [&str; 5] = ["login", "username", "user name", "user", "account name"];
const PASS: &[u8] = b"pass";

/// What servers begin a line with that refuse. The first ones do so before anything was asked.
const REFUSALS: [&str; 8] = [
    "No more connections are allowed",
    "Telnet Server has closed the connection",
    "Login incorrect",
    "Login Failed",
    "The handle is invalid.",
    "Access Denied",
    "authentication failure",
    "Permission denied",
];
const UNASKED: usize = 2;

const ESC: u8 = 27;

/// The longest end of a line that is looked at.
const MAX_LINE: usize = 256;
/// The most that is kept for the user while the verdict is awaited: a long message of the day.
const MAX_SINCE: usize = 64 << 10;
/// How long a question stays the last thing said before it is answered: an announcement that has a colon in its midst is
/// not answered.
const PROMPT_QUIET: Duration = Duration::from_millis(100);
/// How long a server is quiet that has let somebody in.
const VERDICT_QUIET: Duration = Duration::from_millis(300);
/// How long a server says nothing to a password. Linux waits for 3 s before it says that it was wrong.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a server is quiet after the account that asks for no password.
const NO_PASSWORD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
