//! The settings of the backend for Plan 9 machines.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Via;
use super::backend::{BackendFault, ConsoleMachine, check_address};

/// The settings of the Plan 9 backend: `[host_types.NAME.conterm]`. What is old and weak is spoken only where it is named.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conterm {
    /// How the machine is reached.
    pub via: Via,
    /// Where it is, for `via = "direct"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// What gives the console.
    pub protocol: ContermProtocol,
    /// Its port, where it is another than the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How the machine may authenticate us, the preferred way first.
    pub auth: Vec<ContermAuth>,
    /// Who makes the tickets.
    pub tickets: ContermTickets,
    /// The port of the authentication server, on the machine.
    pub auth_port: u16,
    /// The account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The file with the account's password, which nobody but the coordinator may read. The line break at its end is no
    /// part of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Default for Conterm {
    fn default() -> Self {
        Self {
            via: Via::default(),
            address: None,
            protocol: ContermProtocol::default(),
            port: None,
            auth: vec![ContermAuth::Dp9ik],
            tickets: ContermTickets::default(),
            auth_port: 567,
            user: None,
            password_file: None,
        }
    }
}

/// What gives the console.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContermProtocol {
    /// The old one, encrypted with RC4.
    Cpu,
    /// 9front's, encrypted with TLS.
    #[default]
    Rcpu,
}

/// How a machine may authenticate us.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContermAuth {
    /// A key exchange that gives nothing to try passwords on.
    Dp9ik,
    /// Single DES.
    P9sk1,
}

/// Who makes the tickets.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContermTickets {
    /// The authentication server, on the machine.
    #[default]
    AuthServer,
    /// We: the user is the machine's host owner.
    HostOwner,
}

impl Conterm {
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

    /// The port of the console.
    #[must_use]
    pub fn console_port(&self) -> u16 {
        self.port.unwrap_or(match self.protocol {
            ContermProtocol::Cpu => 17010,
            ContermProtocol::Rcpu => 17019,
        })
    }

    /// What is wrong with the settings of a machine.
    ///
    /// # Errors
    ///
    /// [`BackendFault`].
    pub fn check(&self) -> Result<(), BackendFault> {
        if self.user.is_none() || self.password_file.is_none() {
            return Err(BackendFault::NoAccount);
        }
        if self.auth.is_empty() {
            return Err(BackendFault::NoAuth);
        }
        if self.via == Via::ConnectSsh && self.tickets == ContermTickets::AuthServer {
            return Err(BackendFault::OnePort);
        }
        check_address(self.via, self.address)
    }
}
