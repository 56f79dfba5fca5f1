//! Doing what a client asks.

use std::sync::Arc;

use super::handles::{Handles, MAX_HANDLES};
use super::request::{ByPath, Handle, Request};
use super::response::{MAX_DATA, Outcome};
use super::{FileApi, FileError};

/// What requests are done with.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) files: Arc<dyn FileApi>,
    pub(super) handles: Arc<Handles>,
}

impl Session {
    pub(super) async fn perform(self, request: Request) -> Result<Outcome, FileError> {
        match request {
            Request::ByPath(request) => self.perform_by_path(request).await,
            Request::Close { handle } => {
                if let Some(file) = self.handles.close(&handle)? {
                    file.close().await?;
                }
                Ok(Outcome::Done)
            }
            Request::CopyData {
                from,
                from_offset,
                length,
                to,
                to_offset,
            } => {
                self.copy((from, from_offset), length, (to, to_offset))
                    .await
            }
            Request::FileAttributes { handle } => {
                let attributes = self.handles.file(&handle)?.attributes().await?;
                Ok(Outcome::Attributes(attributes))
            }
            Request::FileFileSystem { handle } => {
                let system = self.handles.file(&handle)?.file_system().await?;
                Ok(Outcome::FileSystem(system))
            }
            Request::Limits => Ok(Outcome::Limits(MAX_HANDLES as u64)),
            Request::Read {
                handle,
                offset,
                length,
            } => self.read(&handle, offset, length).await,
            Request::ReadDir { handle } => {
                let directory = self.handles.directory(&handle)?;
                let entries = directory.next(ENTRIES).await?;
                Ok(if entries.is_empty() {
                    Outcome::End
                } else {
                    Outcome::Entries(entries)
                })
            }
            Request::SetFileAttributes { handle, attributes } => {
                let file = self.handles.file(&handle)?;
                file.set_attributes(attributes).await?;
                Ok(Outcome::Done)
            }
            Request::Sync { handle } => {
                // OpenSSH's answer to a file that is not open differs here from elsewhere.
                let file = self.handles.file(&handle);
                file.map_err(|_| FileError::NoSuchFile)?.sync().await?;
                Ok(Outcome::Done)
            }
            Request::Unknown => Err(FileError::Unsupported),
            Request::Write {
                handle,
                offset,
                data,
            } => {
                self.handles.file(&handle)?.write(offset, data).await?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn perform_by_path(self, request: ByPath) -> Result<Outcome, FileError> {
        let files = &*self.files;
        match request {
            ByPath::Attributes { path, links } => {
                let attributes = files.attributes(&path, links).await?;
                return Ok(Outcome::Attributes(attributes));
            }
            ByPath::Canonical { path } => return files.canonical(&path).await.map(Outcome::Path),
            ByPath::Expand { path } => return files.expand(&path).await.map(Outcome::Path),
            ByPath::FileSystem { path } => {
                return files.file_system(&path).await.map(Outcome::FileSystem);
            }
            ByPath::Open {
                path,
                options,
                attributes,
            } => {
                self.handles.check_room()?;
                let file = files.open(&path, options, attributes).await?;
                let handle = self.handles.add_file(file, options.writes)?;
                return Ok(Outcome::Handle(handle));
            }
            ByPath::OpenDir { path } => {
                self.handles.check_room()?;
                let directory = files.open_dir(&path).await?;
                return self.handles.add_directory(directory).map(Outcome::Handle);
            }
            ByPath::ReadLink { path } => return files.read_link(&path).await.map(Outcome::Path),
            ByPath::CreateDir { path, attributes } => files.create_dir(&path, attributes).await?,
            ByPath::HardLink { original, link } => files.hard_link(&original, &link).await?,
            ByPath::RemoveDir { path } => files.remove_dir(&path).await?,
            ByPath::RemoveFile { path } => files.remove_file(&path).await?,
            ByPath::Rename { from, to, existing } => files.rename(&from, &to, existing).await?,
            ByPath::SetAttributes {
                path,
                links,
                attributes,
            } => files.set_attributes(&path, links, attributes).await?,
            ByPath::Symlink { target, link } => files.symlink(&target, &link).await?,
        }
        Ok(Outcome::Done)
    }

    async fn read(&self, handle: &[u8], offset: u64, length: u32) -> Result<Outcome, FileError> {
        let file = self.handles.file(handle)?;
        let length = MAX_DATA.min(length as usize);
        let data = file.read(offset, length).await?;
        // A client that asks for nothing is not at the end.
        Ok(if data.is_empty() && length > 0 {
            Outcome::End
        } else {
            Outcome::Data(data)
        })
    }

    /// Copies from one open file to another, without the data going to the client and back.
    async fn copy(
        &self,
        (from, from_offset): (Handle, u64),
        length: u64,
        (to, to_offset): (Handle, u64),
    ) -> Result<Outcome, FileError> {
        if from == to {
            return Err(FileError::Failure);
        }
        let (source, target) = (self.handles.file(&from)?, self.handles.file(&to)?);
        let mut copied = 0_u64;
        while length == 0 || copied < length {
            let rest = match length {
                0 => MAX_DATA,
                length => usize::try_from(length - copied).map_or(MAX_DATA, |it| it.min(MAX_DATA)),
            };
            let at = |offset: u64| offset.checked_add(copied).ok_or(FileError::BadMessage);
            let (read_at, write_at) = (at(from_offset)?, at(to_offset)?);
            let data = source.read(read_at, rest).await?;
            if data.is_empty() {
                break;
            }
            let read = data.len() as u64;
            target.write(write_at, data).await?;
            copied = copied.saturating_add(read);
        }
        Ok(Outcome::Done)
    }
}

/// How many entries of a directory are told at a time, as OpenSSH does: with the longest names they fit into a packet.
const ENTRIES: usize = 100;
