//! A buildlet's `/connect-ssh`: the stream that a client gets, and the one that the machine's SSH server has.

use std::io;
use std::sync::{Mutex, PoisonError};

use buildlet_proto::api::{
    ByteReader, ByteStream, Execution, Fetched, ListRequest, SshRequest, SshStream, Status,
};
use buildlet_proto::client::{Client, Connect};
use buildlet_proto::jobs::{
    Job, JobId, JobRequest, OutputRequest, SignalRequest, StdinRequest, StdinTaken, TerminalSize,
};
use buildlet_proto::server::{Auth, Server};
use buildlet_proto::{ApiError, Buildlet, ExecRequest, RelPath};
use conn_conformance::{BoxFuture, Cap, Caps, Pair, Target, Wire, over};
use tokio::io::DuplexStream;
use tokio::task::JoinSet;

use super::plain::end;

/// The client's stream and the SSH server's, with the HTTP of both sides between them.
pub(crate) fn connect_ssh() -> Target {
    let caps = Caps::of(&[
        Cap::CloseHandle,
        Cap::Deadlines,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::Layered,
        Cap::PeerGone,
    ]);
    Target::pairs("connect-ssh", over(pair), caps.bounded(BOUND))
}

fn pair(a: Wire, b: Wire) -> BoxFuture<'static, io::Result<Pair>> {
    Box::pin(connect(a, b))
}

async fn connect(a: Wire, b: Wire) -> io::Result<Pair> {
    let (for_server, ssh_server) = tokio::io::duplex(PIPE);
    let machine = Server::new(Machine(Mutex::new(Some(for_server))), Auth::open());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        // What failed shows in the stream.
        let _ = machine.serve(b).await;
    });
    let client = Client::new(Once(Mutex::new(Some(a))));
    let asked = client.connect_ssh(SshRequest::new("user", "ssh-ed25519 AAAA"));
    let stream = asked.await.map_err(io::Error::other)?.stream;
    Ok(Pair::of(end(stream, None, None), end(ssh_server, None, None)).keep(serving))
}

/// The one connection that there is.
struct Once(Mutex<Option<Wire>>);

impl Connect for Once {
    type Stream = Wire;

    async fn connect(&self) -> io::Result<Wire> {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        wire.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

/// A machine that offers nothing but one stream to its SSH server.
struct Machine(Mutex<Option<DuplexStream>>);

fn nothing_else<T>() -> Result<T, ApiError> {
    Err(ApiError::bad_request("this machine has an SSH server only"))
}

impl Buildlet for Machine {
    async fn connect_ssh(&self, _: SshRequest) -> Result<SshStream, ApiError> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.map_or_else(nothing_else, |stream| Ok(SshStream::new(stream, None)))
    }

    async fn connect_tcp(&self, _: u16) -> Result<Box<dyn ByteStream>, ApiError> {
        nothing_else()
    }

    async fn status(&self) -> Result<Status, ApiError> {
        nothing_else()
    }

    async fn work_dir(&self) -> Result<String, ApiError> {
        nothing_else()
    }

    async fn list(&self, _: ListRequest) -> Result<ByteReader, ApiError> {
        nothing_else()
    }

    async fn read_tgz(&self, _: RelPath) -> Result<ByteReader, ApiError> {
        nothing_else()
    }

    async fn read_single_tgz(&self, _: RelPath) -> Result<ByteReader, ApiError> {
        nothing_else()
    }

    async fn write_tgz(&self, _: RelPath, _: ByteReader) -> Result<(), ApiError> {
        nothing_else()
    }

    async fn fetch_tgz(&self, _: RelPath, _: String) -> Result<Fetched, ApiError> {
        nothing_else()
    }

    async fn write(&self, _: RelPath, _: u32, _: ByteReader) -> Result<(), ApiError> {
        nothing_else()
    }

    async fn exec(&self, _: ExecRequest) -> Result<Execution, ApiError> {
        nothing_else()
    }

    async fn remove_all(&self, _: Vec<RelPath>) -> Result<(), ApiError> {
        nothing_else()
    }

    async fn halt(&self) -> Result<(), ApiError> {
        nothing_else()
    }

    async fn start_job(&self, _: JobRequest, _: Option<String>) -> Result<Job, ApiError> {
        nothing_else()
    }

    async fn jobs(&self) -> Result<ByteReader, ApiError> {
        nothing_else()
    }

    async fn job(&self, _: JobId) -> Result<Job, ApiError> {
        nothing_else()
    }

    async fn job_output(&self, _: JobId, _: OutputRequest) -> Result<ByteReader, ApiError> {
        nothing_else()
    }

    async fn write_job_stdin(
        &self,
        _: JobId,
        _: StdinRequest,
        _: ByteReader,
    ) -> Result<StdinTaken, ApiError> {
        nothing_else()
    }

    async fn signal_job(&self, _: JobId, _: SignalRequest) -> Result<Job, ApiError> {
        nothing_else()
    }

    async fn resize_job(&self, _: JobId, _: TerminalSize) -> Result<Job, ApiError> {
        nothing_else()
    }

    async fn delete_job(&self, _: JobId) -> Result<Job, ApiError> {
        nothing_else()
    }

    async fn delete_jobs(&self) -> Result<(), ApiError> {
        nothing_else()
    }
}

/// What a socket holds.
const PIPE: usize = 64 * 1024;

/// The unread bytes of one direction: two pipes, and the buffers of the copy between them.
const BOUND: usize = 256 * 1024;
