//! Who may log in: what the server asks before it lets anybody near a machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;

/// Decides whether a key may log in under a name.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Answers for one key. The server asks for a key that is merely offered and again for the key that was proven; a
    /// grant for an offer only says that proof would be accepted.
    ///
    /// # Errors
    ///
    /// [`Denied`], which says nothing: every refusal must look the same from outside.
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied>;
}

/// One attempt to log in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuthRequest {
    /// The SSH user name: an instance, perhaps with a prefix.
    pub login: String,
    /// The key, as an `authorized_keys` line without options or comment: `ssh-ed25519 AAAA…`.
    pub key: String,
    /// Where the connection comes from.
    pub peer: Option<SocketAddr>,
}

impl AuthRequest {
    /// Asks for `login` with `key`, an `authorized_keys` line without options or comment.
    pub fn new(login: impl Into<String>, key: impl Into<String>, peer: Option<SocketAddr>) -> Self {
        Self {
            login: login.into(),
            key: key.into(),
            peer,
        }
    }
}

/// A proven login: who it is, and what it may do until when.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Grant {
    /// The user, by the gateway's own name for them.
    pub user: String,
    /// The SSH user name of the login.
    pub login: String,
    /// When the grant ends, where it does.
    pub not_after: Option<Instant>,
}

impl Grant {
    /// Lets `user` in as `login`, without an end.
    pub fn new(user: impl Into<String>, login: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            login: login.into(),
            not_after: None,
        }
    }
}

/// The key may not log in under that name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("permission denied")]
#[expect(clippy::exhaustive_structs, reason = "it says nothing, and never will")]
pub struct Denied;

/// Finds the machine behind a login that was granted.
#[async_trait]
pub trait MachineResolver: Send + Sync + 'static {
    /// Resolves the login of `grant` to a machine. Asked once per connection, at its first channel.
    ///
    /// # Errors
    ///
    /// [`Refusal`], a sentence that the user reads before the connection ends.
    async fn resolve(&self, grant: &Grant) -> Result<Machine, Refusal>;
}

/// A machine that a session can be opened on.
#[derive(Clone)]
#[non_exhaustive]
pub struct Machine {
    /// The instance, for logs.
    pub id: String,
    /// How to open sessions.
    pub backend: Arc<dyn Backend>,
    /// Lines that an interactive session is greeted with, each ended by a line feed.
    pub greeting: String,
    /// Environment for every session, before what the client sends.
    pub env: Vec<(String, String)>,
    /// Cancelled when the user's right to the machine ends; every stream is then cut.
    pub ended: CancellationToken,
    /// Held as long as the connection lives: dropping it tells the resolver that the user is gone.
    pub hold: Arc<dyn Send + Sync>,
}

impl Machine {
    /// A machine reached through `backend`, without greeting or environment, for as long as the process lives.
    pub fn new(id: impl Into<String>, backend: Arc<dyn Backend>) -> Self {
        Self {
            id: id.into(),
            backend,
            greeting: String::new(),
            env: Vec::new(),
            ended: CancellationToken::new(),
            hold: Arc::new(()),
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why there is no machine, in a sentence for the user.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Refusal {
    /// What the user reads, without a final line break.
    pub message: String,
}

impl Refusal {
    /// Refuses with a sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}
