//! The directions towards a client: of the connection and of its channels.

use std::sync::Arc;

use bytes::Bytes;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf, Disconnect};
use tokio_util::sync::CancellationToken;

use super::Open;
use crate::backend::{ListenAddress, Origin};
use crate::flow::{Gone, Link};
use crate::registry::{Registration, Registry};
use crate::server::stream::Stream;
use crate::signal;

/// A hold on a whole connection.
pub(crate) struct ConnectionControl {
    pub(super) handle: Handle,
    pub(super) link: Arc<Link>,
    pub(super) open: Arc<Registry<u32, Open>>,
}

impl ConnectionControl {
    /// Asks the client to leave.
    pub(crate) async fn disconnect(&self, message: &str) {
        let _ = self
            .handle
            .disconnect(Disconnect::ByApplication, message.to_owned(), String::new())
            .await;
    }

    /// How many channels are open or being opened by the client.
    pub(crate) fn channels(&self) -> usize {
        self.open.len()
    }

    /// Opens a channel to the client, for a stream that came to the machine. Not cancel safe: a client may accept a
    /// channel that nobody waits for any more, and never learn that.
    pub(crate) async fn open(&self, origin: Origin) -> Result<(Arc<Stream>, ClientChannel), Gone> {
        let opened = match origin {
            Origin::Agent => self.handle.channel_open_agent().await,
            Origin::Listener {
                address: ListenAddress::Tcp { host, port },
                originator,
            } => {
                self.handle
                    .channel_open_forwarded_tcpip(
                        host,
                        port.into(),
                        originator.address,
                        originator.port,
                    )
                    .await
            }
            Origin::Listener {
                address: ListenAddress::Unix { path },
                ..
            } => self.handle.channel_open_forwarded_streamlocal(path).await,
        };
        let channel = opened.map_err(|_| Gone)?;
        let id = channel.id().into();
        // Without its read half russh never waits for us with what it has read.
        let (_, write) = channel.split();
        let stream = self.open.claim_stream(id, &self.link)?;
        let client = ClientChannel {
            write,
            handle: self.handle.clone(),
            link: self.link.clone(),
            gone: stream.gone.clone(),
            _registration: self.open.registration(id),
        };
        Ok((stream, client))
    }
}

impl Registry<u32, Open> {
    /// The stream of a channel that the client has just accepted.
    pub(super) fn arrive_stream(&self, id: u32, link: &Arc<Link>) {
        self.arrive(id, || Open::Stream(Arc::new(Stream::new(link))));
    }

    fn claim_stream(&self, id: u32, link: &Arc<Link>) -> Result<Arc<Stream>, Gone> {
        match self.claim(id, || Open::Stream(Arc::new(Stream::new(link)))) {
            Open::Stream(stream) => Ok(stream),
            Open::Session(_) => Err(Gone),
        }
    }
}

/// A channel that a client waits to see accepted. Dropping it rejects the channel.
pub(crate) struct Opening {
    pub(super) reply: ChannelOpenHandle,
    pub(super) client: ClientChannel,
}

impl Opening {
    pub(crate) async fn accept(self) -> ClientChannel {
        self.reply.accept().await;
        self.client
    }

    pub(crate) async fn reject(self, rejection: Rejection) {
        self.reply.reject(rejection.into()).await;
    }
}

/// Why a channel is not opened, with a sentence that clients show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Rejection {
    /// The machine cannot connect there.
    Failed(String),
    /// It may not be opened.
    Prohibited(String),
}

impl From<Rejection> for ChannelOpenFailure {
    fn from(rejection: Rejection) -> Self {
        // The codes of RFC 4254 §5.1.
        match rejection {
            Rejection::Failed(reason) => Self::Other { code: 2, reason },
            Rejection::Prohibited(reason) => Self::Other { code: 1, reason },
        }
    }
}

/// The direction to a client on one channel.
///
/// A call waits as long as the client grants no window, also when the channel is closed meanwhile: whoever calls also
/// waits for the channel's end.
pub(crate) struct ClientChannel {
    pub(super) write: ChannelWriteHalf<Msg>,
    pub(super) handle: Handle,
    pub(super) link: Arc<Link>,
    pub(super) gone: CancellationToken,
    pub(super) _registration: Registration<u32, Open>,
}

impl ClientChannel {
    pub(crate) async fn data(&self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let piece = self.link.reserve(piece, &self.gone).await?;
            self.write.data_bytes(piece).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    pub(crate) async fn stderr(&self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let piece = self.link.reserve(piece, &self.gone).await?;
            let sent = self.write.extended_data_bytes(EXTENDED_STDERR, piece);
            sent.await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    pub(crate) async fn eof(&self) -> Result<(), Gone> {
        self.write.eof().await.map_err(|_| Gone)
    }

    pub(crate) async fn exit_status(&self, status: u32) -> Result<(), Gone> {
        self.write.exit_status(status).await.map_err(|_| Gone)
    }

    pub(crate) async fn exit_signal(
        &self,
        name: String,
        core_dumped: bool,
        message: String,
    ) -> Result<(), Gone> {
        self.handle
            .exit_signal_request(
                self.write.id(),
                signal::from_name(name),
                core_dumped,
                message,
                String::new(),
            )
            .await
            .map_err(|()| Gone)
    }

    pub(crate) async fn close(&self) -> Result<(), Gone> {
        self.write.close().await.map_err(|_| Gone)
    }
}

/// Standard error, the one kind of extended data there is (RFC 4254 §5.2).
const EXTENDED_STDERR: u32 = 1;

/// The size of the pieces that data is handed over in, that of a packet.
const PIECE: usize = 32 << 10;
