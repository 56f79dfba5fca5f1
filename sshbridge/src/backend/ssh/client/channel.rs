//! Channels of a connection.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelWriteHalf, Pty};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::ports::{Port, Ports};
use super::Login;
use crate::backend::{
    BackendChannel, BackendError, BackendStream, ChannelControl, ChannelEvent, ChannelRequest,
    ChannelSink, ChannelSource, PendingStream,
};
use crate::signal;

/// Makes the parts of a session, which keep its connection and end it.
pub(super) fn session(login: Arc<Login>, channel: Channel<Msg>) -> BackendChannel {
    let port = login.ports.claim(channel.id().into());
    // Without its read half russh never waits for us with what it has read.
    let (_, write) = channel.split();
    let half = Arc::new(Half {
        write: Arc::new(write),
        port: port.clone(),
        ports: login.ports.clone(),
        _keep: Keep::Session(login),
    });
    BackendChannel {
        sink: Box::new(Sink(half.clone())),
        source: Box::new(Source {
            port,
            _half: half.clone(),
        }),
        control: Box::new(Control(half)),
    }
}

/// Makes the two directions of a stream, and the task that closes it when both are dropped.
pub(super) fn stream(ports: &Arc<Ports>, id: u32, write: ChannelWriteHalf<Msg>) -> BackendStream {
    let port = ports.claim(id);
    let write = Arc::new(write);
    let unused = CancellationToken::new();
    let half = Arc::new(Half {
        write: write.clone(),
        port: port.clone(),
        ports: ports.clone(),
        _keep: Keep::Stream(unused.clone().drop_guard()),
    });
    let (closing, registration) = (port.clone(), ports.registration(id));
    ports.spawn(async move {
        tokio::select! {
            () = unused.cancelled() => {
                closing.inbox.discard();
                let _ = write.close().await;
            }
            () = closing.gone.cancelled() => {}
        }
        drop(registration);
    });
    BackendStream {
        sink: Box::new(Sink(half.clone())),
        source: Box::new(Source { port, _half: half }),
    }
}

/// A stream that the machine has opened.
pub(super) struct Pending {
    pub(super) ports: Arc<Ports>,
    pub(super) id: u32,
    pub(super) write: ChannelWriteHalf<Msg>,
    pub(super) reply: ChannelOpenHandle,
}

#[async_trait]
impl PendingStream for Pending {
    async fn accept(self: Box<Self>) -> Result<BackendStream, BackendError> {
        // Before the machine learns of it, so that its first bytes find the stream.
        let stream = stream(&self.ports, self.id, self.write);
        self.reply.accept().await;
        Ok(stream)
    }
}

/// The direction to the machine on one channel.
struct Half {
    write: Arc<ChannelWriteHalf<Msg>>,
    port: Arc<Port>,
    ports: Arc<Ports>,
    _keep: Keep,
}

/// What ends with the last part of a channel.
#[expect(dead_code, reason = "it is there to be dropped")]
enum Keep {
    /// The whole connection.
    Session(Arc<Login>),
    /// The channel.
    Stream(DropGuard),
}

impl Half {
    /// Runs `work` as long as the channel lasts. What is done counts even where the channel ended in the same moment: a
    /// command that is short is answered and over at once.
    async fn while_open<T>(
        &self,
        work: impl Future<Output = Result<T, BackendError>> + Send,
    ) -> Result<T, BackendError> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.port.gone.cancelled() => Err(BackendError::Closed),
        }
    }

    async fn send(&self, request: ChannelRequest) -> Result<(), russh::Error> {
        let write = &self.write;
        match request {
            ChannelRequest::Agent => {
                self.ports.ask_agent();
                write.agent_forward(true).await
            }
            ChannelRequest::Env { name, value } => write.set_env(true, name, value).await,
            ChannelRequest::Exec(command) => write.exec(true, command).await,
            ChannelRequest::Pty(pty) => {
                let known = pty.modes.iter();
                let known = known.filter_map(|(mode, value)| Some((Pty::from_u8(*mode)?, *value)));
                let modes: Vec<_> = known.collect();
                let size = pty.size;
                write
                    .request_pty(
                        true,
                        &pty.term,
                        size.columns,
                        size.rows,
                        size.width_pixels,
                        size.height_pixels,
                        &modes,
                    )
                    .await
            }
            ChannelRequest::Shell => write.request_shell(true).await,
            ChannelRequest::Signal(name) => write.signal(signal::from_name(name)).await,
            ChannelRequest::Subsystem(name) => write.request_subsystem(true, name).await,
            ChannelRequest::WindowChange(size) => {
                write
                    .window_change(
                        size.columns,
                        size.rows,
                        size.width_pixels,
                        size.height_pixels,
                    )
                    .await
            }
        }
    }
}

struct Sink(Arc<Half>);

#[async_trait]
impl ChannelSink for Sink {
    async fn data(&mut self, mut data: Bytes) -> Result<(), BackendError> {
        let half = &self.0;
        half.while_open(async {
            while !data.is_empty() {
                let piece = data.split_to(data.len().min(PIECE));
                let piece = half.ports.link.reserve(piece, &half.port.gone).await;
                let piece = piece.map_err(|_| BackendError::Closed)?;
                let sent = half.write.data_bytes(piece).await;
                sent.map_err(|_| BackendError::Closed)?;
            }
            Ok(())
        })
        .await
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        let half = &self.0;
        half.while_open(async { half.write.eof().await.map_err(|_| BackendError::Closed) })
            .await
    }
}

struct Source {
    port: Arc<Port>,
    _half: Arc<Half>,
}

#[async_trait]
impl ChannelSource for Source {
    async fn next(&mut self) -> Option<ChannelEvent> {
        self.port.inbox.take().await
    }
}

struct Control(Arc<Half>);

#[async_trait]
impl ChannelControl for Control {
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError> {
        let half = &self.0;
        let unanswered = matches!(
            request,
            ChannelRequest::Signal(_) | ChannelRequest::WindowChange(_)
        );
        half.while_open(async {
            let answered = (!unanswered).then(|| half.port.expect_answer());
            let sent = half.send(request).await;
            sent.map_err(|_| BackendError::Closed)?;
            let Some(answered) = answered else {
                return Ok(());
            };
            match answered.await {
                Ok(true) => Ok(()),
                Ok(false) => Err(BackendError::Refused),
                Err(_) => Err(BackendError::Closed),
            }
        })
        .await
    }
}

/// The size of the pieces that data is handed over in, that of a packet.
const PIECE: usize = 32 << 10;
