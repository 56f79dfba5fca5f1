//! A job as everybody sees it: handlers, readers, and the driver that moves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use buildlet_proto::ProcessState;
use buildlet_proto::jobs::frame::Stream;
use buildlet_proto::jobs::{self as proto, JobAbout, JobEnd, JobId, JobReason, JobState};
use sshbridge::machine::TerminalMaster;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Killed;
use super::stdin::Stdin;
use super::store::Index;
use super::table::Key;

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    /// Its place in the order of starts.
    pub(super) number: u64,
    pub(super) key: Option<Key>,
    pub(super) about: JobAbout,
    pub(super) stdin: Option<Stdin>,
    pub(super) stdout: Arc<Index>,
    pub(super) stderr: Arc<Index>,
    /// How far it is. A change without a change says that there is more output.
    pub(super) progress: watch::Sender<Progress>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Cancelled when nobody wants it any more.
    pub(super) unwanted: CancellationToken,
    terminal: Mutex<Option<Arc<TerminalMaster>>>,
    slot: Mutex<Option<OwnedSemaphorePermit>>,
}

/// How far a job is.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) phase: Phase,
    /// Known as soon as the command has ended, while its output may still come.
    pub(super) end: Option<JobEnd>,
    pub(super) alive: bool,
    pub(super) survivors: Vec<u32>,
    /// Whether its output may not be read any more.
    pub(super) is_forgotten: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// Nobody knows yet whether its command can be started.
    Starting,
    Running,
    /// The command has ended, and all output that will be kept is kept.
    Ended,
    NotStarted,
}

/// What the driver is asked for.
#[derive(Debug)]
pub(super) enum Command {
    Kill(Killed),
    SignalGroup(i32),
    SignalTree(i32),
}

/// What a job is made of.
pub(super) struct Parts {
    pub(super) id: JobId,
    pub(super) key: Option<Key>,
    pub(super) about: JobAbout,
    pub(super) terminal: Option<Arc<TerminalMaster>>,
    pub(super) stdin: Option<Stdin>,
    pub(super) stdout: Arc<Index>,
    pub(super) stderr: Arc<Index>,
    pub(super) slot: OwnedSemaphorePermit,
}

