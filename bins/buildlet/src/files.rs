//! `/write` and `/removeall`: files made and removed.

use std::ffi::CStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use buildlet_proto::{ApiError, ErrorStatus, RelPath};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::disk::Room;
use crate::root::{DIRECTORY, Root, split, unfinished_name};
use crate::walk::{MAX_DEPTH, names};

/// Writes a file whole or not at all: under another name first, then renamed.
pub(crate) fn write_file(
    root: &Root,
    path: &RelPath,
    mode: u32,
    content: &mut impl Read,
) -> Result<(), ApiError> {
    let Some((parent, name)) = split(path) else {
        return Err(ApiError::bad_request("bad path"));
    };
    let generation = root.generation();
    let dir = root
        .make_dir(&parent)
        .map_err(|error| failed("cannot make the directory", error))?;
    let mut file =
        Unfinished::create(&dir).map_err(|error| failed("cannot make the file", error))?;
    let mut room = root
        .room()
        .map_err(|error| failed("cannot open the work directory", error))?;
    copy(content, &mut file.file, &mut room)?;
    root.put(generation, || {
        file.finish(Mode::from_raw_mode(mode), name)
            .map_err(|error| failed("cannot write the file", error))
    })
}

/// Removes files and directories; the root is emptied. What is not there is removed already.
pub(crate) fn remove_all(root: &Root, paths: &[RelPath]) -> Result<(), ApiError> {
    for path in paths {
        remove(root, path).map_err(|error| failed(&format!("cannot remove {path}"), error))?;
    }
    Ok(())
}

fn remove(root: &Root, path: &RelPath) -> io::Result<()> {
    let Some((parent, name)) = split(path) else {
        return empty(root.open()?.as_fd(), 0);
    };
    let dir = match root.open_dir(&parent) {
        Ok(dir) => dir,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let name = std::ffi::CString::new(name)?;
    remove_tree(dir.as_fd(), &name)
}

/// Removes `name` from `dir`, with all it holds, whatever the permissions of what it holds.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    remove_below(dir, name, 0)
}

fn remove_below(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
    match unlink(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR; POSIX, and macOS with it, EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    if depth > MAX_DEPTH {
        return Err(io::Error::other("the directories are nested too deep"));
    }
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let below = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(dir, name, flags, Mode::empty())?
        }
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    empty(below.as_fd(), depth + 1)?;
    match unlink(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn empty(dir: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    for name in names(dir)? {
        remove_below(dir, &name, depth)?;
    }
    Ok(())
}

/// Unlinks, if need be after making the directory writable.
fn unlink(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(dir, Mode::RWXU)?;
            rustix::fs::unlinkat(dir, name, flags)
        }
        result => result,
    }
}

/// A file under a name of its own, which is removed unless it is finished.
pub(crate) struct Unfinished<'a> {
    pub(crate) file: std::fs::File,
    dir: &'a OwnedFd,
    name: Option<String>,
}

impl<'a> Unfinished<'a> {
    pub(crate) fn create(dir: &'a OwnedFd) -> io::Result<Self> {
        let name = unfinished_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Self {
            file: file.into(),
            dir,
            name: Some(name),
        })
    }

    /// Gives the file its permissions and its name, in place of what has the name.
    fn finish(mut self, mode: Mode, name: &str) -> io::Result<()> {
        rustix::fs::fchmod(&self.file, mode)?;
        if let Some(unfinished) = self.name.as_ref() {
            rustix::fs::renameat(self.dir, unfinished, self.dir, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = rustix::fs::unlinkat(self.dir, name, AtFlags::empty());
        }
    }
}

/// Copies to the end, and knows whose fault an error is: reading is the client's, writing ours.
fn copy(from: &mut impl Read, to: &mut impl Write, room: &mut Room) -> Result<(), ApiError> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(ApiError::bad_request(format!(
                    "the upload was cut: {error}"
                )));
            }
        };
        room.take(length)?;
        to.write_all(&chunk[..length])
            .map_err(|error| failed("cannot write the file", error))?;
    }
}

/// Our failure, with the system's reason: whoever leases the machine has to know that its disk is full.
pub(crate) fn failed(what: &str, error: io::Error) -> ApiError {
    let is_full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let refused = if is_full {
        ApiError::new(
            ErrorStatus::INSUFFICIENT_STORAGE,
            format!("the machine's disk is full: {what}: {error}"),
        )
    } else {
        ApiError::internal(format!("{what}: {error}"))
    };
    refused.because(error)
}
