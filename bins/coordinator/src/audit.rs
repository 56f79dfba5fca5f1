//! The SSH gateway's audit log: a file with one JSON object a line.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use anyhow::Context;
use serde::Serialize;
use sshbridge::audit::{
    AuditEvent, AuditKind, AuditSink, CloseReason, Credential, Direction, Exit, Outcome, Program,
    Proof,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Where the gateway's events go. Taking one waits for nothing: lines that the file has no time for wait in memory, and
/// where they are too many, the next ones are only counted.
#[derive(Debug, Default)]
pub struct AuditQueue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

/// What writes the lines. It has to run as long as the gateway.
#[derive(Debug)]
pub struct AuditWriter {
    queue: Arc<AuditQueue>,
    path: PathBuf,
    file: Arc<File>,
}

/// Lines that are not written yet.
#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    count: u64,
    lost: u64,
    /// The file is to be opened again first.
    reopens: bool,
}

impl AuditQueue {
    /// Opens the file at `path` for more lines, and makes it with mode 0600 where there is none.
    ///
    /// # Errors
    ///
    /// An error that names the file.
    pub fn open(path: &Path) -> anyhow::Result<(Arc<Self>, AuditWriter)> {
        let file = open(path).with_context(|| format!("ssh.audit_log {}", path.display()))?;
        let queue = Arc::new(Self::default());
        queue.push(&Line::new(Event::Opened));
        let writer = AuditWriter {
            queue: queue.clone(),
            path: path.to_owned(),
            file: Arc::new(file),
        };
        Ok((queue, writer))
    }

    /// Lets the writer open the file again, because somebody may have put the old one away.
    pub fn reopen(&self) {
        self.waiting().reopens = true;
        self.filled.notify_one();
    }

    fn push(&self, line: &Line<'_>) {
        let line = line.to_bytes();
        let mut waiting = self.waiting();
        if waiting.lines.len() + line.len() > MAX_WAITING {
            waiting.lost += 1;
        } else {
            waiting.lines.extend_from_slice(&line);
            waiting.count += 1;
        }
        drop(waiting);
        self.filled.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuditSink for AuditQueue {
    fn record(&self, event: &AuditEvent) {
        if let Some(kind) = Event::new(&event.kind) {
            self.push(&Line {
                connection: Some(event.connection),
                peer: event.peer,
                ..Line::new(kind)
            });
        }
    }
}

impl AuditWriter {
    /// Writes what comes, until `end` and what waits by then.
    pub async fn run(mut self, end: CancellationToken) {
        loop {
            tokio::select! {
                () = self.queue.filled.notified() => {}
                () = end.cancelled() => return self.write().await,
            }
            self.write().await;
        }
    }

    /// Goes on in the file that has the path now; where there can be none, in the old one.
    async fn reopen(&mut self) {
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || open(&path)).await;
        match opened.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(file) => self.file = Arc::new(file),
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the audit log cannot be opened again");
            }
        }
    }

    /// Writes what waits. Lines that cannot be written are lost, and counted.
    async fn write(&mut self) {
        let waiting = std::mem::take(&mut *self.queue.waiting());
        if waiting.reopens {
            self.reopen().await;
        }
        let mut lines = waiting.lines;
        if waiting.lost > 0 {
            let count = waiting.lost;
            lines.extend(Line::new(Event::Lost { count }).to_bytes());
        }
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || (&*file).write_all(&lines)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            warn!(path = %self.path.display(), %error, lines = waiting.count, "the audit log cannot be written");
            self.queue.waiting().lost += waiting.count + waiting.lost;
        }
    }
}

/// Opens a file for more lines; a new one is for its owner alone.
fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o600).open(path)
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(flatten)]
    event: Event<'a>,
}

/// An event as the file has it; `docs/operating.md` lists them.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Close {
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        seconds: f64,
        received: u64,
        sent: u64,
    },
    Exit {
        channel: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        signal: Option<&'a str>,
    },
    Forward {
        direction: &'static str,
        address: &'a str,
        done: bool,
    },
    Listen {
        address: String,
        done: bool,
    },
    Login {
        login: &'a str,
        user: &'a str,
        #[serde(flatten)]
        key: Key<'a>,
    },
    Lost {
        count: u64,
    },
    Opened,
    Refused {
        login: &'a str,
        proven: bool,
        #[serde(flatten)]
        key: Key<'a>,
    },
    Resolved {
        machine: &'a str,
    },
    Session {
        channel: u32,
    },
    Start {
        channel: u32,
        program: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<&'a str>,
        terminal: bool,
        done: bool,
    },
    Unresolved {
        reason: &'a str,
    },
}

/// What was shown to log in.
#[derive(Serialize)]
struct Key<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate<'a>>,
}

#[derive(Serialize)]
struct Certificate<'a> {
    authority: &'a str,
    id: &'a str,
    serial: u64,
}

