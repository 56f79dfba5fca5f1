//! What the sessions of an instance run on: the backend that its host type names, and how that reaches the machine.

mod conterm;
mod files;
mod password;
mod route;
mod ssh;
mod telnet;

use std::io;
use std::sync::{Arc, Weak};

use sshbridge::auth::{Jump, Refusal};
use sshbridge::backend::BackendError;
use sshbridge::backend::ssh::SshBackend;

pub use self::password::{PasswordError, read_password};
pub use self::route::Route;
use self::ssh::Dialer;
use crate::config::{Backend, HostType};
use crate::coordinator::Coordinator;
use crate::instances::InstanceError;
use crate::lease::Lease;
use crate::machine::Link;

/// The machine of a lease, over whichever link it has at that time.
#[derive(Clone, Debug)]
pub struct Target {
    coordinator: Weak<Coordinator>,
    lease: Lease,
}

impl Target {
    /// The machine of `lease`.
    pub fn new(coordinator: &Arc<Coordinator>, lease: &Lease) -> Self {
        Self {
            coordinator: Arc::downgrade(coordinator),
            lease: lease.clone(),
        }
    }

    /// The backend that the machine's host type names.
    ///
    /// # Errors
    ///
    /// [`Refusal`] where there is none, or its settings do not do.
    pub fn backend(
        &self,
        host_type: &HostType,
    ) -> Result<Arc<dyn sshbridge::backend::Backend>, Refusal> {
        match host_type.backend {
            Backend::Conterm => {
                let machine = host_type.machines.get(&self.lease.machine.hostname);
                let settings = host_type.conterm_on(machine);
                let settings = settings.map_err(|_| self.unconfigured("conterm"))?;
                conterm::backend(self, &settings)
            }
            Backend::Off => Err(self.unconfigured("SSH")),
            Backend::Ssh => {
                let dialer = Dialer::new(self.clone(), &host_type.ssh_user);
                Ok(Arc::new(SshBackend::new(Arc::new(dialer))))
            }
            Backend::Telnet => {
                let settings = host_type
                    .telnet_on(host_type.machines.get(&self.lease.machine.hostname))
                    .map_err(|_| self.unconfigured("telnet"))?;
                Ok(telnet::backend(self.clone(), settings))
            }
        }
    }

    /// Opens a stream to the machine's own SSH server, where its host type has one.
    ///
    /// # Errors
    ///
    /// [`Refusal`] where there is none, or it does not answer.
    pub async fn jump(&self, host_type: &HostType, key: &str) -> Result<Jump, Refusal> {
        if host_type.backend != Backend::Ssh {
            return Err(self.unconfigured("an SSH server"));
        }
        let dialled = Dialer::dial_for(self, &host_type.ssh_user, key).await;
        let dialled =
            dialled.map_err(|error| Refusal::new(format!("{}: {error}", self.lease.name)))?;
        Ok(Jump::new(dialled.stream))
    }

    /// Whether the machine is there without a buildlet.
    fn is_without_buildlet(&self) -> bool {
        let coordinator = self.coordinator.upgrade();
        coordinator.is_some_and(|it| it.pool.is_standing(&self.lease.machine))
    }

    fn unconfigured(&self, what: &str) -> Refusal {
        let (name, host_type) = (&self.lease.name, &self.lease.machine.host_type);
        Refusal::new(format!(
            "instance {name:?} host type {host_type:?} does not have {what} configured"
        ))
    }

    /// The machine's link.
    fn link(&self) -> Result<Arc<Link>, BackendError> {
        let coordinator = self.coordinator.upgrade().ok_or(BackendError::Closed)?;
        let unreachable = |error: InstanceError| BackendError::Unreachable(io::Error::other(error));
        coordinator.instances.link(&self.lease).map_err(unreachable)
    }
}
