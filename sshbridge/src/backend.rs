//! What a session runs on: the machine's side of every channel.
//!
//! A [`Backend`] connects to a machine, a [`BackendConn`] opens channels, and a channel is three independent parts: a
//! [`ChannelSink`] towards the machine, a [`ChannelSource`] from it, and a [`ChannelControl`] for requests. The server
//! pumps each direction on its own, so a stalled one never stops the other.
//!
//! What is forwarded (ports, Unix sockets, the user's agent) is a [`BackendStream`], which has the first two parts only:
//! one that the user asked the machine to open ([`Destination`]), or one that came to the machine where the user asked it
//! to listen ([`ListenAddress`], [`Incoming`]).

mod bytestream;
pub mod conterm;
mod forward;
pub mod ssh;
pub mod telnet;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::forward::{
    BackendStream, Destination, Incoming, IncomingSource, ListenAddress, Origin, Originator,
    PendingStream,
};

/// A way to reach one machine.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Connects to the machine for one client. The server calls it once per connection of a client, at the first channel
    /// or forward, and again at the next one where it failed.
    ///
    /// # Errors
    ///
    /// [`BackendError`] with a sentence that the user reads.
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError>;
}

/// A connection to a machine. Dropping it ends every channel on it, and with them what they run.
#[async_trait]
pub trait BackendConn: Send + Sync + 'static {
    /// Opens a session channel, on which one shell, command or subsystem can be started.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where the machine refuses or is gone.
    async fn open_session(&self) -> Result<BackendChannel, BackendError>;

    /// Connects from the machine to `destination`, which is resolved there and nowhere else.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where nobody answers, the machine refuses or is gone.
    async fn open_stream(&self, destination: &Destination) -> Result<BackendStream, BackendError> {
        let _ = destination;
        Err(BackendError::Unsupported("forwarding"))
    }

    /// Lets the machine listen, and returns the port that it listens on: the one asked for, or for port 0 the one that
    /// the machine chose. It is 0 for a Unix socket. Each connection there becomes an [`Incoming`], until
    /// [`Self::cancel`] or the end of the connection to the machine.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where the address is taken, the machine refuses or is gone.
    async fn listen(&self, address: &ListenAddress) -> Result<u16, BackendError> {
        let _ = address;
        Err(BackendError::Unsupported("forwarding"))
    }

    /// Ends listening at `address`, with the real port where 0 was asked for. What is connected stays so.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where nothing listens there or the machine is gone.
    async fn cancel(&self, address: &ListenAddress) -> Result<(), BackendError> {
        let _ = address;
        Err(BackendError::Unsupported("forwarding"))
    }

    /// What the machine opens by itself because it was asked to: where it listens, and for a forwarded agent. There is one
    /// for each connection, which the first call gets; a machine that opens nothing has none.
    fn incoming(&self) -> Option<Box<dyn IncomingSource>> {
        None
    }
}

/// One channel to a machine, in three parts that are used by different tasks.
#[expect(
    clippy::exhaustive_structs,
    reason = "backends build it, and a channel has these three parts"
)]
pub struct BackendChannel {
    /// Client to machine.
    pub sink: Box<dyn ChannelSink>,
    /// Machine to client.
    pub source: Box<dyn ChannelSource>,
    /// Requests.
    pub control: Box<dyn ChannelControl>,
}

impl fmt::Debug for BackendChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendChannel").finish_non_exhaustive()
    }
}

/// The direction from the client to the machine. Dropping it without [`Self::eof`] cuts it.
#[async_trait]
pub trait ChannelSink: Send {
    /// Writes a piece of the client's input; returns when the machine has taken it, which is what gives the client
    /// credit for more. Not cancel safe: drop the sink after a cancelled call.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where the machine takes no more input.
    async fn data(&mut self, data: Bytes) -> Result<(), BackendError>;

    /// Ends the client's input.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where the channel is gone.
    async fn eof(&mut self) -> Result<(), BackendError>;
}

