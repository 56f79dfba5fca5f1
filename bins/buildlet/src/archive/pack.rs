//! A directory becomes an archive.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, FileType};

use super::gzip::GzWriter;
use super::sparse::Map;
use super::writer::{EntryType, Meta, TarWriter};
use crate::listing::{modified, size};
use crate::walk::{Descend, Found, walk};

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Members {
    /// In pieces, on all processors.
    Many,
    /// As one gzip member.
    One,
}

/// Writes everything below `dir`. Sockets, pipes and devices are left out: they mean nothing elsewhere.
pub(crate) fn pack(dir: &OwnedFd, members: Members, out: &mut impl Write) -> io::Result<()> {
    match members {
        Members::Many => pack_into(dir, GzWriter::new(out)?)?.finish()?,
        Members::One => pack_into(dir, GzEncoder::new(out, Compression::fast()))?.finish()?,
    };
    Ok(())
}

/// Writes the regular file `name` of `dir` alone, without a name, which nothing below a directory is. Holes are zeros:
/// whoever asks for one file wants its bytes.
pub(crate) fn pack_file(
    dir: &OwnedFd,
    name: &str,
    members: Members,
    out: &mut impl Write,
) -> io::Result<()> {
    match members {
        Members::Many => pack_file_into(dir, name, GzWriter::new(out)?)?.finish()?,
        Members::One => {
            let out = GzEncoder::new(out, Compression::fast());
            pack_file_into(dir, name, out)?.finish()?
        }
    };
    Ok(())
}

fn pack_into<W: Write>(dir: &OwnedFd, out: W) -> io::Result<W> {
    let mut packing = Packing {
        tar: TarWriter::new(out),
        linked: HashMap::new(),
    };
    walk(dir, &mut |found| {
        packing.append(found)?;
        Ok(Descend::Yes)
    })?;
    packing.tar.finish()
}

fn pack_file_into<W: Write>(dir: &OwnedFd, name: &str, out: W) -> io::Result<W> {
    let name = CString::new(name)?;
    let stat = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    let found = Found {
        dir: dir.as_fd(),
        name: &name,
        path: b"",
        stat,
    };
    if found.kind() != FileType::RegularFile {
        return Err(io::Error::other("neither a directory nor a regular file"));
    }
    let mut file = found.open()?.ok_or(io::ErrorKind::NotFound)?;
    let mut tar = TarWriter::new(out);
    let meta = meta(&found, EntryType::Regular, size(&found));
    tar.append(found.path, b"", meta, &mut file)?;
    tar.finish()
}

/// An archive that is being written.
struct Packing<W: Write> {
    tar: TarWriter<W>,
    /// Where files that have several names are in the archive, by device and number.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packing<W> {
    fn append(&mut self, found: &Found<'_>) -> io::Result<()> {
        let meta = |entry_type, size| meta(found, entry_type, size);
        match found.kind() {
            FileType::Directory => {
                let path = [found.path, b"/"].concat();
                let meta = meta(EntryType::Directory, 0);
                self.tar.append(&path, b"", meta, &mut io::empty())
            }
            FileType::RegularFile => self.append_file(found),
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(found.dir, found.name, Vec::new())?;
                let meta = meta(EntryType::Symlink, 0);
                let link = link.to_bytes();
                self.tar.append(found.path, link, meta, &mut io::empty())
            }
            FileType::BlockDevice
            | FileType::CharacterDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Unknown => Ok(()),
        }
    }

    fn append_file(&mut self, found: &Found<'_>) -> io::Result<()> {
        let number = (found.stat.st_dev, found.stat.st_ino);
        if let Some(first) = self.linked.get(&number) {
            let meta = meta(found, EntryType::HardLink, 0);
            return self.tar.append(found.path, first, meta, &mut io::empty());
        }
        let Some(mut file) = found.open()? else {
            return Ok(());
        };
        let meta = meta(found, EntryType::Regular, size(found));
        match holes(found, &mut file)? {
            Some(map) => self.tar.append_sparse(found.path, meta, &map, &mut file)?,
            None => self.tar.append(found.path, b"", meta, &mut file)?,
        }
        if found.stat.st_nlink > 1 && self.linked.len() < MAX_LINKED {
            self.linked.insert(number, found.path.to_vec());
        }
        Ok(())
    }
}

fn meta(found: &Found<'_>, entry_type: EntryType, size: u64) -> Meta {
    let since = modified(found)
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Meta {
        entry_type,
        mode: found.stat.st_mode & 0o7777,
        size,
        modified: since.as_secs(),
    }
}

/// What to keep of a file with holes; `None` where all of it is to be written.
#[cfg(any(target_os = "freebsd", target_os = "linux"))]
fn holes(found: &Found<'_>, file: &mut File) -> io::Result<Option<Map>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    use super::sparse::{MAX_PIECES, Piece};

    let size = size(found);
    let blocks = u64::try_from(found.stat.st_blocks).unwrap_or(0);
    if blocks.saturating_mul(512) >= size {
        return Ok(None);
    }
    let (mut pieces, mut at) = (Vec::new(), 0);
    while at < size {
        let offset = match seek(&*file, SeekFrom::Data(at)) {
            Ok(offset) if offset < size => offset,
            // Nothing but a hole follows.
            Ok(_) | Err(Errno::NXIO) => break,
            // A file system that knows of no holes.
            Err(_) => return whole(file),
        };
        at = seek(&*file, SeekFrom::Hole(offset))?.min(size);
        if at <= offset || pieces.len() == MAX_PIECES {
            return whole(file);
        }
        let length = at - offset;
        pieces.push(Piece { offset, length });
    }
    // GNU tar finds the end of the file by its last piece.
    if pieces
        .last()
        .is_none_or(|last| last.offset + last.length < size)
    {
        let (offset, length) = (size, 0);
        pieces.push(Piece { offset, length });
    }
    Map::new(pieces, size).map(Some)
}

/// What to keep of a file with holes; `None` where all of it is to be written.
#[cfg(not(any(target_os = "freebsd", target_os = "linux")))]
fn holes(_: &Found<'_>, _: &mut File) -> io::Result<Option<Map>> {
    Ok(None)
}

#[cfg(any(target_os = "freebsd", target_os = "linux"))]
fn whole(file: &mut File) -> io::Result<Option<Map>> {
    io::Seek::rewind(file)?;
    Ok(None)
}

/// Files with several names whose names are remembered, which takes some tens of megabytes at most; further ones are
/// written once for each name.
const MAX_LINKED: usize = 100_000;
