//! The files of this machine.

mod entries;
mod file;
mod names;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use self::entries::LocalDirectory;
use self::file::LocalFile;
use super::{
    Access, Attributes, Contents, Create, Existing, FileApi, FileError, FileSystem, Links,
    OpenDirectory, OpenFile, OpenOptions, Writes,
};

/// All files that this program's user can reach, with relative paths from one directory. Whoever has a shell there can
/// reach them as well, so nothing is hidden.
///
/// Every call runs on a thread of the runtime for blocking work. A FIFO or a device is opened without waiting for its
/// other end.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where relative paths start. It is held open, so that it may be renamed.
    base: OwnedFd,
    work_dir: PathBuf,
    home: Option<PathBuf>,
}

impl LocalFiles {
    /// Serves files with relative paths from `work_dir`; `~` is `home`, where there is one.
    ///
    /// # Errors
    ///
    /// The system's, where `work_dir` cannot be opened.
    pub fn new(work_dir: impl Into<PathBuf>, home: Option<PathBuf>) -> io::Result<Self> {
        let work_dir = std::path::absolute(work_dir.into())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = rustix::fs::open(&work_dir, flags, Mode::empty())?;
        Ok(Self {
            shared: Arc::new(Shared {
                base,
                work_dir,
                home,
            }),
        })
    }

    /// Does something on a thread that may wait.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> rustix::io::Result<T> + Send + 'static,
    ) -> Result<T, FileError> {
        let shared = self.shared.clone();
        blocking(move || work(&shared)).await
    }
}

/// Does something on a thread that may wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> rustix::io::Result<T> + Send + 'static,
) -> Result<T, FileError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| FileError::Failure)?.map_err(told)
}

#[async_trait]
impl FileApi for LocalFiles {
    async fn open(
        &self,
        path: &Bytes,
        options: OpenOptions,
        attributes: Attributes,
    ) -> Result<Arc<dyn OpenFile>, FileError> {
        let path = path.clone();
        let opened = self.with(move |it| {
            let mode = mode(attributes.permissions.unwrap_or(0o666));
            rustix::fs::openat(&it.base, real(&path), flags(options), mode)
        });
        let file = LocalFile::new(opened.await?, options.writes);
        Ok(Arc::new(file))
    }

    async fn open_dir(&self, path: &Bytes) -> Result<Arc<dyn OpenDirectory>, FileError> {
        let path = path.clone();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = self.with(move |it| {
            let directory = rustix::fs::openat(&it.base, real(&path), flags, Mode::empty())?;
            LocalDirectory::new(directory)
        });
        Ok(Arc::new(opened.await?))
    }

    async fn attributes(&self, path: &Bytes, links: Links) -> Result<Attributes, FileError> {
        let path = path.clone();
        self.with(move |it| {
            let stat = rustix::fs::statat(&it.base, real(&path), at(links))?;
            Ok(entries::attributes(&stat))
        })
        .await
    }

    async fn set_attributes(
        &self,
        path: &Bytes,
        links: Links,
        attributes: Attributes,
    ) -> Result<(), FileError> {
        if links == Links::Kept && attributes.size.is_some() {
            return Err(FileError::BadMessage);
        }
        let path = path.clone();
        self.with(move |it| it.set_attributes(&path, links, attributes))
            .await
    }

    async fn create_dir(&self, path: &Bytes, attributes: Attributes) -> Result<(), FileError> {
        let path = path.clone();
        self.with(move |it| {
            let mode = mode(attributes.permissions.unwrap_or(0o777));
            rustix::fs::mkdirat(&it.base, real(&path), mode)
        })
        .await
    }

    async fn remove_dir(&self, path: &Bytes) -> Result<(), FileError> {
        let path = path.clone();
        self.with(move |it| rustix::fs::unlinkat(&it.base, real(&path), AtFlags::REMOVEDIR))
            .await
    }

    async fn remove_file(&self, path: &Bytes) -> Result<(), FileError> {
        let path = path.clone();
        self.with(move |it| rustix::fs::unlinkat(&it.base, real(&path), AtFlags::empty()))
            .await
    }

    async fn rename(&self, from: &Bytes, to: &Bytes, existing: Existing) -> Result<(), FileError> {
        let (from, to) = (from.clone(), to.clone());
        self.with(move |it| match existing {
            Existing::Kept => it.rename_to_new(real(&from), real(&to)),
            Existing::Replaced => rustix::fs::renameat(&it.base, real(&from), &it.base, real(&to)),
        })
        .await
    }

    async fn symlink(&self, target: &Bytes, link: &Bytes) -> Result<(), FileError> {
        let (target, link) = (target.clone(), link.clone());
        self.with(move |it| {
            rustix::fs::symlinkat(OsStr::from_bytes(&target), &it.base, real(&link))
        })
        .await
    }

    async fn read_link(&self, path: &Bytes) -> Result<Bytes, FileError> {
        let path = path.clone();
        self.with(move |it| {
            let target = rustix::fs::readlinkat(&it.base, real(&path), Vec::new())?;
            Ok(Bytes::from(target.into_bytes()))
        })
        .await
    }

