//! The protocol's operations on this machine.

use std::io;
use std::path::Path;

use anyhow::Context;
use buildlet_proto::api::{
    ByteReader, ByteStream, Execution, Fetched, ListRequest, SshRequest, SshStream, Status,
};
use buildlet_proto::jobs::{
    Job, JobId, JobRequest, OutputRequest, SignalRequest, StdinRequest, StdinTaken, TerminalSize,
};
use buildlet_proto::{ApiError, Buildlet, ExecRequest, RelPath};
use revdial::connector::Proxies;
use tokio_util::sync::CancellationToken;

use crate::fetch::Fetcher;
use crate::files::{failed, remove_all, write_file};
use crate::health::Health;
use crate::jobs::{JobSettings, Jobs};
use crate::listing::write_listing;
use crate::ports::TcpPorts;
use crate::root::{Root, split};
use crate::ssh::{Sessions, Ssh};
use crate::strays::Strays;
use crate::stream::{blocking, consumed, produced};
use crate::{archive, workdir};

/// This machine, offered below one directory.
#[derive(Debug)]
pub struct Machine {
    root: Root,
    work_dir: String,
    jobs: Jobs,
    ssh: Ssh,
    ports: TcpPorts,
    fetcher: Fetcher,
    health: Health,
    strays: Strays,
    halt: CancellationToken,
}

impl Machine {
    /// Offers `work_dir`, an absolute path, with jobs there, and `ssh`.
    pub(crate) fn new(work_dir: &Path, jobs: JobSettings, ssh: Ssh) -> anyhow::Result<Self> {
        let text = work_dir
            .to_str()
            .context("the work directory's path is not Unicode")?;
        Ok(Self {
            root: Root::new(work_dir),
            work_dir: text.to_owned(),
            jobs: Jobs::new(work_dir.to_owned(), jobs)
                .context("making the directory for the output of jobs")?,
            ssh,
            ports: TcpPorts::default(),
            fetcher: Fetcher::default(),
            health: Health::new(Root::new(work_dir), 0),
            strays: Strays::default(),
            halt: CancellationToken::new(),
        })
    }

    /// Offers `work_dir` without an SSH server, for tests and for programs that embed a machine.
    ///
    /// # Errors
    ///
    /// Where the path is not Unicode, which the protocol needs it to be; where the output of jobs cannot be kept.
    pub fn without_ssh(work_dir: &Path, jobs: JobSettings) -> anyhow::Result<Self> {
        Self::new(work_dir, jobs, Ssh::Off)
    }

    /// Makes the work directory and what belongs into it, where a user has removed it.
    async fn make_inside(&self) -> Result<(), ApiError> {
        let root = self.root.clone();
        blocking(move || {
            workdir::make_inside(root.path())
                .map_err(|error| failed("cannot make the work directory", error))
        })
        .await
    }

    /// Lets uploads leave `reserve` bytes of the disk free.
    pub(crate) fn with_reserve(mut self, reserve: u64) -> Self {
        self.root = self.root.with_reserve(reserve);
        self
    }

    /// Counts the machine as unhealthy while less than `low_disk` bytes of the disk are free; without it, never.
    #[must_use]
    pub fn with_low_disk(mut self, low_disk: u64) -> Self {
        self.health = Health::new(self.root.clone(), low_disk);
        self
    }

    /// Has processes that are left behind by other ways than jobs killed as well.
    pub(crate) fn with_strays(mut self, strays: Strays) -> Self {
        self.strays = strays;
        self
    }

    /// A directory with all that it holds, or one file, as an archive.
    fn archive(&self, path: RelPath, members: archive::Members) -> ByteReader {
        let root = self.root.clone();
        produced(move |out| {
            let file = match root.open_dir(&path) {
                Ok(dir) => return archive::pack(&dir, members, out),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => split(&path),
                Err(error) => return Err(error),
            };
            let (parent, name) = file.ok_or(io::ErrorKind::NotADirectory)?;
            archive::pack_file(&root.open_dir(&parent)?, name, members, out)
        })
    }

    /// What takes away everything that users have left.
    pub(crate) fn wiper(&self) -> Wiper {
        Wiper {
            root: self.root.clone(),
            jobs: self.jobs.clone(),
            strays: self.strays.clone(),
            sessions: self.ssh.sessions(),
        }
    }

    /// What tells whether it is well.
    pub(crate) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Lets clients reach these TCP ports on the machine's loopback interface; without it, none.
    #[must_use]
    pub fn with_tcp_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports = ports.into_iter().collect();
        self
    }

    /// Fetches archives through these proxies.
    pub(crate) fn with_proxies(mut self, proxies: Proxies) -> Self {
        self.fetcher = Fetcher::new(proxies);
        self
    }

    /// Cancelled when somebody has asked the machine to halt.
    pub(crate) fn halt_requested(&self) -> CancellationToken {
        self.halt.clone()
    }
}

impl Buildlet for Machine {
    async fn status(&self) -> Result<Status, ApiError> {
        let health = self.health.check().await;
        Ok(Status::new(PROTOCOL_LEVEL).with_health(health))
    }

