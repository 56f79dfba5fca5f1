//! Addresses of connections inside a link.

use std::fmt;
use std::net::SocketAddr;

use crate::frame::StreamId;

/// The address of a link's side, or of a connection on it.
///
/// It stays the same when the connection is closed. As text: `192.0.2.1:443#5`, or `revdial#5` where the transport's
/// address is not known.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Addr {
    socket: Option<SocketAddr>,
    stream: Option<StreamId>,
}

impl Addr {
    pub(crate) fn new(socket: Option<SocketAddr>, stream: Option<StreamId>) -> Self {
        Self { socket, stream }
    }

    /// The address of the transport, if the link was told:
    /// [`Config::local_addr`](crate::Config::local_addr), [`Config::peer_addr`](crate::Config::peer_addr).
    pub fn socket(&self) -> Option<SocketAddr> {
        self.socket
    }

    /// The number of the connection; none for the link itself.
    pub fn stream(&self) -> Option<u32> {
        self.stream.map(StreamId::value)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.socket {
            Some(socket) => write!(f, "{socket}")?,
            None => f.write_str("revdial")?,
        }
        match self.stream {
            Some(stream) => write!(f, "#{stream}"),
            None => Ok(()),
        }
    }
}
