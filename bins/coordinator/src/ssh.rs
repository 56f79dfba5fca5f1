//! The SSH gateway: users by their keys, instances by their names, sessions over `/connect-ssh`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use buildlet_proto::Buildlet;
use buildlet_proto::api::SshRequest;
use sshbridge::auth::{Grant, Machine, MachineResolver, Refusal};
use sshbridge::authorize::{KeyAuthorizer, KeyUser};
use sshbridge::backend::BackendError;
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::hostkey::HostKeys;
use sshbridge::keysource::{FileKeys, UrlKeys};
use sshbridge::server::{Server, ServerConfig};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::config::{Config, SshBackend as Ssh, User};
use crate::coordinator::Coordinator;
use crate::instances::InstanceError;
use crate::lease::Lease;

/// Makes the gateway of `coordinator`, and tells its host key as an `authorized_keys` line.
///
/// # Errors
///
/// An error where the host key cannot be read or made.
pub fn server(coordinator: &Arc<Coordinator>) -> anyhow::Result<(Server, String)> {
    let host_keys = HostKeys::load_or_create(&coordinator.config.data_dir)?;
    let line = host_keys.public_line();
    let authorizer = KeyAuthorizer::new(users(&coordinator.config)?);
    // The server is owned by what owns the coordinator, so this is no cycle; weak all the same, to keep it so.
    let resolver = Resolver {
        coordinator: Arc::downgrade(coordinator),
    };
    Ok((
        Server::new(
            ServerConfig::new(host_keys),
            Arc::new(authorizer),
            Arc::new(resolver),
        ),
        line,
    ))
}

fn users(config: &Config) -> anyhow::Result<Vec<KeyUser>> {
    config
        .users
        .iter()
        .map(|(name, user)| key_user(name, user))
        .collect()
}

fn key_user(name: &str, user: &User) -> anyhow::Result<KeyUser> {
    let mut keys = KeyUser::new(name);
    for file in &user.key_files {
        keys = keys.with_source(Arc::new(FileKeys::new(file)), name);
    }
    if let (Some(template), Some(account)) = (&user.key_url, &user.account) {
        let source = UrlKeys::new(template).with_context(|| format!("users.{name}: key_url"))?;
        keys = keys.with_source(Arc::new(source), account);
    }
    Ok(keys)
}

struct Resolver {
    coordinator: Weak<Coordinator>,
}

#[async_trait]
impl MachineResolver for Resolver {
    async fn resolve(&self, grant: &Grant) -> Result<Machine, Refusal> {
        let coordinator = self
            .coordinator
            .upgrade()
            .ok_or_else(|| Refusal::new("the coordinator is shutting down"))?;
        let (name, mutable) = match grant.login.strip_prefix(MUTABLE) {
            Some(name) => (name, true),
            None => (grant.login.as_str(), false),
        };
        let lease = coordinator
            .instances
            .use_by(&grant.user, name)
            .await
            .map_err(|error| refusal(name, &error))?;
        let host_type = coordinator
            .config
            .host_types
            .get(&lease.machine.host_type)
            .ok_or_else(|| Refusal::new(format!("instance {name:?} has unknown host type")))?;
        if host_type.ssh == Ssh::Off {
            let message = format!(
                "instance {name:?} host type {:?} does not have SSH configured",
                lease.machine.host_type
            );
            return Err(Refusal::new(message));
        }
        if !host_type.hermetic && !mutable {
            return Err(Refusal::new(not_hermetic(&lease)));
        }
        let link = coordinator
            .instances
            .link(&lease)
            .map_err(|error| refusal(name, &error))?;
        let dialer = Dialer {
            coordinator: self.coordinator.clone(),
            lease: lease.clone(),
            user: host_type.ssh_user.clone(),
        };
        let mut machine = Machine::new(name, Arc::new(SshBackend::new(Arc::new(dialer))));
        machine.env = coordinator
            .config
            .env_of(&lease.builder_type)
            .into_iter()
            .collect();
        machine.ended = coordinator.instances.end_of(&lease.name);
        let work_dir = tokio::time::timeout(WORK_DIR_TIME, link.buildlet().work_dir()).await;
        let work_dir = work_dir.ok().and_then(Result::ok).unwrap_or_default();
        machine.greeting = greeting(&grant.user, &work_dir, &machine.env);
        machine.hold = Arc::new(keep_renewing(coordinator, lease));
        Ok(machine)
    }
}

/// A user is told the same of an instance that does not exist and of one that is somebody else's.
fn refusal(name: &str, error: &InstanceError) -> Refusal {
    let message = match error {
        InstanceError::NotYours | InstanceError::Unknown => {
            format!("no instance {name:?} of yours; `gomote list` shows what you hold")
        }
        InstanceError::Away { .. } | InstanceError::Store(_) => error.to_string(),
    };
    Refusal::new(message)
}

fn not_hermetic(lease: &Lease) -> String {
    let (name, host_type) = (&lease.name, &lease.machine.host_type);
    format!(
        "WARNING: instance {name:?} host type {host_type:?} is not currently\n\
         configured to have a hermetic filesystem per boot.\n\
         You must be careful not to modify machine state\n\
         that will affect future builds. Do you agree? If so,\n\
         run gomote ssh --i-will-not-break-the-host {name}, or log in as {MUTABLE}{name}"
    )
}

fn greeting(user: &str, work_dir: &str, env: &[(String, String)]) -> String {
    let env: Vec<_> = env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!(
        "# Welcome to the gomote ssh proxy, {user}.\n\
         # `gomote put` and `gomote run` use:\n\
         # - workdir: {work_dir}\n\
         # - env: {}\n\
         # Happy debugging.\n",
        env.join(" ")
    )
}

/// Renews a lease each minute for as long as the returned handle lives: an open session is use.
fn keep_renewing(coordinator: Arc<Coordinator>, lease: Lease) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut minutes = tokio::time::interval(RENEW_INTERVAL);
        loop {
            minutes.tick().await;
            match coordinator.instances.renew(&lease.name).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => warn!(instance = %lease.name, %error, "cannot renew a lease"),
            }
        }
    }))
}

/// Opens streams to the SSH server of an instance's machine, over whichever link the machine has at that time.
struct Dialer {
    coordinator: Weak<Coordinator>,
    lease: Lease,
    user: String,
}

#[async_trait]
impl SshDialer for Dialer {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        let coordinator = self.coordinator.upgrade().ok_or(BackendError::Closed)?;
        let unreachable =
            |error: InstanceError| BackendError::Unreachable(std::io::Error::other(error));
        let link = coordinator
            .instances
            .link(&self.lease)
            .map_err(unreachable)?;
        let request = SshRequest::new(self.user.clone(), authorized_key);
        let connected =
            tokio::time::timeout(CONNECT_TIME, link.buildlet().connect_ssh(request)).await;
        let reply = connected
            .map_err(|_| BackendError::TimedOut)?
            .map_err(|error| BackendError::Unreachable(std::io::Error::other(error)))?;
        let target = SshTarget::new(reply.stream, &self.user);
        Ok(match reply.host_key {
            Some(line) => target.with_host_key(line),
            // A buildlet of Go tells no host key. The stream leads to that machine and nowhere else.
            None => target,
        })
    }
}

/// Go's client gives dialling and the exchange together this long.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// What a user says who knows that the machine keeps what is changed on it.
const MUTABLE: &str = "mutable-";
const RENEW_INTERVAL: Duration = Duration::from_secs(60);
/// The greeting is a courtesy: a machine that is slow to tell its work directory does not delay the session for long.
const WORK_DIR_TIME: Duration = Duration::from_secs(5);
