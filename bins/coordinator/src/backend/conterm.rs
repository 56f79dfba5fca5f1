//! Consoles of Plan 9 machines.

use std::sync::Arc;

use async_trait::async_trait;
use sshbridge::auth::Refusal;
use sshbridge::backend::conterm::{
    AuthProtocol, ContermBackend, ContermDialer, ContermLogin, ContermProtocol as Protocol,
    Service, Tickets,
};
use sshbridge::backend::ssh::Stream;
use sshbridge::backend::{Backend, BackendError};
use sshbridge::sftp::FileApi;

use super::{Route, Target, files, read_password};
use crate::config::{Conterm, ContermAuth, ContermProtocol, ContermTickets};

/// Reaches the ports of one machine.
struct Dialer {
    console: Route,
    auth: Route,
    files: Option<Arc<dyn FileApi>>,
}

#[async_trait]
impl ContermDialer for Dialer {
    async fn dial(&self, service: Service) -> Result<Box<dyn Stream>, BackendError> {
        match service {
            Service::Auth => self.auth.open().await,
            Service::Machine | _ => self.console.open().await,
        }
    }

    fn files(&self) -> Option<Arc<dyn FileApi>> {
        self.files.clone()
    }
}

/// The backend of `target` with its settings. The password is read now and only its keys are kept, until the user leaves.
pub(super) fn backend(target: &Target, settings: &Conterm) -> Result<Arc<dyn Backend>, Refusal> {
    let (Some(user), Some(file)) = (&settings.user, &settings.password_file) else {
        return Err(target.unconfigured("conterm"));
    };
    let password = read_password(file).map_err(|error| {
        tracing::warn!(file = %file.display(), %error, "cannot read a password");
        Refusal::new("the coordinator cannot read the password of this machine")
    })?;
    let protocol = match settings.protocol {
        ContermProtocol::Cpu => Protocol::Cpu,
        ContermProtocol::Rcpu => Protocol::Rcpu,
    };
    let auth = settings.auth.iter().map(|auth| match auth {
        ContermAuth::Dp9ik => AuthProtocol::Dp9ik,
        ContermAuth::P9sk1 => AuthProtocol::P9sk1,
    });
    let tickets = match settings.tickets {
        ContermTickets::AuthServer => Tickets::AuthServer,
        ContermTickets::HostOwner => Tickets::HostOwner,
    };
    let login = ContermLogin::new(protocol, user, password.as_bytes())
        .with_auth(auth)
        .with_tickets(tickets);
    let route = |port| Route {
        target: target.clone(),
        via: settings.via,
        address: settings.address,
        port,
    };
    let dialer = Dialer {
        console: route(settings.console_port()),
        auth: route(settings.auth_port),
        files: files::files(target.clone()),
    };
    Ok(Arc::new(ContermBackend::new(Arc::new(dialer), login)))
}
