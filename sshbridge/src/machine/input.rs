//! The client's input on its way to a program.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWriteExt as _;
use tokio::process::ChildStdin;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::platform::TerminalMaster;
use crate::backend::{BackendError, ChannelSink};

/// Where a program's input goes.
#[derive(Debug)]
pub(super) enum Input {
    Pipe(ChildStdin),
    /// A server in this program.
    Queue(mpsc::Sender<Bytes>),
    Terminal(Arc<TerminalMaster>),
}

impl Input {
    async fn write(&mut self, mut data: Bytes) -> std::io::Result<()> {
        match self {
            Self::Pipe(stdin) => stdin.write_all(&data).await,
            Self::Queue(_) if data.is_empty() => Ok(()),
            Self::Queue(queue) => {
                let sent = queue.send(data).await;
                sent.map_err(|_| std::io::ErrorKind::BrokenPipe.into())
            }
            Self::Terminal(master) => {
                while data.has_remaining() {
                    let taken = master.write(&data).await?;
                    data.advance(taken);
                }
                Ok(())
            }
        }
    }
}

/// The sink of a local session. Input waits until a program is started, and then until that takes it, so at most one
/// piece is held here.
///
/// The end of input closes a pipe. On a terminal it does nothing, as with sshd: there a user ends the input by typing.
#[derive(Debug)]
pub(super) struct LocalSink {
    state: State,
    closed: CancellationToken,
    /// Closes the channel when its last part is dropped.
    _open: Arc<DropGuard>,
}

impl LocalSink {
    pub(super) fn new(
        input: oneshot::Receiver<Input>,
        closed: CancellationToken,
        open: Arc<DropGuard>,
    ) -> Self {
        Self {
            state: State::AwaitsProgram(input),
            closed,
            _open: open,
        }
    }

    /// Writes to the program, once there is one.
    async fn write(state: &mut State, data: Bytes) -> Result<(), BackendError> {
        if let State::AwaitsProgram(input) = state {
            *state = State::Open(input.await.map_err(|_| BackendError::Closed)?);
        }
        let State::Open(input) = state else {
            return Err(BackendError::Closed);
        };
        input.write(data).await.map_err(|_| BackendError::Closed)
    }
}

#[async_trait]
impl ChannelSink for LocalSink {
    async fn data(&mut self, data: Bytes) -> Result<(), BackendError> {
        let result = tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(BackendError::Closed),
            result = Self::write(&mut self.state, data) => result,
        };
        if result.is_err() {
            self.state = State::Ended;
        }
        result
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        // An empty piece waits for the program, which alone can be told of the end.
        let result = self.data(Bytes::new()).await;
        self.state = State::Ended;
        result
    }
}

#[derive(Debug)]
enum State {
    AwaitsProgram(oneshot::Receiver<Input>),
    Open(Input),
    Ended,
}
