//! What sessions on a kind of machine run on, and the settings of each such backend.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What sessions run on: `backend` of a host type.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The console of a Plan 9 machine.
    Conterm,
    /// Nothing: there are no sessions.
    Off,
    /// The machine's SSH server, through the buildlet's `/connect-ssh`.
    #[default]
    Ssh,
    /// The machine's telnet server. What is typed and shown crosses the way to it in the clear.
    Telnet,
}

/// How a port of the machine is reached: `via` in the settings of a backend.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// The buildlet's `/connect-ssh` without a key. Buildlets of Go on systems without an SSH server lead it to telnet.
    ConnectSsh,
    /// The buildlet's `/connect-tcp`: the machine's own loopback interface.
    #[default]
    ConnectTcp,
    /// A TCP connection from the coordinator to an address on a private network.
    Direct,
}

/// The settings of the telnet backend: `[host_types.NAME.telnet]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telnet {
    /// How the server is reached.
    pub via: Via,
    /// Where it is, for `via = "direct"`. An address and no name, so that nobody who answers for names gets the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The server's port.
    pub port: u16,
    /// Who logs in.
    pub login: TelnetLogin,
    /// The account, for `login = "auto"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with the account's password, which nobody but the coordinator may read. The line break at its end is no
    /// part of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How long the login may take, in seconds. Windows looks names up before it asks for one, which can take a minute.
    pub login_seconds: u64,
    /// What the signal `INT` becomes.
    pub interrupt: TelnetInterrupt,
    /// Whether the password is sent where the server has not promised to keep it off the screen.
    pub accept_password_echo: bool,
}

impl Default for Telnet {
    fn default() -> Self {
        Self {
            via: Via::default(),
            address: None,
            port: 23,
            login: TelnetLogin::default(),
            user: None,
            password_file: None,
            login_seconds: 75,
            interrupt: TelnetInterrupt::default(),
            accept_password_echo: false,
        }
    }
}

/// What one machine has otherwise than its host type: `[host_types.NAME.machines.NAME.telnet]`, or `.conterm`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleMachine {
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl ConsoleMachine {
    /// Puts what the machine has in the place of what its host type has.
    pub(super) fn replace(
        &self,
        address: &mut Option<IpAddr>,
        user: &mut Option<String>,
        password_file: &mut Option<PathBuf>,
    ) {
        let machine = self.clone();
        *address = machine.address.or(*address);
        *user = machine.user.or_else(|| user.take());
        *password_file = machine.password_file.or_else(|| password_file.take());
    }
}

impl Telnet {
    /// The settings for one machine.
    #[must_use]
    pub fn on(&self, machine: Option<&ConsoleMachine>) -> Self {
        let mut settings = self.clone();
        if let Some(machine) = machine {
            machine.replace(
                &mut settings.address,
                &mut settings.user,
                &mut settings.password_file,
            );
        }
        settings
    }

    /// What is wrong with the settings of a machine.
    ///
    /// # Errors
    ///
    /// [`BackendFault`].
    pub fn check(&self) -> Result<(), BackendFault> {
        if self.login == TelnetLogin::Auto && self.user.is_none() {
            return Err(BackendFault::NoUser);
        }
        check_address(self.via, self.address)
    }
}

/// Who logs in.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TelnetLogin {
    /// The coordinator, with `user` and the password.
    #[default]
    Auto,
    /// The user, who has an account on the machine.
    Manual,
    /// Nobody: the server asks for nothing.
    None,
}

/// What the signal `INT` becomes. `^C` on the keyboard is byte 3 whatever stands here.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TelnetInterrupt {
    /// Both.
    Both,
    /// Byte 3, as from the keyboard.
    #[default]
    Byte,
    /// Telnet's `IAC IP`, which not every server knows.
    Ip,
}

/// What is wrong with the settings of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BackendFault {
    /// There is nobody to log in as, or no password.
    #[error("conterm needs a user and a password_file")]
    NoAccount,
    /// Nothing is allowed.
    #[error("auth must name dp9ik, p9sk1 or both")]
    NoAuth,
    /// One port leads to one service.
    #[error(
        "via = \"connect-ssh\" reaches no authentication server: tickets must be \"host-owner\""
    )]
    OnePort,
    /// What leads through a buildlet leads nowhere without one.
    #[error("a machine with buildlet = false is reached with via = \"direct\" alone")]
    NoBuildlet,
    /// The host type has the backend, but no table with its settings.
    #[error("the backend needs a table of its settings")]
    NoTable,
    /// `direct` needs an address.
    #[error("via = \"direct\" needs an address, of the host type or of each machine")]
    NoAddress,
    /// There is nobody to log in as.
    #[error("login = \"auto\" needs a user")]
    NoUser,
    /// The address is on the open network.
    #[error("{0} is no private address: what is typed would cross the open network in the clear")]
    NotPrivate(IpAddr),
}

/// A backend that is not encrypted is reached over private networks alone.
pub(super) fn check_address(via: Via, address: Option<IpAddr>) -> Result<(), BackendFault> {
    match (via, address) {
        (Via::Direct, None) => Err(BackendFault::NoAddress),
        (Via::Direct, Some(address)) if !is_private(address) => {
            Err(BackendFault::NotPrivate(address))
        }
        (Via::Direct, Some(_)) | (Via::ConnectSsh | Via::ConnectTcp, _) => Ok(()),
    }
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.is_private() || address.is_loopback() || address.is_link_local()
        }
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}
