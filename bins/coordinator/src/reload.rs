//! A configuration that has changed, taken over while the coordinator serves: nobody's lease ends for it.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use rustls::ServerConfig;
use sshbridge::auth::{AuthRequest, Authorizer, CertificateRequest, Denied, Grant};
use sshbridge::authorize::KeyAuthorizer;
use tracing::{info, warn};

use crate::audit::AuditQueue;
use crate::config::Config;
use crate::coordinator::Coordinator;
use crate::identity::Identity;
use crate::lease::MachineId;
use crate::secret::SecretHash;
use crate::ssh;

/// What a running coordinator takes from a changed configuration.
#[derive(Clone, Debug)]
pub struct Reload {
    coordinator: Arc<Coordinator>,
    certificate: Arc<Current<ServerConfig>>,
    users: Arc<Current<KeyAuthorizer>>,
    audit: Option<Arc<AuditQueue>>,
}

impl Reload {
    /// Changes what a coordinator serves by, which has these parts.
    pub(crate) fn new(
        coordinator: Arc<Coordinator>,
        certificate: Arc<Current<ServerConfig>>,
        users: Arc<Current<KeyAuthorizer>>,
        audit: Option<Arc<AuditQueue>>,
    ) -> Self {
        Self {
            coordinator,
            certificate,
            users,
            audit,
        }
    }

    /// Serves by `config` from here on, and opens the audit log again.
    ///
    /// Users, their keys and authorities, host types, builder types and the certificate change at once: sessions of users who
    /// are there no more end, and machines whose key has changed have to register again. What else differs is logged, and
    /// counts from the next start.
    ///
    /// # Errors
    ///
    /// An error that names what cannot be used. Nothing has changed then.
    pub fn take(&self, config: Config) -> anyhow::Result<()> {
        let before = self.coordinator.config();
        let identity = Identity::load(&config.tls, &before.data_dir)?;
        let pin = identity.pin;
        let certificate = identity.server_config()?;
        let users = ssh::authorizer(&config)?;
        let config = Arc::new(keep_the_rest(config, &before));
        self.certificate.set(certificate);
        self.users.set(users);
        self.coordinator.set_config(config.clone());
        let pool = &self.coordinator.pool;
        pool.set_standing(config.standing_machines());
        for link in pool.links() {
            if key_of(&before, &link.id) != key_of(&config, &link.id) {
                warn!(machine = %link.id, "the machine's key has changed, it has to register again");
                link.close();
            }
        }
        if let Some(audit) = &self.audit {
            audit.reopen();
        }
        info!(%pin, "the configuration was read again");
        Ok(())
    }
}

/// What cannot change while the coordinator runs stays as it is.
fn keep_the_rest(mut config: Config, before: &Config) -> Config {
    keep("data_dir", &mut config.data_dir, &before.data_dir);
    keep("listen", &mut config.listen, &before.listen);
    keep("go_keys", &mut config.go_keys, &before.go_keys);
    let (ssh, ssh_before) = (&mut config.ssh, &before.ssh);
    keep("ssh.audit_log", &mut ssh.audit_log, &ssh_before.audit_log);
    let limits = &mut ssh.source_limits;
    keep("ssh.source_limits", limits, &ssh_before.source_limits);
    config
}

fn keep<T: Clone + PartialEq>(key: &str, value: &mut T, before: &T) {
    if value != before {
        warn!(key, "a change of this counts from the next start");
        value.clone_from(before);
    }
}

/// What a machine has to show to register; `None` where there is no such host type.
fn key_of(config: &Config, machine: &MachineId) -> Option<Option<SecretHash>> {
    let host_type = config.host_types.get(&machine.host_type);
    host_type.map(|host_type| host_type.key_of(&machine.hostname))
}

/// Something that is replaced as a whole: whoever took it before goes on with what it took.
#[derive(Debug)]
pub(crate) struct Current<T>(RwLock<Arc<T>>);

impl<T> Current<T> {
    pub(crate) fn new(value: impl Into<Arc<T>>) -> Self {
        Self(RwLock::new(value.into()))
    }

    pub(crate) fn get(&self) -> Arc<T> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set(&self, value: impl Into<Arc<T>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value.into();
    }
}

#[async_trait]
impl Authorizer for Current<KeyAuthorizer> {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        self.get().authorize(request).await
    }

    async fn authorize_certificate(&self, request: &CertificateRequest) -> Result<Grant, Denied> {
        self.get().authorize_certificate(request).await
    }

    fn takes_certificates(&self) -> bool {
        self.get().takes_certificates()
    }

    async fn is_revoked(&self, grant: &Grant) -> bool {
        self.get().is_revoked(grant).await
    }
}
