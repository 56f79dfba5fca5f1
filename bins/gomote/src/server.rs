//! Connections to the coordinator.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use buildlet_proto::tls;
use http::uri::Authority;
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;

use crate::config::Settings;

/// A coordinator that can be dialled.
pub(crate) struct Server {
    authority: Authority,
    tls: Arc<ClientConfig>,
}

impl Server {
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let tls = tls::client_config(settings.pin.as_ref())?;
        Ok(Self {
            authority: settings.authority.clone(),
            tls,
        })
    }

    /// Opens a connection, within a limit of time. Errors name the address.
    pub(crate) async fn connect(self: Arc<Self>) -> io::Result<tls::TlsStream<TcpStream>> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.authority));
        let late = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", TIME.as_secs()),
            )
        };
        let connected = tokio::time::timeout(TIME, self.handshake())
            .await
            .unwrap_or_else(|_| Err(late()));
        connected.map_err(named)
    }

    async fn handshake(&self) -> io::Result<tls::TlsStream<TcpStream>> {
        let host = self.authority.host();
        let port = self.authority.port_u16().unwrap_or(HTTPS_PORT);
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        // Requests are small and answers to them are waited for.
        tcp.set_nodelay(true)?;
        tls::connect(tcp, host, self.tls.clone()).await
    }
}

const HTTPS_PORT: u16 = 443;
/// For the name, the connection and the TLS handshake together: across the world and through a lossy radio link.
const TIME: Duration = Duration::from_secs(15);
