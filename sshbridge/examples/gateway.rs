//! A gateway to one SSH server: whoever has a key in a file is logged in there as one user.
//!
//! ```text
//! cargo run --example gateway -- 127.0.0.1:2222 ~/.ssh/authorized_keys 127.0.0.1:22 gopher /run/admitted_keys
//! ssh -p 2222 anything@127.0.0.1
//! ```
//!
//! Each connection logs in with a key of its own, which goes to the last file: the SSH server must be told of it by
//! `AuthorizedKeysFile /run/admitted_keys`. A dialer for machines elsewhere hands the key to the machine.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sshbridge::auth::{Grant, Machine, MachineResolver, Refusal};
use sshbridge::authorize::{KeyAuthorizer, KeyUser};
use sshbridge::backend::BackendError;
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::hostkey::HostKeys;
use sshbridge::keysource::FileKeys;
use sshbridge::server::{Server, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct ToSshd {
    address: String,
    user: String,
    admitted: PathBuf,
}

#[async_trait]
impl SshDialer for ToSshd {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.admitted)
            .and_then(|mut file| writeln!(file, "{authorized_key}"))
            .map_err(BackendError::Unreachable)?;
        let stream = TcpStream::connect(&self.address).await;
        let stream = stream.map_err(BackendError::Unreachable)?;
        Ok(SshTarget::new(stream, &self.user))
    }
}

struct OneMachine(Arc<ToSshd>);

#[async_trait]
impl MachineResolver for OneMachine {
    async fn resolve(&self, grant: &Grant) -> Result<Machine, Refusal> {
        let backend = Arc::new(SshBackend::new(self.0.clone()));
        Ok(Machine::new(&grant.login, backend))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, keys, address, user, admitted] = arguments.as_slice() else {
        return Err("usage: gateway LISTEN AUTHORIZED_KEYS SSHD_ADDRESS USER ADMITTED_KEYS".into());
    };
    let users = [KeyUser::new("me").with_source(Arc::new(FileKeys::new(keys)), "me")];
    let dialer = Arc::new(ToSshd {
        address: address.clone(),
        user: user.clone(),
        admitted: admitted.into(),
    });
    let server = Server::new(
        ServerConfig::new(HostKeys::ephemeral()),
        Arc::new(KeyAuthorizer::new(users)),
        Arc::new(OneMachine(dialer)),
    );
    let listener = TcpListener::bind(listen).await?;
    server.serve(listener, CancellationToken::new()).await;
    Ok(())
}
