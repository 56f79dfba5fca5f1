//! What a connection tells the audit.

use std::sync::Arc;

use russh::keys::{HashAlg, PublicKey};
use tokio::time::Instant;

use super::ServeError;
use super::connection::{End, State};
use crate::audit::{
    AuditEvent, AuditKind, CertificateName, CloseReason, Credential, Direction, Exit, Outcome,
    Program,
};
use crate::backend::{ChannelEvent, ChannelRequest, Destination, Origin};
use crate::certificate::UserCertificate;
use crate::flow::Link;

impl State {
    /// Tells the audit, where there is one.
    pub(super) fn tell(&self, kind: impl FnOnce() -> AuditKind) {
        if let Some(audit) = &self.shared.config.audit {
            audit.record(&AuditEvent::new(self.number, self.peer, kind()));
        }
    }

    /// Tells how the machine says that a program ended.
    pub(super) fn tell_exit(&self, channel: u32, event: &ChannelEvent) {
        let exit = match event {
            ChannelEvent::ExitSignal { signal, .. } => Exit::Signal(signal.clone()),
            ChannelEvent::ExitStatus(status) => Exit::Status(*status),
            ChannelEvent::Data(_) | ChannelEvent::Eof | ChannelEvent::Stderr(_) => return,
        };
        self.tell(|| AuditKind::Exited { channel, exit });
    }

    /// Tells of a stream that the client asked for.
    pub(super) fn tell_stream(
        &self,
        direction: Direction,
        destination: &Destination,
        outcome: Outcome,
    ) {
        self.tell(|| AuditKind::Forwarded {
            direction,
            address: destination.to_string(),
            outcome,
        });
    }

    /// Tells of a stream that the machine opened.
    pub(super) fn tell_incoming(&self, origin: &Origin, outcome: Outcome) {
        self.tell(|| {
            let (direction, address) = match origin {
                Origin::Agent => (Direction::Agent, String::new()),
                Origin::Listener { address, .. } => (Direction::Remote, address.to_string()),
            };
            AuditKind::Forwarded {
                direction,
                address,
                outcome,
            }
        });
    }
}

/// Tells the audit that a connection has ended, also where whoever served it stops.
pub(super) struct Closing {
    state: Arc<State>,
    link: Arc<Link>,
    begun: Instant,
    reason: CloseReason,
}

impl Closing {
    pub(super) fn new(state: Arc<State>, link: Arc<Link>) -> Self {
        Self {
            state,
            link,
            begun: Instant::now(),
            reason: CloseReason::Dropped,
        }
    }

    /// The connection ended by itself or by its end.
    pub(super) fn closed(mut self, result: &Result<(), ServeError>) {
        self.reason = match (self.state.end(), result) {
            (Some(End::Ended(_)), _) => CloseReason::Ended(self.state.farewell()),
            (Some(End::Lost), _) => CloseReason::Lost,
            (Some(End::Shutdown), _) => CloseReason::Shutdown,
            (None, Err(error)) => CloseReason::Failed(error.to_string()),
            (None, Ok(())) => CloseReason::Left,
        };
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let reason = std::mem::replace(&mut self.reason, CloseReason::Dropped);
        let (received, sent) = self.link.traffic();
        self.state.tell(|| AuditKind::Closed {
            reason,
            duration: self.begun.elapsed(),
            received,
            sent,
        });
    }
}

/// What a request starts, where it does.
pub(super) fn program(request: &ChannelRequest) -> Option<Program> {
    match request {
        ChannelRequest::Exec(command) => {
            let command = String::from_utf8_lossy(command).into_owned();
            Some(Program::Command(command))
        }
        ChannelRequest::Shell => Some(Program::Shell),
        ChannelRequest::Subsystem(name) => Some(Program::Subsystem(name.clone())),
        ChannelRequest::Agent
        | ChannelRequest::Env { .. }
        | ChannelRequest::Pty(_)
        | ChannelRequest::Signal(_)
        | ChannelRequest::WindowChange(_) => None,
    }
}

impl From<&PublicKey> for Credential {
    fn from(key: &PublicKey) -> Self {
        Self {
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
            certificate: None,
        }
    }
}

impl From<&UserCertificate> for Credential {
    fn from(certificate: &UserCertificate) -> Self {
        Self {
            fingerprint: certificate.fingerprint(),
            certificate: Some(CertificateName {
                authority: certificate.authority(),
                key_id: certificate.key_id().to_owned(),
                serial: certificate.serial(),
            }),
        }
    }
}
