//! The configuration file: addresses, certificates, host types, builder types, users.

mod backend;
mod conterm;
mod ssh;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::backend::{
    Backend, BackendFault, ConsoleMachine, Telnet, TelnetInterrupt, TelnetLogin, Via,
};
pub use self::conterm::{Conterm, ContermAuth, ContermProtocol, ContermTickets};
pub use self::ssh::{SourceLimits, SshGateway};
use crate::lease::MachineId;
use crate::secret::SecretHash;

/// Everything that `coordinator serve` is told.
///
/// Unknown keys are errors, so that a typing mistake is not a default.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the certificate authority, the certificate and the SSH host key are kept, and made when they are missing; and
    /// leases.
    pub data_dir: PathBuf,
    /// Where to listen.
    #[serde(default)]
    pub listen: Listen,
    /// The certificate.
    #[serde(default)]
    pub tls: Tls,
    /// The SSH gateway.
    #[serde(default)]
    pub ssh: SshGateway,
    /// The kinds of machine.
    #[serde(default)]
    pub host_types: BTreeMap<String, HostType>,
    /// What users ask for: a host type and an environment.
    #[serde(default)]
    pub builder_types: BTreeMap<String, BuilderType>,
    /// Who may lease a machine.
    #[serde(default)]
    pub users: BTreeMap<String, User>,
    /// Credentials of the Go tools, which anybody who knows the one master key can make. Absent: not honoured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_keys: Option<GoKeys>,
}

/// Where to listen.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// HTTPS: machines that dial in, gomote, and the status page.
    pub https: SocketAddr,
    /// SSH.
    pub ssh: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            https: SocketAddr::from(([127, 0, 0, 1], 8443)),
            ssh: SocketAddr::from(([127, 0, 0, 1], 2222)),
        }
    }
}

/// The certificate. Without files a certificate authority is made once, and a certificate of its at each start.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// The names and addresses that a made certificate is for.
    pub names: Vec<String>,
    /// A PEM file with the certificate and its chain, instead of a made one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// A PEM file with the private key of `certificate_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            names: ["localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .to_vec(),
            certificate_file: None,
            key_file: None,
        }
    }
}

/// A kind of machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostType {
    /// The hash of the key that any machine of this type may register with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<SecretHash>,
    /// The machines that are expected, each perhaps with a key of its own.
    pub machines: BTreeMap<String, ExpectedMachine>,
    /// The account on the machine that SSH sessions run as, where its own sshd serves them.
    pub ssh_user: String,
    /// What sessions run on. `ssh` is an older name of the key.
    #[serde(alias = "ssh")]
    pub backend: Backend,
    /// The settings of `backend = "conterm"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conterm: Option<Conterm>,
    /// The settings of `backend = "telnet"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telnet: Option<Telnet>,
    /// Whether a machine forgets everything between two leases. Where it does not, a user has to say `mutable-` before
    /// the instance's name, and is told why.
    pub hermetic: bool,
    /// Environment for commands and sessions on every machine of this type.
    pub env: BTreeMap<String, String>,
}

impl Default for HostType {
    fn default() -> Self {
        Self {
            key_hash: None,
            machines: BTreeMap::new(),
            ssh_user: DEFAULT_SSH_USER.to_owned(),
            backend: Backend::default(),
            conterm: None,
            telnet: None,
            hermetic: true,
            env: BTreeMap::new(),
        }
    }
}

/// A machine that is expected to register, or that is there without.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectedMachine {
    /// Whether it runs a buildlet, which registers. One that does not is leased for its console alone, which has to be
    /// reached with `via = "direct"`.
    pub buildlet: bool,
    /// The hash of the key that this machine alone may register with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<SecretHash>,
    /// What its console has otherwise than its host type's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conterm: Option<ConsoleMachine>,
    /// What its telnet server has otherwise than its host type's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telnet: Option<ConsoleMachine>,
}

impl Default for ExpectedMachine {
    fn default() -> Self {
        Self {
            buildlet: true,
            key_hash: None,
            conterm: None,
            telnet: None,
        }
    }
}

impl HostType {
    /// The hash of the key that the machine of that name has to register with: one with a key of its own is not admitted
    /// with the key that all of its type know.
    pub fn key_of(&self, hostname: &str) -> Option<SecretHash> {
        let own = self.machines.get(hostname).and_then(|it| it.key_hash);
        own.or(self.key_hash)
    }

