//! What a job reads: bytes that arrive in pieces, over connections that break.

use std::io;
use std::sync::{Arc, Mutex as Lock, PoisonError};

use buildlet_proto::ApiError;
use buildlet_proto::api::ByteReader;
use buildlet_proto::jobs::{StdinRequest, StdinTaken};
use sshbridge::machine::TerminalMaster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::conflict;
use super::job::Job;

/// The writing end of a job's standard input.
#[derive(Debug)]
pub(super) struct Stdin {
    input: Mutex<Input>,
    /// Cancelled when another request takes the turn of the one that has it.
    turn: Lock<CancellationToken>,
}

#[derive(Debug)]
struct Input {
    sink: Sink,
    /// How many bytes the job was given.
    taken: u64,
}

#[derive(Debug)]
enum Sink {
    Closed,
    Pipe(pipe::Sender),
    Terminal(Arc<TerminalMaster>),
}

impl Stdin {
    pub(super) fn pipe(sender: pipe::Sender) -> Self {
        Self::new(Sink::Pipe(sender))
    }

    pub(super) fn terminal(master: Arc<TerminalMaster>) -> Self {
        Self::new(Sink::Terminal(master))
    }

    fn new(sink: Sink) -> Self {
        Self {
            input: Mutex::new(Input { sink, taken: 0 }),
            turn: Lock::new(CancellationToken::new()),
        }
    }

    /// Closes it for good.
    pub(super) async fn release(&self) {
        self.take_turn();
        self.input.lock().await.sink = Sink::Closed;
    }

    /// Takes the turn of whoever has it: its connection may have been cut without anybody noticing.
    fn take_turn(&self) -> CancellationToken {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = std::mem::take(&mut *turn);
        earlier.cancel();
        turn.clone()
    }
}

/// Gives a job what `content` gives, as fast as it reads. What it has read stays counted where this fails or is dropped.
pub(super) async fn write(
    job: &Job,
    place: StdinRequest,
    content: ByteReader,
) -> Result<StdinTaken, ApiError> {
    let stdin = job.stdin.as_ref().ok_or_else(|| {
        conflict("this job has no standard input; ask for it with \"stdin\":\"pipe\"")
    })?;
    let turn = stdin.take_turn();
    tokio::select! {
        biased;
        () = turn.cancelled() => Err(conflict("another request goes on with this standard input")),
        given = give(job, stdin, place, content) => given,
    }
}

async fn give(
    job: &Job,
    stdin: &Stdin,
    place: StdinRequest,
    mut content: ByteReader,
) -> Result<StdinTaken, ApiError> {
    let mut input = stdin.input.lock().await;
    let offset = place.offset.unwrap_or(input.taken);
    let taken = input.taken;
    let mut known = taken.checked_sub(offset).ok_or_else(|| {
        conflict(format!(
            "the job was given {taken} bytes; those at {offset} would leave a hole"
        ))
    })?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = content.read(&mut buffer).await.map_err(|error| {
            ApiError::bad_request("the request was cut; ask what was taken and go on from there")
                .because(error)
        })?;
        if count == 0 {
            break;
        }
        let skipped = usize::try_from(known).map_or(count, |known| known.min(count));
        known -= skipped as u64;
        let mut rest = &buffer[skipped..count];
        while !rest.is_empty() {
            let count = tokio::select! {
                biased;
                written = input.write(rest) => written?,
                () = over(job) => return Err(conflict(ENDED)),
            };
            rest = &rest[count..];
        }
    }
    if place.close {
        input.close().await?;
    }
    Ok(StdinTaken::new(input.taken))
}

/// Resolves when nobody is there any more to read, although somebody may hold the other end.
async fn over(job: &Job) {
    let mut progress = job.progress.subscribe();
    // The job has the sender.
    let _ = progress.wait_for(|progress| progress.end.is_some()).await;
}

impl Input {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, ApiError> {
        let written = match &mut self.sink {
            Sink::Closed => return Err(conflict("this standard input was closed")),
            Sink::Pipe(pipe) => pipe.write(bytes).await,
            Sink::Terminal(master) => master.write(bytes).await,
        };
        let count = written.map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                return conflict(ENDED);
            }
            ApiError::internal("the job's standard input cannot be written").because(error)
        })?;
        self.taken += count as u64;
        Ok(count)
    }

    /// On a terminal nothing can be closed: its end of file is typed.
    async fn close(&mut self) -> Result<(), ApiError> {
        let terminal = match std::mem::replace(&mut self.sink, Sink::Closed) {
            Sink::Closed | Sink::Pipe(_) => return Ok(()),
            Sink::Terminal(master) => master,
        };
        terminal
            .write(END_OF_FILE)
            .await
            .map(drop)
            .map_err(|error| ApiError::internal("the terminal takes no end of file").because(error))
    }
}

const BUFFER: usize = 16 * 1024;
const ENDED: &str = "the job does not read its standard input any more";
/// Ctrl-D, unless the job has chosen another character.
const END_OF_FILE: &[u8] = b"\x04";
