//! The work directory, and paths below it that cannot leave it.
//!
//! A [`RelPath`] keeps its text below the directory; a symbolic link could still lead out. So nothing here is opened by
//! its whole path: Linux resolves it under `RESOLVE_BENEATH`, which follows links only as far as they stay inside, and
//! elsewhere each element is opened on its own and no link is followed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use buildlet_proto::{ApiError, ErrorStatus, RelPath};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::disk::Room;

/// A directory whose inside is offered to others.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    path: PathBuf,
    /// Bytes of its file system that uploads leave free.
    reserve: u64,
    /// How often it was wiped.
    generation: Arc<RwLock<u64>>,
}

impl Root {
    /// Offers `path`, without a reserve of free space.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            reserve: 0,
            generation: Arc::default(),
        }
    }

    /// How often the directory was wiped so far, for [`put`](Self::put).
    pub(crate) fn generation(&self) -> u64 {
        *self
            .generation
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what was uploaded into its place, unless the directory was wiped since `generation`: what one user has sent is
    /// not the next one's. A wipe waits for `work`.
    pub(crate) fn put<T>(
        &self,
        generation: u64,
        work: impl FnOnce() -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let now = self
            .generation
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if *now != generation {
            return Err(ApiError::new(
                ErrorStatus::CONFLICT,
                "the work directory was emptied during the upload",
            ));
        }
        work()
    }

    /// Has every upload that was begun so far fail.
    pub(crate) fn begin_anew(&self) {
        let mut generation = self
            .generation
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *generation += 1;
    }

    /// Lets uploads leave `reserve` bytes of the file system free.
    pub(crate) fn with_reserve(mut self, reserve: u64) -> Self {
        self.reserve = reserve;
        self
    }

    /// Watches the space that an upload takes.
    pub(crate) fn room(&self) -> io::Result<Room> {
        Ok(Room::new(self.open()?, self.reserve))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory itself, and makes it where a command has removed it.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        match rustix::fs::open(&self.path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => {
                std::fs::create_dir_all(&self.path)?;
                Ok(rustix::fs::openat(
                    CWD,
                    &self.path,
                    DIRECTORY,
                    Mode::empty(),
                )?)
            }
            opened => Ok(opened?),
        }
    }

    /// Opens a directory.
    pub(crate) fn open_dir(&self, path: &RelPath) -> io::Result<OwnedFd> {
        let root = self.open()?;
        if path.is_root() {
            return Ok(root);
        }
        beneath(&root, path).map_err(io::Error::from)
    }

    /// Opens a directory, and makes it and those above it where they are missing.
    pub(crate) fn make_dir(&self, path: &RelPath) -> io::Result<OwnedFd> {
        let root = self.open()?;
        if path.is_root() {
            return Ok(root);
        }
        match beneath(&root, path) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(io::Error::from),
        }
        // From the top, one element at a time, each through the root again: a link above may lead elsewhere inside.
        let mut made = RelPath::ROOT;
        let mut dir = root.try_clone()?;
        for element in path.elements() {
            made = made.join(element).map_err(io::Error::other)?;
            dir = match beneath(&root, &made) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&dir, element, DIRECTORY_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    beneath(&root, &made)?
                }
                opened => opened?,
            };
        }
        Ok(dir)
    }
}

/// The directory that holds `path`, and the name in it; `None` for the root, which has none.
pub(crate) fn split(path: &RelPath) -> Option<(RelPath, &str)> {
    if path.is_root() {
        return None;
    }
    match path.as_str().rsplit_once('/') {
        Some((parent, name)) => Some((RelPath::new(parent).ok()?, name)),
        None => Some((RelPath::ROOT, path.as_str())),
    }
}

/// A name that nothing else has, for what is not finished.
pub(crate) fn unfinished_name() -> String {
    format!(".buildlet-{:016x}", rand::random::<u64>())
}

/// Opens the directory at `path` below `root`.
#[cfg(target_os = "linux")]
fn beneath(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    use rustix::fs::ResolveFlags;

    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = rustix::io::retry_on_intr(|| {
        rustix::fs::openat2(root, path.as_str(), DIRECTORY, Mode::empty(), resolve)
    });
    match opened {
        // Linux before 5.6, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => element_wise(root, path),
        opened => opened,
    }
}

/// Opens the directory at `path` below `root`.
#[cfg(not(target_os = "linux"))]
fn beneath(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    element_wise(root, path)
}

fn element_wise(root: &OwnedFd, path: &RelPath) -> Result<OwnedFd, Errno> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let mut dir = rustix::io::fcntl_dupfd_cloexec(root.as_fd(), 0)?;
    for element in path.elements() {
        dir = rustix::fs::openat(&dir, element, flags, Mode::empty())?;
    }
    Ok(dir)
}

/// How directories are opened.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// The permissions of directories that are made: 0755, as Go's buildlets do.
pub(crate) const DIRECTORY_MODE: Mode = Mode::RWXU
    .union(Mode::RGRP)
    .union(Mode::XGRP)
    .union(Mode::ROTH)
    .union(Mode::XOTH);

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    #[test]
    fn links_are_followed_inside_and_not_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(&dir.path().join("work"));
        root.make_dir(&rel("a/b")).unwrap();
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, root.path().join(name)).unwrap();
        };
        link("a", "inside");
        link("..", "above");
        link("/tmp", "absolute");
        link("/proc/self/root", "magic");
        root.open_dir(&rel("inside/b")).unwrap();
        root.make_dir(&rel("inside/c/d")).unwrap();
        assert!(root.path().join("a/c/d").is_dir());
        for out in ["above", "absolute", "magic", "above/work"] {
            assert!(root.open_dir(&rel(out)).is_err(), "{out}");
            assert!(root.make_dir(&rel(&format!("{out}/x"))).is_err(), "{out}");
        }
    }

    #[test]
    fn without_the_system_call_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root.make_dir(&rel("a/b")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        let open = root.open().unwrap();
        assert!(element_wise(&open, &rel("a/b")).is_ok());
        assert!(element_wise(&open, &rel("link/b")).is_err());
    }

    #[test]
    fn a_removed_root_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(&dir.path().join("work"));
        root.open().unwrap();
        std::fs::remove_dir(root.path()).unwrap();
        root.open_dir(&RelPath::ROOT).unwrap();
    }
}
