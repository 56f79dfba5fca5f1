//! Authentication: p9any chooses between p9sk1 and dp9ik, and both prove the password without sending it.
//!
//! [`Handshake`] is a machine without I/O. It says what to send and what to read next, from the machine or from its
//! authentication server; whoever drives it owns the streams.

mod dp9ik;
mod p9sk1;

use zeroize::Zeroizing;

use self::dp9ik::Dp9ik;
use self::p9sk1::P9sk1;
use super::des::NAME;
use super::error::ContermError;
use super::keys::Keys;
use super::ticket::{CHALLENGE, Challenge, name, put_name};

/// Where randomness comes from. A test draws what a recorded session drew.
pub(crate) trait Entropy: Send {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// How the machine proves that it knows us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AuthProtocol {
    /// A key exchange that gives a listener nothing to guess passwords by.
    Dp9ik,
    /// Single DES, whose tickets whoever listens can try passwords on. It is for machines that have nothing better.
    P9sk1,
}

/// Who makes the tickets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Tickets {
    /// An authentication server, which is asked over a connection of its own.
    AuthServer,
    /// We do: the user is the machine's host owner, so both have the same key.
    HostOwner,
}

/// Whom a handshake proves, and by which means.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) user: String,
    pub(crate) keys: Keys,
    /// Those allowed, the preferred one first.
    pub(crate) protocols: Vec<AuthProtocol>,
    pub(crate) tickets: Tickets,
}

/// Whom bytes go to or come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Party {
    /// The authentication server. All that passes goes over one connection, made when it is first needed.
    AuthServer,
    /// The machine.
    Machine,
}

/// How much to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Amount {
    /// This number of bytes.
    Exactly(usize),
    /// Bytes up to a zero, which is handed over too; more than this number is an error.
    Text(usize),
}

/// What a handshake wants.
pub(crate) struct Step {
    /// What is sent first.
    pub(crate) send: Vec<(Party, Vec<u8>)>,
    pub(crate) next: Next,
}

impl Step {
    /// Reads `size` bytes.
    fn read(from: Party, size: usize) -> Self {
        Self {
            send: vec![],
            next: Next::Read(from, Amount::Exactly(size)),
        }
    }

    /// Sends `bytes`, and then reads as many as that side answers with.
    fn ask(party: Party, bytes: Vec<u8>, size: usize) -> Self {
        Self {
            send: vec![(party, bytes)],
            ..Self::read(party, size)
        }
    }

    /// Ends, with the secret.
    fn done(secret: Zeroizing<Vec<u8>>) -> Self {
        Self {
            send: vec![],
            next: Next::Done(secret),
        }
    }
}

/// What comes after sending.
pub(crate) enum Next {
    /// The handshake is done, with this secret.
    Done(Zeroizing<Vec<u8>>),
    /// Bytes are to be read and handed over.
    Read(Party, Amount),
}

/// Our side of p9any.
pub(crate) struct Handshake {
    identity: Identity,
    state: State,
}

enum State {
    /// The confirmation of a choice, of those who offer in the second version.
    Confirm(AuthProtocol),
    Dp9ik(Dp9ik),
    Offer,
    P9sk1(P9sk1),
}

impl Handshake {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            state: State::Offer,
        }
    }

    /// What to read first.
    pub(crate) fn begin(&self) -> (Party, Amount) {
        (Party::Machine, Amount::Text(MAX_OFFER))
    }

    /// Takes what was asked for.
    pub(crate) fn handle(
        &mut self,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Step, ContermError> {
        match &mut self.state {
            State::Offer => self.choose(bytes, entropy),
            State::Confirm(protocol) => {
                if bytes != CONFIRMED {
                    return Err(ContermError::Protocol("p9any was not confirmed"));
                }
                let size = request_size(*protocol);
                let (state, challenge) = start(*protocol, entropy);
                self.state = state;
                Ok(Step::ask(Party::Machine, challenge.to_vec(), size))
            }
            State::P9sk1(state) => state.handle(&self.identity, bytes, entropy),
            State::Dp9ik(state) => state.handle(&self.identity, bytes, entropy),
        }
    }

    fn choose(&mut self, offer: &[u8], entropy: &mut dyn Entropy) -> Result<Step, ContermError> {
        let offer = offer.strip_suffix(b"\0").unwrap_or(offer);
        let offer = std::str::from_utf8(offer);
        let offer = offer.map_err(|_| ContermError::Protocol("p9any made no offer"))?;
        let (confirmed, offers) = match offer.strip_prefix("v.2 ") {
            Some(offers) => (true, offers),
            None => (false, offer),
        };
        let wanted = self.identity.protocols.iter();
        let (protocol, domain) = wanted
            .filter_map(|protocol| Some((*protocol, offered(offers, *protocol)?)))
            .next()
            .ok_or(ContermError::NoProtocol)?;
        let mut answer = format!("{} {domain}\0", protocol.name()).into_bytes();
        if confirmed {
            self.state = State::Confirm(protocol);
            return Ok(Step::ask(Party::Machine, answer, CONFIRMED.len()));
        }
        let (state, challenge) = start(protocol, entropy);
        self.state = state;
        answer.extend_from_slice(&challenge);
        Ok(Step::ask(Party::Machine, answer, request_size(protocol)))
    }
}

