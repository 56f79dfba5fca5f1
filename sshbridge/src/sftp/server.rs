//! The loop that takes requests in and sends answers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::perform::Session;
use super::request::{self, Numbered, Request};
use super::response::Response;
use super::schedule::{Schedule, Ticket, Touches, cost};
use super::wire::{Malformed, Packets};
use super::{FileApi, FileError};
use crate::backend::ChannelEvent;

/// Serves `files` to one client on a stream, until it ends its direction.
///
/// # Errors
///
/// [`SftpError`] where the stream breaks or is no SFTP.
///
/// # Cancel safety
///
/// Dropping the future closes all files. What is being done on other threads is still done.
pub async fn serve<R, W>(
    files: Arc<dyn FileApi>,
    mut reader: R,
    mut writer: W,
) -> Result<(), SftpError>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin,
{
    let (requests, input) = mpsc::channel(QUEUE);
    let (output, mut responses) = mpsc::channel::<Bytes>(QUEUE);
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = reader.read(&mut buffer).await?;
            let piece = Bytes::copy_from_slice(&buffer[..length]);
            if length == 0 || requests.send(piece).await.is_err() {
                return std::io::Result::Ok(());
            }
        }
    };
    let write = async move {
        while let Some(piece) = responses.recv().await {
            writer.write_all(&piece).await?;
            if responses.is_empty() {
                writer.flush().await?;
            }
        }
        writer.shutdown().await
    };
    // Who breaks the protocol still gets the answers to what came before. Each of the two ends when the other has.
    let served = async {
        let (ran, written) = tokio::join!(run(files, input, output), write);
        ran?;
        written.map_err(SftpError::Stream)
    };
    tokio::pin!(read, served);
    tokio::select! {
        result = &mut served => result,
        result = &mut read => {
            result.map_err(SftpError::Stream)?;
            served.await
        }
    }
}

/// Serves `files` on a channel whose subsystem `sftp` was started, to its exit status.
pub(crate) async fn serve_channel(
    files: Arc<dyn FileApi>,
    input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<ChannelEvent>,
) {
    let (responses, mut answers) = mpsc::channel(QUEUE);
    let forward = async {
        while let Some(answer) = answers.recv().await {
            if output.send(ChannelEvent::Data(answer)).await.is_err() {
                return;
            }
        }
    };
    let (served, ()) = tokio::join!(run(files, input, responses), forward);
    // Whoever does not listen any more has no need of it.
    let _ = output.send(ChannelEvent::ExitStatus(status(&served))).await;
}

/// The exit status of a server.
pub(crate) fn status(served: &Result<(), SftpError>) -> u32 {
    match served {
        Ok(()) => 0,
        Err(error) => {
            tracing::debug!(%error, "an SFTP session ended");
            PROTOCOL_ERROR
        }
    }
}

/// Why a client was not served to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SftpError {
    /// What the client sends is no SFTP.
    #[error("the client does not speak SFTP")]
    Protocol,
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Stream(#[source] std::io::Error),
    /// The client ended its direction within a request.
    #[error("the client ended within a request")]
    Truncated,
}

/// Serves `files` to the client that sends `input`, until that ends or is no SFTP any more, and everything before is
/// answered.
pub(crate) async fn run(
    files: Arc<dyn FileApi>,
    mut input: mpsc::Receiver<Bytes>,
    output: mpsc::Sender<Bytes>,
) -> Result<(), SftpError> {
    let mut server = Server::new(files);
    let mut running = FuturesUnordered::new();
    let mut open = true;
    let mut fault = None;
    loop {
        if fault.is_none() {
            fault = server.take_in().err();
        }
        while let Some((ticket, numbered)) = server.schedule.start() {
            running.push(answer(server.session.clone(), ticket, numbered));
        }
        if !server.ready.is_empty() {
            for piece in std::mem::take(&mut server.ready) {
                if output.send(piece).await.is_err() {
                    return Ok(());
                }
            }
            continue;
        }
        let takes = open && fault.is_none();
        if !takes && server.schedule.is_empty() {
            return fault.map_or_else(|| server.end(), Err);
        }
        tokio::select! {
            Some((ticket, response)) = running.next(), if !running.is_empty() => {
                server.schedule.finish(ticket, response);
                while let Some(response) = server.schedule.answer() {
                    server.respond(response);
                }
            }
            piece = input.recv(), if takes && server.schedule.has_room() => match piece {
                Some(piece) => server.packets.push(&piece),
                None => open = false,
            },
            () = output.closed() => return Ok(()),
        }
    }
}

async fn answer(session: Session, ticket: Ticket, numbered: Numbered) -> (Ticket, Response) {
    let result = match numbered.request {
        Ok(request) => Box::pin(session.perform(request)).await,
        Err(Malformed) => Err(FileError::BadMessage),
    };
    (ticket, Response::new(numbered.id, result))
}

/// What a client's requests have come to.
struct Server {
    session: Session,
    packets: Packets,
    schedule: Schedule<Numbered, Response>,
    /// What is to be sent.
    ready: Vec<Bytes>,
    greeted: bool,
}

impl Server {
    fn new(files: Arc<dyn FileApi>) -> Self {
        Self {
            session: Session {
                files,
                handles: Arc::default(),
            },
            packets: Packets::default(),
            schedule: Schedule::new(),
            ready: Vec::new(),
            greeted: false,
        }
    }

    /// Takes in what has arrived, as far as there is room.
    fn take_in(&mut self) -> Result<(), SftpError> {
        while self.schedule.has_room() {
            let next = self
                .packets
                .next()
                .map_err(|Malformed| SftpError::Protocol)?;
            let Some(packet) = next else { break };
            if self.greeted {
                let numbered = request::decode(packet).map_err(|Malformed| SftpError::Protocol)?;
                self.admit(numbered);
            } else {
                // There is no version below 3 that we would have to speak, and clients take the lower one.
                request::decode_init(packet).map_err(|Malformed| SftpError::Protocol)?;
                self.greeted = true;
                self.respond(Response::version());
            }
        }
        Ok(())
    }

    fn admit(&mut self, numbered: Numbered) {
        let request = numbered.request.as_ref().unwrap_or(&Request::Unknown);
        let touches = Touches::of(request, &self.session.handles);
        let cost = cost(request, numbered.size);
        self.schedule.push(numbered, touches, cost);
    }

    fn respond(&mut self, response: Response) {
        self.ready.push(response.head);
        if !response.data.is_empty() {
            self.ready.push(response.data);
        }
    }

    fn end(&self) -> Result<(), SftpError> {
        if self.packets.is_empty() {
            Ok(())
        } else {
            Err(SftpError::Truncated)
        }
    }
}

/// Pieces of the stream that wait on their way in or out.
pub(crate) const QUEUE: usize = 4;

/// The status that OpenSSH's server has where its client does not speak SFTP.
const PROTOCOL_ERROR: u32 = 255;

/// What is read from a stream at a time.
const CHUNK: usize = 64 << 10;
