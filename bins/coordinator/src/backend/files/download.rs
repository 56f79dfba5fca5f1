//! A file that is read from a machine.

use std::sync::Arc;

use async_trait::async_trait;
use buildlet_proto::{Buildlet, RelPath};
use bytes::Bytes;
use sshbridge::sftp::{Attributes, FileError, OpenFile};
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::archive::ArchivedFile;
use super::{AWAY, Machine, WHOLE, listing, told};

/// A file on its way here, at one place. Reads wait for each other, and clients read in order.
pub(super) struct Download<B> {
    machine: Arc<Machine<B>>,
    path: RelPath,
    attributes: Attributes,
    reading: Mutex<Reading>,
    _transfer: OwnedSemaphorePermit,
}

struct Reading {
    /// `None` after a failure, and the next read begins again.
    file: Option<ArchivedFile>,
    offset: u64,
}

impl<B: Buildlet> Download<B> {
    pub(super) async fn open(
        machine: Arc<Machine<B>>,
        path: RelPath,
        transfer: OwnedSemaphorePermit,
    ) -> Result<Self, FileError> {
        let file = fetch(&*machine, &path).await?;
        let modified = u32::try_from(file.modified).unwrap_or(u32::MAX);
        let attributes = Attributes {
            size: Some(file.size),
            owner: None,
            permissions: Some(file.mode & 0o7777 | listing::REGULAR),
            times: Some((modified, modified)),
        };
        let reading = Reading {
            file: Some(file),
            offset: 0,
        };
        Ok(Self {
            machine,
            path,
            attributes,
            reading: Mutex::new(reading),
            _transfer: transfer,
        })
    }
}

async fn fetch<B: Buildlet>(
    machine: &Machine<B>,
    path: &RelPath,
) -> Result<ArchivedFile, FileError> {
    let buildlet = machine().ok_or(FileError::FailedBecause(AWAY))?;
    let archive = buildlet.read_tgz(path.clone()).await;
    ArchivedFile::open(archive.map_err(|error| told(&error))?).await
}

impl Reading {
    /// Goes forward to `offset`, or to the end where that is before it.
    async fn skip_to(&mut self, offset: u64, file: &mut ArchivedFile) -> Result<(), FileError> {
        let mut chunk = vec![0; CHUNK];
        while self.offset < offset {
            let rest = usize::try_from(offset - self.offset).unwrap_or(CHUNK);
            let read = file.read(&mut chunk[..rest.min(CHUNK)]).await?;
            if read == 0 {
                break;
            }
            self.offset += read as u64;
        }
        Ok(())
    }
}

#[async_trait]
impl<B: Buildlet> OpenFile for Download<B> {
    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, FileError> {
        let mut reading = self.reading.lock().await;
        // Taken out, so that a read that fails or is dropped leaves nothing at an unknown place.
        let mut file = match reading.file.take() {
            Some(file) if offset >= reading.offset => file,
            _ => {
                reading.offset = 0;
                fetch(&*self.machine, &self.path).await?
            }
        };
        reading.skip_to(offset, &mut file).await?;
        let mut data = Vec::new();
        if reading.offset == offset {
            data.resize(length, 0);
            let read = file.read(&mut data).await?;
            data.truncate(read);
            reading.offset += read as u64;
        }
        reading.file = Some(file);
        Ok(Bytes::from(data))
    }

    async fn write(&self, _: u64, _: Bytes) -> Result<(), FileError> {
        Err(FileError::UnsupportedBecause(WHOLE))
    }

    async fn attributes(&self) -> Result<Attributes, FileError> {
        Ok(self.attributes)
    }

    async fn set_attributes(&self, wanted: Attributes) -> Result<(), FileError> {
        super::unchanged(wanted, self.attributes)
    }
}

/// What is skipped at a time.
const CHUNK: usize = 64 << 10;