impl AuthProtocol {
    fn name(self) -> &'static str {
        match self {
            Self::Dp9ik => "dp9ik",
            Self::P9sk1 => "p9sk1",
        }
    }
}

fn start(protocol: AuthProtocol, entropy: &mut dyn Entropy) -> (State, Challenge) {
    let mut challenge = [0; CHALLENGE];
    entropy.fill(&mut challenge);
    let state = match protocol {
        AuthProtocol::Dp9ik => State::Dp9ik(Dp9ik::new(challenge)),
        AuthProtocol::P9sk1 => State::P9sk1(P9sk1::new(challenge)),
    };
    (state, challenge)
}

fn request_size(protocol: AuthProtocol) -> usize {
    match protocol {
        AuthProtocol::Dp9ik => dp9ik::REQUEST,
        AuthProtocol::P9sk1 => REQUEST,
    }
}

/// The domain that a protocol is offered in.
fn offered(offers: &str, protocol: AuthProtocol) -> Option<&str> {
    let offers = offers.split(' ').take(MAX_OFFERS);
    offers
        .filter_map(|offer| offer.split_once('@'))
        .find(|(name, domain)| *name == protocol.name() && domain.len() < DOMAIN)
        .map(|(_, domain)| domain)
}

/// A request for tickets: what a machine asks us to get, and what we ask the authentication server for.
#[derive(Clone)]
struct Request([u8; REQUEST]);

impl Request {
    /// Reads what the machine asks for.
    fn parse(bytes: &[u8], kind: u8) -> Result<Self, ContermError> {
        let bytes = bytes.try_into();
        let bytes: [u8; REQUEST] = bytes.map_err(|_| ContermError::Protocol("a short request"))?;
        if bytes[0] != kind {
            return Err(ContermError::Protocol("a request of the wrong kind"));
        }
        Ok(Self(bytes))
    }

    fn challenge(&self) -> Challenge {
        let mut challenge = [0; CHALLENGE];
        challenge.copy_from_slice(&self.0[1 + NAME + DOMAIN..][..CHALLENGE]);
        challenge
    }

    /// Refuses a machine that does not belong to `user`, whose key it has then.
    fn check_owner(&self, user: &str) -> Result<(), ContermError> {
        let is_owned = name(&self.0[1..=NAME]) == user.as_bytes();
        is_owned.then_some(()).ok_or(ContermError::NotHostOwner)
    }

    /// The request in our own name.
    fn by(&self, user: &str, kind: u8) -> [u8; REQUEST] {
        let mut out = self.0;
        out[0] = kind;
        let names = REQUEST - 2 * NAME;
        out[names..].fill(0);
        put_name(&mut out[names..names + NAME], user);
        put_name(&mut out[names + NAME..], user);
        out
    }
}

/// What the authentication server answers: the type says whether something follows that is of use.
fn check_answer(first: &[u8]) -> Result<(), ContermError> {
    match first.first() {
        Some(&AUTH_OK) => Ok(()),
        Some(&AUTH_ERR) => Err(ContermError::AuthRefused),
        _ => Err(ContermError::Protocol("an answer of the wrong kind")),
    }
}

/// The answer to a choice.
const CONFIRMED: &[u8] = b"OK\0";

/// The size of a domain's name.
const DOMAIN: usize = 48;

/// The size of a request for tickets.
const REQUEST: usize = 1 + NAME + DOMAIN + CHALLENGE + 2 * NAME;

const AUTH_TICKETS: u8 = 1;
const AUTH_OK: u8 = 4;
const AUTH_ERR: u8 = 5;
const AUTH_PAK: u8 = 19;

/// How long an offer may be: factotum's own buffers hold less.
const MAX_OFFER: usize = 1024;

/// How many offers are looked at.
const MAX_OFFERS: usize = 32;
