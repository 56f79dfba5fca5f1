//! Forwarded streams: where they lead to, and where they come from.

use std::fmt;

use async_trait::async_trait;

use super::{BackendError, ChannelSink, ChannelSource};

/// A stream to or from a machine, in two parts that are used by different tasks. It carries
/// [`ChannelEvent::Data`](super::ChannelEvent::Data) and [`ChannelEvent::Eof`](super::ChannelEvent::Eof) alone; dropping
/// both parts closes it.
#[expect(
    clippy::exhaustive_structs,
    reason = "backends build it, and a stream has these two directions"
)]
pub struct BackendStream {
    /// Client to machine.
    pub sink: Box<dyn ChannelSink>,
    /// Machine to client.
    pub source: Box<dyn ChannelSource>,
}

impl fmt::Debug for BackendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendStream").finish_non_exhaustive()
    }
}

/// Where a machine is asked to connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Destination {
    /// A TCP port (`direct-tcpip`, RFC 4254 §7.2).
    Tcp {
        /// A name or an address, as the machine knows it.
        host: String,
        /// The port.
        port: u16,
        /// Who connected to the user's end.
        originator: Originator,
    },
    /// A Unix socket (`direct-streamlocal@openssh.com`).
    Unix {
        /// Its path on the machine; a relative one starts where sessions do.
        path: String,
    },
}

/// Where a machine is asked to listen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// A TCP port (`tcpip-forward`, RFC 4254 §7.1).
    Tcp {
        /// The interface as the user named it: an address, a name, or nothing.
        host: String,
        /// The port; 0 lets the machine choose one.
        port: u16,
    },
    /// A Unix socket (`streamlocal-forward@openssh.com`).
    Unix {
        /// Its path on the machine; a relative one starts where sessions do.
        path: String,
    },
}

impl ListenAddress {
    /// The port, where it is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port, .. } => Some(*port),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    /// `HOST:PORT`, or the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path } => f.write_str(path),
        }
    }
}

impl fmt::Display for Destination {
    /// `HOST:PORT`, or the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix { path } => f.write_str(path),
        }
    }
}

/// Who is at the other end of a forwarded connection, for whoever logs it. It is what a peer says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "RFC 4254 §7.2 fixes the two fields"
)]
pub struct Originator {
    /// An address.
    pub address: String,
    /// A port.
    pub port: u32,
}

/// Why a machine opens a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Origin {
    /// Somebody there asks the user's agent.
    Agent,
    /// Somebody connected to where the machine was asked to listen.
    Listener {
        /// The address as it was asked for, with the real port.
        address: ListenAddress,
        /// Who connected, to a TCP port.
        originator: Originator,
    },
}

/// A stream that waits to be taken.
#[expect(
    clippy::exhaustive_structs,
    reason = "backends build it, and there is nothing else to a stream that was not taken"
)]
pub struct Incoming {
    /// Why it was opened.
    pub origin: Origin,
    /// The stream; dropping it refuses it.
    pub pending: Box<dyn PendingStream>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A stream that a machine has opened and nobody has taken.
#[async_trait]
pub trait PendingStream: Send {
    /// Takes the stream. The user's end is opened first, so that nothing the machine says comes too early.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where the machine is gone.
    async fn accept(self: Box<Self>) -> Result<BackendStream, BackendError>;
}

/// The streams that a machine opens.
#[async_trait]
pub trait IncomingSource: Send {
    /// Waits for the next one. `None`: the connection that listened for the user was lost, and with it what was to come.
    /// Cancel safe.
    async fn next(&mut self) -> Option<Incoming>;
}
