//! Why there is no session on a Plan 9 machine.

/// Why there is no session on a Plan 9 machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContermError {
    /// The authentication server gives no tickets.
    #[error("the authentication server refused the request; check the user of the credentials")]
    AuthRefused,
    /// A stream ended before its time.
    #[error("the machine closed the connection during {0}")]
    Closed(&'static str),
    /// The machine offers nothing that is allowed for it.
    #[error(
        "the machine offers no authentication that is allowed for it; p9sk1 must be allowed in the configuration"
    )]
    NoProtocol,
    /// Tickets of our own are good for the machine's owner alone.
    #[error(
        "the user is not the machine's host owner; an authentication server must be configured"
    )]
    NotHostOwner,
    /// The machine did not prove that it knows its own key.
    #[error("the machine did not prove who it is")]
    NotTheMachine,
    /// A peer broke a protocol.
    #[error("the machine broke the protocol: {0}")]
    Protocol(&'static str),
    /// The machine refused the session; its sentence is in the log.
    #[error("the machine refused the session")]
    Refused,
    /// Our key opens no ticket.
    #[error("the machine's authentication server does not know this user and password")]
    WrongPassword,
}
