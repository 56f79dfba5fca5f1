//! Processes that are left behind by other ways than jobs: in the background of an SSH session, by a supervisor that was
//! killed, by a buildlet that was.
//!
//! Jobs have supervisors, which know all that is theirs. For everything else each process carries a mark in its environment,
//! by which also the next buildlet finds what the one before could not kill; and a buildlet that has its process for itself
//! adopts orphans (on Linux), so that whatever runs below it is what somebody has left, marked or not.

use std::time::{Duration, Instant};

use crate::platform::{Marked, Tree};
use crate::stream::blocking;

/// What is killed beside jobs when a machine is wiped: by default nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strays {
    marked: Option<Marked>,
    process: Process,
}

/// Whose the processes below this one are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Process {
    /// All are the machine's.
    Alone,
    /// The program has others as well, so only those with the mark are the machine's.
    #[default]
    Shared,
}

/// The variable with the mark.
pub(crate) const MARK: &str = "BUILDLET_MARK";

impl Strays {
    /// Looks after what carries `mark` from now on. In a process that is the machine's alone, orphans are adopted.
    pub(crate) fn new(mark: &str, process: Process) -> Self {
        if process == Process::Alone {
            Tree::adopt_orphans();
        }
        Self {
            marked: Some(Marked::new(MARK, mark)),
            process,
        }
    }

    /// Kills what was left behind until there is none of it.
    pub(crate) async fn kill(&self) {
        let Some(marked) = self.marked.clone() else {
            return;
        };
        let process = self.process;
        match blocking(move || Ok(kill(&marked, process))).await {
            Ok(survivors) if survivors.is_empty() => {}
            Ok(survivors) => tracing::warn!(?survivors, "processes survive a kill"),
            Err(error) => tracing::warn!(%error, "strays cannot be killed"),
        }
    }

    /// Waits for adopted orphans that end, for ever: nobody else does.
    pub(crate) async fn reap(&self) {
        if self.process == Process::Shared {
            return std::future::pending().await;
        }
        let mut ended = Vec::new();
        loop {
            tokio::time::sleep(REAP_INTERVAL).await;
            ended = Tree::reap(&ended);
        }
    }
}

/// Gives those that survive.
fn kill(marked: &Marked, process: Process) -> Vec<u32> {
    let mut ended = Vec::new();
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let mut alive = marked.kill();
        if process == Process::Alone {
            alive.extend(Tree::kill_below());
        }
        if alive.is_empty() || began.elapsed() >= KILL_LIMIT {
            return alive;
        }
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(LAST_PAUSE);
        if process == Process::Alone {
            ended = Tree::reap(&ended);
        }
    }
}

/// As supervisors take.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// A zombie costs a number and nothing more.
const REAP_INTERVAL: Duration = Duration::from_secs(10);
