//! From a command to the disk: the output of jobs, and what becomes of it when somebody else holds its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use sshbridge::machine::TerminalMaster;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::job::Job;
use super::store::Writer;

/// Where a command writes, as seen from this side.
#[derive(Debug)]
pub(super) enum Source {
    Pipe(pipe::Receiver),
    Terminal(Arc<TerminalMaster>),
}

impl Source {
    pub(super) fn pipe(end: OwnedFd) -> io::Result<Self> {
        Ok(Self::Pipe(pipe::Receiver::from_owned_fd(end)?))
    }

    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pipe(pipe) => pipe.read(buffer).await,
            Self::Terminal(master) => master.read(buffer).await,
        }
    }
}

/// Moves what `source` gives to the disk until it ends. Dropping the future loses nothing that the disk has taken.
pub(super) async fn keep(mut source: Source, mut writer: Writer, job: Arc<Job>) {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match source.read(&mut buffer).await {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) => return tracing::debug!(%error, "a job's output ended"),
        };
        let writing = tokio::task::spawn_blocking(move || {
            writer.append(&buffer[..count]);
            (writer, buffer)
        });
        // It neither panics nor is aborted; if the runtime ends, so do we.
        let Ok(back) = writing.await else { return };
        (writer, buffer) = back;
        job.progress.send_modify(|_| {});
    }
}

/// What a pipe holds.
const BUFFER: usize = 64 * 1024;
