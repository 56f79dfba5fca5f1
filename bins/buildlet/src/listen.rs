//! Listen mode: serve on a port, for whoever knows the password.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use buildlet_proto::server::{Auth, Server};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::args::Args;
use crate::machine::Machine;

/// A port, and what guards it.
pub(crate) struct Listen {
    listener: TcpListener,
    password: String,
    tls: Option<TlsAcceptor>,
}

impl Listen {
    /// Takes the port, and says on standard output where it is and, where it was made here, what the password is.
    pub(crate) async fn bind(address: SocketAddr, args: &Args) -> anyhow::Result<Self> {
        let (password, made) = match &args.password_file {
            Some(file) => (read_password(file)?, false),
            None => (random_password(), true),
        };
        let tls = match (&args.tls_cert, &args.tls_key) {
            (Some(cert), Some(key)) => Some(acceptor(cert, key)?),
            _ => None,
        };
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr()?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "LISTENING WITHOUT TLS BEYOND THIS MACHINE: anybody on the way can read the password, \
                 and run commands here; give --tls-cert and --tls-key"
            );
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut greeting = format!("listening on {scheme}://{address}\n");
        if made {
            greeting.push_str(&format!("password {password}\n"));
        }
        let mut stdout = tokio::io::stdout();
        stdout
            .write_all(greeting.as_bytes())
            .await
            .context("writing to standard output")?;
        stdout.flush().await.context("writing to standard output")?;
        Ok(Self {
            listener,
            password,
            tls,
        })
    }

    /// Serves for ever.
    pub(crate) async fn run(self, machine: Machine) -> anyhow::Result<()> {
        let server = Server::new(machine, Auth::password(self.password));
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .context("the slots are never closed")?;
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((tcp, _)) => {
                    let (server, tls) = (server.clone(), self.tls.clone());
                    connections.spawn(async move {
                        serve(tcp, tls, server).await;
                        drop(slot);
                    });
                }
                // Out of file descriptors, most likely: others have to end first.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve(tcp: TcpStream, tls: Option<TlsAcceptor>, server: Server<Machine>) {
    let served = match tls {
        None => server.serve(tcp).await,
        Some(tls) => match tokio::time::timeout(TLS_HANDSHAKE, tls.accept(tcp)).await {
            Ok(Ok(stream)) => server.serve(stream).await,
            Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
            Err(_) => return tracing::debug!("a client was silent"),
        },
    };
    if let Err(error) = served {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a connection ended"
        );
    }
}

fn read_password(file: &Path) -> anyhow::Result<String> {
    let password = std::fs::read_to_string(file)
        .with_context(|| format!("reading the password from {}", file.display()))?;
    let password = password.trim();
    ensure!(!password.is_empty(), "{} holds no password", file.display());
    Ok(password.to_owned())
}

/// 128 random bits in hex.
fn random_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn acceptor(cert: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let reading = |file: &Path| format!("reading {}", file.display());
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| reading(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| reading(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and the key do not fit")?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How many clients may be connected: each costs a file descriptor, and a stranger needs no password to connect.
const MAX_CONNECTIONS: usize = 256;

const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