/// The direction from the machine to the client.
#[async_trait]
pub trait ChannelSource: Send {
    /// Waits for the next event, in the machine's order. `None` is the end of the channel. In a session it comes after
    /// [`ChannelEvent::ExitStatus`] or [`ChannelEvent::ExitSignal`] where a command ended as it should; in a stream it
    /// is a cut where no [`ChannelEvent::Eof`] came before. Cancel safe.
    async fn next(&mut self) -> Option<ChannelEvent>;
}

/// Requests on a channel. Dropping the last part of a channel closes it, which ends what it runs.
#[async_trait]
pub trait ChannelControl: Send + Sync {
    /// Makes a request and waits for the machine's answer.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where the machine refuses or is gone.
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError>;
}

/// What comes from a machine on a channel.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ChannelEvent {
    /// Standard output.
    Data(Bytes),
    /// Standard output and standard error are at their end.
    Eof,
    /// The command was ended by a signal.
    ExitSignal {
        /// The signal's name without `SIG`, as RFC 4254 §6.10 spells it.
        signal: String,
        /// Whether the machine kept a core image.
        core_dumped: bool,
        /// A sentence about it, perhaps empty.
        message: String,
    },
    /// The command ended by itself with this status.
    ExitStatus(u32),
    /// Standard error.
    Stderr(Bytes),
}

/// What a client asks of a session channel (RFC 4254 §6).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ChannelRequest {
    /// Forwards the user's agent: what is started next finds a socket in `SSH_AUTH_SOCK`, and each connection to it
    /// becomes an [`Incoming`].
    Agent,
    /// Sets one variable of the environment; a machine may refuse it.
    Env {
        /// The variable's name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Starts a command, which the user's shell interprets.
    Exec(Bytes),
    /// Asks for a terminal for what is started next.
    Pty(PtyRequest),
    /// Starts the user's login shell.
    Shell,
    /// Sends a signal, by its name without `SIG`.
    Signal(String),
    /// Starts a subsystem, such as `sftp`.
    Subsystem(String),
    /// Changes the size of the terminal.
    WindowChange(WindowSize),
}

/// A terminal that a client asks for (RFC 4254 §6.2).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PtyRequest {
    /// The value of `TERM`.
    pub term: String,
    /// The size.
    pub size: WindowSize,
    /// The terminal modes, as pairs of an opcode (RFC 4254 §8) and its argument.
    pub modes: Vec<(u8, u32)>,
}

impl PtyRequest {
    /// Asks for a terminal of kind `term` and of `size`, with the modes that the machine finds right.
    pub fn new(term: impl Into<String>, size: WindowSize) -> Self {
        Self {
            term: term.into(),
            size,
            modes: Vec::new(),
        }
    }
}

/// The size of a terminal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "RFC 4254 §6.2 fixes the four numbers"
)]
pub struct WindowSize {
    /// Width in characters.
    pub columns: u32,
    /// Height in characters.
    pub rows: u32,
    /// Width in pixels, 0 where unknown.
    pub width_pixels: u32,
    /// Height in pixels, 0 where unknown.
    pub height_pixels: u32,
}

/// Why a machine could not be reached or did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The channel, or the connection under it, is gone.
    #[error("the connection to the machine is gone")]
    Closed,
    /// The machine could not connect to where it was asked to.
    #[error("the machine cannot connect there: {0}")]
    ConnectFailed(#[source] std::io::Error),
    /// A Plan 9 machine gives no session.
    #[error(transparent)]
    Conterm(#[from] conterm::ContermError),
    /// The machine's host key is not the one that it announced.
    #[error("the machine's host key is not the one it announced")]
    HostKeyMismatch,
    /// The machine refused the request.
    #[error("the machine refused the request")]
    Refused,
    /// The machine did not answer in time.
    #[error("the machine did not answer in time")]
    TimedOut,
    /// The machine could not be reached.
    #[error("the machine cannot be reached: {0}")]
    Unreachable(#[source] std::io::Error),
    /// This kind of machine cannot do it.
    #[error("this machine does not support {0}")]
    Unsupported(&'static str),
}
