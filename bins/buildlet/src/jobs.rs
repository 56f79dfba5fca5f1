//! Jobs: commands with their supervisors, their output on the disk, and their end.
//!
//! A job is three things. [`Job`] is what everybody sees of it, and the `driver` the one task that moves it: it speaks
//! to the supervisor, moves output to the disk, and minds the time. [`Jobs`] is the table, which owns the drivers: with it
//! ends everything.

mod driver;
mod exec;
mod job;
mod limits;
mod listing;
mod output;
mod reader;
mod start;
mod stdin;
mod store;
mod table;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildlet_proto::api::ByteReader;
use buildlet_proto::jobs::{
    JobId, OutputRequest, SignalRequest, SignalTarget, StdinRequest, StdinTaken, TerminalSize,
};
use buildlet_proto::{ApiError, ErrorStatus, jobs as proto};
use sshbridge::backend::WindowSize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use self::job::{Command, Job};
pub use self::limits::JobLimits;
use self::table::Table;
use crate::platform::number_of;
use crate::supervisor::Supervisor;

/// How a machine runs jobs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobSettings {
    /// What watches over each.
    pub supervisor: Supervisor,
    /// Where output is kept: a directory of its own, which others cannot read. It is made, and emptied, at the start.
    pub output_dir: PathBuf,
    /// How many, and how much.
    pub limits: JobLimits,
    /// A variable that every command gets, to be known again by.
    pub(crate) mark: Option<(&'static str, String)>,
}

impl JobSettings {
    /// The default limits.
    pub fn new(supervisor: Supervisor, output_dir: impl Into<PathBuf>) -> Self {
        Self {
            supervisor,
            output_dir: output_dir.into(),
            limits: JobLimits::default(),
            mark: None,
        }
    }
}

/// The jobs of a machine. When the last clone is dropped all that lives of them is killed.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: JobSettings,
    work_dir: PathBuf,
    table: Mutex<Table>,
    drivers: Mutex<JoinSet<()>>,
}

impl Jobs {
    /// A table without jobs, for commands in `work_dir`.
    pub(crate) fn new(work_dir: PathBuf, settings: JobSettings) -> std::io::Result<Self> {
        store::prepare(&settings.output_dir)?;
        Ok(Self {
            shared: Arc::new(Shared {
                table: Mutex::new(Table::new(settings.limits.clone())),
                settings,
                work_dir,
                drivers: Mutex::default(),
            }),
        })
    }

    pub(crate) fn list(&self) -> ByteReader {
        listing::list(self.shared.clone())
    }

    pub(crate) fn tell(&self, id: JobId) -> Result<proto::Job, ApiError> {
        Ok(self.find(id)?.tell())
    }

    pub(crate) fn output(&self, id: JobId, from: OutputRequest) -> Result<ByteReader, ApiError> {
        reader::read(self.find(id)?, from)
    }

    pub(crate) async fn write_stdin(
        &self,
        id: JobId,
        place: StdinRequest,
        content: ByteReader,
    ) -> Result<StdinTaken, ApiError> {
        let job = self.find(id)?;
        stdin::write(&job, place, content).await
    }

    pub(crate) async fn signal(
        &self,
        id: JobId,
        request: SignalRequest,
    ) -> Result<proto::Job, ApiError> {
        let job = self.find(id)?;
        let number = number_of(request.signal);
        match request.target {
            SignalTarget::Tree if request.signal == proto::Signal::Kill => job.kill().await,
            SignalTarget::Tree => job.order(Command::SignalTree(number)).await,
            SignalTarget::Group => job.order(Command::SignalGroup(number)).await,
        }
        Ok(job.tell())
    }

    pub(crate) fn resize(&self, id: JobId, size: TerminalSize) -> Result<proto::Job, ApiError> {
        let job = self.find(id)?;
        let terminal = job
            .terminal()
            .ok_or_else(|| conflict("this job runs on no terminal"))?;
        terminal
            .resize(window(size.rows, size.columns))
            .map_err(|error| ApiError::internal("the terminal keeps its size").because(error))?;
        Ok(job.tell())
    }

    /// Kills what lives of a job, and forgets it.
    pub(crate) async fn delete(&self, id: JobId) -> Result<proto::Job, ApiError> {
        let job = self.find(id)?;
        job.kill().await;
        let told = job.tell();
        self.shared.forget(&job);
        Ok(told)
    }

    /// Refuses new jobs as long as what it gives lives: whoever takes everything away does not want more of it meanwhile.
    pub(crate) fn close(&self) -> Closed {
        self.shared.table().closed += 1;
        Closed(self.shared.clone())
    }

    /// Kills what lives of all jobs, all at a time, and forgets them. Nothing is started meanwhile.
    pub(crate) async fn delete_all(&self) {
        let _closed = self.close();
        let mut deleting = JoinSet::new();
        for job in self.shared.table().all() {
            let shared = self.shared.clone();
            deleting.spawn(async move {
                job.kill().await;
                shared.forget(&job);
            });
        }
        while deleting.join_next().await.is_some() {}
    }

    fn find(&self, id: JobId) -> Result<Arc<Job>, ApiError> {
        self.shared.table().find(id).ok_or_else(|| {
            ApiError::new(
                ErrorStatus::NOT_FOUND,
                format!("no such job: {id}; it was deleted, or has made room for newer ones"),
            )
        })
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drivers(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, job: &Arc<Job>) {
        self.table().remove(job);
        job.wipe();
    }

    /// What becomes of a job of which nothing lives any more.
    fn finished(&self, job: &Arc<Job>) {
        let forgotten = self.table().finished(job);
        for job in forgotten {
            job.wipe();
        }
    }
}

/// Jobs that take no new ones.
#[derive(Debug)]
pub(crate) struct Closed(Arc<Shared>);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.table().closed -= 1;
    }
}

fn conflict(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorStatus::CONFLICT, message)
}

/// A terminal's size in characters.
fn window(rows: u16, columns: u16) -> WindowSize {
    WindowSize {
        rows: rows.into(),
        columns: columns.into(),
        ..WindowSize::default()
    }
}

/// Asks for a kill, and is told when it is done.
type Killed = oneshot::Sender<()>;

#[cfg(test)]
mod tests {
    use buildlet_proto::jobs::JobRequest;

    use super::*;

    #[tokio::test]
    async fn nothing_is_started_while_everything_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let settings = JobSettings::new(Supervisor::at("/none"), dir.path().join("jobs"));
        let jobs = Jobs::new(dir.path().to_owned(), settings).unwrap();
        let start = || jobs.start(JobRequest::argv(["/bin/true"]), None);
        let (closed, twice) = (jobs.close(), jobs.close());
        drop(twice);
        let error = start().await.unwrap_err();
        assert_eq!(error.status(), ErrorStatus::UNAVAILABLE);
        drop(closed);
        // There is no supervisor, which the job tells.
        let job = start().await.unwrap();
        assert_eq!(job.state, proto::JobState::NotStarted);
    }
}