    /// The settings of the Plan 9 backend for one machine, where its host type allows that backend.
    ///
    /// # Errors
    ///
    /// [`BackendFault`] where the settings do not do.
    pub fn conterm_on(&self, machine: Option<&ExpectedMachine>) -> Result<Conterm, BackendFault> {
        let settings = self.conterm.as_ref().ok_or(BackendFault::NoTable)?;
        let settings = settings.on(machine.and_then(|machine| machine.conterm.as_ref()));
        settings.check()?;
        Ok(settings)
    }

    /// The settings of the telnet backend for one machine, where its host type allows that backend.
    ///
    /// # Errors
    ///
    /// [`BackendFault`] where the settings do not do.
    pub fn telnet_on(&self, machine: Option<&ExpectedMachine>) -> Result<Telnet, BackendFault> {
        let settings = self.telnet.as_ref().ok_or(BackendFault::NoTable)?;
        let settings = settings.on(machine.and_then(|machine| machine.telnet.as_ref()));
        settings.check()?;
        Ok(settings)
    }

    /// Checks the settings of the backend for every machine that is expected, or else for any.
    fn check_backend(&self) -> Result<(), BackendFault> {
        let machines = self.machines.values().map(Some);
        let any = self.machines.is_empty().then_some(None);
        machines.chain(any).try_for_each(|machine| {
            let via = match self.backend {
                Backend::Conterm => Some(self.conterm_on(machine)?.via),
                Backend::Off | Backend::Ssh => None,
                Backend::Telnet => Some(self.telnet_on(machine)?.via),
            };
            let has_buildlet = machine.is_none_or(|machine| machine.buildlet);
            if has_buildlet || via == Some(Via::Direct) {
                Ok(())
            } else {
                Err(BackendFault::NoBuildlet)
            }
        })
    }
}

/// What a user asks for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BuilderType {
    /// The kind of machine.
    pub host_type: String,
    /// Environment, after the host type's.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Who may lease a machine, and how they prove it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The hash of the token for gomote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<SecretHash>,
    /// `authorized_keys` files for SSH.
    #[serde(default)]
    pub key_files: Vec<PathBuf>,
    /// A URL that answers with public SSH keys; `{account}` stands for `account`, as in
    /// `https://github.com/{account}.keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_url: Option<String>,
    /// The account for `key_url`. Never guessed from the user's name here: somebody else may hold that login there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The principals that SSH certificates of `ssh.user_ca_files` name this user by. Never guessed from the user's name.
    #[serde(default)]
    pub principals: Vec<String>,
}

