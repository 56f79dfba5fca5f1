//! An archive becomes a directory.
//!
//! It is unpacked into a directory of its own first, and moved to where it belongs when it was read to its end and found
//! good: an archive that is cut short or refused leaves nothing.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use buildlet_proto::{ApiError, RelPath};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::case::Case;
use super::gzip::GzReader;
use super::reader::{Entry, Kind, TarReader};
use super::sparse::Map;
use super::writer::BLOCK;
use crate::disk::Room;
use crate::files::{failed, remove_tree};
use crate::root::{DIRECTORY, DIRECTORY_MODE, Root, split, unfinished_name};
use crate::walk::names;

/// Unpacks a gzip-compressed tar archive into `dir`, which is made when it is missing.
///
/// Directories get mode 0755, files the archive's permissions and its time, unless that lies ahead. Symbolic links that
/// lead out of the work directory are left out; devices and the like are refused.
pub(crate) fn unpack(
    root: &Root,
    dir: &RelPath,
    archive: impl Read + Send + 'static,
) -> Result<(), ApiError> {
    let generation = root.generation();
    let base = root
        .open()
        .map_err(|error| failed("cannot open the work directory", error))?;
    let staging =
        Staging::create(&base).map_err(|error| failed("cannot make a directory", error))?;
    let mut tar = TarReader::new(gunzip(archive)?);
    let mut staged = Unpacking {
        root: Root::new(&root.path().join(&staging.name)),
        target: dir,
        parent: None,
        case: Case::of(&base, &staging.name),
        room: root
            .room()
            .map_err(|error| failed("cannot open the work directory", error))?,
        buffer: vec![0; 64 * 1024],
    };
    while let Some(entry) = tar.next().map_err(tar_error)? {
        staged.unpack(&entry, &mut tar)?;
    }
    root.put(generation, || {
        root.make_dir(dir)
            .map_err(|error| failed("mkdir of base", error))?;
        let from = staging
            .open()
            .map_err(|error| failed("cannot open a directory", error))?;
        merge(root, dir, from.as_fd())
            .map_err(|error| failed("cannot move the files into place", error))
    })
}

fn gunzip(mut archive: impl Read + Send + 'static) -> Result<GzReader, ApiError> {
    let refused =
        |why: &str| ApiError::bad_request(format!("requires gzip-compressed body: {why}"));
    let mut magic = Vec::new();
    let read = (&mut archive).take(2).read_to_end(&mut magic);
    read.map_err(|error| refused(&error.to_string()))?;
    match magic.as_slice() {
        [0x1f, 0x8b] => GzReader::new(io::Cursor::new(magic).chain(archive))
            .map_err(|error| failed("cannot start a thread", error)),
        [] => Err(refused("EOF")),
        _ => Err(refused("gzip: invalid header")),
    }
}

/// The archive itself is at fault.
fn tar_error(error: io::Error) -> ApiError {
    ApiError::bad_request(format!("tar error: {error}"))
}

/// A directory that is removed with all it holds.
struct Staging<'a> {
    base: &'a OwnedFd,
    name: String,
}

impl<'a> Staging<'a> {
    fn create(base: &'a OwnedFd) -> io::Result<Self> {
        let name = unfinished_name();
        rustix::fs::mkdirat(base, &name, DIRECTORY_MODE)?;
        Ok(Self { base, name })
    }

    fn open(&self) -> io::Result<OwnedFd> {
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(
            self.base,
            &self.name,
            flags,
            Mode::empty(),
        )?)
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        let removed = CString::new(self.name.as_str())
            .map_err(io::Error::from)
            .and_then(|name| remove_tree(self.base.as_fd(), &name));
        if let Err(error) = removed {
            tracing::warn!(%error, "an unfinished directory is left behind");
        }
    }
}

/// An archive on its way into the staging directory.
struct Unpacking<'a> {
    root: Root,
    target: &'a RelPath,
    /// The directory of the last file: most have the same as the one before.
    parent: Option<(RelPath, OwnedFd)>,
    case: Case,
    room: Room,
    buffer: Vec<u8>,
}

