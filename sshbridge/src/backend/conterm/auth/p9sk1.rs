//! p9sk1: tickets under DES keys.

use super::{
    AUTH_TICKETS, Entropy, Identity, Party, REQUEST, Request, Step, Tickets, check_answer,
};
use crate::backend::conterm::des::{DES_KEY, DesKey};
use crate::backend::conterm::error::ContermError;
use crate::backend::conterm::ticket::{Challenge, DES_AUTH, DES_TICKET, DesTicket, Kind};

/// A handshake by p9sk1 from its first challenge on.
pub(super) struct P9sk1 {
    challenge: Challenge,
    state: State,
}

enum State {
    Answer(Request),
    Authenticator(DesTicket),
    Request,
    Tickets(Request),
}

impl P9sk1 {
    pub(super) fn new(challenge: Challenge) -> Self {
        Self {
            challenge,
            state: State::Request,
        }
    }

    pub(super) fn handle(
        &mut self,
        identity: &Identity,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Step, ContermError> {
        match &self.state {
            State::Request => self.ask(identity, bytes, entropy),
            State::Answer(request) => {
                check_answer(bytes)?;
                self.state = State::Tickets(request.clone());
                Ok(Step::read(Party::AuthServer, 2 * DES_TICKET))
            }
            State::Tickets(request) => {
                let short = || ContermError::Protocol("short tickets");
                let (ours, theirs) = bytes.split_first_chunk::<DES_TICKET>().ok_or_else(short)?;
                let theirs = theirs.try_into().map_err(|_| short())?;
                // A wrong user or password gives a well-formed ticket that holds something else.
                let ticket = DesTicket::open(Kind::ClientTicket, &identity.keys.des, ours)
                    .filter(|ticket| ticket.challenge == request.challenge())
                    .ok_or(ContermError::WrongPassword)?;
                Ok(self.present(ticket, theirs))
            }
            State::Authenticator(ticket) => {
                if !ticket.verify(Kind::ServerAuthenticator, &self.challenge, bytes) {
                    return Err(ContermError::NotTheMachine);
                }
                Ok(Step::done(ticket.secret()))
            }
        }
    }

    fn ask(
        &mut self,
        identity: &Identity,
        bytes: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Step, ContermError> {
        let request = Request::parse(bytes, AUTH_TICKETS)?;
        match identity.tickets {
            Tickets::AuthServer => {
                let asked = request.by(&identity.user, AUTH_TICKETS).to_vec();
                self.state = State::Answer(request);
                Ok(Step::ask(Party::AuthServer, asked, 1))
            }
            Tickets::HostOwner => {
                request.check_owner(&identity.user)?;
                let mut key = [0; DES_KEY];
                entropy.fill(&mut key);
                let ticket = DesTicket {
                    challenge: request.challenge(),
                    key: DesKey::new(key),
                };
                let theirs = ticket.seal(Kind::ServerTicket, &identity.keys.des, &identity.user);
                Ok(self.present(ticket, theirs))
            }
        }
    }

    fn present(&mut self, ticket: DesTicket, theirs: [u8; DES_TICKET]) -> Step {
        let mut sent = theirs.to_vec();
        sent.extend(ticket.authenticator(Kind::ClientAuthenticator, &ticket.challenge));
        self.state = State::Authenticator(ticket);
        Step::ask(Party::Machine, sent, DES_AUTH)
    }
}

const _: () = assert!(
    REQUEST == 141 && DES_TICKET == 72 && DES_AUTH == 13,
    "the sizes on the wire"
);
