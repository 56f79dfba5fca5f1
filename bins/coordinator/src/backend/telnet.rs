//! Streams to the telnet server of a machine, and who logs in there.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sshbridge::backend::telnet::{
    Credentials, Interrupt, PasswordEcho, TelnetBackend, TelnetDialer, TelnetLogin, TelnetSettings,
    TelnetTarget,
};
use sshbridge::backend::{Backend, BackendError};
use sshbridge::sftp::FileApi;

use super::{Route, Target, files, read_password};
use crate::config::{Telnet, TelnetInterrupt, TelnetLogin as Who};

/// The backend of a machine with these settings.
pub(super) fn backend(target: Target, telnet: Telnet) -> Arc<dyn Backend> {
    let mut settings = TelnetSettings::default();
    settings.login_time = Duration::from_secs(telnet.login_seconds);
    settings.interrupt = match telnet.interrupt {
        TelnetInterrupt::Both => Interrupt::Both,
        TelnetInterrupt::Byte => Interrupt::Byte,
        TelnetInterrupt::Ip => Interrupt::Ip,
    };
    settings.password_echo = if telnet.accept_password_echo {
        PasswordEcho::Accept
    } else {
        PasswordEcho::Refuse
    };
    let files = files::files(target.clone());
    let route = Route {
        target,
        via: telnet.via,
        address: telnet.address,
        port: telnet.port,
    };
    let dialer = Dialer {
        route,
        telnet,
        files,
    };
    Arc::new(TelnetBackend::new(Arc::new(dialer), settings))
}

struct Dialer {
    route: Route,
    telnet: Telnet,
    files: Option<Arc<dyn FileApi>>,
}

#[async_trait]
impl TelnetDialer for Dialer {
    async fn dial(&self) -> Result<TelnetTarget, BackendError> {
        // Before anybody is called: a password that cannot be read is not the machine's fault.
        let login = self.login()?;
        Ok(TelnetTarget::new(self.route.open().await?, login))
    }

    fn files(&self) -> Option<Arc<dyn FileApi>> {
        self.files.clone()
    }
}

impl Dialer {
    fn login(&self) -> Result<TelnetLogin, BackendError> {
        match self.telnet.login {
            Who::Auto => self.credentials().map(TelnetLogin::Auto),
            Who::Manual => Ok(TelnetLogin::Manual),
            Who::None => Ok(TelnetLogin::None),
        }
    }

    fn credentials(&self) -> Result<Credentials, BackendError> {
        let user = self.telnet.user.clone().unwrap_or_default();
        let credentials = Credentials::new(user).map_err(|error| misconfigured(&error))?;
        match &self.telnet.password_file {
            Some(path) => {
                let password = read_password(path).map_err(|error| misconfigured(&error))?;
                Ok(credentials.with_password(&password))
            }
            None => Ok(credentials),
        }
    }
}

/// What the machine's owner has to put right. The user is told what, not which file.
fn misconfigured(error: &dyn Display) -> BackendError {
    let sentence = format!("its telnet account is not set up: {error}");
    BackendError::Unreachable(io::Error::other(sentence))
}
