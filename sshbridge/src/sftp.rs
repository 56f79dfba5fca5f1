//! An SFTP server over any set of files.
//!
//! It speaks version 3 of the protocol (draft-ietf-secsh-filexfer-02) as OpenSSH does, with the extensions that its clients
//! use. [`serve`] joins a byte stream to a [`FileApi`], which is the whole of what it knows of files.
//!
//! Requests run in parallel as far as a client cannot tell: what one of them changes is seen by those that came after it,
//! as if each had waited for the one before, and answers come in the order of the requests. So clients may send as many requests as they like without waiting for
//! answers, and a file system that answers slowly is asked for many things at a time. What is held for a client is
//! bounded: 128 requests, 8 MiB of data, 256 open files and directories.
//!
//! A client that breaks the protocol is told so where its request has a number to answer to, and otherwise its stream ends.

mod attributes;
mod handles;
#[cfg(feature = "machine")]
mod local;
mod perform;
mod request;
mod response;
mod schedule;
mod server;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::attributes::Attributes;
#[cfg(feature = "machine")]
pub use self::local::LocalFiles;
pub(crate) use self::server::{QUEUE, serve_channel};
pub use self::server::{SftpError, serve};
#[cfg(feature = "machine")]
pub(crate) use self::server::{run, status};

/// Files, by their paths: sequences of bytes without a zero, separated by slashes. Relative ones start wherever the
/// implementation says.
#[async_trait]
pub trait FileApi: Send + Sync + 'static {
    /// Opens a file. `attributes` are those of a file that is created.
    async fn open(
        &self,
        path: &Bytes,
        options: OpenOptions,
        attributes: Attributes,
    ) -> Result<Arc<dyn OpenFile>, FileError>;

    /// Opens a directory for reading.
    async fn open_dir(&self, path: &Bytes) -> Result<Arc<dyn OpenDirectory>, FileError>;

    /// The attributes of a file.
    async fn attributes(&self, path: &Bytes, links: Links) -> Result<Attributes, FileError>;

    /// Changes those attributes that are given.
    async fn set_attributes(
        &self,
        path: &Bytes,
        links: Links,
        attributes: Attributes,
    ) -> Result<(), FileError>;

    /// Makes a directory.
    async fn create_dir(&self, path: &Bytes, attributes: Attributes) -> Result<(), FileError>;

    /// Removes an empty directory.
    async fn remove_dir(&self, path: &Bytes) -> Result<(), FileError>;

    /// Removes anything that is no directory.
    async fn remove_file(&self, path: &Bytes) -> Result<(), FileError>;

    /// Gives a file or directory another path.
    async fn rename(&self, from: &Bytes, to: &Bytes, existing: Existing) -> Result<(), FileError>;

    /// Makes a symbolic link.
    async fn symlink(&self, target: &Bytes, link: &Bytes) -> Result<(), FileError>;

    /// What a symbolic link contains.
    async fn read_link(&self, path: &Bytes) -> Result<Bytes, FileError>;

    /// The absolute path without links, whose last part need not exist.
    async fn canonical(&self, path: &Bytes) -> Result<Bytes, FileError>;

    /// The absolute path of one that may begin with `~`.
    async fn expand(&self, path: &Bytes) -> Result<Bytes, FileError> {
        self.canonical(path).await
    }

    /// Gives a file a second path.
    async fn hard_link(&self, original: &Bytes, link: &Bytes) -> Result<(), FileError> {
        let _ = (original, link);
        Err(FileError::Unsupported)
    }

    /// The file system that a path is on.
    async fn file_system(&self, path: &Bytes) -> Result<FileSystem, FileError> {
        let _ = path;
        Err(FileError::Unsupported)
    }
}

/// An open file. Dropping it without [`Self::close`] is what happens where a client vanishes.
#[async_trait]
pub trait OpenFile: Send + Sync {
    /// Ends the use of the file. An error says that what was written is not kept. It is called once, and nothing after it.
    async fn close(&self) -> Result<(), FileError> {
        Ok(())
    }

    /// Reads at most `length` bytes; none at the end of the file.
    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, FileError>;