    async fn canonical(&self, path: &Bytes) -> Result<Bytes, FileError> {
        let path = path.clone();
        self.with(move |it| it.canonical(real(&path))).await
    }

    async fn expand(&self, path: &Bytes) -> Result<Bytes, FileError> {
        let path = path.clone();
        self.with(move |it| {
            let path = real(&path);
            match (path.strip_prefix("~"), &it.home) {
                (Ok(rest), Some(home)) => it.canonical(&home.join(rest)),
                (Ok(_), None) => Err(Errno::NOENT),
                (Err(_), _) => it.canonical(path),
            }
        })
        .await
    }

    async fn hard_link(&self, original: &Bytes, link: &Bytes) -> Result<(), FileError> {
        let (original, link) = (original.clone(), link.clone());
        self.with(move |it| {
            let base = &it.base;
            rustix::fs::linkat(base, real(&original), base, real(&link), AtFlags::empty())
        })
        .await
    }

    async fn file_system(&self, path: &Bytes) -> Result<FileSystem, FileError> {
        let path = path.clone();
        self.with(move |it| {
            let path = it.work_dir.join(real(&path));
            Ok(entries::file_system(&rustix::fs::statvfs(path)?))
        })
        .await
    }
}

impl Shared {
    /// Changes one attribute after the other; as with OpenSSH the last error is told and keeps none of the others from
    /// being changed.
    fn set_attributes(
        &self,
        path: &[u8],
        links: Links,
        attributes: Attributes,
    ) -> rustix::io::Result<()> {
        let path = real(path);
        let mut result = Ok(());
        if let Some(size) = attributes.size {
            result = self.truncate(path, size);
        }
        if let Some(permissions) = attributes.permissions {
            let changed = rustix::fs::chmodat(&self.base, path, mode(permissions), at(links));
            result = changed.and(result);
        }
        if let Some(times) = attributes.times {
            let changed = rustix::fs::utimensat(&self.base, path, &timestamps(times), at(links));
            result = changed.and(result);
        }
        if let Some((user, group)) = attributes.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            let changed = rustix::fs::chownat(&self.base, path, Some(user), Some(group), at(links));
            result = changed.and(result);
        }
        result
    }

    fn truncate(&self, path: &Path, size: u64) -> rustix::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.base, path, flags, Mode::empty())?;
        rustix::fs::ftruncate(file, size)
    }

    /// Renames where nothing is in the way.
    fn rename_to_new(&self, from: &Path, to: &Path) -> rustix::io::Result<()> {
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        {
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(&self.base, from, &self.base, to, flags) {
                // Not every file system can.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
                result => return result,
            }
        }
        match rustix::fs::statat(&self.base, to, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => rustix::fs::renameat(&self.base, from, &self.base, to),
        }
    }

    /// The absolute path without links. Its last part need not be there: clients ask before they create it.
    fn canonical(&self, path: &Path) -> rustix::io::Result<Bytes> {
        let path = self.work_dir.join(path);
        let canonical = match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(Errno::NOENT);
                };
                fs::canonicalize(parent).map(|parent| parent.join(name))
            }
            result => result,
        };
        let canonical = canonical.map_err(|error| errno(&error))?;
        Ok(Bytes::from(canonical.into_os_string().into_vec()))
    }
}

/// A path as the system knows it.
fn real(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn mode(permissions: u32) -> Mode {
    Mode::from_raw_mode(permissions & 0o7777)
}

fn at(links: Links) -> AtFlags {
    match links {
        Links::Followed => AtFlags::empty(),
        Links::Kept => AtFlags::SYMLINK_NOFOLLOW,
    }
}

fn flags(options: OpenOptions) -> OFlags {
    // A FIFO would else keep the thread until somebody opens its other end.
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    flags |= match options.access {
        Access::Read => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
        Access::Write => OFlags::WRONLY,
    };
    if options.writes == Writes::Append {
        flags |= OFlags::APPEND;
    }
    flags |= match options.creation.create {
        Create::Missing => OFlags::CREATE,
        Create::Never => OFlags::empty(),
        Create::New => OFlags::CREATE | OFlags::EXCL,
    };
    if options.creation.contents == Contents::Truncated {
        flags |= OFlags::TRUNC;
    }
    flags
}

fn timestamps((read, changed): (u32, u32)) -> Timestamps {
    let seconds = |seconds: u32| Timespec {
        tv_sec: seconds.into(),
        tv_nsec: 0,
    };
    Timestamps {
        last_access: seconds(read),
        last_modification: seconds(changed),
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The errors of the system as OpenSSH's server tells them.
fn told(error: Errno) -> FileError {
    match error {
        Errno::BADF | Errno::LOOP | Errno::NOENT | Errno::NOTDIR => FileError::NoSuchFile,
        Errno::ACCESS | Errno::FAULT | Errno::PERM => FileError::PermissionDenied,
        Errno::INVAL | Errno::NAMETOOLONG => FileError::BadMessage,
        Errno::NOSYS => FileError::Unsupported,
        _ => FileError::Failure,
    }
}
