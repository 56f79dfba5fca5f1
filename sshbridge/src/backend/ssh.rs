//! The backend for machines that speak SSH themselves: an SSH client over a stream that somebody dials.
//!
//! Every session channel has a connection of its own, forwarded streams share some: `conn` says why.

mod client;
mod conn;
mod ports;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use self::conn::SshConn;
use crate::backend::{Backend, BackendConn, BackendError};

/// A byte stream to a machine.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Reaches a machine's SSH server.
#[async_trait]
pub trait SshDialer: Send + Sync + 'static {
    /// Opens a stream to an SSH server that admits `authorized_key`: an `authorized_keys` line without options or comment,
    /// whose key was made for this one connection.
    ///
    /// # Errors
    ///
    /// [`BackendError`] with a sentence that the user reads.
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError>;
}

/// An SSH server that was reached.
#[non_exhaustive]
pub struct SshTarget {
    /// The stream to it.
    pub stream: Box<dyn Stream>,
    /// Whom to log in as.
    pub user: String,
    /// The server's host key, as an `authorized_keys` line: no other is accepted. Without it every key is, so the stream
    /// must lead to the machine by itself.
    pub host_key: Option<String>,
}

impl SshTarget {
    /// A server behind `stream` that `user` logs in to, with whatever host key.
    pub fn new(stream: impl Stream, user: impl Into<String>) -> Self {
        Self {
            stream: Box::new(stream),
            user: user.into(),
            host_key: None,
        }
    }

    /// Accepts this host key only.
    pub fn with_host_key(mut self, line: impl Into<String>) -> Self {
        self.host_key = Some(line.into());
        self
    }
}

impl std::fmt::Debug for SshTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshTarget")
            .field("user", &self.user)
            .field("host_key", &self.host_key)
            .finish_non_exhaustive()
    }
}

/// A machine behind an [`SshDialer`].
#[derive(Clone)]
pub struct SshBackend {
    dialer: Arc<dyn SshDialer>,
}

impl SshBackend {
    /// Reaches the machine through `dialer`: once for each session, and a few times more for what is forwarded.
    pub fn new(dialer: Arc<dyn SshDialer>) -> Self {
        Self { dialer }
    }
}

impl std::fmt::Debug for SshBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshBackend").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for SshBackend {
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError> {
        Ok(Box::new(SshConn::new(self.dialer.clone()).await?))
    }
}

/// How long a machine may take from its first byte to our login: several times what the slowest of them need.
const HANDSHAKE: Duration = Duration::from_secs(20);
