//! The SSH gateway: users by their keys, instances by their names, sessions on the backend of their host type.

use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use buildlet_proto::Buildlet;
use sshbridge::audit::AuditSink;
use sshbridge::auth::{Authorizer, Grant, Jump, Machine, MachineResolver, Refusal, Scope};
use sshbridge::authorize::{KeyAuthorizer, KeyUser};
use sshbridge::hostkey::HostKeys;
use sshbridge::keysource::{FileKeys, UrlKeys};
use sshbridge::server::{Server, ServerConfig};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::backend::Target;
use crate::config::{Backend, Config, HostType, USER_PREFIX, User};
use crate::coordinator::Coordinator;
use crate::instances::InstanceError;
use crate::lease::Lease;

/// Makes the gateway of `coordinator`, which asks `authorizer` who may log in and tells `audit` what happens, and tells its host
/// key as an `authorized_keys` line.
///
/// # Errors
///
/// An error where the host key cannot be read or made.
pub fn server(
    coordinator: &Arc<Coordinator>,
    authorizer: Arc<dyn Authorizer>,
    audit: Option<Arc<dyn AuditSink>>,
) -> anyhow::Result<(Server, String)> {
    let settings = coordinator.config();
    let host_keys = HostKeys::load_or_create(&settings.data_dir)?;
    let line = host_keys.public_line();
    // The server is owned by what owns the coordinator, so this is no cycle; weak all the same, to keep it so.
    let resolver = Resolver {
        coordinator: Arc::downgrade(coordinator),
    };
    let mut config = ServerConfig::new(host_keys);
    config.audit = audit;
    config.source_limits = settings.ssh.source_limits.into();
    let server = Server::new(config, authorizer, Arc::new(resolver));
    Ok((server, line))
}

/// Who may log in, by a configuration.
///
/// # Errors
///
/// An error that names the user whose settings do not do.
pub fn authorizer(config: &Config) -> anyhow::Result<KeyAuthorizer> {
    let authorizer = KeyAuthorizer::new(users(config)?);
    let files = config.ssh.user_ca_files.iter();
    Ok(files.fold(authorizer, |authorizer, file| {
        authorizer.with_authorities(Arc::new(FileKeys::new(file)))
    }))
}

fn users(config: &Config) -> anyhow::Result<Vec<KeyUser>> {
    config
        .users
        .iter()
        .map(|(name, user)| key_user(name, user))
        .collect()
}

fn key_user(name: &str, user: &User) -> anyhow::Result<KeyUser> {
    let principals = user.principals.iter();
    let mut keys = principals.fold(KeyUser::new(name), KeyUser::with_principal);
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
        let coordinator = self.coordinator()?;
        let (lease, host_type) = held(&coordinator, &grant.user, &grant.login).await?;
        let backend = Target::new(&coordinator, &lease).backend(&host_type)?;
        let buildlet = match coordinator.instances.link(&lease) {
            Ok(link) => Some(link.buildlet()),
            Err(InstanceError::NoBuildlet) => None,
            Err(error) => return Err(refusal(&lease.name, &error)),
        };
        let mut machine = Machine::new(&lease.name, backend);
        machine.env = coordinator
            .config()
            .env_of(&lease.builder_type)
            .into_iter()
            .collect();
        machine.tenure = coordinator.instances.tenure_of(&lease.name);
        if let Some(buildlet) = buildlet {
            let work_dir = tokio::time::timeout(WORK_DIR_TIME, buildlet.work_dir()).await;
            let work_dir = work_dir.ok().and_then(Result::ok).unwrap_or_default();
            machine.greeting = greeting(&grant.user, &work_dir, &machine.env);
        }
        machine.hold = Arc::new(keep_renewing(coordinator.clone(), lease));
        Ok(machine)
    }

    async fn jump(&self, grant: &Grant, host: &str, port: u16) -> Option<Result<Jump, Refusal>> {
        let instance = host.strip_prefix(MUTABLE).unwrap_or(host);
        if port != SSH_PORT || !instance.starts_with(USER_PREFIX) {
            return None;
        }
        let login = grant.login.strip_prefix(MUTABLE);
        if grant.scope != Scope::User && login.unwrap_or(&grant.login) != instance {
            let message = "your certificate is for another instance".to_owned();
            return Some(Err(Refusal::new(message)));
        }
        Some(self.jump_to(grant, host).await)
    }
}

impl Resolver {
    fn coordinator(&self) -> Result<Arc<Coordinator>, Refusal> {
        let coordinator = self.coordinator.upgrade();
        coordinator.ok_or_else(|| Refusal::new("the coordinator is shutting down"))
    }

    async fn jump_to(&self, grant: &Grant, host: &str) -> Result<Jump, Refusal> {
        let coordinator = self.coordinator()?;
        let (lease, host_type) = held(&coordinator, &grant.user, host).await?;
        let key = grant.key.as_deref().unwrap_or_default();
        let target = Target::new(&coordinator, &lease);
        let mut jump = target.jump(&host_type, key).await?;
        jump.tenure = coordinator.instances.tenure_of(&lease.name);
        jump.hold = Arc::new(keep_renewing(coordinator.clone(), lease));
        Ok(jump)
    }
}

/// The lease of `user` that `login` names, and the kind of its machine.
async fn held(
    coordinator: &Coordinator,
    user: &str,
    login: &str,
) -> Result<(Lease, HostType), Refusal> {
    let (name, mutable) = match login.strip_prefix(MUTABLE) {
        Some(name) => (name, true),
        None => (login, false),
    };
    let lease = coordinator
        .instances
        .use_by(user, name)
        .await
        .map_err(|error| refusal(name, &error))?;
    let host_type = coordinator
        .config()
        .host_types
        .get(&lease.machine.host_type)
        .cloned()
        .ok_or_else(|| Refusal::new(format!("instance {name:?} has unknown host type")))?;
    if !host_type.hermetic && !mutable && host_type.backend != Backend::Off {
        return Err(Refusal::new(not_hermetic(&lease)));
    }
    Ok((lease, host_type))
}

/// A user is told the same of an instance that does not exist and of one that is somebody else's.
fn refusal(name: &str, error: &InstanceError) -> Refusal {
    let message = match error {
        InstanceError::NotYours | InstanceError::Unknown => {
            format!("no instance {name:?} of yours; `gomote list` shows what you hold")
        }
        InstanceError::Away { .. } | InstanceError::NoBuildlet | InstanceError::Store(_) => {
            error.to_string()
        }
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
                Ok(_) => {}
                Err(InstanceError::Unknown) => return,
                Err(error) => warn!(instance = %lease.name, %error, "cannot renew a lease"),
            }
        }
    }))
}

/// What a user says who knows that the machine keeps what is changed on it.
const MUTABLE: &str = "mutable-";
/// The port that `ssh -J` asks for.
const SSH_PORT: u16 = 22;
const RENEW_INTERVAL: Duration = Duration::from_secs(60);
/// The greeting is a courtesy: a machine that is slow to tell its work directory does not delay the session for long.
const WORK_DIR_TIME: Duration = Duration::from_secs(5);
