//! Watching over a session's processes until the last of them that must end has ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::platform::{self, Group, Master, Signal};
use crate::backend::ChannelEvent;

/// A running program, the leader of a group of processes. Dropping it kills the group, where the program still runs.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The program's group, until there is nothing left in it that is ours to end.
    group: Option<Group>,
    terminal: Option<Arc<Master>>,
}

impl Process {
    /// Takes charge of `child`, which leads a session, perhaps on `terminal`.
    pub(super) fn new(child: Child, terminal: Option<Arc<Master>>) -> Self {
        Self {
            group: Group::led_by(&child),
            child,
            terminal,
        }
    }

    /// Watches the program until it exits, and tells `exited` how; hands it the `signals` that come for it.
    ///
    /// When `closed` is cancelled first, every process of the group is told to hang up, and killed after `grace`. What a
    /// program leaves in the background when it exits by itself is left alone, as sshd does.
    pub(super) async fn supervise(
        mut self,
        mut signals: mpsc::Receiver<Signal>,
        closed: CancellationToken,
        exited: oneshot::Sender<ChannelEvent>,
        grace: Duration,
    ) {
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    self.group = None;
                    match status {
                        // The receiver is gone when the client is, and then nobody needs to know.
                        Ok(status) => drop(exited.send(platform::exit_event(status))),
                        Err(error) => tracing::warn!(%error, "how a command ended cannot be told"),
                    }
                    return;
                }
                Some(signal) = signals.recv() => {
                    if let Some(group) = self.group {
                        group.signal(signal);
                    }
                }
                () = closed.cancelled() => break,
            }
        }
        self.end(grace).await;
    }

    /// Ends the program, its group, and on a terminal the group in the foreground.
    async fn end(mut self, grace: Duration) {
        let Some(group) = self.group else { return };
        let foreground = self
            .terminal
            .take()
            .and_then(|terminal| terminal.foreground())
            .filter(|foreground| *foreground != group);
        group.hang_up();
        if let Some(foreground) = foreground {
            foreground.hang_up();
        }
        let lingers = || foreground.filter(|foreground| foreground.is_in_session_of(group));
        let gone = async {
            // A failure to wait is met by the kill below.
            let _ = self.child.wait().await;
            while !group.is_empty() || lingers().is_some() {
                sleep(POLL).await;
            }
        };
        if timeout(grace, gone).await.is_err() {
            tracing::debug!("processes of a cut session did not hang up and are killed");
            group.kill();
            if let Some(foreground) = lingers() {
                foreground.kill();
            }
        }
        self.group = None;
        // Waiting again is what reaps a program that had to be killed.
        let _ = self.child.wait().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            group.kill();
        }
    }
}

/// How often the rest of a group is looked at: no system tells when a group is empty.
const POLL: Duration = Duration::from_millis(20);
