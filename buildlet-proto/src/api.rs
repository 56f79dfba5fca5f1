//! The operations of a buildlet, one method each, free of HTTP.

use std::future::Future;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::jobs::{
    Job, JobId, JobRequest, OutputRequest, SignalRequest, StdinRequest, StdinTaken, TerminalSize,
};
use crate::{ApiError, ExecRequest, ProcessState, RelPath};

/// What a machine offers to whoever leases it.
///
/// Paths are relative to the machine's work directory and cannot leave it. Every operation reports its failure as
/// [`ApiError`]; a failure in the middle of a stream is an [`std::io::Error`] of that stream, and a stream that was cut
/// never ends cleanly.
///
/// # Cancel safety
///
/// Dropping a returned future or stream abandons the operation: a command is killed, a partly written file is removed. Jobs
/// are the exception that they are made to be: one that was started goes on.
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

    /// Reads a directory as a gzip-compressed tar archive, of as many gzip members as the machine likes. Where `dir` is a
    /// regular file, the archive has that alone, with an empty name.
    fn read_tgz(&self, dir: RelPath) -> impl Future<Output = Result<ByteReader, ApiError>> + Send;

    /// The same as a single gzip member, for readers that know no second one.
    fn read_single_tgz(
        &self,
        dir: RelPath,
    ) -> impl Future<Output = Result<ByteReader, ApiError>> + Send;

    /// Unpacks a gzip-compressed tar archive into a directory, which is made when it is missing.
    fn write_tgz(
        &self,
        dir: RelPath,
        archive: ByteReader,
    ) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Fetches a gzip-compressed tar archive from `url`, by http or https, and unpacks it as [`write_tgz`](Self::write_tgz)
    /// does. The machine fetches: its network counts, and its trust.
    ///
    /// A directory `go1.4` that is there already is left as it is and nothing is fetched, which is how Go's programs ask
    /// for a compiler without looking first.
    fn fetch_tgz(
        &self,
        dir: RelPath,
        url: String,
    ) -> impl Future<Output = Result<Fetched, ApiError>> + Send;

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

    /// Opens a byte stream to a TCP port on the machine's loopback interface, where the machine's owner allows that port:
    /// 403 says how to allow one, 502 that nothing listens there.
    ///
    /// It is for servers that a machine has where it has no SSH server: telnet on Windows, `cpu` on Plan 9.
    fn connect_tcp(
        &self,
        port: u16,
    ) -> impl Future<Output = Result<Box<dyn ByteStream>, ApiError>> + Send;

    /// Starts a job. A command that cannot be started is a job as well, which says why.
    ///
    /// Two requests with one `key` are one: the second is answered with the job of the first, so that a request whose
    /// reply was lost is safely made again.
    fn start_job(
        &self,
        request: JobRequest,
        key: Option<String>,
    ) -> impl Future<Output = Result<Job, ApiError>> + Send;

    /// Lists all jobs in the order of their start, as a JSON array of [`Job`].
    fn jobs(&self) -> impl Future<Output = Result<ByteReader, ApiError>> + Send;

    /// Tells about one job.
    fn job(&self, id: JobId) -> impl Future<Output = Result<Job, ApiError>> + Send;

    /// Reads a job's output, as the frames of [`crate::jobs::frame`].
    fn job_output(
        &self,
        id: JobId,
        from: OutputRequest,
    ) -> impl Future<Output = Result<ByteReader, ApiError>> + Send;

    /// Gives a job something to read, as fast as it reads. Where the same is called again meanwhile, the earlier call
    /// fails.
    fn write_job_stdin(
        &self,
        id: JobId,
        place: StdinRequest,
        content: ByteReader,
    ) -> impl Future<Output = Result<StdinTaken, ApiError>> + Send;

    /// Sends a signal to a job. `KILL` for its whole tree returns when no process is left, or those are known that
    /// survive.
    fn signal_job(
        &self,
        id: JobId,
        signal: SignalRequest,
    ) -> impl Future<Output = Result<Job, ApiError>> + Send;

    /// Changes the size of a job's terminal.
    fn resize_job(
        &self,
        id: JobId,
        size: TerminalSize,
    ) -> impl Future<Output = Result<Job, ApiError>> + Send;

    /// Kills whatever lives of a job, and forgets it and its output.
    fn delete_job(&self, id: JobId) -> impl Future<Output = Result<Job, ApiError>> + Send;

    /// Does so with all jobs.
    fn delete_jobs(&self) -> impl Future<Output = Result<(), ApiError>> + Send;
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
    /// Why the machine should not get work, where it should not. It does what it is asked all the same, as far as it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<Unhealthy>,
}

impl Status {
    /// Reports the protocol level `version`, of a machine that is well.
    pub fn new(version: u32) -> Self {
        Self {
            version,
            unhealthy: None,
        }
    }

    /// Adds why the machine should not get work, if it should not.
    #[must_use]
    pub fn with_health(mut self, unhealthy: Option<Unhealthy>) -> Self {
        self.unhealthy = unhealthy;
        self
    }
}

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[non_exhaustive]
pub enum Unhealthy {
    /// Its disk is nearly full.
    #[error("the disk is nearly full")]
    #[serde(rename = "low disk")]
    LowDisk,
    /// Something that this version does not know.
    #[error("the machine is not well, for a reason that this version does not know")]
    #[serde(other)]
    Unknown,
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

/// What [`Buildlet::fetch_tgz`] came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fetched {
    /// The directory was there already, and is as it was.
    AlreadyThere,
    /// The archive was unpacked.
    Unpacked,
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