impl Job {
    /// A job with the number `number`, and what its driver is to read.
    pub(super) fn new(number: u64, parts: Parts) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let progress = Progress {
            phase: Phase::Starting,
            end: None,
            alive: true,
            survivors: Vec::new(),
            is_forgotten: false,
        };
        let job = Self {
            id: parts.id,
            number,
            key: parts.key,
            about: parts.about,
            terminal: Mutex::new(parts.terminal),
            stdin: parts.stdin,
            stdout: parts.stdout,
            stderr: parts.stderr,
            progress: watch::Sender::new(progress),
            commands,
            unwanted: CancellationToken::new(),
            slot: Mutex::new(Some(parts.slot)),
        };
        (Arc::new(job), receiver)
    }

    /// Waits until it is known whether the command has started.
    pub(super) async fn started(&self) {
        let mut progress = self.progress.subscribe();
        // We hold the sender, so there is an answer.
        let _ = progress
            .wait_for(|progress| progress.phase != Phase::Starting)
            .await;
    }

    /// Kills the whole tree; returns when that is done, as well as it can be.
    pub(super) async fn kill(&self) {
        let (killed, done) = oneshot::channel();
        // A driver that has ended has left nothing alive.
        if self.commands.send(Command::Kill(killed)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Asks the driver for something. Of a job that has ended nobody can ask anything.
    pub(super) async fn order(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    /// The terminal that it runs on, while anything lives of it.
    pub(super) fn terminal(&self) -> Option<Arc<TerminalMaster>> {
        lock(&self.terminal).clone()
    }

    /// Lets go of what only a job needs of which something lives: thousands are kept of which nothing does.
    pub(super) async fn release(&self) {
        drop(lock(&self.terminal).take());
        if let Some(stdin) = &self.stdin {
            stdin.release().await;
        }
    }

    pub(super) fn not_started(&self, why: &str) {
        self.give_up_slot();
        // It may quote a name of any length.
        let why = cut_to(SHOWN, why);
        let end = JobEnd::new(ProcessState::not_started(why), SystemTime::now());
        self.progress.send_modify(|progress| {
            progress.phase = Phase::NotStarted;
            progress.end = Some(end);
            progress.alive = false;
        });
    }

    /// Tells everybody that the command has ended. Its output may not have.
    pub(super) fn command_ended(&self, end: JobEnd) {
        self.give_up_slot();
        self.progress
            .send_modify(|progress| progress.end = Some(end));
    }

    /// Tells how the command ended where that will never be known.
    pub(super) fn lost(&self) {
        let mut end = JobEnd::new(
            ProcessState::not_started("the command's supervisor was killed"),
            SystemTime::now(),
        );
        end.reason = Some(JobReason::SupervisorLost);
        self.command_ended(end);
    }

    /// Tells those who wait that they wait for nothing, where nobody moves the job any more.
    pub(super) fn abandon(&self) {
        let (is_starting, has_ended) = {
            let progress = self.progress.borrow();
            (progress.phase == Phase::Starting, progress.end.is_some())
        };
        if is_starting {
            self.not_started("the machine has let go of the command");
        } else if !has_ended {
            self.lost();
        }
    }

    /// What the outside sees.
    pub(super) fn tell(&self) -> proto::Job {
        let progress = self.progress.borrow().clone();
        let mut told = proto::Job::new(self.id, self.about.clone());
        told.state = match progress.phase {
            Phase::Starting | Phase::Running => JobState::Running,
            Phase::Ended => JobState::Ended,
            Phase::NotStarted => JobState::NotStarted,
        };
        if told.state != JobState::Running {
            told.end = progress.end;
        }
        told.stdout = self.stdout.kept();
        told.stderr = self.stderr.kept();
        told.alive = progress.alive;
        told.survivors = progress.survivors;
        told
    }

    pub(super) fn index(&self, stream: Stream) -> &Arc<Index> {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.stdout.kept_bytes() + self.stderr.kept_bytes()
    }

    /// Removes the output; whoever reads it is cut.
    pub(super) fn wipe(&self) {
        self.progress
            .send_modify(|progress| progress.is_forgotten = true);
        self.stdout.wipe();
        self.stderr.wipe();
    }

    fn give_up_slot(&self) {
        drop(lock(&self.slot).take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An end of a command, as far as `status` tells it.
pub(super) fn end_of(status: i32) -> JobEnd {
    let end = crate::platform::end_of(status);
    let mut told = JobEnd::new(end.state, SystemTime::now());
    told.signal = end.signal;
    told
}

/// What of a long command is told: enough to know it again, and little enough that a thousand jobs are a few megabytes.
pub(super) fn shortened(command: &proto::JobCommand) -> proto::JobCommand {
    let mut room = SHOWN;
    let mut shorten = |text: &str| {
        let shown = cut_to(room, text);
        room = room.saturating_sub(shown.len());
        shown
    };
    match command {
        proto::JobCommand::Argv(argv) => {
            let mut shown: Vec<String> = Vec::new();
            for arg in argv {
                if shown.len() == SHOWN_ARGS || shown.last().is_some_and(|arg| arg.ends_with('…'))
                {
                    shown.push("…".to_owned());
                    break;
                }
                shown.push(shorten(arg));
            }
            proto::JobCommand::Argv(shown)
        }
        proto::JobCommand::Shell(script) => proto::JobCommand::Shell(shorten(script)),
        _ => command.clone(),
    }
}

/// A text of at most `room` bytes, and a mark where it was longer.
fn cut_to(room: usize, text: &str) -> String {
    let mut end = text.len().min(room);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mark = if end < text.len() { "…" } else { "" };
    format!("{}{mark}", &text[..end])
}

/// Whoever asks for more at a time waits.
const COMMANDS: usize = 16;
/// See [`MAX_END`](proto::frame::MAX_END), within which the JSON of a job has to stay whatever a text is made of.
const SHOWN: usize = 2048;
const SHOWN_ARGS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_job_fits_into_its_frame() {
        let worst = |length| "\u{1}".repeat(length);
        let argv = std::iter::repeat_n(worst(100), 10_000).collect();
        let command = shortened(&proto::JobCommand::Argv(argv));
        let about = JobAbout::new(command, worst(4096), SystemTime::now());
        let mut job = proto::Job::new(JobId::from_bits(0), about);
        let why = ProcessState::not_started(cut_to(SHOWN, &worst(100_000)));
        job.end = Some(JobEnd::new(why, SystemTime::now()));
        let gaps: Vec<_> = (0..17).map(|_| (u64::MAX, u64::MAX)).collect();
        job.stdout = proto::Kept::new(u64::MAX, gaps.clone());
        job.stderr = proto::Kept::new(u64::MAX, gaps);
        job.survivors = vec![u32::MAX; 100];
        let json = serde_json::to_vec(&job).unwrap();
        assert!(json.len() < proto::frame::MAX_END, "{}", json.len());
    }

    #[test]
    fn texts_are_cut_between_letters() {
        assert_eq!(cut_to(3, "abc"), "abc");
        assert_eq!(cut_to(2, "aßc"), "a…");
        let shell = shortened(&proto::JobCommand::Shell("x".repeat(3000)));
        let proto::JobCommand::Shell(shell) = shell else {
            panic!()
        };
        assert_eq!(shell.len(), SHOWN + "…".len());
    }
}
