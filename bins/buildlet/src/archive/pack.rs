//! A directory becomes an archive.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::FileType;

use super::writer::{EntryType, Meta, TarWriter};
use crate::listing::{modified, size};
use crate::walk::{Descend, Found, walk};

/// Writes everything below `dir`. Sockets, pipes and devices are left out: they mean nothing elsewhere.
pub(crate) fn pack(dir: &OwnedFd, out: &mut impl Write) -> io::Result<()> {
    let mut tar = TarWriter::new(GzEncoder::new(out, Compression::fast()));
    walk(dir, &mut |found| {
        append(&mut tar, found)?;
        Ok(Descend::Yes)
    })?;
    tar.finish()?.finish()?;
    Ok(())
}

fn append(tar: &mut TarWriter<impl Write>, found: &Found<'_>) -> io::Result<()> {
    let since = modified(found)
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let meta = |entry_type, size| Meta {
        entry_type,
        mode: found.stat.st_mode & 0o7777,
        size,
        modified: since.as_secs(),
    };
    match found.kind() {
        FileType::Directory => {
            let path = [found.path, b"/"].concat();
            tar.append(&path, b"", meta(EntryType::Directory, 0), &mut io::empty())
        }
        FileType::RegularFile => match found.open()? {
            Some(mut file) => {
                let meta = meta(EntryType::Regular, size(found));
                tar.append(found.path, b"", meta, &mut file)
            }
            None => Ok(()),
        },
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(found.dir, found.name, Vec::new())?;
            let meta = meta(EntryType::Symlink, 0);
            tar.append(found.path, link.to_bytes(), meta, &mut io::empty())
        }
        FileType::BlockDevice
        | FileType::CharacterDevice
        | FileType::Fifo
        | FileType::Socket
        | FileType::Unknown => Ok(()),
    }
}