impl Unpacking<'_> {
    fn unpack(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), ApiError> {
        let path = relative(&entry.name)?;
        let io_failed = |error| refused(&entry.name, error);
        let Some((parent, name)) = split(&path) else {
            let is_dir = entry.kind == Kind::Directory;
            return is_dir
                .then_some(())
                .ok_or_else(|| invalid_name(&entry.name));
        };
        match &entry.kind {
            Kind::Other(flag) => {
                let name = String::from_utf8_lossy(&entry.name);
                Err(ApiError::bad_request(format!(
                    "tar file entry {name} contained unsupported file type {:?}",
                    char::from(*flag)
                )))
            }
            Kind::Directory => self.make_dir(&path).map(drop).map_err(io_failed),
            Kind::HardLink(to) => {
                let dir = self.make_dir(&parent).map_err(io_failed)?;
                self.hard_link(to, &dir, name).map_err(io_failed)
            }
            Kind::Symlink(to) => {
                // A link may stand where a directory of ours was found through another.
                self.parent = None;
                let dir = self.make_dir(&parent).map_err(io_failed)?;
                self.symlink(to, &parent, &dir, name).map_err(io_failed)
            }
            Kind::Regular => self.file(entry, &parent, name, None, content),
            Kind::Sparse(map) => self.file(entry, &parent, name, Some(map), content),
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        parent: &RelPath,
        name: &str,
        map: Option<&Map>,
        content: &mut impl Read,
    ) -> Result<(), ApiError> {
        let io_failed = |error| refused(&entry.name, error);
        let dir = match self.parent.take() {
            Some((path, dir)) if path == *parent => dir,
            _ => self.make_dir(parent).map_err(io_failed)?,
        };
        // A file without a byte takes room as well.
        self.room.take(BLOCK)?;
        let mut file = create(&self.case, &dir, name).map_err(io_failed)?;
        match map {
            None => self.copy(entry, content, &mut file)?,
            Some(map) => {
                for piece in map.pieces() {
                    file.seek(SeekFrom::Start(piece.offset))
                        .map_err(io_failed)?;
                    self.copy(entry, &mut content.take(piece.length), &mut file)?;
                }
                file.set_len(map.size()).map_err(io_failed)?;
            }
        }
        finish(&file, entry).map_err(io_failed)?;
        self.parent = Some((parent.clone(), dir));
        Ok(())
    }

    /// Copies to the end of `content`, and knows whose fault an error is: reading is the archive's, writing ours.
    fn copy(
        &mut self,
        entry: &Entry,
        content: &mut impl Read,
        file: &mut File,
    ) -> Result<(), ApiError> {
        loop {
            let length = match content.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(tar_error(error)),
            };
            self.room.take(length)?;
            file.write_all(&self.buffer[..length])
                .map_err(|error| refused(&entry.name, error))?;
        }
    }

    fn make_dir(&mut self, path: &RelPath) -> io::Result<OwnedFd> {
        let dir = self.root.make_dir(path)?;
        self.case.check_dir(&self.root, path)?;
        Ok(dir)
    }

    /// Links to what the archive itself has brought.
    fn hard_link(&self, to: &[u8], dir: &OwnedFd, name: &str) -> io::Result<()> {
        let to = relative(to).map_err(io::Error::other)?;
        let (parent, old) = split(&to).ok_or(io::ErrorKind::InvalidInput)?;
        let from = self.root.open_dir(&parent)?;
        self.case.check_taken(dir, name)?;
        unlink(dir, name)?;
        rustix::fs::linkat(&from, old, dir, name, AtFlags::empty())?;
        Ok(())
    }

    fn symlink(&self, to: &[u8], parent: &RelPath, dir: &OwnedFd, name: &str) -> io::Result<()> {
        let inside = std::str::from_utf8(to)
            .ok()
            .filter(|to| !to.starts_with('/'))
            .and_then(|to| {
                let from = self.target.join(parent.as_str()).ok()?;
                RelPath::new(&format!("{from}/{to}")).ok()
            });
        if inside.is_none() {
            tracing::debug!(name, "a symbolic link that leads out is left out");
            return Ok(());
        }
        self.case.check_taken(dir, name)?;
        unlink(dir, name)?;
        rustix::fs::symlinkat(to, dir, name)?;
        Ok(())
    }
}

