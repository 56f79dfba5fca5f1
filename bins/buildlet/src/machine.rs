//! The protocol's operations on this machine.

use std::path::Path;

use anyhow::Context;
use buildlet_proto::api::{ByteReader, Execution, ListRequest, SshRequest, SshStream, Status};
use buildlet_proto::{ApiError, Buildlet, ExecRequest, RelPath};
use tokio_util::sync::CancellationToken;

use crate::exec;
use crate::files::{failed, remove_all, write_file};
use crate::listing::write_listing;
use crate::root::Root;
use crate::ssh::Ssh;
use crate::stream::{blocking, consumed, produced};
use crate::{archive, workdir};

/// This machine, offered below one directory.
#[derive(Debug)]
pub struct Machine {
    root: Root,
    work_dir: String,
    ssh: Ssh,
    halt: CancellationToken,
}

impl Machine {
    /// Offers `work_dir`, an absolute path, and `ssh`.
    pub(crate) fn new(work_dir: &Path, ssh: Ssh) -> anyhow::Result<Self> {
        let text = work_dir
            .to_str()
            .context("the work directory's path is not Unicode")?;
        Ok(Self {
            root: Root::new(work_dir),
            work_dir: text.to_owned(),
            ssh,
            halt: CancellationToken::new(),
        })
    }

    /// Offers `work_dir` without an SSH server, for tests and for programs that embed a machine.
    ///
    /// # Errors
    ///
    /// Where the path is not Unicode, which the protocol needs it to be.
    pub fn without_ssh(work_dir: &Path) -> anyhow::Result<Self> {
        Self::new(work_dir, Ssh::Off)
    }

    /// Cancelled when somebody has asked the machine to halt.
    pub(crate) fn halt_requested(&self) -> CancellationToken {
        self.halt.clone()
    }
}

impl Buildlet for Machine {
    async fn status(&self) -> Result<Status, ApiError> {
        Ok(Status::new(PROTOCOL_LEVEL))
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
        let root = self.root.clone();
        Ok(produced(move |out| {
            let dir = root.open_dir(&dir)?;
            archive::pack(&dir, out)
        }))
    }

    async fn write_tgz(&self, dir: RelPath, archive: ByteReader) -> Result<(), ApiError> {
        let root = self.root.clone();
        let mut archive = consumed(archive);
        blocking(move || archive::unpack(&root, &dir, &mut archive)).await
    }

    async fn write(&self, path: RelPath, mode: u32, content: ByteReader) -> Result<(), ApiError> {
        let root = self.root.clone();
        let mut content = consumed(content);
        blocking(move || write_file(&root, &path, mode, &mut content)).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<Execution, ApiError> {
        let root = self.root.clone();
        blocking(move || {
            workdir::make_inside(root.path())
                .map_err(|error| failed("cannot make the work directory", error))
        })
        .await?;
        exec::start(self.root.path(), &request)
    }

    async fn remove_all(&self, paths: Vec<RelPath>) -> Result<(), ApiError> {
        let root = self.root.clone();
        blocking(move || remove_all(&root, &paths)).await
    }

    async fn halt(&self) -> Result<(), ApiError> {
        self.halt.cancel();
        Ok(())
    }

    async fn connect_ssh(&self, request: SshRequest) -> Result<SshStream, ApiError> {
        let root = self.root.clone();
        blocking(move || {
            workdir::make_inside(root.path())
                .map_err(|error| failed("cannot make the work directory", error))
        })
        .await?;
        self.ssh.connect(&request).await
    }
}

/// What we do is what Go's buildlet did at this version: paths are cleaned, and there are `TMPDIR` and bare command names
/// (golang.org/x/build, 2022-07).
pub(crate) const PROTOCOL_LEVEL: u32 = 26;
