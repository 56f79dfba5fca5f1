//! The operations of a buildlet, one method each, free of HTTP.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{ApiError, ExecRequest, ProcessState, RelPath};

/// What a machine offers to whoever leases it.
///
/// Paths are relative to the machine's work directory and cannot leave it. Every operation reports its failure as
/// [`ApiError`]; a failure in the middle of a stream is an [`std::io::Error`] of that stream, and a stream that was cut
/// never ends cleanly.
///
/// # Cancel safety
///
/// Dropping a returned future or stream abandons the operation: a command is killed, a partly written file is removed.
pub trait Buildlet: Send + Sync + 'static {
    /// Says that the buildlet is alive, and how old it is.
    fn status(&self) -> impl Future<Output = Result<Status, ApiError>> + Send;

    /// Names the work directory, as an absolute path in the machine's own syntax.
    fn work_dir(&self) -> impl Future<Output = Result<String, ApiError>> + Send;

    /// Lists a directory, as the text lines of [`crate::list`].
    fn list(
        &self,
        request: ListRequest,
    ) -> impl Future<Output = Result<ByteReader, ApiError>> + Send;

    /// Reads a directory as a gzip-compressed tar archive.
    fn read_tgz(&self, dir: RelPath) -> impl Future<Output = Result<ByteReader, ApiError>> + Send;

    /// Unpacks a gzip-compressed tar archive into a directory, which is made when it is missing.
    fn write_tgz(
        &self,
        dir: RelPath,
        archive: ByteReader,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Writes one regular file with the permission bits `mode`, making its parent directories.
    fn write(
        &self,
        path: RelPath,
        mode: u32,
        content: ByteReader,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Starts a command.
    fn exec(
        &self,
        request: ExecRequest,
    ) -> impl Future<Output = Result<Execution, ApiError>> + Send;

    /// Removes files and whole directories; the work directory itself is emptied rather than removed.
    fn remove_all(&self, paths: Vec<RelPath>) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Ends the buildlet, about a second after the reply.
    fn halt(&self) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Opens a byte stream to an SSH server of the machine.
    fn connect_ssh(
        &self,
        request: SshRequest,
    ) -> impl Future<Output = Result<SshStream, ApiError>> + Send;
}

/// Bytes that arrive over time: a file, an archive, the output of a command.
pub type ByteReader = Pin<Box<dyn AsyncRead + Send>>;

/// A bidirectional byte stream of any make.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// The reply to [`Buildlet::status`], as JSON on the wire: `{"Version":15}`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Status {
    /// The level of the protocol that the buildlet speaks, in the numbering of Go's buildlets.
    pub version: u32,
}

impl Status {
    /// Reports the protocol level `version`.
    pub fn new(version: u32) -> Self {
        Self { version }
    }
}

/// What to list, and how much to say about each file.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ListRequest {
    /// The directory to list; it is not itself in the listing.
    pub dir: RelPath,
    /// Whether to descend into directories.
    pub recursive: bool,
    /// Whether to add the SHA-1 of each regular file.
    pub digest: bool,
    /// Directories, relative to `dir`, that are left out with all they hold.
    pub skip: Vec<String>,
}

impl ListRequest {
    /// Lists `dir` itself, without descending and without digests.
    pub fn new(dir: RelPath) -> Self {
        Self {
            dir,
            recursive: false,
            digest: false,
            skip: Vec::new(),
        }
    }
}

/// A command that was started: first its output, then its end.
#[non_exhaustive]
pub struct Execution {
    /// Standard output and standard error together, in the order in which they were written. Ends when the command's
    /// output does.
    pub output: ByteReader,
    /// How the command ended. Resolves when the command has ended; dropping it, or `output`, kills the command.
    pub state: Pin<Box<dyn Future<Output = Result<ProcessState, ApiError>> + Send>>,
}

impl Execution {
    /// Joins a stream of output and the future of its end.
    pub fn new(
        output: impl AsyncRead + Send + 'static,
        state: impl Future<Output = Result<ProcessState, ApiError>> + Send + 'static,
    ) -> Self {
        Self {
            output: Box::pin(output),
            state: Box::pin(state),
        }
    }
}

impl std::fmt::Debug for Execution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Execution").finish_non_exhaustive()
    }
}

/// Who wants to reach the machine's SSH server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct SshRequest {
    /// The account on the machine, where the machine has several.
    pub user: Option<String>,
    /// The one public key to admit, as an `authorized_keys` line.
    pub authorized_key: Option<String>,
}

impl SshRequest {
    /// Asks for a session of `user` with `authorized_key`, an `authorized_keys` line.
    pub fn new(user: impl Into<String>, authorized_key: impl Into<String>) -> Self {
        Self {
            user: Some(user.into()),
            authorized_key: Some(authorized_key.into()),
        }
    }
}

/// A byte stream to an SSH server that admits the key of the [`SshRequest`].
#[non_exhaustive]
pub struct SshStream {
    /// The stream; the first byte from the other side is the server's version line.
    pub stream: Box<dyn ByteStream>,
    /// The host key that the server will show, as an `authorized_keys` line, where the machine vouches for it. The
    /// reply came over a channel that is already authenticated, so this key is checked exactly.
    pub host_key: Option<String>,
}

impl SshStream {
    /// Pairs a stream with the host key that its server will show.
    pub fn new(stream: impl ByteStream + 'static, host_key: Option<String>) -> Self {
        Self {
            stream: Box::new(stream),
            host_key,
        }
    }
}

impl std::fmt::Debug for SshStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshStream")
            .field("host_key", &self.host_key)
            .finish_non_exhaustive()
    }
}
