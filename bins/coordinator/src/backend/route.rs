//! Streams to ports of machines that have no SSH server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use buildlet_proto::Buildlet;
use buildlet_proto::api::SshRequest;
use socket2::SockRef;
use sshbridge::backend::BackendError;
use sshbridge::backend::ssh::Stream;
use tokio::net::TcpStream;

use super::Target;
use crate::config::Via;

/// The way to one port of a machine.
#[derive(Clone, Debug)]
pub struct Route {
    /// The machine.
    pub target: Target,
    /// How.
    pub via: Via,
    /// Where, for [`Via::Direct`].
    pub address: Option<IpAddr>,
    /// Which port. `/connect-ssh` leads to the one that the buildlet knows.
    pub port: u16,
}

impl Route {
    /// Opens a stream.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where nobody answers.
    pub async fn open(&self) -> Result<Box<dyn Stream>, BackendError> {
        match self.via {
            Via::ConnectSsh => {
                let buildlet = self.target.link()?.buildlet();
                let reply = in_time(buildlet.connect_ssh(SshRequest::default())).await?;
                Ok(Box::new(reply.stream))
            }
            Via::ConnectTcp => {
                let buildlet = self.target.link()?.buildlet();
                Ok(Box::new(in_time(buildlet.connect_tcp(self.port)).await?))
            }
            Via::Direct => {
                let address = self.address.ok_or(BackendError::Closed)?;
                let address = SocketAddr::new(address, self.port);
                let stream = in_time(TcpStream::connect(address)).await?;
                prepare(&stream).map_err(BackendError::Unreachable)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Waits for a stream as long as Go's client gives dialling and the exchange together.
pub(super) async fn in_time<T, E>(
    opening: impl Future<Output = Result<T, E>>,
) -> Result<T, BackendError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let opened = tokio::time::timeout(CONNECT_TIME, opening).await;
    opened
        .map_err(|_| BackendError::TimedOut)?
        .map_err(|error| BackendError::Unreachable(io::Error::other(error)))
}

/// Keystrokes leave at once, a machine that vanished is noticed, and urgent bytes stay in their place: without the last,
/// the byte before telnet's data mark would be lost to the program.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_out_of_band_inline(true)?;
    socket.set_keepalive(true)
}

const CONNECT_TIME: Duration = Duration::from_secs(15);