/// The Go tools derive every credential from one master key: `hex(HMAC-MD5(master key, name))`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GoKeys {
    /// A file with the master key; white space around it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key_file: Option<PathBuf>,
    /// Honour the development key that everybody knows (`gophers rule`). For tests on a closed network alone.
    #[serde(default)]
    pub development_key: bool,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the file and the place in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(ConfigError::Read)?;
        let config: Self = toml::from_str(&text).map_err(|e| ConfigError::Syntax(Box::new(e)))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the entry that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        let is_user = |name: &&String| is_name(name) && !name.starts_with(USER_PREFIX);
        if let Some(name) = self.users.keys().find(|name| !is_user(name)) {
            return Err(ConfigError::UserName { name: name.clone() });
        }
        let mut types = self.host_types.keys().chain(self.builder_types.keys());
        if let Some(name) = types.find(|name| !is_name(name)) {
            return Err(ConfigError::TypeName { name: name.clone() });
        }
        for (name, host_type) in &self.host_types {
            host_type
                .check_backend()
                .map_err(|fault| ConfigError::Backend {
                    host_type: name.clone(),
                    fault,
                })?;
        }
        for (name, builder) in &self.builder_types {
            if !self.host_types.contains_key(&builder.host_type) {
                return Err(ConfigError::NoHostType {
                    builder: name.clone(),
                    host_type: builder.host_type.clone(),
                });
            }
        }
        for (name, user) in &self.users {
            if user.key_url.is_some() != user.account.is_some() {
                return Err(ConfigError::KeyUrlWithoutAccount { user: name.clone() });
            }
        }
        let mut principals = BTreeMap::new();
        for (name, user) in &self.users {
            for principal in &user.principals {
                if let Some(other) = principals.insert(principal, name) {
                    return Err(ConfigError::PrincipalOfTwo {
                        principal: principal.clone(),
                        users: [other.clone(), name.clone()],
                    });
                }
            }
        }
        if self.tls.certificate_file.is_some() != self.tls.key_file.is_some() {
            return Err(ConfigError::HalfACertificate);
        }
        Ok(())
    }

    /// The machines that are there without a buildlet.
    pub fn standing_machines(&self) -> BTreeSet<MachineId> {
        let of_type = |(host_type, settings): (&String, &HostType)| {
            let standing = settings.machines.iter().filter(|(_, it)| !it.buildlet);
            let id = |(hostname, _): (&String, _)| MachineId {
                host_type: host_type.clone(),
                hostname: hostname.clone(),
            };
            standing.map(id).collect::<Vec<_>>()
        };
        self.host_types.iter().flat_map(of_type).collect()
    }

    /// The environment of a builder type: the host type's, then its own, the last of a name winning.
    pub fn env_of(&self, builder_type: &str) -> BTreeMap<String, String> {
        let Some(builder) = self.builder_types.get(builder_type) else {
            return BTreeMap::new();
        };
        let mut env = BTreeMap::from([("GO_BUILDER_NAME".to_owned(), builder_type.to_owned())]);
        let host_env = self
            .host_types
            .get(&builder.host_type)
            .map(|host| host.env.clone())
            .unwrap_or_default();
        env.extend(host_env);
        env.extend(builder.env.clone());
        env
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The settings of a host type's backend do not do.
    #[error("host_types.{host_type}: {fault}")]
    Backend {
        /// The host type.
        host_type: String,
        /// What is wrong.
        fault: BackendFault,
    },
    /// One of the two files is named alone.
    #[error("tls: certificate_file and key_file go together")]
    HalfACertificate,
    /// A key URL needs an account, and an account a key URL.
    #[error("users.{user}: key_url and account go together")]
    KeyUrlWithoutAccount {
        /// The user.
        user: String,
    },
    /// A builder type names a host type that there is not.
    #[error("builder_types.{builder}: there is no host type {host_type:?}")]
    NoHostType {
        /// The builder type.
        builder: String,
        /// What it names.
        host_type: String,
    },
    /// A principal is given to two users, so that a certificate would not say who comes.
    #[error("users.{}: the principal {principal:?} is {:?}'s already", users[1], users[0])]
    PrincipalOfTwo {
        /// The principal.
        principal: String,
        /// Both users.
        users: [String; 2],
    },
    /// The file cannot be read.
    #[error(transparent)]
    Read(std::io::Error),
    /// The file is not TOML, or has a key that we do not know.
    #[error(transparent)]
    Syntax(Box<toml::de::Error>),
    /// The name of a type cannot be part of an instance's name.
    #[error(
        "{name:?} is no name for a type: letters, digits, '-', '_' and '.', beginning with a letter or digit"
    )]
    TypeName {
        /// The name.
        name: String,
    },
    /// The name of a user cannot be part of an instance's name.
    #[error(
        "{name:?} is no name for a user: letters, digits, '-', '_' and '.', beginning with a letter or digit, and not \
         with \"user-\", which begins the name of an instance"
    )]
    UserName {
        /// The name.
        name: String,
    },
}

/// What begins the name of an instance, and the login of a user in the protocol of the Go tools.
pub const USER_PREFIX: &str = "user-";

/// Names stand in instance names, SSH logins, headers and HTML: they hold nothing that any of these gives a meaning to.
fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

const MAX_NAME: usize = 64;

