//! Directories, walked without following a link.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::root::DIRECTORY;

/// Something found in a directory.
pub(crate) struct Found<'a> {
    /// The directory that it is in.
    pub(crate) dir: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) name: &'a CStr,
    /// Its path from where the walk began.
    pub(crate) path: &'a [u8],
    pub(crate) stat: Stat,
}

impl Found<'_> {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// Opens it to read; `None` where it has vanished, or become something else, since it was found.
    pub(crate) fn open(&self) -> io::Result<Option<std::fs::File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::openat(self.dir, self.name, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether to look into a directory that was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Descend {
    No,
    Yes,
}

/// Calls `visit` for everything below `dir`, in lexical order, a directory before what it holds. What vanishes during
/// the walk is left out.
pub(crate) fn walk(
    dir: &OwnedFd,
    visit: &mut dyn FnMut(&Found<'_>) -> io::Result<Descend>,
) -> io::Result<()> {
    walk_below(dir.as_fd(), &mut Vec::new(), 0, visit)
}

/// The names in a directory, in lexical order.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn walk_below(
    dir: BorrowedFd<'_>,
    path: &mut Vec<u8>,
    depth: usize,
    visit: &mut dyn FnMut(&Found<'_>) -> io::Result<Descend>,
) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the directories are nested too deep"));
    }
    let above = path.len();
    for name in names(dir)? {
        let stat = match rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if above > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let found = Found {
            dir,
            name: &name,
            path,
            stat,
        };
        if visit(&found)? == Descend::Yes && found.kind() == FileType::Directory {
            match rustix::fs::openat(dir, &name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
                Ok(below) => walk_below(below.as_fd(), path, depth + 1, visit)?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        path.truncate(above);
    }
    Ok(())
}

/// A walk holds one file descriptor and a stack frame for each level; a command can make directories without end.
pub(crate) const MAX_DEPTH: usize = 256;
