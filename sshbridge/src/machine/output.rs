//! A program's output on its way to the client, and how the program ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::platform::{self, TerminalMaster};
use super::sftp::Served;
use crate::backend::{ChannelEvent, ChannelSource};

/// Where a program's output comes from.
#[derive(Debug)]
pub(super) enum Reader {
    Stderr(ChildStderr),
    Stdout(ChildStdout),
    Terminal(Arc<TerminalMaster>),
}

impl Reader {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stderr(stderr) => stderr.read(buffer).await,
            Self::Stdout(stdout) => stdout.read(buffer).await,
            Self::Terminal(master) => master.read(buffer).await,
        }
    }

    fn unread(&self) -> u64 {
        match self {
            Self::Stderr(stderr) => platform::unread(stderr),
            Self::Stdout(stdout) => platform::unread(stdout),
            Self::Terminal(master) => platform::unread(&**master),
        }
    }
}

/// What became of a request to start a program.
#[derive(Debug)]
pub(super) enum Started {
    /// It did not start, for the reason in this line, which the user reads.
    Failed(Bytes),
    /// It runs.
    Running(Box<Output>),
    /// It runs in this program.
    Served(Served),
}

/// The output of a running program: both streams until their end, then the program's.
#[derive(Debug)]
pub(super) struct Output {
    stdout: Stream,
    stderr: Stream,
    program: Program,
    hold: Duration,
}

impl Output {
    /// Reads both streams of a program whose end `exited` will tell. Once it has exited, what others still write is
    /// waited for as long as `hold`.
    pub(super) fn new(
        stdout: Reader,
        stderr: Option<Reader>,
        exited: oneshot::Receiver<ChannelEvent>,
        hold: Duration,
    ) -> Self {
        Self {
            stdout: Stream::new(Some(stdout)),
            stderr: Stream::new(stderr),
            program: Program::Running(exited),
            hold,
        }
    }

    /// Waits for the next piece of output. `None`: there is no more, and the program has ended. Cancel safe.
    async fn next(&mut self) -> Option<ChannelEvent> {
        loop {
            if self.stdout.is_closed() && self.stderr.is_closed() && !self.program.is_running() {
                return None;
            }
            let owed = self.stdout.owed > 0 || self.stderr.owed > 0;
            tokio::select! {
                piece = self.stdout.read(), if !self.stdout.is_closed() => match piece {
                    Ok(piece) if piece.is_empty() => self.stdout.close(),
                    Ok(piece) => return Some(ChannelEvent::Data(piece)),
                    Err(error) => self.fail(&error),
                },
                piece = self.stderr.read(), if !self.stderr.is_closed() => match piece {
                    Ok(piece) if piece.is_empty() => self.stderr.close(),
                    Ok(piece) => return Some(ChannelEvent::Stderr(piece)),
                    Err(error) => self.fail(&error),
                },
                change = self.program.change(self.hold, owed) => match change {
                    Change::Ended => {
                        self.stdout.settle();
                        self.stderr.settle();
                    }
                    Change::Overdue => {
                        if let Some(piece) = self.stdout.last_words() {
                            return Some(ChannelEvent::Data(piece));
                        }
                        self.stdout.close();
                        self.stderr.close();
                    }
                },
            }
        }
    }

    /// Output that cannot be read is never passed off as a whole one: the channel ends without an exit status.
    fn fail(&mut self, error: &io::Error) {
        tracing::warn!(%error, "the output of a command cannot be read");
        self.stdout.close();
        self.stderr.close();
        self.program = Program::Lost;
    }
}

/// The source of a local session: output, then how the program ended, then the end of output.
///
/// The channel of a program whose end cannot be told ends without either.
#[derive(Debug)]
pub(super) struct LocalSource {
    state: State,
    closed: CancellationToken,
    /// Closes the channel when its last part is dropped.
    _open: Arc<DropGuard>,
}

impl LocalSource {
    pub(super) fn new(
        started: oneshot::Receiver<Started>,
        closed: CancellationToken,
        open: Arc<DropGuard>,
    ) -> Self {
        Self {
            state: State::AwaitsProgram(started),
            closed,
            _open: open,
        }
    }

    /// Makes one step; each leaves the state whole where it is cancelled.
    async fn step(state: &mut State) -> Step {
        let (next, step) = match state {
            State::AwaitsProgram(started) => match started.await {
                Ok(Started::Running(output)) => (State::Output(output), Step::Again),
                Ok(Started::Served(served)) => (State::Served(served), Step::Again),
                Ok(Started::Failed(line)) => (
                    State::Exit(Some(ChannelEvent::ExitStatus(CANNOT_START))),
                    Step::Event(ChannelEvent::Stderr(line)),
                ),
                Err(_) => (State::Over, Step::Again),
            },
            State::Output(output) => match output.next().await {
                Some(event) => return Step::Event(event),
                None => (State::Exit(output.program.take_exit()), Step::Again),
            },
            State::Served(served) => match served.responses.recv().await {
                Some(piece) => return Step::Event(ChannelEvent::Data(piece)),
                None => match (&mut served.exited).await {
                    Ok(exit) => (State::Exit(Some(exit)), Step::Again),
                    Err(_) => (State::Over, Step::Again),
                },
            },
            State::Exit(exit) => match exit.take() {
                Some(exit) => (State::Eof, Step::Event(exit)),
                None => (State::Over, Step::Again),
            },
            State::Eof => (State::Over, Step::Event(ChannelEvent::Eof)),
            State::Over => return Step::Over,
        };
        *state = next;
        step
    }
}

