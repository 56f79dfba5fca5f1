//! What happened, for those who have to know it afterwards.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::backend::ListenAddress;

/// Takes what happens on a server.
pub trait AuditSink: fmt::Debug + Send + Sync + 'static {
    /// Takes one event; those of a connection come in their order. Called between the packets of a connection, so it must
    /// not wait: a sink that writes to a slow place has a queue with a bound.
    fn record(&self, event: &AuditEvent);
}

/// One thing that happened. No event holds a secret: keys are named by their fingerprints, and nothing of what a session
/// carries is in it. A command line is, so what a user writes there anybody with the log can read. All text but that of
/// [`CloseReason`] and [`AuditKind::Resolved`] is what a peer said, of any length that a packet holds.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The connection, by a number that no other one of this server has.
    pub connection: u64,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// What happened.
    pub kind: AuditKind,
}

impl AuditEvent {
    pub(crate) fn new(connection: u64, peer: Option<SocketAddr>, kind: AuditKind) -> Self {
        Self {
            connection,
            peer,
            kind,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AuditKind {
    /// The connection ended; nothing of it comes after that.
    Closed {
        /// Why.
        reason: CloseReason,
        /// How long it lasted.
        duration: Duration,
        /// Bytes that came from the client, those of the protocol included.
        received: u64,
        /// Bytes that were sent to the client, those of the protocol included.
        sent: u64,
    },
    /// What a session ran ended, by the machine's report. Without one it ended with its channel or its connection.
    Exited {
        /// The session's channel.
        channel: u32,
        /// How.
        exit: Exit,
    },
    /// A stream was forwarded, or was to be.
    Forwarded {
        /// From whom to whom.
        direction: Direction,
        /// Where it leads to, or where somebody connected: `HOST:PORT` or a path. Nothing for the user's agent.
        address: String,
        /// Whether it was opened.
        outcome: Outcome,
    },
    /// The machine was asked to listen for the user.
    Listening {
        /// Where, with the real port.
        address: ListenAddress,
        /// Whether it does.
        outcome: Outcome,
    },
    /// Somebody logged in.
    LoggedIn {
        /// The SSH user name.
        login: String,
        /// The user.
        user: String,
        /// What was proven.
        credential: Credential,
    },
    /// A key or a certificate is not granted this login.
    Refused {
        /// The SSH user name.
        login: String,
        /// What was shown.
        credential: Credential,
        /// Whether it was proven. Agents offer all their keys, so one that is only offered is no sign of an attack.
        proof: Proof,
    },
    /// The login led to a machine.
    Resolved {
        /// The machine.
        machine: String,
    },
    /// A session channel was opened.
    SessionOpened {
        /// The channel.
        channel: u32,
    },
    /// A session was asked to run something.
    Started {
        /// The session's channel.
        channel: u32,
        /// What runs; with a [`Grant::command`](crate::auth::Grant::command) that, whatever was asked for.
        program: Program,
        /// Whether it has a terminal.
        terminal: bool,
        /// Whether it runs.
        outcome: Outcome,
    },
    /// The login led to no machine, with the sentence that the user reads.
    Unresolved {
        /// The sentence.
        reason: String,
    },
}

/// Why a connection ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CloseReason {
    /// Whoever served it stopped.
    Dropped,
    /// The time of the user is over, with the sentence that the user read.
    Ended(String),
    /// Something went wrong, by the text of a [`ServeError`](crate::server::ServeError).
    Failed(String),
    /// The client left.
    Left,
    /// The machine that listened for the user was lost.
    Lost,
    /// The server ended.
    Shutdown,
}

/// How a program ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Exit {
    /// It was ended by this signal, without `SIG`.
    Signal(String),
    /// It ended with this status.
    Status(u32),
}

/// From whom to whom a stream was forwarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Direction {
    /// From the machine to the user's agent.
    Agent,
    /// From the user to where the machine connects (`ssh -L`, `-D`, `-W`).
    Direct,
    /// From the user to a machine's own SSH server (`ssh -J`).
    Jump,
    /// From where the machine listens to the user (`ssh -R`).
    Remote,
}

/// Whether something that was asked for was done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum Outcome {
    /// It was.
    Done,
    /// It was not: it is not permitted, or the machine did not do it.
    Refused,
}

impl Outcome {
    pub(crate) fn done_if(done: bool) -> Self {
        if done { Self::Done } else { Self::Refused }
    }
}

/// Whether somebody who showed a key has shown to hold it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum Proof {
    /// By a signature.
    Given,
    /// Not yet: it was offered.
    None,
}

/// What a session runs.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Program {
    /// A command line, with U+FFFD for what is not UTF-8.
    Command(String),
    /// The user's shell.
    Shell,
    /// A subsystem.
    Subsystem(String),
}

/// What somebody showed in order to log in.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Credential {
    /// SHA-256 of the key, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The certificate of it, where one was shown.
    pub certificate: Option<CertificateName>,
}

/// What a certificate is called. Whoever shows one that is refused may have made it up.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CertificateName {
    /// SHA-256 of the authority's key.
    pub authority: String,
    /// The authority's name for the certificate.
    pub key_id: String,
    /// The certificate's number.
    pub serial: u64,
}