/// The account that Go's host types name most.
const DEFAULT_SSH_USER: &str = "root";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| e.to_string())?;
        config.check().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn the_example_in_the_documentation_is_valid() {
        let config = parse(include_str!("../coordinator.example.toml")).unwrap();
        assert!(config.builder_types.contains_key("linux-amd64"));
    }

    #[test]
    fn old_protocols_of_plan_9_are_spoken_only_where_they_are_named() {
        let base = "data_dir = '/x'\n[host_types.h]\nbackend = 'conterm'\n";
        let read = |rest: &str| {
            let config: Config = toml::from_str(&format!("{base}{rest}")).unwrap();
            config.host_types["h"].conterm_on(None)
        };
        assert_eq!(read("").unwrap_err(), BackendFault::NoTable);
        let account = "[host_types.h.conterm]\nuser = 'glenda'\npassword_file = '/p'\n";
        let settings = read(account).unwrap();
        assert_eq!(settings.auth, [ContermAuth::Dp9ik]);
        assert_eq!(settings.console_port(), 17019);
        let named = read(&format!("{account}protocol = 'cpu'\nauth = ['p9sk1']")).unwrap();
        assert_eq!(named.auth, [ContermAuth::P9sk1]);
        assert_eq!(named.console_port(), 17010);
        for (rest, fault) in [
            ("auth = []", BackendFault::NoAuth),
            ("via = 'connect-ssh'", BackendFault::OnePort),
            ("via = 'direct'", BackendFault::NoAddress),
        ] {
            assert_eq!(read(&format!("{account}{rest}")).unwrap_err(), fault);
        }
    }

    #[test]
    fn telnet_needs_to_be_allowed_and_set_up() {
        let base = "data_dir = '/x'\n[host_types.h]\nbackend = 'telnet'\n";
        let told = |text: &str| parse(&format!("{base}{text}")).map(drop);
        let error = |fault: BackendFault| Err(format!("host_types.h: {fault}"));
        assert_eq!(told(""), error(BackendFault::NoTable));
        assert_eq!(told("[host_types.h.telnet]"), error(BackendFault::NoUser));
        assert_eq!(told("[host_types.h.telnet]\nlogin = 'none'"), Ok(()));
        let direct = "[host_types.h.telnet]\nuser = 'u'\nvia = 'direct'\n";
        assert_eq!(told(direct), error(BackendFault::NoAddress));
        assert_eq!(told(&format!("{direct}address = '10.1.2.3'")), Ok(()));
        let machine = "[host_types.h.machines.m.telnet]\naddress = '192.168.1.1'";
        assert_eq!(told(&format!("{direct}{machine}")), Ok(()));
        let open = "192.0.2.1".parse().unwrap();
        assert_eq!(
            told(&format!("{direct}address = '192.0.2.1'")),
            error(BackendFault::NotPrivate(open))
        );
    }

    #[test]
    fn a_machine_without_a_buildlet_is_reached_directly() {
        let machine = "[host_types.h.machines.m]\nbuildlet = false\n";
        let host = |rest: &str| format!("data_dir = '/x'\n[host_types.h]\n{rest}{machine}");
        let telnet = "backend = 'telnet'\n[host_types.h.telnet]\nlogin = 'none'\n";
        let fault = format!("host_types.h: {}", BackendFault::NoBuildlet);
        assert_eq!(parse(&host("")).unwrap_err(), fault);
        assert_eq!(parse(&host(telnet)).unwrap_err(), fault);
        let direct = format!("{telnet}via = 'direct'\naddress = '10.1.2.3'\n");
        let standing = parse(&host(&direct)).unwrap().standing_machines();
        let names: Vec<_> = standing.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["h/m"]);
    }

    #[test]
    fn the_older_name_of_backend_is_understood() {
        let config = parse("data_dir = '/x'\n[host_types.h]\nssh = 'off'").unwrap();
        assert_eq!(config.host_types["h"].backend, Backend::Off);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = parse("data_dir = '/x'\nlissen = 1").unwrap_err();
        assert!(error.contains("lissen"), "{error}");
    }

    #[test]
    fn a_builder_type_needs_its_host_type() {
        let error = parse("data_dir = '/x'\n[builder_types.b]\nhost_type = 'h'").unwrap_err();
        assert_eq!(error, "builder_types.b: there is no host type \"h\"");
    }

    #[test]
    fn an_account_is_never_guessed() {
        let error = parse("data_dir = '/x'\n[users.alice]\nkey_url = 'https://h/{account}.keys'")
            .unwrap_err();
        assert_eq!(error, "users.alice: key_url and account go together");
    }

    #[test]
    fn a_principal_is_one_users() {
        let two = "data_dir = '/x'\n[users.a]\nprincipals = ['p']\n[users.b]\nprincipals = ['p']";
        let error = parse(two).unwrap_err();
        assert_eq!(error, "users.b: the principal \"p\" is \"a\"'s already");
    }

    #[test]
    fn names_that_would_confuse_an_instance_name_are_refused() {
        for name in ["user-alice", "", "a b", "-a", "a/b", "<b>"] {
            let error = parse(&format!("data_dir = '/x'\n[users.\"{name}\"]\n")).unwrap_err();
            assert!(error.contains("is no name for a user"), "{error}");
        }
    }

    #[test]
    fn the_builder_types_environment_wins() {
        let config = parse(
            "data_dir = '/x'\n[host_types.h]\nenv = { A = '1', B = '1' }\n\
             [builder_types.b]\nhost_type = 'h'\nenv = { B = '2' }",
        )
        .unwrap();
        let env: Vec<_> = config
            .env_of("b")
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(env, ["A=1", "B=2", "GO_BUILDER_NAME=b"]);
    }
}