#[async_trait]
impl ChannelSource for LocalSource {
    async fn next(&mut self) -> Option<ChannelEvent> {
        loop {
            let step = tokio::select! {
                biased;
                () = self.closed.cancelled() => {
                    self.state = State::Over;
                    Step::Over
                }
                step = Self::step(&mut self.state) => step,
            };
            match step {
                Step::Again => {}
                Step::Event(event) => return Some(event),
                Step::Over => return None,
            }
        }
    }
}

#[derive(Debug)]
enum State {
    AwaitsProgram(oneshot::Receiver<Started>),
    Output(Box<Output>),
    Served(Served),
    /// Has how the program ended to tell, where that is known.
    Exit(Option<ChannelEvent>),
    Eof,
    Over,
}

#[derive(Debug)]
enum Step {
    Again,
    Event(ChannelEvent),
    Over,
}

/// One stream of output.
#[derive(Debug)]
struct Stream {
    reader: Option<Reader>,
    /// How much of what was written before the program's end is still to be read.
    owed: u64,
    buffer: Vec<u8>,
}

impl Stream {
    fn new(reader: Option<Reader>) -> Self {
        let size = if reader.is_some() { CHUNK } else { 0 };
        Self {
            reader,
            owed: 0,
            buffer: vec![0; size],
        }
    }

    fn is_closed(&self) -> bool {
        self.reader.is_none()
    }

    /// Reads a piece; an empty one is the end. Cancel safe.
    async fn read(&mut self) -> io::Result<Bytes> {
        let Some(reader) = &mut self.reader else {
            return Ok(Bytes::new());
        };
        let length = reader.read(&mut self.buffer).await?;
        self.owed = self
            .owed
            .saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
        // A copy, so that a queue of small pieces does not keep large buffers.
        Ok(Bytes::copy_from_slice(&self.buffer[..length]))
    }

    /// Notes what the program has left to be read when it ended.
    fn settle(&mut self) {
        self.owed = self.reader.as_ref().map_or(0, Reader::unread);
    }

    /// Reads what is left on a terminal, which does not say how much that is. Nothing is added to it: a terminal hangs up
    /// when the program that leads its session exits.
    fn last_words(&mut self) -> Option<Bytes> {
        let Some(Reader::Terminal(master)) = &self.reader else {
            return None;
        };
        let length = master.read_now(&mut self.buffer);
        (length > 0).then(|| Bytes::copy_from_slice(&self.buffer[..length]))
    }

    fn close(&mut self) {
        self.reader = None;
        self.owed = 0;
    }
}

/// What is known of the program itself.
#[derive(Debug)]
enum Program {
    Running(oneshot::Receiver<ChannelEvent>),
    Ended {
        exit: ChannelEvent,
        /// When those who hold its output are no longer waited for.
        deadline: Instant,
    },
    /// Its end cannot be told.
    Lost,
}

impl Program {
    fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Waits for the program's end, and after it, where nothing more is `owed`, until nobody may hold the output any
    /// longer. Cancel safe.
    async fn change(&mut self, hold: Duration, owed: bool) -> Change {
        match self {
            Self::Running(exited) => {
                *self = match exited.await {
                    Ok(exit) => Self::Ended {
                        exit,
                        deadline: Instant::now() + hold,
                    },
                    Err(_) => Self::Lost,
                };
                Change::Ended
            }
            Self::Ended { deadline, .. } if !owed => {
                sleep_until(*deadline).await;
                Change::Overdue
            }
            Self::Ended { .. } => std::future::pending().await,
            Self::Lost => Change::Overdue,
        }
    }

    /// How it ended, where that is known.
    fn take_exit(&mut self) -> Option<ChannelEvent> {
        match std::mem::replace(self, Self::Lost) {
            Self::Ended { exit, .. } => Some(exit),
            Self::Lost | Self::Running(_) => None,
        }
    }
}

/// What happened to the program.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// It ended.
    Ended,
    /// Its output was held long enough.
    Overdue,
}

/// The largest piece of output: what a client's packet usually takes (RFC 4253 §6.1).
const CHUNK: usize = 32 * 1024;

/// The status of a shell that cannot start what it found.
const CANNOT_START: u32 = 126;
