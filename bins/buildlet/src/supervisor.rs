//! The process that watches over one command: how it is started and spoken to.
//!
//! Each command has a process of its own between the buildlet and itself, this same program started again. It adopts
//! whatever of the command's tree loses its parent, so that a daemon stays a part of its job and is found when the job is
//! to be killed. It holds one end of a socket, and when the other is closed, because the buildlet has ended in whichever
//! way, it kills the tree and ends.

mod message;
mod process;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::time::Instant;

use self::message::Order;
pub(crate) use self::message::{Report, Spec};
use crate::platform::{Group, Tree, send_descriptors};

/// The program, and its arguments, that watches over commands: one whose `main` calls [`supervise`] first.
#[derive(Clone, Debug)]
pub struct Supervisor {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Supervisor {
    /// Another program than this one, for processes whose own does not call [`supervise`], such as tests.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: vec![SUBCOMMAND.into()],
        }
    }

    /// The program that runs, also where another was put in its place on the disk meanwhile.
    ///
    /// # Errors
    ///
    /// Where the system does not tell which it is.
    pub fn this_program() -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        let program = PathBuf::from("/proc/self/exe");
        #[cfg(not(target_os = "linux"))]
        let program = std::env::current_exe()?;
        std::fs::metadata(&program)?;
        Ok(Self::at(program))
    }

    /// Starts a command with these descriptors as its standard input, output and error.
    pub(crate) async fn start(&self, spec: &Spec, stdio: &[OwnedFd; 3]) -> io::Result<Supervised> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut command = tokio::process::Command::new(&self.program);
        command
            .arg0("buildlet")
            .args(&self.args)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn()?;
        // With it goes our own hold on the socket's other end.
        drop(command);
        send_descriptors(&ours, stdio)?;
        ours.set_nonblocking(true)?;
        let (reports, mut orders) = UnixStream::from_std(ours)?.into_split();
        let spec = spec.encode()?;
        let told = tokio::time::timeout(START_LIMIT, orders.write_all(&spec)).await;
        told.unwrap_or_else(|_| {
            // It has started nothing yet that would be left.
            let _ = child.start_kill();
            Err(io::ErrorKind::TimedOut.into())
        })?;
        Ok(Supervised {
            orders: Orders(orders),
            reports: Reports {
                socket: reports,
                input: BytesMut::new(),
                child,
            },
        })
    }
}

/// Where this process was started to watch over a command, does so to the end and tells how to exit. A program that serves
/// machines calls it first in its `main`, before anything has been opened or any thread started.
#[must_use]
pub fn supervise() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != SUBCOMMAND || args.next().is_some() {
        return None;
    }
    Some(match process::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    })
}

/// A supervisor that was started. Dropping it, or both its halves, kills the tree.
#[derive(Debug)]
pub(crate) struct Supervised {
    pub(crate) orders: Orders,
    pub(crate) reports: Reports,
}

/// What a supervisor can be told. A supervisor that is gone does nothing any more, which its reports tell.
#[derive(Debug)]
pub(crate) struct Orders(OwnedWriteHalf);

impl Orders {
    /// Signals the command's process group.
    pub(crate) async fn signal_group(&mut self, number: i32) {
        self.send(Order::SignalGroup(number)).await;
    }

    /// Signals every process of the tree once.
    pub(crate) async fn signal_tree(&mut self, number: i32) {
        self.send(Order::SignalTree(number)).await;
    }

    /// Kills the tree until it is gone, or some survive for ten seconds.
    pub(crate) async fn kill(&mut self) {
        self.send(Order::Kill).await;
    }

    async fn send(&mut self, order: Order) {
        if let Err(error) = self.0.write_all(&order.encode()).await {
            tracing::debug!(%error, "a supervisor takes no orders");
        }
    }
}

/// What a supervisor tells.
#[derive(Debug)]
pub(crate) struct Reports {
    socket: OwnedReadHalf,
    input: BytesMut,
    child: Child,
}

impl Reports {
    /// The next report, if it was received already.
    pub(crate) fn next_received(&mut self) -> Option<Report> {
        Report::decode(&mut self.input)
    }

    /// The first report. A supervisor that gives none in time is killed: the command's directory may be on a file system that
    /// does not answer.
    pub(crate) async fn first(&mut self) -> io::Result<Option<Report>> {
        let give_up = Instant::now() + START_LIMIT;
        while Instant::now() < give_up {
            if let Ok(report) = tokio::time::timeout(PATIENCE, self.next()).await {
                return Ok(report);
            }
            // The command may have stopped it before it could tell.
            self.wake_supervisor();
        }
        self.kill_supervisor();
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Has a supervisor go on that somebody has stopped: it is a process of the same user as the command.
    pub(crate) fn wake_supervisor(&self) {
        if let Some(supervisor) = self.child.id().and_then(Group::led_by) {
            supervisor.signal(libc::SIGCONT);
        }
    }

    /// Kills a supervisor that does not answer, and what it would have killed as far as that is known.
    pub(crate) fn kill_supervisor(&mut self) {
        if let Some(pid) = self.child.id() {
            Tree::kill_below_other(pid);
        }
        // One that has ended meanwhile is no matter.
        let _ = self.child.start_kill();
    }

    /// The next report; `None` when the supervisor has ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Report> {
        loop {
            if let Some(report) = Report::decode(&mut self.input) {
                return Some(report);
            }
            if !matches!(self.socket.read_buf(&mut self.input).await, Ok(1..)) {
                // It has ended, or is about to; it leaves no zombie.
                let _ = self.child.wait().await;
                return None;
            }
        }
    }
}

/// A command starts in milliseconds. Whoever wants to delete it meanwhile waits.
const START_LIMIT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_millis(500);

/// Not in the help, because it is of no use to anybody but this program.
const SUBCOMMAND: &str = "supervise";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_says_nothing_is_killed() {
        // It writes to nobody, for ever.
        let supervisor = Supervisor::at("yes");
        let stdio = [(); 3].map(|()| OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let started = supervisor.start(&Spec::default(), &stdio).await;
        let mut reports = started.unwrap().reports;
        let error = reports.first().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(reports.next().await, None);
    }
}
