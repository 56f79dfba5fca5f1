//! The end of a connection by our will: when it is due, and what the user is told.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::State;
use crate::auth::{Machine, Term};
use crate::server::notice::{self, Notices};

/// Why we end a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::server) enum End {
    /// The right to the machine has ended, perhaps with a sentence about it.
    Ended(Option<String>),
    /// The machine listened for the client, and was lost: what the client waits for would never come.
    Lost,
    /// The server ends.
    Shutdown,
}

impl State {
    /// Why we end the connection, where we do.
    pub(in crate::server) fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Cancelled when the client is to be told why its connection ends.
    pub(in crate::server) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// What users are told at the end.
    pub(in crate::server) fn farewell(&self) -> String {
        match self.end.get() {
            Some(End::Lost) => self.loss(),
            Some(End::Shutdown) => "the gateway is shutting down".to_owned(),
            Some(End::Ended(Some(reason))) => reason.clone(),
            Some(End::Ended(None)) | None => {
                format!("your right to use {} has ended", self.machine_name())
            }
        }
    }

    /// What users are told where the machine is lost: it may be taken from them before we know that their time is over.
    pub(in crate::server) fn loss(&self) -> String {
        let tenure = match self.machine.get() {
            Some(Ok(machine)) => machine.tenure.follow().borrow().clone(),
            Some(Err(_)) | None => Term::Lasting(None),
        };
        match tenure {
            Term::Lasting(_) => "the connection to the machine was lost".to_owned(),
            Term::Over(reason) => reason,
        }
    }

    /// When users of `machine` are told that their time ends.
    pub(in crate::server) fn notices(&self, machine: &Machine) -> Notices {
        let not_after = self.grant.get().and_then(|grant| grant.not_after);
        Notices::new(self.shared.config.end_notice, not_after, &machine.tenure)
    }

    /// What they are told.
    pub(in crate::server) fn notice(&self, left: Duration) -> String {
        let left = notice::in_words(left);
        format!("your right to use {} ends {left}", self.machine_name())
    }

    fn machine_name(&self) -> &str {
        match self.machine.get() {
            Some(Ok(machine)) => &machine.id,
            Some(Err(_)) | None => "the machine",
        }
    }

    /// Waits for the end of the user's right to be here. What there is to say about it.
    pub(super) async fn right_ended(&self) -> Option<String> {
        let expired = async {
            match self.grant.get().and_then(|grant| grant.not_after) {
                Some(end) => tokio::time::sleep_until(Instant::from_std(end)).await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            self.resolved.cancelled().await;
            match self.machine.get() {
                Some(Ok(machine)) => machine.tenure.ended().await,
                Some(Err(_)) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => None,
            reason = ended => reason,
            () = self.revoked() => Some(REVOKED.to_owned()),
        }
    }

    /// Waits until the login is taken back.
    async fn revoked(&self) {
        let Some(grant) = self.grant.get() else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(self.shared.config.revocation_check).await;
            if self.shared.authorizer.is_revoked(grant).await {
                return;
            }
        }
    }

    /// Lets the channels say farewell, then asks the client to leave.
    pub(super) async fn finish(&self, end: End) {
        let _ = self.end.set(end);
        self.ending.cancel();
        let grace = self.shared.config.shutdown_grace;
        let mut channels = self.channels.subscribe();
        let _ = tokio::time::timeout(grace, channels.wait_for(|open| *open == 0)).await;
        if let Some(control) = self.control.get() {
            let farewell = self.farewell();
            let _ = tokio::time::timeout(DISCONNECT, control.disconnect(&farewell)).await;
        }
        // The session ends when the client closes, which ends the connection before this does.
        tokio::time::sleep(DISCONNECT).await;
    }
}

/// What users are told whose login is taken back.
const REVOKED: &str = "your access has been revoked";

/// How long the client may take to be told to disconnect, and then to do it.
const DISCONNECT: Duration = Duration::from_secs(1);
