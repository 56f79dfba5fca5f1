//! Which options are on: the Q method of RFC 1143, which cannot fall into a loop with a server that keeps to it.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

use super::codec::{DO, DONT, IAC, Verb, WILL, WONT};

/// The options that we know, by their side. All others are refused, whenever they are spoken of:
///
/// * LINEMODE, whose list of characters overflows a buffer of servers (CVE-2026-32746);
/// * AUTH and ENCRYPT: whoever answers hands something of the account to any server;
/// * ECHO on our side: we show nothing to a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    ours: [Q; OURS.len()],
    theirs: [Q; THEIRS.len()],
}

/// Whose doing an option is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Ours,
    Theirs,
}

/// What came of a negotiation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The option is on since just now.
    On,
    /// It is off since just now.
    Off,
    /// Nothing changed.
    Same,
}

/// One side of an option (RFC 1143 §7). We never want one off that is on, so there are neither `WANTNO` nor queues.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Q {
    #[default]
    No,
    WantYes,
    Yes,
}

impl Options {
    /// Takes what the server says, and appends the answer where there has to be one.
    pub(super) fn negotiate(&mut self, verb: Verb, option: u8, out: &mut Vec<u8>) -> Outcome {
        let (side, wanted) = match verb {
            Verb::Do => (Side::Ours, true),
            Verb::Dont => (Side::Ours, false),
            Verb::Will => (Side::Theirs, true),
            Verb::Wont => (Side::Theirs, false),
        };
        let Some(q) = self.q(side, option) else {
            if wanted {
                out.extend([IAC, refusal(side), option]);
            }
            return Outcome::Same;
        };
        let before = *q;
        *q = if wanted { Q::Yes } else { Q::No };
        match (before, *q) {
            (Q::No, Q::Yes) => {
                out.extend([IAC, consent(side), option]);
                Outcome::On
            }
            (Q::WantYes, Q::Yes) => Outcome::On,
            (Q::Yes, Q::No) => {
                out.extend([IAC, refusal(side), option]);
                Outcome::Off
            }
            _ => Outcome::Same,
        }
    }

    /// Offers an option of ours, where it is off.
    pub(super) fn offer(&mut self, option: u8, out: &mut Vec<u8>) {
        if let Some(q @ Q::No) = self.q(Side::Ours, option) {
            *q = Q::WantYes;
            out.extend([IAC, WILL, option]);
        }
    }

    /// Whether an option is on.
    pub(super) fn is_on(&self, side: Side, option: u8) -> bool {
        let (known, states) = match side {
            Side::Ours => (&OURS[..], &self.ours[..]),
            Side::Theirs => (&THEIRS[..], &self.theirs[..]),
        };
        let mut pairs = known.iter().zip(states);
        pairs.any(|(known, q)| *known == option && *q == Q::Yes)
    }

    fn q(&mut self, side: Side, option: u8) -> Option<&mut Q> {
        let (known, states) = match side {
            Side::Ours => (&OURS[..], &mut self.ours[..]),
            Side::Theirs => (&THEIRS[..], &mut self.theirs[..]),
        };
        let mut pairs = known.iter().zip(states);
        pairs.find(|(known, _)| **known == option).map(|(_, q)| q)
    }
}

fn consent(side: Side) -> u8 {
    match side {
        Side::Ours => WILL,
        Side::Theirs => DO,
    }
}

fn refusal(side: Side) -> u8 {
    match side {
        Side::Ours => WONT,
        Side::Theirs => DONT,
    }
}

pub(super) const BINARY: u8 = 0;
pub(super) const ECHO: u8 = 1;
const SGA: u8 = 3;
pub(super) const TTYPE: u8 = 24;
pub(super) const NAWS: u8 = 31;
pub(super) const NEW_ENVIRON: u8 = 39;

/// What we do where the server asks for it.
const OURS: [u8; 5] = [BINARY, SGA, TTYPE, NAWS, NEW_ENVIRON];

/// What the server may do.
const THEIRS: [u8; 3] = [BINARY, ECHO, SGA];

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(options: &mut Options, verb: Verb, option: u8) -> Vec<u8> {
        let mut out = Vec::new();
        options.negotiate(verb, option, &mut out);
        out
    }

    #[test]
    fn a_request_is_answered_once() {
        let mut options = Options::default();
        assert_eq!(answer(&mut options, Verb::Will, ECHO), [IAC, DO, ECHO]);
        assert_eq!(answer(&mut options, Verb::Will, ECHO), []);
        assert_eq!(answer(&mut options, Verb::Wont, ECHO), [IAC, DONT, ECHO]);
        assert_eq!(answer(&mut options, Verb::Wont, ECHO), []);
        assert_eq!(answer(&mut options, Verb::Do, TTYPE), [IAC, WILL, TTYPE]);
        assert_eq!(answer(&mut options, Verb::Do, TTYPE), []);
        assert_eq!(answer(&mut options, Verb::Dont, TTYPE), [IAC, WONT, TTYPE]);
    }

    #[test]
    fn the_answer_to_an_offer_is_not_answered() {
        let (mut options, mut out) = (Options::default(), Vec::new());
        options.offer(NAWS, &mut out);
        options.offer(NAWS, &mut out);
        assert_eq!(out, [IAC, WILL, NAWS]);
        assert!(!options.is_on(Side::Ours, NAWS));
        assert_eq!(
            options.negotiate(Verb::Do, NAWS, &mut Vec::new()),
            Outcome::On
        );
        assert!(options.is_on(Side::Ours, NAWS));
        let (mut options, mut out) = (Options::default(), Vec::new());
        options.offer(NAWS, &mut out);
        assert_eq!(answer(&mut options, Verb::Dont, NAWS), []);
        assert!(!options.is_on(Side::Ours, NAWS));
    }

    #[test]
    fn the_table_says_what_is_agreed_to() {
        for option in 0..=255 {
            let ours = answer(&mut Options::default(), Verb::Do, option);
            let agreed = [0, 3, 24, 31, 39].contains(&option);
            assert_eq!(ours, [IAC, if agreed { WILL } else { WONT }, option]);
            let theirs = answer(&mut Options::default(), Verb::Will, option);
            let agreed = [0, 1, 3].contains(&option);
            assert_eq!(theirs, [IAC, if agreed { DO } else { DONT }, option]);
            assert_eq!(answer(&mut Options::default(), Verb::Dont, option), []);
            assert_eq!(answer(&mut Options::default(), Verb::Wont, option), []);
        }
    }

    #[test]
    fn a_timing_mark_is_answered_each_time() {
        let mut options = Options::default();
        for _ in 0..3 {
            assert_eq!(answer(&mut options, Verb::Do, 6), [IAC, WONT, 6]);
        }
    }
}
