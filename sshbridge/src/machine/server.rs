//! The SSH server built into a machine.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::backend::LocalBackend;
use super::settings::LocalSettings;
use crate::auth::{AuthRequest, Authorizer, Denied, Grant, Machine, MachineResolver, Refusal};
use crate::hostkey::HostKeys;
use crate::key::{AuthorizedKey, KeyError};
use crate::server::{AcceptEnv, ServeError, Server, ServerConfig};

/// Serves SSH on streams that lead to this machine, each for one key.
///
/// Sessions are those of a [`LocalBackend`]: whoever holds the key does what this program's own user may do. A dropped
/// server kills what still runs on it.
#[derive(Clone, Debug)]
pub struct MachineServer {
    config: ServerConfig,
    backend: LocalBackend,
}

impl MachineServer {
    /// Serves with these host keys, and runs sessions as `settings` say.
    ///
    /// Clients are not asked for signs of life: a gateway that stops reading, because its own user does, cannot answer.
    /// What carries the streams has to notice that its peer is gone. Any environment is accepted: the gateway has looked
    /// at its user's, and adds that of the machine.
    pub fn new(host_keys: HostKeys, settings: LocalSettings) -> Self {
        let mut config = ServerConfig::new(host_keys);
        config.accept_env = AcceptEnv::Any;
        config.keepalive = None;
        Self {
            config,
            backend: LocalBackend::new(settings),
        }
    }

    /// The public host key, as a line without comment: `ssh-ed25519 AAAA…`.
    pub fn host_key_line(&self) -> String {
        self.config.host_keys.public_line()
    }

    /// Serves one connection to its end. It admits the holder of `authorized_key`, `TYPE BASE64 [COMMENT]`, under any
    /// user name, and nobody else.
    ///
    /// # Errors
    ///
    /// [`MachineServeError`]. Nothing was read from or written to the stream where the key cannot be used.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the connection. What runs on it is told to hang up, and killed after
    /// [`LocalSettings::grace`].
    pub async fn serve<S>(&self, stream: S, authorized_key: &str) -> Result<(), MachineServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let key = authorized_key.parse()?;
        let server = Server::new(
            self.config.clone(),
            Arc::new(OneKey(key)),
            Arc::new(ThisMachine(self.backend.clone())),
        );
        Ok(server.serve_stream(stream, None).await?)
    }
}

/// Why a connection was not served to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineServeError {
    /// The key that the connection was to admit cannot be used.
    #[error("the key to admit cannot be used")]
    Key(#[from] KeyError),
    /// The connection did not end as a client ends it.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Admits the holder of one key under any name.
struct OneKey(AuthorizedKey);

#[async_trait]
impl Authorizer for OneKey {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        match request.key.parse::<AuthorizedKey>() {
            Ok(key) if key == self.0 => {
                Ok(Grant::new(request.login.as_str(), request.login.as_str()))
            }
            Ok(_) | Err(_) => Err(Denied),
        }
    }
}

/// Leads everybody to this machine.
struct ThisMachine(LocalBackend);

#[async_trait]
impl MachineResolver for ThisMachine {
    async fn resolve(&self, _grant: &Grant) -> Result<Machine, Refusal> {
        Ok(Machine::new("this machine", Arc::new(self.0.clone())))
    }
}
