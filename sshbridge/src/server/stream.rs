//! Forwarded streams: bytes in two directions, which end one by one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::connection::State;
use super::protocol::{ClientChannel, Opening};
use crate::audit::Outcome;
use crate::auth::Jump;
use crate::backend::{
    BackendError, BackendStream, ChannelEvent, ChannelSink, ChannelSource, Destination, Incoming,
};
use crate::flow::{Inbox, Link};

/// A client's side of a forwarded stream.
///
/// The SSH library's callbacks fill the inbox; one task of the stream pumps both directions.
pub(super) struct Stream {
    link: Arc<Link>,
    pub(super) inbox: Arc<Inbox>,
    /// Cancelled when the channel is closed, by either side.
    pub(super) gone: CancellationToken,
}

/// How the direction from the machine ended.
enum Outward {
    /// The machine has nothing more to send.
    Ended,
    /// The machine or the client is gone.
    Lost,
}

impl Stream {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        Self {
            link: link.clone(),
            inbox: link.inbox(),
            gone: link.gone().child_token(),
        }
    }

    /// Opens the machine's side of a stream that the client asked for, accepts the client's, and pumps until both
    /// directions have ended or one side is gone.
    pub(super) async fn serve(
        self: Arc<Self>,
        opening: Opening,
        destination: Destination,
        connection: Arc<State>,
    ) {
        let _open = connection.count_channel();
        let opened = connection.open_stream(&destination);
        let Some(opened) = self.link.unless_gone(opened).await else {
            return;
        };
        match opened {
            Ok(stream) => {
                let client = opening.accept().await;
                self.pump(&client, stream, &connection).await;
            }
            Err(rejection) => opening.reject(rejection).await,
        }
        self.end();
    }

    async fn pump(&self, client: &ClientChannel, stream: BackendStream, connection: &State) {
        let inward = self.pump_in(stream.sink);
        let outward = pump_out(client, stream.source);
        tokio::pin!(inward, outward);
        let (mut pumps_in, mut pumps_out) = (true, true);
        while pumps_in || pumps_out {
            tokio::select! {
                () = &mut inward, if pumps_in => pumps_in = false,
                outcome = &mut outward, if pumps_out => match outcome {
                    Outward::Ended => pumps_out = false,
                    Outward::Lost => break,
                },
                () = self.gone.cancelled() => {
                    // A client may close right behind the last bytes that it has sent.
                    if pumps_in {
                        let _ = tokio::time::timeout(LAST_INPUT, inward).await;
                    }
                    return;
                }
                () = self.inbox.cut().cancelled() => break,
                () = connection.ending().cancelled() => break,
            }
        }
        tokio::select! {
            _ = client.close() => {}
            () = self.gone.cancelled() => {}
        }
    }

    /// Client to machine.
    async fn pump_in(&self, mut sink: Box<dyn ChannelSink>) {
        while let Some(event) = self.inbox.take().await {
            let ChannelEvent::Data(data) = event else {
                continue;
            };
            if let Err(error) = sink.data(data).await {
                // The other direction may still have something to say.
                tracing::debug!(%error, "a forwarded connection takes no more input");
                drop(sink);
                while self.inbox.take().await.is_some() {}
                return;
            }
        }
        if let Err(error) = sink.eof().await {
            tracing::debug!(%error, "ending the input of a forwarded connection");
        }
    }

    fn end(&self) {
        self.gone.cancel();
        self.inbox.discard();
    }
}

/// Machine to client.
async fn pump_out(client: &ClientChannel, mut source: Box<dyn ChannelSource>) -> Outward {
    let mut outcome = Outward::Lost;
    while let Some(event) = source.next().await {
        let sent = match event {
            ChannelEvent::Data(data) => client.data(data).await,
            ChannelEvent::Eof => {
                outcome = Outward::Ended;
                client.eof().await
            }
            ChannelEvent::ExitSignal { .. }
            | ChannelEvent::ExitStatus(_)
            | ChannelEvent::Stderr(_) => Ok(()),
        };
        if sent.is_err() {
            return Outward::Lost;
        }
        if matches!(outcome, Outward::Ended) {
            break;
        }
    }
    outcome
}

/// Opens the client's side of a stream that came to the machine, and pumps it.
/// It holds its place among those that wait until the client has answered.
pub(super) async fn serve_incoming(
    incoming: Incoming,
    connection: Arc<State>,
    place: OwnedSemaphorePermit,
) {
    let _open = connection.count_channel();
    let Some(control) = connection.control.get() else {
        return;
    };
    let origin = incoming.origin;
    let Some(wanted) = connection.wanted(origin.clone()).await else {
        return connection.tell_incoming(&origin, Outcome::Refused);
    };
    let Ok((stream, client)) = control.open(wanted).await else {
        return connection.tell_incoming(&origin, Outcome::Refused);
    };
    connection.tell_incoming(&origin, Outcome::Done);
    drop(place);
    match incoming.pending.accept().await {
        Ok(accepted) => stream.pump(&client, accepted, &connection).await,
        Err(error) => {
            tracing::debug!(%error, "a forwarded connection was gone before it was taken");
            let _ = client.close().await;
        }
    }
    stream.end();
}

/// The stream of a jump, which ends with the user's time.
pub(super) fn jumped(jump: Jump) -> BackendStream {
    let Jump {
        stream,
        tenure,
        hold,
    } = jump;
    let (read, write) = tokio::io::split(stream);
    let closed = CancellationToken::new();
    let BackendStream { sink, source } = BackendStream::over(read, write, closed.clone());
    let kept = Arc::new(Kept {
        _hold: hold,
        _end: AbortOnDropHandle::new(tokio::spawn(async move {
            tenure.ended().await;
            closed.cancel();
        })),
    });
    BackendStream {
        sink: Box::new(Jumped {
            half: sink,
            _kept: kept.clone(),
        }),
        source: Box::new(Jumped {
            half: source,
            _kept: kept,
        }),
    }
}

/// One direction of a stream to a machine's own SSH server.
struct Jumped<T> {
    half: T,
    _kept: Arc<Kept>,
}

/// What lives as long as both directions.
struct Kept {
    _hold: Arc<dyn Send + Sync>,
    /// Cuts the stream when the user's time is over.
    _end: AbortOnDropHandle<()>,
}

#[async_trait]
impl ChannelSink for Jumped<Box<dyn ChannelSink>> {
    async fn data(&mut self, data: Bytes) -> Result<(), BackendError> {
        self.half.data(data).await
    }

    async fn eof(&mut self) -> Result<(), BackendError> {
        self.half.eof().await
    }
}

#[async_trait]
impl ChannelSource for Jumped<Box<dyn ChannelSource>> {
    async fn next(&mut self) -> Option<ChannelEvent> {
        self.half.next().await
    }
}

/// How long what a client sent before it closed a stream may take to reach the machine.
const LAST_INPUT: Duration = Duration::from_secs(10);
