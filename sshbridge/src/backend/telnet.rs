//! The backend for machines that have a telnet server and no SSH server.
//!
//! A session is a shell on a terminal, which telnet is made for. Commands and forwarding need what telnet does not have
//! (an exit status, more than one stream) and are refused with a sentence that says what serves instead. Files go over
//! SFTP where the machine's [`FileApi`] is given.
//!
//! Everything crosses the stream in the clear: it must not leave the machine, a tunnel to it, or a private network.
//!
//! * [`session`] is the protocol, without a stream or a clock: the options, the ends of lines, the login.
//! * What the login sends is bound to the stream that the [`TelnetDialer`] gives along with it.

mod channel;
mod codec;
mod credentials;
mod driver;
mod login;
mod newline;
mod options;
pub mod session;
mod terminal;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::credentials::{Credentials, InvalidUser};
use super::ssh::Stream;
use super::{Backend, BackendChannel, BackendConn, BackendError};
use crate::sftp::FileApi;

/// Reaches a machine's telnet server.
#[async_trait]
pub trait TelnetDialer: Send + Sync + 'static {
    /// Opens a stream to the server, for one session.
    ///
    /// Where the stream is a TCP connection, urgent data must stay in line (`SO_OOBINLINE`): servers send their data mark
    /// as urgent, and half of it would appear on the screen.
    ///
    /// # Errors
    ///
    /// [`BackendError`] with a sentence that the user reads.
    async fn dial(&self) -> Result<TelnetTarget, BackendError>;

    /// The machine's files, which the subsystem `sftp` serves. There are none by default.
    fn files(&self) -> Option<Arc<dyn FileApi>> {
        None
    }
}

/// A telnet server that was reached.
#[non_exhaustive]
pub struct TelnetTarget {
    /// The stream to it.
    pub stream: Box<dyn Stream>,
    /// Who logs in to it.
    pub login: TelnetLogin,
}

impl TelnetTarget {
    /// A server behind `stream`, and who logs in to it.
    pub fn new(stream: impl Stream, login: TelnetLogin) -> Self {
        Self {
            stream: Box::new(stream),
            login,
        }
    }
}

impl fmt::Debug for TelnetTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelnetTarget")
            .field("login", &self.login)
            .finish_non_exhaustive()
    }
}

/// Who logs in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TelnetLogin {
    /// The gateway, with this account.
    Auto(Credentials),
    /// The user.
    Manual,
    /// Nobody: the server asks for nothing.
    None,
}

/// How sessions with a machine's server are held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TelnetSettings {
    /// How long the login may take. Default: 75 s, because Windows looks the client's name up for up to a minute before
    /// it asks for an account.
    pub login_time: Duration,
    /// What the signal `INT` becomes.
    pub interrupt: Interrupt,
    /// What is done where the server might show the password.
    pub password_echo: PasswordEcho,
}

impl Default for TelnetSettings {
    fn default() -> Self {
        Self {
            login_time: Duration::from_secs(75),
            interrupt: Interrupt::default(),
            password_echo: PasswordEcho::default(),
        }
    }
}

/// What the signal `INT` becomes. `^C` on the keyboard is byte 3 in any case.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Interrupt {
    /// Both of the following.
    Both,
    /// Byte 3, which every server passes on to its terminal.
    #[default]
    Byte,
    /// `IAC IP`, which busybox ignores.
    Ip,
}

/// What is done where the server might show the password, because it has not taken the echo upon itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum PasswordEcho {
    /// It is sent all the same. A console that does not negotiate needs that.
    Accept,
    /// The login fails.
    #[default]
    Refuse,
}

/// A machine behind a [`TelnetDialer`].
#[derive(Clone)]
pub struct TelnetBackend {
    dialer: Arc<dyn TelnetDialer>,
    settings: TelnetSettings,
}

impl TelnetBackend {
    /// Reaches the machine through `dialer`, once for each session.
    pub fn new(dialer: Arc<dyn TelnetDialer>, settings: TelnetSettings) -> Self {
        Self { dialer, settings }
    }
}

impl fmt::Debug for TelnetBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelnetBackend").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for TelnetBackend {
    /// Connects nowhere: the server is dialled when a shell is started.
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl BackendConn for TelnetBackend {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        Ok(channel::open(self.dialer.clone(), self.settings))
    }
}

#[cfg(test)]
mod tests;