impl<'a> Line<'a> {
    fn new(event: Event<'a>) -> Self {
        Self {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            connection: None,
            peer: None,
            event,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("a line is JSON");
        line.push(b'\n');
        line
    }
}

impl<'a> Event<'a> {
    /// `None` for a kind of event that there is no line for.
    fn new(kind: &'a AuditKind) -> Option<Self> {
        Some(match kind {
            AuditKind::Closed {
                reason,
                duration,
                received,
                sent,
            } => {
                let (reason, text) = reason_of(reason);
                Self::Close {
                    reason,
                    text,
                    seconds: duration.as_secs_f64(),
                    received: *received,
                    sent: *sent,
                }
            }
            AuditKind::Exited { channel, exit } => Self::exit(*channel, exit),
            AuditKind::Forwarded {
                direction,
                address,
                outcome,
            } => Self::Forward {
                direction: direction_of(*direction),
                address,
                done: *outcome == Outcome::Done,
            },
            AuditKind::Listening { address, outcome } => Self::Listen {
                address: address.to_string(),
                done: *outcome == Outcome::Done,
            },
            AuditKind::LoggedIn {
                login,
                user,
                credential,
            } => Self::Login {
                login,
                user,
                key: credential.into(),
            },
            AuditKind::Refused {
                login,
                credential,
                proof,
            } => Self::Refused {
                login,
                proven: *proof == Proof::Given,
                key: credential.into(),
            },
            AuditKind::Resolved { machine } => Self::Resolved { machine },
            AuditKind::SessionOpened { channel } => Self::Session { channel: *channel },
            AuditKind::Started {
                channel,
                program,
                terminal,
                outcome,
            } => {
                let (program, command) = program_of(program);
                Self::Start {
                    channel: *channel,
                    program,
                    command,
                    terminal: *terminal,
                    done: *outcome == Outcome::Done,
                }
            }
            AuditKind::Unresolved { reason } => Self::Unresolved { reason },
            _ => return None,
        })
    }

    fn exit(channel: u32, exit: &'a Exit) -> Self {
        let (status, signal) = match exit {
            Exit::Status(status) => (Some(*status), None),
            Exit::Signal(signal) => (None, Some(signal.as_str())),
            _ => (None, None),
        };
        Self::Exit {
            channel,
            status,
            signal,
        }
    }
}

impl<'a> From<&'a Credential> for Key<'a> {
    fn from(credential: &'a Credential) -> Self {
        let certificate = credential.certificate.as_ref();
        Self {
            key: &credential.fingerprint,
            certificate: certificate.map(|it| Certificate {
                authority: &it.authority,
                id: &it.key_id,
                serial: it.serial,
            }),
        }
    }
}

fn reason_of(reason: &CloseReason) -> (&'static str, Option<&str>) {
    match reason {
        CloseReason::Dropped => ("dropped", None),
        CloseReason::Ended(sentence) => ("ended", Some(sentence)),
        CloseReason::Failed(error) => ("failed", Some(error)),
        CloseReason::Left => ("left", None),
        CloseReason::Lost => ("lost", None),
        CloseReason::Shutdown => ("shutdown", None),
        _ => ("other", None),
    }
}

fn direction_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Agent => "agent",
        Direction::Direct => "direct",
        Direction::Jump => "jump",
        Direction::Remote => "remote",
        _ => "other",
    }
}

fn program_of(program: &Program) -> (&'static str, Option<&str>) {
    match program {
        Program::Command(command) => ("command", Some(command)),
        Program::Shell => ("shell", None),
        Program::Subsystem(name) => ("subsystem", Some(name)),
        _ => ("other", None),
    }
}

/// How much may wait for the file: some thousand events, against a flood of them that fills the memory.
const MAX_WAITING: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::Value;

    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn lines_are_appended_to_a_file_that_is_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for _ in 0..2 {
            let (_queue, writer) = AuditQueue::open(&path).unwrap();
            let end = CancellationToken::new();
            end.cancel();
            writer.run(end).await;
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let lines = lines(&path);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line["event"] == "opened"));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (queue, writer) = AuditQueue::open(&path).unwrap();
        let machine = "m".repeat(MAX_WAITING / 2);
        for _ in 0..5 {
            let machine = &machine;
            queue.push(&Line::new(Event::Resolved { machine }));
        }
        assert_eq!(queue.waiting().lost, 4);
        let end = CancellationToken::new();
        end.cancel();
        writer.run(end).await;
        let lines = lines(&path);
        let events: Vec<_> = lines
            .iter()
            .map(|line| line["event"].as_str().unwrap())
            .collect();
        assert_eq!(events, ["opened", "resolved", "lost"]);
        assert_eq!(lines[2]["count"], 4);
    }

    #[tokio::test]
    async fn a_file_that_was_put_away_is_left_alone_once_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("audit.log"), dir.path().join("old"));
        let (queue, mut writer) = AuditQueue::open(&path).unwrap();
        writer.write().await;
        std::fs::rename(&path, &old).unwrap();
        queue.push(&Line::new(Event::Resolved { machine: "one" }));
        writer.write().await;
        queue.reopen();
        queue.push(&Line::new(Event::Resolved { machine: "two" }));
        writer.write().await;
        assert_eq!((lines(&old).len(), lines(&path).len()), (2, 1));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);

        // Without its directory the file that is open has to do.
        std::fs::rename(dir.path(), dir.path().with_extension("moved")).unwrap();
        queue.reopen();
        queue.push(&Line::new(Event::Resolved { machine: "three" }));
        writer.write().await;
        let moved = dir.path().with_extension("moved");
        assert_eq!(lines(&moved.join("audit.log")).len(), 2);
        std::fs::remove_dir_all(moved).unwrap();
    }

    #[tokio::test]
    async fn a_file_that_takes_nothing_is_survived_and_its_lines_are_counted() {
        let (queue, mut writer) = AuditQueue::open(Path::new("/dev/full")).unwrap();
        queue.push(&Line::new(Event::Opened));
        writer.write().await;
        assert_eq!(queue.waiting().lost, 2);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = AuditQueue::open(Path::new("/nonesuch/audit.log")).unwrap_err();
        assert_eq!(error.to_string(), "ssh.audit_log /nonesuch/audit.log");
    }
}
