//! Who may log in: what the server asks before it lets anybody near a machine.

mod tenure;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::Backend;
use crate::backend::ssh::Stream;
use crate::certificate::UserCertificate;
use async_trait::async_trait;

pub use self::tenure::Tenure;
pub(crate) use self::tenure::Term;

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

    /// Answers for a certificate whose key was proven. Whether the certificate is to be believed is asked here too.
    ///
    /// # Errors
    ///
    /// [`Denied`], as above; also where there are no authorities, which is the default.
    async fn authorize_certificate(&self, request: &CertificateRequest) -> Result<Grant, Denied> {
        let _ = request;
        Err(Denied)
    }

    /// Whether [`Self::authorize_certificate`] may let anybody in. The SSH library shows only the key of a certificate that
    /// is offered, so where this is true a client is asked to prove every key that it offers, and the keys that it proves
    /// in vain count as offers.
    fn takes_certificates(&self) -> bool {
        false
    }

    /// Whether what was granted has been taken back. The server asks while the user is logged in
    /// ([`ServerConfig::revocation_check`](crate::server::ServerConfig::revocation_check)), and ends the connection where it has. That it
    /// cannot be known just now is no reason to say so. By default nothing is taken back.
    async fn is_revoked(&self, grant: &Grant) -> bool {
        let _ = grant;
        false
    }
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

/// One attempt to log in with a certificate, whose key the client has proven to hold.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CertificateRequest {
    /// The SSH user name: an instance, perhaps with a prefix.
    pub login: String,
    /// The certificate, of which only the proof of its key was checked.
    pub certificate: UserCertificate,
    /// Where the connection comes from.
    pub peer: Option<SocketAddr>,
}

impl CertificateRequest {
    /// Asks for `login` with `certificate`.
    pub fn new(
        login: impl Into<String>,
        certificate: UserCertificate,
        peer: Option<SocketAddr>,
    ) -> Self {
        Self {
            login: login.into(),
            certificate,
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
    /// What may be forwarded. Default: everything.
    pub forwarding: Forwarding,
    /// Whether sessions may have a terminal. Default: they may.
    pub terminal: Permission,
    /// The only command that sessions run, whatever they ask for; the machine is told what that was in
    /// `SSH_ORIGINAL_COMMAND`, where it takes the variable. Default: none, they run what they like.
    pub command: Option<String>,
    /// What the grant reaches. Default: what the login names, alone.
    pub scope: Scope,
    /// The key that was proven, as an `authorized_keys` line without options or comment. The server puts it here.
    pub key: Option<String>,
    /// The authority whose certificate for that key was believed, as SHA-256 of its key. The server puts it here. `None` for
    /// a plain key.
    pub authority: Option<String>,
}

impl Grant {
    /// Lets `user` in as `login`, without an end.
    pub fn new(user: impl Into<String>, login: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            login: login.into(),
            not_after: None,
            forwarding: Forwarding::default(),
            terminal: Permission::default(),
            command: None,
            scope: Scope::Login,
            key: None,
            authority: None,
        }
    }
}

impl Grant {
    /// Whether sessions may be anything: only then is a user let through to a machine's own SSH server, which knows of no
    /// restrictions.
    pub(crate) fn is_unrestricted(&self) -> bool {
        let all = Forwarding::default();
        self.command.is_none() && self.terminal == Permission::Allowed && self.forwarding == all
    }
}

/// What a grant reaches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing in between")]
pub enum Scope {
    /// What the login names.
    Login,
    /// Whatever is the user's, by [`MachineResolver::jump`] too.
    User,
}

/// What a user may have forwarded. All of it ends on the machine, which a user can do anything with that its account can;
/// refusing it keeps nobody with a shell from reaching the same, but keeps what is asked for by accident from happening.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Forwarding {
    /// The user's agent, to the machine (`ssh -A`).
    pub agent: Permission,
    /// Connections from the machine to ports (`ssh -L`, `-D`, `-W`).
    pub direct: Permission,
    /// Ports of the machine, to the user (`ssh -R`).
    pub remote: Permission,
    /// Unix sockets of the machine, in both directions.
    pub unix: Permission,
}

/// Whether something may be done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third answer")]
pub enum Permission {
    /// It may.
    #[default]
    Allowed,
    /// It may not.
    Refused,
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

    /// Leads a stream that a user wants to `host` and `port` to the SSH server of the machine that is called so, as for
    /// `ssh -J GATEWAY USER@INSTANCE`: SSH from end to end, of which the server only copies the bytes. Whether that is
    /// within [`Grant::scope`] is asked here too. The machine has to check who comes: it is told to admit [`Grant::key`].
    ///
    /// `None`, which is the default, where this resolver calls nothing so: the login's machine then connects there. It is
    /// not asked for a grant that restricts sessions, because nothing would enforce that.
    ///
    /// # Errors
    ///
    /// [`Refusal`], a sentence that the user's client shows.
    async fn jump(&self, grant: &Grant, host: &str, port: u16) -> Option<Result<Jump, Refusal>> {
        let _ = (grant, host, port);
        None
    }
}

/// A stream to a machine's own SSH server.
#[non_exhaustive]
pub struct Jump {
    /// The stream.
    pub stream: Box<dyn Stream>,
    /// How long the user has the machine. At its end the stream is cut.
    pub tenure: Tenure,
    /// Held as long as the stream lives.
    pub hold: Arc<dyn Send + Sync>,
}

impl Jump {
    /// A stream for as long as it lasts.
    pub fn new(stream: impl Stream) -> Self {
        Self {
            stream: Box::new(stream),
            tenure: Tenure::new(),
            hold: Arc::new(()),
        }
    }
}

impl std::fmt::Debug for Jump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jump").finish_non_exhaustive()
    }
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
    /// How long the user has it. At its end sessions are told why, and every stream is cut; a while before it terminals
    /// are told when that is ([`ServerConfig::end_notice`](crate::server::ServerConfig::end_notice)).
    pub tenure: Tenure,
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
            tenure: Tenure::new(),
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
