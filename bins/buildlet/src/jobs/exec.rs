//! `/exec`: a job that is attached to its client. Its output goes there, as fast as it is read, and is not kept.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use buildlet_proto::api::Execution;
use buildlet_proto::jobs::{JobAbout, JobCommand};
use buildlet_proto::{ApiError, ExecRequest, ProcessState};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::Jobs;
use super::driver::{HOLDERS, Launch};
use super::job::{Job, Parts, Phase, Progress, shortened};
use super::start::{add, nothing_to_read};
use crate::exec::{self, Prepared};

impl Jobs {
    /// Runs a command for a client. What keeps it from starting is its state, not an error: the client asked rightly.
    pub(crate) fn execute(&self, request: &ExecRequest) -> Result<Execution, ApiError> {
        let mut prepared = match exec::prepare(&self.shared.work_dir, request)? {
            Ok(prepared) => prepared,
            Err(why) => return Ok(not_started(why)),
        };
        self.mark(&mut prepared.spec);
        let (output, stdio) = match pipes() {
            Ok(pipes) => pipes,
            Err(error) => {
                return Ok(not_started(format!(
                    "the machine cannot make the command's pipe: {error}"
                )));
            }
        };
        let job = self.attach(prepared.spec.clone(), request, stdio)?;
        Ok(execution(job, output, prepared))
    }

    fn attach(
        &self,
        spec: crate::supervisor::Spec,
        request: &ExecRequest,
        stdio: [OwnedFd; 3],
    ) -> Result<Arc<Job>, ApiError> {
        let argv = std::iter::once(&request.command).chain(&request.args);
        let command = shortened(&JobCommand::Argv(argv.cloned().collect()));
        let mut about = JobAbout::new(command, spec.dir.to_string_lossy(), SystemTime::now());
        about.attached = true;
        let mut table = self.shared.table();
        let parts: Parts = self.parts(&table, about, None, 0)?;
        let (job, commands) = add(&mut table, parts);
        drop(table);
        let launch = Launch {
            supervisor: self.shared.settings.supervisor.clone(),
            spec,
            stdio,
            outputs: Vec::new(),
            time_limit: None,
        };
        self.drive(&job, launch, commands);
        Ok(job)
    }
}

fn pipes() -> io::Result<(pipe::Receiver, [OwnedFd; 3])> {
    let (read, write) = io::pipe()?;
    let stdio = [nothing_to_read()?, write.try_clone()?.into(), write.into()];
    Ok((pipe::Receiver::from_owned_fd(read.into())?, stdio))
}

fn not_started(why: String) -> Execution {
    Execution::new(tokio::io::empty(), async move {
        Ok(ProcessState::not_started(why))
    })
}

fn execution(job: Arc<Job>, pipe: pipe::Receiver, prepared: Prepared) -> Execution {
    let client = Arc::new(Client {
        job,
        has_heard_the_end: AtomicBool::new(false),
    });
    let progress = client.job.progress.subscribe();
    let output = Output {
        pipe,
        patience: Box::pin(patience(progress.clone())),
        _client: KillOnDrop(client.clone()),
    };
    let kill = KillOnDrop(client);
    let state = async move {
        let state = end(progress).await;
        kill.0.has_heard_the_end.store(true, Ordering::Release);
        Ok(state)
    };
    let prefix = io::Cursor::new(prepared.prefix.into_bytes());
    Execution::new(prefix.chain(output), state)
}

/// Resolves with the command's end.
async fn end(mut progress: watch::Receiver<Progress>) -> ProcessState {
    let lost = || ProcessState::not_started("the command was lost sight of");
    let ended = progress.wait_for(|progress| progress.end.is_some()).await;
    match ended {
        Ok(progress) => progress
            .end
            .as_ref()
            .map_or_else(lost, |end| end.process_state.clone()),
        Err(_) => lost(),
    }
}

/// Resolves some time after the command has ended.
async fn patience(mut progress: watch::Receiver<Progress>) {
    let phase = progress
        .wait_for(|progress| progress.end.is_some())
        .await
        .map(|progress| progress.phase);
    if phase.is_ok_and(|phase| phase != Phase::NotStarted) {
        tokio::time::sleep(HOLDERS).await;
    }
}

/// What a command writes. It ends when nobody holds the pipe any more, or some time after the command itself has ended:
/// what it left in the background may hold the pipe for ever.
struct Output {
    pipe: pipe::Receiver,
    patience: Pin<Box<dyn Future<Output = ()> + Send>>,
    _client: KillOnDrop,
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

/// For whom a command runs.
struct Client {
    job: Arc<Job>,
    /// Whether the command ended by itself, and what it left behind may live on.
    has_heard_the_end: AtomicBool,
}

/// Kills the tree of a command whose client leaves before it has heard the end.
struct KillOnDrop(Arc<Client>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if !self.0.has_heard_the_end.load(Ordering::Acquire) {
            self.0.job.unwanted.cancel();
        }
    }
}