/// Why an entry was not made. Most often it does not fit to those before it, or to this file system.
fn refused(name: &[u8], error: io::Error) -> ApiError {
    let what = format!("cannot unpack {}", shown(name));
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    let is_the_archives = number.is_none_or(|number| ARCHIVES_FAULT.contains(&number));
    if is_the_archives {
        return ApiError::bad_request(format!("{what}: {error}"));
    }
    failed(&what, error)
}

/// A name of the archive as a path.
fn relative(name: &[u8]) -> Result<RelPath, ApiError> {
    let text = std::str::from_utf8(name).map_err(|_| invalid_name(name))?;
    // A path that only leaves and comes back is as suspicious as one that stays away.
    if text.is_empty() || text.split('/').any(|element| element == "..") {
        return Err(invalid_name(name));
    }
    RelPath::new(text).map_err(|_| invalid_name(name))
}

fn invalid_name(name: &[u8]) -> ApiError {
    let name = shown(name);
    ApiError::bad_request(format!("tar file contained invalid name {name:?}"))
}

/// As much of a name as an error shows.
fn shown(name: &[u8]) -> String {
    let mut name = String::from_utf8_lossy(name).into_owned();
    name.truncate(name.floor_char_boundary(SHOWN_NAME));
    name
}

fn create(case: &Case, dir: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = match rustix::fs::openat(dir, name, flags, mode) {
        Err(Errno::EXIST) => {
            case.check_taken(dir, name)?;
            unlink(dir, name)?;
            rustix::fs::openat(dir, name, flags, mode)
        }
        opened => opened,
    };
    Ok(file?.into())
}

/// Makes room for a later entry of the same name. A directory stays, and stands in the way.
fn unlink(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file its permissions and its time, which is not later than now: make would wait for it.
fn finish(file: &File, entry: &Entry) -> io::Result<()> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let time = Timespec {
        tv_sec: i64::try_from(entry.modified.min(now)).unwrap_or(0),
        tv_nsec: 0,
    };
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode & 0o777))?;
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::futimens(file, &times)?)
}

/// Moves everything in `from` into `target`: what is new there by one rename, what both have file by file.
fn merge(root: &Root, target: &RelPath, from: BorrowedFd<'_>) -> io::Result<()> {
    let to = root.make_dir(target)?;
    for name in names(from)? {
        let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let there = rustix::fs::statat(&to, &name, AtFlags::SYMLINK_NOFOLLOW);
        if is_dir && there.is_ok() {
            let below = name.to_str().map_err(io::Error::other)?;
            let below = target.join(below).map_err(io::Error::other)?;
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let from = rustix::fs::openat(from, &name, flags, Mode::empty())?;
            merge(root, &below, from.as_fd())?;
        } else {
            rustix::fs::renameat(from, &name, &to, &name)?;
        }
    }
    Ok(())
}

/// A file where a directory should be, a link that leads out or in circles, a name that the file system does not take, a
/// hard link to what is not there or may have none.
const ARCHIVES_FAULT: [Errno; 10] = [
    Errno::EXIST,
    Errno::ILSEQ,
    Errno::INVAL,
    Errno::ISDIR,
    Errno::LOOP,
    Errno::NAMETOOLONG,
    Errno::NOENT,
    Errno::NOTDIR,
    Errno::PERM,
    Errno::XDEV,
];

/// How much of a bad name is shown.
const SHOWN_NAME: usize = 200;
