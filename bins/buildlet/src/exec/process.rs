//! A process group, its output and its end.

use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use buildlet_proto::api::Execution;
use buildlet_proto::{ApiError, ProcessState};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::environment::Environment;
use super::signal::description;

/// A command that is ready to start.
pub(super) struct Command<'a> {
    pub(super) program: &'a Path,
    pub(super) args: &'a [String],
    pub(super) env: Environment,
    pub(super) dir: &'a Path,
}

impl Command<'_> {
    /// Starts the command in a process group of its own, with nothing to read and both outputs in one pipe. The output
    /// begins with `prefix`.
    pub(super) fn start(self, prefix: String) -> io::Result<Execution> {
        let (read, write) = io::pipe()?;
        let mut command = tokio::process::Command::new(self.program);
        command
            .args(self.args)
            .env_clear()
            .envs(self.env.variables())
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write)
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        // With it goes our own hold on the pipe's other end.
        drop(command);

        let group = Arc::new(Group::new(child.id()));
        let (ended, mut end) = watch::channel(None);
        let waiting = AbortOnDropHandle::new(tokio::spawn(async move {
            let status = child.wait().await;
            ended.send_replace(Some(status.map_err(|error| error.kind())));
        }));
        let output = Output {
            pipe: pipe::Receiver::from_owned_fd(read.into())?,
            patience: Box::pin(patience(end.clone())),
            _kill: KillOnDrop(group.clone()),
        };
        let kill = KillOnDrop(group.clone());
        let state = async move {
            // Both are dropped with this future.
            let _owned = (waiting, kill);
            let gone = || ApiError::internal("the command was lost sight of");
            let status = end.wait_for(Option::is_some).await.map_err(|_| gone())?;
            let status = (*status).ok_or_else(gone)?;
            group.leave();
            match status {
                Ok(status) => Ok(state_of(status)),
                Err(kind) => Err(gone().because(io::Error::from(kind))),
            }
        };
        let prefix = io::Cursor::new(prefix.into_bytes());
        Ok(Execution::new(prefix.chain(output), state))
    }
}

/// Resolves some time after the command has ended.
async fn patience(mut end: watch::Receiver<Option<Result<ExitStatus, io::ErrorKind>>>) {
    // A sender that is gone means an end as well.
    drop(end.wait_for(Option::is_some).await.map(drop));
    tokio::time::sleep(GRACE).await;
}

/// What a command writes. It ends when nobody holds the pipe any more, or some time after the command itself has ended:
/// what it left in the background may hold the pipe for ever.
struct Output {
    pipe: pipe::Receiver,
    patience: Pin<Box<dyn Future<Output = ()> + Send>>,
    _kill: KillOnDrop,
}

impl AsyncRead for Output {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.pipe).poll_read(cx, buf) {
            return Poll::Ready(read);
        }
        ready!(self.patience.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}

/// The processes of a command.
struct Group {
    leader: Option<Pid>,
    /// Whether the command ended by itself, and what it left behind may live on.
    left: AtomicBool,
}

impl Group {
    fn new(leader: Option<u32>) -> Self {
        let leader = leader.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Self {
            leader,
            left: AtomicBool::new(false),
        }
    }

    fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }
}

/// Kills a whole process group unless its command ended by itself.
struct KillOnDrop(Arc<Group>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.0.left.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(leader) = self.0.leader {
            // A group that is gone already is as good as killed.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn state_of(status: ExitStatus) -> ProcessState {
    match (status.code(), status.signal()) {
        (Some(code), _) => ProcessState::exited(code),
        (None, Some(signal)) => {
            let core = if status.core_dumped() {
                " (core dumped)"
            } else {
                ""
            };
            ProcessState::signaled(&format!("{}{core}", description(signal)))
        }
        (None, None) => ProcessState::not_started("the command ended without a status"),
    }
}

/// Long enough for a background process that is about to end (Go's buildlets wait for ever), short enough that one that is
/// not does not hold a lease.
const GRACE: Duration = Duration::from_secs(5);
