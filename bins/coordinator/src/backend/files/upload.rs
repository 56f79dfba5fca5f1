//! A file that is written to a machine.

use std::io;

use async_trait::async_trait;
use buildlet_proto::api::ByteReader;
use buildlet_proto::{ApiError, Buildlet, RelPath};
use bytes::Bytes;
use futures_util::StreamExt as _;
use sshbridge::sftp::{Attributes, FileError, OpenFile};
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc};
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use super::{AWAY, WHOLE, listing, told};

/// A file on its way to a machine, from its beginning on. The machine gives it its name when it is closed; one that is not
/// closed is as if it had never been.
pub(super) struct Upload {
    mode: u32,
    sending: Mutex<Sending>,
    _transfer: OwnedSemaphorePermit,
}

struct Sending {
    written: u64,
    /// `None` once the end was sent.
    pieces: Option<mpsc::Sender<Piece>>,
    /// `None` once it was seen to end.
    request: Option<AbortOnDropHandle<Result<(), ApiError>>>,
}

/// A part of what is sent. The end is one too: a client that vanishes must not make a shorter file.
enum Piece {
    Data(Bytes),
    End,
}

impl Upload {
    pub(super) fn start(
        buildlet: impl Buildlet,
        path: RelPath,
        mode: u32,
        transfer: OwnedSemaphorePermit,
    ) -> Self {
        let (pieces, content) = mpsc::channel(1);
        let content = reader(content);
        let request = async move { buildlet.write(path, mode, content).await };
        Self {
            mode,
            sending: Mutex::new(Sending {
                written: 0,
                pieces: Some(pieces),
                request: Some(AbortOnDropHandle::new(tokio::spawn(request))),
            }),
            _transfer: transfer,
        }
    }

    async fn found(&self) -> Attributes {
        Attributes {
            size: Some(self.sending.lock().await.written),
            owner: None,
            permissions: Some(self.mode | listing::REGULAR),
            times: None,
        }
    }
}

impl Sending {
    async fn send(&mut self, piece: Piece) -> Result<(), FileError> {
        let pieces = self.pieces.as_ref().ok_or(FileError::Failure)?;
        if pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        // The machine has answered before it had all, which is no success.
        self.pieces = None;
        self.answer().await?;
        Err(FileError::Failure)
    }

    async fn answer(&mut self) -> Result<(), FileError> {
        let request = self.request.as_mut().ok_or(FileError::Failure)?;
        let answer = request.await;
        self.request = None;
        answer
            .map_err(|_| FileError::FailedBecause(AWAY))?
            .map_err(|error| told(&error))
    }
}

#[async_trait]
impl OpenFile for Upload {
    async fn close(&self) -> Result<(), FileError> {
        let mut sending = self.sending.lock().await;
        sending.send(Piece::End).await?;
        sending.pieces = None;
        sending.answer().await
    }

    async fn read(&self, _: u64, _: usize) -> Result<Bytes, FileError> {
        Err(FileError::UnsupportedBecause(WHOLE))
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), FileError> {
        let mut sending = self.sending.lock().await;
        if offset != sending.written {
            return Err(FileError::UnsupportedBecause(WHOLE));
        }
        let length = data.len() as u64;
        if length > 0 {
            sending.send(Piece::Data(data)).await?;
        }
        sending.written += length;
        Ok(())
    }

    async fn attributes(&self) -> Result<Attributes, FileError> {
        Ok(self.found().await)
    }

    async fn set_attributes(&self, wanted: Attributes) -> Result<(), FileError> {
        super::unchanged(wanted, self.found().await)
    }
}

/// The pieces as a body, which fails unless it was ended.
fn reader(mut pieces: mpsc::Receiver<Piece>) -> ByteReader {
    let mut ended = false;
    let pieces = futures_util::stream::poll_fn(move |cx| {
        if ended {
            return std::task::Poll::Ready(None);
        }
        pieces.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Data(data)) => Some(Ok(data)),
            Some(Piece::End) => {
                ended = true;
                None
            }
            None => Some(Err(io::Error::from(io::ErrorKind::BrokenPipe))),
        })
    });
    Box::pin(StreamReader::new(pieces.fuse()))
}
