//! The TCP ports behind `/connect-tcp`.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use buildlet_proto::{ApiError, ErrorStatus};
use tokio::net::TcpStream;

/// The ports on the loopback interface that clients may reach.
///
/// Whoever runs commands here can reach every port by other means. The list keeps apart what the machine's owner offers
/// from what merely listens: a gateway that logs users in by a port must not be led to another.
#[derive(Debug, Default)]
pub(crate) struct TcpPorts(BTreeSet<u16>);

impl FromIterator<u16> for TcpPorts {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self(ports.into_iter().collect())
    }
}

impl TcpPorts {
    /// Connects to `port` at 127.0.0.1, else at `::1`.
    ///
    /// # Errors
    ///
    /// 403 for a port that is not in the list, 502 where nobody listens, 504 where nobody answers.
    pub(crate) async fn connect(&self, port: u16) -> Result<TcpStream, ApiError> {
        if !self.0.contains(&port) {
            return Err(ApiError::new(
                ErrorStatus::FORBIDDEN,
                format!(
                    "port {port} of this machine may not be reached; its buildlet allows it with --allow-tcp-port {port}"
                ),
            ));
        }
        let connecting = tokio::time::timeout(CONNECT_TIME, connect(port));
        let connected = connecting.await.map_err(|_| {
            let seconds = CONNECT_TIME.as_secs();
            let message = format!("port {port} of this machine did not answer in {seconds} s");
            ApiError::new(ErrorStatus::GATEWAY_TIMEOUT, message)
        })?;
        connected.map_err(|error| refused(port, error))
    }
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let tcp = match TcpStream::connect(v4).await {
        Ok(tcp) => tcp,
        // A machine without IPv6 has more to say about the first address.
        Err(first) => TcpStream::connect(v6).await.map_err(|_| first)?,
    };
    tcp.set_nodelay(true)?;
    // A telnet server sends the data mark of an interrupt as urgent: out of line, half of it would be lost here.
    rustix::net::sockopt::set_socket_oobinline(&tcp, true)?;
    Ok(tcp)
}

fn refused(port: u16, error: io::Error) -> ApiError {
    let message = if error.kind() == io::ErrorKind::ConnectionRefused {
        format!("nothing listens on port {port} of this machine")
    } else {
        format!("port {port} of this machine cannot be reached: {error}")
    };
    ApiError::bad_gateway(message).because(error)
}

/// Loopback answers at once, or its listener is overwhelmed.
const CONNECT_TIME: Duration = Duration::from_secs(5);
