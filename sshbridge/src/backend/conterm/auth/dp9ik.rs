//! dp9ik: a key exchange with the authentication server first, and tickets under the keys that it gives.

use super::{
    AUTH_PAK, AUTH_TICKETS, Entropy, Identity, Party, Request, Step, Tickets, check_answer,
};
use crate::backend::conterm::error::ContermError;
use crate::backend::conterm::pak::{PAK, Pak, PakKey, PakSide};
use crate::backend::conterm::ticket::{
    CHALLENGE, Challenge, Kind, PAK_AUTH, PAK_TICKET, PakTicket,
};

/// A handshake by dp9ik from its first challenge on.
pub(super) struct Dp9ik {
    challenge: Challenge,
    /// What is encrypted is numbered, as by Plan 9's own library.
    counter: u32,
    state: State,
}

enum State {
    Authenticator(PakTicket, [u8; 32]),
    /// Whether there was a key exchange.
    Exchange(Request, Pak),
    Exchanged(Request, Pak),
    Failed,
    Request,
    /// Whether there are tickets.
    Tickets(Request, PakKey, [u8; PAK]),
    Ticketed(Request, PakKey, [u8; PAK]),
}

impl Dp9ik {
    pub(super) fn new(challenge: Challenge) -> Self {
        Self {
            challenge,
            counter: 0,
            state: State::Request,
        }
    }

    pub(super) fn handle(
        &mut self,
        identity: &Identity,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Step, ContermError> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Request => self.request(identity, bytes, entropy),
            State::Exchange(request, pak) => {
                check_answer(bytes)?;
                self.state = State::Exchanged(request, pak);
                Ok(Step::read(Party::AuthServer, 2 * PAK))
            }
            State::Exchanged(request, pak) => self.exchanged(identity, request, pak, bytes),
            State::Tickets(request, key, point) => {
                check_answer(bytes)?;
                self.state = State::Ticketed(request, key, point);
                Ok(Step::read(Party::AuthServer, 2 * PAK_TICKET))
            }
            State::Ticketed(request, key, point) => {
                let (ours, theirs) = bytes
                    .split_at_checked(PAK_TICKET)
                    .ok_or(ContermError::Protocol("short tickets"))?;
                let ticket = PakTicket::open(Kind::ClientTicket, &key, ours)
                    .filter(|ticket| ticket.challenge == request.challenge())
                    .ok_or(ContermError::WrongPassword)?;
                Ok(self.present(ticket, &point, theirs, entropy))
            }
            State::Authenticator(ticket, ours) => {
                let theirs = ticket
                    .verify(Kind::ServerAuthenticator, &self.challenge, bytes)
                    .ok_or(ContermError::NotTheMachine)?;
                Ok(Step::done(ticket.secret(&ours, &theirs)))
            }
            State::Failed => Err(ContermError::Protocol("the handshake is over")),
        }
    }

    fn request(
        &mut self,
        identity: &Identity,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Step, ContermError> {
        let (bytes, point) = bytes
            .split_last_chunk::<PAK>()
            .ok_or(ContermError::Protocol("a short request"))?;
        let request = Request::parse(bytes, AUTH_PAK)?;
        match identity.tickets {
            Tickets::AuthServer => {
                let pak = exchange(identity, PakSide::Client, entropy);
                let mut asked = request.by(&identity.user, AUTH_PAK).to_vec();
                asked.extend_from_slice(point);
                asked.extend_from_slice(pak.sent());
                self.state = State::Exchange(request, pak);
                Ok(Step::ask(Party::AuthServer, asked, 1))
            }
            Tickets::HostOwner => self.own_tickets(identity, &request, point, entropy),
        }
    }

    fn exchanged(
        &mut self,
        identity: &Identity,
        request: Request,
        pak: Pak,
        bytes: &[u8],
    ) -> Result<Step, ContermError> {
        let short = || ContermError::Protocol("a short exchange");
        let (theirs, ours) = bytes.split_first_chunk::<PAK>().ok_or_else(short)?;
        let ours = ours.try_into().map_err(|_| short())?;
        let key = pak.finish(&identity.keys.pak, ours);
        let key = key.ok_or(ContermError::Protocol("an exchange without a point"))?;
        let asked = request.by(&identity.user, AUTH_TICKETS).to_vec();
        self.state = State::Tickets(request, key, *theirs);
        Ok(Step::ask(Party::AuthServer, asked, 1))
    }

    /// Plays the authentication server towards the machine, with the key that both have.
    fn own_tickets(
        &mut self,
        identity: &Identity,
        request: &Request,
        point: &[u8; PAK],
        entropy: &mut dyn Entropy,
    ) -> Result<Step, ContermError> {
        request.check_owner(&identity.user)?;
        let mut ticket = PakTicket {
            challenge: request.challenge(),
            key: zeroize::Zeroizing::new([0; 32]),
        };
        entropy.fill(&mut *ticket.key);
        let pak = exchange(identity, PakSide::Server, entropy);
        let sent = *pak.sent();
        let key = pak.finish(&identity.keys.pak, point);
        let key = key.ok_or(ContermError::Protocol("a request without a point"))?;
        // Plan 9's library makes the client's ticket too, which takes a number.
        self.counter = 1;
        let theirs = ticket.seal(Kind::ServerTicket, &key, &identity.user, self.counter);
        self.counter += 1;
        Ok(self.present(ticket, &sent, &theirs, entropy))
    }

    fn present(
        &mut self,
        ticket: PakTicket,
        point: &[u8; PAK],
        theirs: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Step {
        let mut random = [0; 32];
        entropy.fill(&mut random);
        let challenge = ticket.challenge;
        let proof =
            ticket.authenticator(Kind::ClientAuthenticator, &challenge, &random, self.counter);
        self.state = State::Authenticator(ticket, random);
        let sent = [&point[..], theirs, &proof].concat();
        Step::ask(Party::Machine, sent, PAK_AUTH)
    }
}

fn exchange(identity: &Identity, side: PakSide, entropy: &mut dyn Entropy) -> Pak {
    let mut random = zeroize::Zeroizing::new([0; 64]);
    entropy.fill(&mut *random);
    Pak::new(&identity.keys.pak, side, &random)
}

/// The size of what the machine asks for.
pub(super) const REQUEST: usize = super::REQUEST + PAK;

const _: () = assert!(
    CHALLENGE == 8 && PAK_TICKET == 124 && PAK_AUTH == 68,
    "the sizes on the wire"
);
