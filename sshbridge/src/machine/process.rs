//! Watching over a session's processes until the last of them that must end has ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::platform::{self, Group, Signal, TerminalMaster};
use crate::backend::ChannelEvent;

/// A running program, the leader of a group of processes. Dropping it kills the group, where the program still runs.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// The program's group, until there is nothing left in it that is ours to end.
    group: Option<Group>,
    terminal: Option<Arc<TerminalMaster>>,
    /// The group that was in the foreground of the terminal when that was let go.
    foreground: Option<Group>,
}

impl Process {
    /// Takes charge of `child`, which leads a session, perhaps on `terminal`.
    pub(super) fn new(child: Child, terminal: Option<Arc<TerminalMaster>>) -> Self {
        Self {
            group: Group::led_by(&child),
            child,
            terminal,
            foreground: None,
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
        self.release_terminal();
        group.hang_up();
        if let Some(foreground) = self.lingering_foreground() {
            foreground.hang_up();
        }
        if timeout(grace, self.emptied(group)).await.is_err() {
            tracing::debug!("processes of a cut session did not hang up and are killed");
            self.kill();
        }
        self.group = None;
        // Waiting again is what reaps a program that had to be killed.
        let _ = self.child.wait().await;
    }

    /// Waits until no process of the group, nor of that in the foreground, is left.
    async fn emptied(&mut self, group: Group) {
        // A failure to wait is met by the kill that follows the time limit.
        let _ = self.child.wait().await;
        while !group.is_empty() || self.lingering_foreground().is_some() {
            sleep(POLL).await;
        }
    }

    /// Lets go of the terminal, which hangs it up when nobody else reads it, and notes who was in its foreground.
    fn release_terminal(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            self.foreground = terminal.foreground();
        }
    }

    /// The group in the foreground, where it is another one than the program's and still of its session.
    fn lingering_foreground(&self) -> Option<Group> {
        let group = self.group?;
        self.foreground
            .filter(|foreground| *foreground != group && foreground.is_in_session_of(group))
    }

    fn kill(&self) {
        if let Some(foreground) = self.lingering_foreground() {
            foreground.kill();
        }
        if let Some(group) = self.group {
            group.kill();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.release_terminal();
        self.kill();
    }
}

/// How often the rest of a group is looked at: no system tells when a group is empty.
const POLL: Duration = Duration::from_millis(20);