    /// Writes all of `data`; at the end of the file where that is open for appending.
    async fn write(&self, offset: u64, data: Bytes) -> Result<(), FileError>;

    /// Its attributes.
    async fn attributes(&self) -> Result<Attributes, FileError>;

    /// Changes those attributes that are given.
    async fn set_attributes(&self, attributes: Attributes) -> Result<(), FileError>;

    /// Waits until what was written would survive a loss of power.
    async fn sync(&self) -> Result<(), FileError> {
        Err(FileError::Unsupported)
    }

    /// The file system that it is on.
    async fn file_system(&self) -> Result<FileSystem, FileError> {
        Err(FileError::Unsupported)
    }
}

/// An open directory. Dropping it closes it.
#[async_trait]
pub trait OpenDirectory: Send + Sync {
    /// The next entries, at most `max`; none at the end.
    async fn next(&self, max: usize) -> Result<Vec<DirectoryEntry>, FileError>;
}

/// What a directory contains.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the protocol fixes the three fields"
)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Bytes,
    /// A line as from `ls -l`, which clients show.
    pub long_name: Bytes,
    /// The attributes, of a link and not of what it leads to.
    pub attributes: Attributes,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// For which directions.
    pub access: Access,
    /// Whether each write goes to the end.
    pub writes: Writes,
    /// What becomes of the file's contents, and of a file that is not there.
    pub creation: Creation,
}

/// What an open file is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there are two directions")]
pub enum Access {
    /// Reading.
    #[default]
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Writing.
    Write,
}

/// Where writes go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the protocol knows these two")]
pub enum Writes {
    /// To the end of the file, wherever that is.
    Append,
    /// To the offset of each.
    #[default]
    At,
}

/// What opening does to a file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the protocol has one flag for each field"
)]
pub struct Creation {
    /// What is done where there is no file, and where there is one.
    pub create: Create,
    /// What becomes of the contents.
    pub contents: Contents,
}

/// What is done about a file that may be there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the protocol knows these three")]
pub enum Create {
    /// It must be there.
    #[default]
    Never,
    /// It is created, and must not be there.
    New,
    /// It is created where it is not there.
    Missing,
}

/// What becomes of a file's contents.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "the protocol knows these two")]
pub enum Contents {
    /// They stay.
    #[default]
    Kept,
    /// They are removed.
    Truncated,
}

/// Whether the last part of a path is followed where it is a symbolic link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Links {
    /// To what it leads to.
    Followed,
    /// It is meant itself.
    Kept,
}

/// What becomes of a file that is in the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Existing {
    /// It is an error.
    Kept,
    /// It is replaced.
    Replaced,
}

/// A file system's sizes, in the units of POSIX's `statvfs`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "statvfs@openssh.com fixes the fields"
)]
pub struct FileSystem {
    /// The preferred size of reads and writes.
    pub block_size: u64,
    /// The unit of the counts of blocks.
    pub fragment_size: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free ones.
    pub free_blocks: u64,
    /// Free ones for ordinary users.
    pub available_blocks: u64,
    /// All file numbers.
    pub files: u64,
    /// Free ones.
    pub free_files: u64,
    /// Free ones for ordinary users.
    pub available_files: u64,
    /// An identifier.
    pub id: u64,
    /// 1 where nothing can be written, plus 2 where set-user-id is ignored.
    pub flags: u64,
    /// The longest name.
    pub max_name: u64,
}

/// Why something was not done with a file, as the protocol tells it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The request makes no sense.
    #[error("the request makes no sense")]
    BadMessage,
    /// Something failed, for this reason.
    #[error("{0}")]
    FailedBecause(&'static str),
    /// Anything else.
    #[error("it failed")]
    Failure,
    /// There is no such file.
    #[error("there is no such file")]
    NoSuchFile,
    /// It is not permitted.
    #[error("permission denied")]
    PermissionDenied,
    /// It cannot be done here.
    #[error("it cannot be done here")]
    Unsupported,
    /// It cannot be done here, for this reason.
    #[error("{0}")]
    UnsupportedBecause(&'static str),
}
