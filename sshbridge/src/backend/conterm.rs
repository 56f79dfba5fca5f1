//! The backend for Plan 9 machines: a console by `cpu` or `rcpu`, spoken here, without a program or a port in between.
//!
//! A machine authenticates us, and we it, by Plan 9's own protocols; then *we* serve it files, by 9P, and a script on it
//! starts a shell between them. It sees a console, pipes, notes and a place for the exit status, and nothing else: no file
//! of the gateway can be reached that way.
//!
//! What differs from a Unix machine: the size of a terminal is told at the start only; there is no forwarding and no agent;
//! signals are notes, and other exit statuses than numbers are 1. What a session leaves behind in the background loses its
//! console with it. Files go over SFTP where the machine's [`FileApi`] is given.
//!
//! The protocols are machines without I/O: `auth` with `keys`, `des`, `pak` and `ticket`; `ssl` and `tls` below `layer`;
//! `ninep` with `console`. `connect` and `session` drive them.

mod auth;
mod connect;
mod console;
mod des;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod keys;
mod layer;
mod ninep;
mod pak;
#[cfg(test)]
mod peer;
mod refusal;
#[cfg(test)]
mod replay;
mod script;
mod session;
mod ssl;
#[cfg(test)]
mod tests;
mod ticket;
mod tls;
#[cfg(test)]
mod vectors;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng as _;

pub use self::auth::{AuthProtocol, Tickets};
use self::auth::{Entropy, Identity};
use self::connect::Connection;
pub use self::error::ContermError;
use self::keys::Keys;
use crate::backend::ssh::Stream;
use crate::backend::{Backend, BackendChannel, BackendConn, BackendError};
use crate::sftp::FileApi;

/// How a machine gives a console.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ContermProtocol {
    /// `cpu`, usually on port 17010, encrypted with RC4. It is for machines that have nothing better, such as 9legacy.
    Cpu,
    /// `rcpu`, usually on port 17019, encrypted with TLS. 9front has it.
    Rcpu,
}

/// What of a machine a stream leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Service {
    /// The authentication server, usually on port 567. It is asked only with [`Tickets::AuthServer`].
    Auth,
    /// `cpu` or `rcpu`.
    Machine,
}

/// Reaches a machine.
#[async_trait]
pub trait ContermDialer: Send + Sync + 'static {
    /// Opens a stream to a service of the machine.
    ///
    /// # Errors
    ///
    /// [`BackendError`] with a sentence that the user reads.
    async fn dial(&self, service: Service) -> Result<Box<dyn Stream>, BackendError>;

    /// The machine's files, which the subsystem `sftp` serves. There are none by default.
    fn files(&self) -> Option<Arc<dyn FileApi>> {
        None
    }
}

/// Who logs in to a machine, and by what. The password itself is not kept; the keys made of it are erased with the last
/// clone.
#[derive(Clone)]
pub struct ContermLogin {
    protocol: ContermProtocol,
    identity: Arc<Identity>,
}

impl ContermLogin {
    /// `user` by `protocol`, authenticated by dp9ik with tickets of an authentication server. It takes the milliseconds
    /// that the password's derivation is meant to take.
    pub fn new(protocol: ContermProtocol, user: impl Into<String>, password: &[u8]) -> Self {
        let user = user.into();
        Self {
            protocol,
            identity: Arc::new(Identity {
                keys: Keys::new(&user, password),
                user,
                protocols: vec![AuthProtocol::Dp9ik],
                tickets: Tickets::AuthServer,
            }),
        }
    }

    /// Allows these protocols, the preferred one first.
    pub fn with_auth(mut self, protocols: impl IntoIterator<Item = AuthProtocol>) -> Self {
        Arc::make_mut(&mut self.identity).protocols = protocols.into_iter().collect();
        self
    }

    /// Says who makes the tickets.
    pub fn with_tickets(mut self, tickets: Tickets) -> Self {
        Arc::make_mut(&mut self.identity).tickets = tickets;
        self
    }

    fn banner(&self) -> String {
        let program = match self.protocol {
            ContermProtocol::Cpu => "cpu",
            ContermProtocol::Rcpu => "rcpu",
        };
        let user = self.identity.user.escape_default();
        format!("# A Plan 9 console by {program}, as {user}. ^C interrupts, ^D ends.\r\n")
    }
}

impl std::fmt::Debug for ContermLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContermLogin")
            .field("protocol", &self.protocol)
            .field("user", &self.identity.user)
            .field("auth", &self.identity.protocols)
            .field("tickets", &self.identity.tickets)
            .finish_non_exhaustive()
    }
}

/// A Plan 9 machine behind a [`ContermDialer`].
#[derive(Clone)]
pub struct ContermBackend {
    dialer: Arc<dyn ContermDialer>,
    login: ContermLogin,
}

impl ContermBackend {
    /// Logs in to the machine behind `dialer`, once for each session.
    pub fn new(dialer: Arc<dyn ContermDialer>, login: ContermLogin) -> Self {
        Self { dialer, login }
    }
}

impl std::fmt::Debug for ContermBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContermBackend")
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for ContermBackend {
    /// Connects nowhere: the machine is dialled when something is started.
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl BackendConn for ContermBackend {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        Ok(session::channel(self.clone()))
    }
}

impl ContermBackend {
    /// Logs in to the machine, and has it run a script.
    async fn start(&self, script: &[u8]) -> Result<Connection, BackendError> {
        let (login, mut entropy) = (&self.login, System);
        let started = async {
            let (dialer, protocol) = (&*self.dialer, login.protocol);
            let connecting = connect::connect(dialer, protocol, &login.identity, &mut entropy);
            let mut connection = connecting.await?;
            connection.start(protocol, script).await?;
            Ok(connection)
        };
        let started = tokio::time::timeout(HANDSHAKE, started).await;
        started.map_err(|_| BackendError::TimedOut)?
    }
}

/// The randomness of the system.
struct System;

impl Entropy for System {
    fn fill(&mut self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// How long a machine may take from its first byte to a session: several times what the slowest of them need.
const HANDSHAKE: Duration = Duration::from_secs(20);
