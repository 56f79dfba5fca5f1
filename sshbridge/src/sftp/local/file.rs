use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use super::{blocking, entries, mode, timestamps};
use crate::sftp::{Attributes, FileError, FileSystem, OpenFile, Writes};

/// A file that is open on this machine.
#[derive(Debug)]
pub(super) struct LocalFile {
    file: Arc<OwnedFd>,
    writes: Writes,
}

impl LocalFile {
    pub(super) fn new(file: OwnedFd, writes: Writes) -> Self {
        Self {
            file: Arc::new(file),
            writes,
        }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OwnedFd) -> rustix::io::Result<T> + Send + 'static,
    ) -> Result<T, FileError> {
        let file = self.file.clone();
        blocking(move || work(&file)).await
    }
}

#[async_trait]
impl OpenFile for LocalFile {
    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, FileError> {
        self.with(move |file| {
            let mut data = Vec::with_capacity(length);
            while data.len() < length {
                let at = offset.saturating_add(data.len() as u64);
                let buffer = rustix::buffer::spare_capacity(&mut data);
                match rustix::io::pread(file, buffer, at) {
                    Ok(0) => break,
                    Ok(_) | Err(Errno::INTR) => {}
                    // What was read is told now, the error when the rest is asked for.
                    Err(_) if !data.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            data.truncate(length);
            Ok(Bytes::from(data))
        })
        .await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), FileError> {
        let writes = self.writes;
        self.with(move |file| {
            let (mut rest, mut at) = (&*data, offset);
            loop {
                let written = match writes {
                    Writes::Append => rustix::io::write(file, rest),
                    Writes::At => rustix::io::pwrite(file, rest, at),
                };
                let written = match written {
                    Err(Errno::INTR) => 0,
                    Ok(0) if !rest.is_empty() => return Err(Errno::IO),
                    written => written?,
                };
                rest = rest.get(written..).unwrap_or_default();
                if rest.is_empty() {
                    return Ok(());
                }
                at = at.saturating_add(written as u64);
            }
        })
        .await
    }

    async fn attributes(&self) -> Result<Attributes, FileError> {
        self.with(|file| Ok(entries::attributes(&rustix::fs::fstat(file)?)))
            .await
    }

    async fn set_attributes(&self, attributes: Attributes) -> Result<(), FileError> {
        self.with(move |file| {
            let mut result = Ok(());
            if let Some(size) = attributes.size {
                result = rustix::fs::ftruncate(file, size);
            }
            if let Some(permissions) = attributes.permissions {
                result = rustix::fs::fchmod(file, mode(permissions)).and(result);
            }
            if let Some(times) = attributes.times {
                result = rustix::fs::futimens(file, &timestamps(times)).and(result);
            }
            if let Some((user, group)) = attributes.owner {
                let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
                result = rustix::fs::fchown(file, Some(user), Some(group)).and(result);
            }
            result
        })
        .await
    }

    async fn sync(&self) -> Result<(), FileError> {
        self.with(|file| rustix::fs::fsync(file)).await
    }

    async fn file_system(&self) -> Result<FileSystem, FileError> {
        self.with(|file| Ok(entries::file_system(&rustix::fs::fstatvfs(file)?)))
            .await
    }
}
