//! The subsystem `sftp`: it runs in this program and not in one of its own.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::settings::LocalSettings;
use crate::backend::ChannelEvent;
use crate::sftp::{self, LocalFiles};

/// The ends of a server that runs.
#[derive(Debug)]
pub(super) struct Subsystem {
    pub(super) input: mpsc::Sender<Bytes>,
    pub(super) output: Served,
}

/// What a server sends, and then how it ended.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) responses: mpsc::Receiver<Bytes>,
    pub(super) exited: oneshot::Receiver<ChannelEvent>,
}

/// Prepares a server of this machine's files, and the work that it is.
pub(super) fn start(
    settings: &LocalSettings,
) -> std::io::Result<(Subsystem, impl Future<Output = ()> + Send + use<>)> {
    let home = settings.env.iter().rev().find(|(name, _)| name == "HOME");
    let home = home.map(|(_, home)| PathBuf::from(home));
    let files = LocalFiles::new(&settings.work_dir, home)?;
    let (input, requests) = mpsc::channel(sftp::QUEUE);
    let (answers, responses) = mpsc::channel(sftp::QUEUE);
    let (exit, exited) = oneshot::channel();
    let serving = async move {
        let status = sftp::status(&sftp::run(Arc::new(files), requests, answers).await);
        // The client may be gone, and then nobody needs to know.
        let _ = exit.send(ChannelEvent::ExitStatus(status));
    };
    let subsystem = Subsystem {
        input,
        output: Served { responses, exited },
    };
    Ok((subsystem, serving))
}
