//! The files of a machine that has no SSH server, as its buildlet serves them: SFTP over the buildlet's protocol.
//!
//! `/` is the work directory, and nothing above it can be named. The protocol moves files whole and in order, so that is
//! what can be done: a file is either read, or written from its beginning to its end. A read that is not where the last one
//! ended costs all that stands before it. Nothing is kept but what is on its way.

mod archive;
mod download;
mod listing;
mod path;
mod upload;

use std::sync::Arc;

use async_trait::async_trait;
use buildlet_proto::api::ListRequest;
use buildlet_proto::{ApiError, Buildlet, Entry, ErrorStatus, RelPath};
use bytes::Bytes;
use sshbridge::sftp::{
    Access, Attributes, Contents, Create, Existing, FileApi, FileError, Links, OpenDirectory,
    OpenFile, OpenOptions, Writes,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

use self::download::Download;
use self::listing::{Directory, Listing, attributes};
use self::upload::Upload;
use super::Target;
use crate::machine::Reverse;

/// The files below a machine's work directory.
pub(super) struct BuildletFiles<B> {
    machine: Arc<Machine<B>>,
    transfers: Arc<Semaphore>,
}

/// Reaches the buildlet, wherever it is by then.
type Machine<B> = dyn Fn() -> Option<B> + Send + Sync;

/// The files of `target`, unless its machine runs no buildlet.
pub(super) fn files(target: Target) -> Option<Arc<dyn FileApi>> {
    if target.is_without_buildlet() {
        return None;
    }
    let link = move || Some(target.link().ok()?.buildlet());
    let files = BuildletFiles::<buildlet_proto::client::Client<Reverse>>::new(Arc::new(link));
    Some(Arc::new(files))
}

impl<B: Buildlet> BuildletFiles<B> {
    fn new(machine: Arc<Machine<B>>) -> Self {
        Self {
            machine,
            transfers: Arc::new(Semaphore::new(MAX_TRANSFERS)),
        }
    }

    fn buildlet(&self) -> Result<B, FileError> {
        (self.machine)().ok_or(FileError::FailedBecause(AWAY))
    }

    /// Leave to keep a stream open.
    fn transfer(&self) -> Result<OwnedSemaphorePermit, FileError> {
        let permit = Arc::clone(&self.transfers).try_acquire_owned();
        permit.map_err(|_| FileError::FailedBecause("too many files are open"))
    }

    async fn list(&self, dir: RelPath) -> Result<Listing, FileError> {
        let lines = self.buildlet()?.list(ListRequest::new(dir)).await;
        Ok(Listing::new(lines.map_err(|error| told(&error))?))
    }

    /// What there is at a path other than `/`, by the listing of its directory: the protocol has no other way to ask.
    async fn find(&self, path: &RelPath) -> Result<Option<Entry>, FileError> {
        let Some((parent, name)) = path::split(path) else {
            return Err(FileError::Failure);
        };
        let mut listing = self.list(parent).await?;
        while let Some(entry) = listing.next().await? {
            if entry.path == name {
                return Ok(Some(entry));
            }
            // They come in the order of their bytes.
            if entry.path.as_bytes() > name.as_bytes() {
                break;
            }
        }
        Ok(None)
    }

    async fn found(&self, path: &RelPath) -> Result<Attributes, FileError> {
        if path.is_root() {
            return Ok(listing::ROOT);
        }
        let entry = self.find(path).await?.ok_or(FileError::NoSuchFile)?;
        Ok(attributes(&entry))
    }

    async fn download(&self, path: RelPath) -> Result<Arc<dyn OpenFile>, FileError> {
        let transfer = self.transfer()?;
        let file = Download::open(self.machine.clone(), path, transfer).await?;
        Ok(Arc::new(file))
    }

    async fn upload(
        &self,
        path: RelPath,
        options: OpenOptions,
        attributes: Attributes,
    ) -> Result<Arc<dyn OpenFile>, FileError> {
        let transfer = self.transfer()?;
        self.check_place(&path, options).await?;
        let mode = attributes.permissions.unwrap_or(0o644) & 0o777;
        let buildlet = self.buildlet()?;
        Ok(Arc::new(Upload::start(buildlet, path, mode, transfer)))
    }

    /// Whether a file may be made at `path`. The buildlet makes missing directories, which no user of SFTP expects.
    async fn check_place(&self, path: &RelPath, options: OpenOptions) -> Result<(), FileError> {
        let (parent, _) = path::split(path).ok_or(FileError::Failure)?;
        let creation = options.creation;
        if (creation.create, creation.contents) == (Create::Missing, Contents::Truncated) {
            return self.list(parent).await.map(drop);
        }
        match (creation.create, self.find(path).await?) {
            (Create::Never, None) => Err(FileError::NoSuchFile),
            (Create::New, Some(_)) => Err(FileError::Failure),
            (Create::Missing | Create::Never, Some(entry))
                if creation.contents == Contents::Kept && attributes(&entry).size != Some(0) =>
            {
                Err(FileError::UnsupportedBecause(WHOLE))
            }
            (Create::Missing | Create::Never, Some(_)) | (Create::Missing | Create::New, None) => {
                Ok(())
            }
        }
    }

    async fn remove(&self, path: RelPath) -> Result<(), FileError> {
        let removed = self.buildlet()?.remove_all(vec![path]).await;
        removed.map_err(|error| told(&error))
    }
}

#[async_trait]
impl<B: Buildlet> FileApi for BuildletFiles<B> {
    async fn open(
        &self,
        path: &Bytes,
        options: OpenOptions,
        attributes: Attributes,
    ) -> Result<Arc<dyn OpenFile>, FileError> {
        let path = path::read(path)?;
        match options.access {
            Access::Read if options.creation == Default::default() => self.download(path).await,
            Access::Write if options.writes == Writes::At => {
                self.upload(path, options, attributes).await
            }
            Access::Read | Access::ReadWrite | Access::Write => {
                Err(FileError::UnsupportedBecause(WHOLE))
            }
        }
    }

    async fn open_dir(&self, path: &Bytes) -> Result<Arc<dyn OpenDirectory>, FileError> {
        let path = path::read(path)?;
        let transfer = self.transfer()?;
        let listing = self.list(path).await?;
        Ok(Arc::new(Directory::new(listing, transfer)))
    }

    async fn attributes(&self, path: &Bytes, _: Links) -> Result<Attributes, FileError> {
        self.found(&path::read(path)?).await
    }

    async fn set_attributes(
        &self,
        path: &Bytes,
        _: Links,
        attributes: Attributes,
    ) -> Result<(), FileError> {
        let found = self.found(&path::read(path)?).await?;
        unchanged(attributes, found)
    }

    async fn create_dir(&self, path: &Bytes, _: Attributes) -> Result<(), FileError> {
        let path = path::read(path)?;
        if path.is_root() || self.find(&path).await?.is_some() {
            return Err(FileError::Failure);
        }
        // A directory that is missing is made before anything is unpacked into it.
        let nothing = Box::pin(archive::EMPTY);
        let made = self.buildlet()?.write_tgz(path, nothing).await;
        made.map_err(|error| told(&error))
    }

    async fn remove_dir(&self, path: &Bytes) -> Result<(), FileError> {
        let path = path::read(path)?;
        if path.is_root() {
            return Err(FileError::PermissionDenied);
        }
        let is_dir = listing::is_directory(&self.found(&path).await?);
        if !is_dir || self.list(path.clone()).await?.next().await?.is_some() {
            return Err(FileError::Failure);
        }
        // What is put there from now on goes with it.
        self.remove(path).await
    }

    async fn remove_file(&self, path: &Bytes) -> Result<(), FileError> {
        let path = path::read(path)?;
        if listing::is_directory(&self.found(&path).await?) {
            return Err(FileError::Failure);
        }
        self.remove(path).await
    }

    async fn rename(&self, _: &Bytes, _: &Bytes, _: Existing) -> Result<(), FileError> {
        Err(FileError::UnsupportedBecause(
            "the machine's buildlet cannot rename; use a shell",
        ))
    }

    async fn symlink(&self, _: &Bytes, _: &Bytes) -> Result<(), FileError> {
        Err(FileError::UnsupportedBecause(LINKS))
    }

    async fn read_link(&self, _: &Bytes) -> Result<Bytes, FileError> {
        Err(FileError::UnsupportedBecause(LINKS))
    }

    async fn canonical(&self, path: &Bytes) -> Result<Bytes, FileError> {
        Ok(path::absolute(&path::read(path)?))
    }

    async fn expand(&self, path: &Bytes) -> Result<Bytes, FileError> {
        let rest = path.strip_prefix(b"~").unwrap_or(path);
        self.canonical(&path.slice_ref(rest)).await
    }
}

/// Attributes cannot be changed; clients that give a file those that it has are left content.
fn unchanged(wanted: Attributes, found: Attributes) -> Result<(), FileError> {
    let bits = |permissions: Option<u32>| permissions.map(|it| it & 0o777);
    let same = |wanted: Option<u64>, found: Option<u64>| wanted.is_none() || wanted == found;
    let permissions = (wanted.permissions, found.permissions);
    let permissions = (bits(permissions.0), bits(permissions.1));
    let kept = same(wanted.size, found.size)
        && same(permissions.0.map(u64::from), permissions.1.map(u64::from))
        && wanted.owner.is_none()
        && wanted.times.is_none();
    kept.then_some(()).ok_or(FileError::UnsupportedBecause(
        "the machine's buildlet cannot change sizes, times, owners and permissions; use a shell",
    ))
}

/// A failure of the buildlet, in the few words of SFTP. Buildlets give the system's reason as a text, in any system's words.
fn told(error: &ApiError) -> FileError {
    debug!(error = %error, "a buildlet refused something of its files");
    let says = |words: &[&str]| words.iter().any(|words| error.message().contains(words));
    match error.status() {
        ErrorStatus::BAD_GATEWAY | ErrorStatus::GATEWAY_TIMEOUT => FileError::FailedBecause(AWAY),
        ErrorStatus::INSUFFICIENT_STORAGE => {
            FileError::FailedBecause("the machine's disk is full, or nearly so")
        }
        _ if says(&NOT_FOUND) => FileError::NoSuchFile,
        _ if says(&["denied"]) => FileError::PermissionDenied,
        _ => FileError::Failure,
    }
}

/// How Unix, Plan 9 and Windows say it.
const NOT_FOUND: [&str; 5] = [
    "o such file",
    "does not exist",
    "cannot find the",
    "ot a directory",
    "bogus dir",
];

const AWAY: &str = "the machine does not answer";
const LINKS: &str = "the machine's buildlet does not follow symbolic links for others; use a shell";
const WHOLE: &str =
    "a file can be read, or written anew from its beginning; it cannot be changed or continued";

/// How many files and directories of one connection may be open at once: each keeps a stream to the machine.
const MAX_TRANSFERS: usize = 32;

#[cfg(test)]
mod tests;