    async fn work_dir(&self) -> Result<String, ApiError> {
        Ok(self.work_dir.clone())
    }

    async fn list(&self, request: ListRequest) -> Result<ByteReader, ApiError> {
        let root = self.root.clone();
        Ok(produced(move |out| {
            let dir = root.open_dir(&request.dir)?;
            write_listing(&dir, &request, out)
        }))
    }

    async fn read_tgz(&self, dir: RelPath) -> Result<ByteReader, ApiError> {
        Ok(self.archive(dir, archive::Members::Many))
    }

    async fn read_single_tgz(&self, dir: RelPath) -> Result<ByteReader, ApiError> {
        Ok(self.archive(dir, archive::Members::One))
    }

    async fn write_tgz(&self, dir: RelPath, archive: ByteReader) -> Result<(), ApiError> {
        let root = self.root.clone();
        let archive = consumed(archive);
        blocking(move || archive::unpack(&root, &dir, archive)).await
    }

    async fn fetch_tgz(&self, dir: RelPath, url: String) -> Result<Fetched, ApiError> {
        if dir.as_str() == BOOTSTRAP && self.root.open_dir(&dir).is_ok() {
            return Ok(Fetched::AlreadyThere);
        }
        let unpack = |archive| self.write_tgz(dir, archive);
        Box::pin(self.fetcher.fetch(&url, unpack)).await?;
        Ok(Fetched::Unpacked)
    }

    async fn write(&self, path: RelPath, mode: u32, content: ByteReader) -> Result<(), ApiError> {
        let root = self.root.clone();
        let mut content = consumed(content);
        blocking(move || write_file(&root, &path, mode, &mut content)).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<Execution, ApiError> {
        self.make_inside().await?;
        self.jobs.execute(&request)
    }

    async fn remove_all(&self, paths: Vec<RelPath>) -> Result<(), ApiError> {
        // Whoever wants nothing left of the files wants nothing left of those who write them. It is also how coordinators
        // of any age give a machine to its next user.
        if paths.iter().any(RelPath::is_root) {
            return self.wiper().wipe().await;
        }
        let root = self.root.clone();
        blocking(move || remove_all(&root, &paths)).await
    }

    async fn halt(&self) -> Result<(), ApiError> {
        self.halt.cancel();
        Ok(())
    }

    async fn connect_ssh(&self, request: SshRequest) -> Result<SshStream, ApiError> {
        self.make_inside().await?;
        self.ssh.connect(&request).await
    }

    async fn connect_tcp(&self, port: u16) -> Result<Box<dyn ByteStream>, ApiError> {
        Ok(Box::new(self.ports.connect(port).await?))
    }

    async fn start_job(&self, request: JobRequest, key: Option<String>) -> Result<Job, ApiError> {
        self.make_inside().await?;
        self.jobs.start(request, key).await
    }

    async fn jobs(&self) -> Result<ByteReader, ApiError> {
        Ok(self.jobs.list())
    }

    async fn job(&self, id: JobId) -> Result<Job, ApiError> {
        self.jobs.tell(id)
    }

    async fn job_output(&self, id: JobId, from: OutputRequest) -> Result<ByteReader, ApiError> {
        self.jobs.output(id, from)
    }

    async fn write_job_stdin(
        &self,
        id: JobId,
        place: StdinRequest,
        content: ByteReader,
    ) -> Result<StdinTaken, ApiError> {
        self.jobs.write_stdin(id, place, content).await
    }

    async fn signal_job(&self, id: JobId, signal: SignalRequest) -> Result<Job, ApiError> {
        self.jobs.signal(id, signal).await
    }

    async fn resize_job(&self, id: JobId, size: TerminalSize) -> Result<Job, ApiError> {
        self.jobs.resize(id, size)
    }

    async fn delete_job(&self, id: JobId) -> Result<Job, ApiError> {
        self.jobs.delete(id).await
    }

    async fn delete_jobs(&self) -> Result<(), ApiError> {
        self.jobs.delete_all().await;
        Ok(())
    }
}

/// Takes away everything that users have left: processes first, then files.
#[derive(Clone, Debug)]
pub(crate) struct Wiper {
    root: Root,
    jobs: Jobs,
    strays: Strays,
    sessions: Sessions,
}

impl Wiper {
    /// Kills and removes. Nothing is started, and no upload finished, while it does.
    pub(crate) async fn wipe(&self) -> Result<(), ApiError> {
        let _closed = self.jobs.close();
        self.sessions.cut();
        self.jobs.delete_all().await;
        self.strays.kill().await;
        let root = self.root.clone();
        blocking(move || {
            root.begin_anew();
            remove_all(&root, &[RelPath::ROOT])
        })
        .await
    }
}

/// What we do is what Go's buildlet did at this version: paths are cleaned, and there are `TMPDIR` and bare command names
/// (golang.org/x/build, 2022-07).
pub(crate) const PROTOCOL_LEVEL: u32 = 26;

/// The directory that Go's programs ask to be filled unless it is there.
const BOOTSTRAP: &str = "go1.4";
