//! `/ls`: directories as lines of text.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use buildlet_proto::Entry;
use buildlet_proto::api::ListRequest;
use buildlet_proto::list::{EntryKind, mode_string};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustix::fs::FileType;

use crate::walk::{Descend, Found, walk};

/// Writes a line for everything in `dir`.
pub(crate) fn write_listing(
    dir: &OwnedFd,
    request: &ListRequest,
    out: &mut impl Write,
) -> io::Result<()> {
    walk(dir, &mut |found| {
        // A line cannot hold a line feed, nor anything but text.
        let path = String::from_utf8_lossy(found.path).replace('\n', "\u{fffd}");
        let kind = match found.kind() {
            FileType::Directory if request.skip.contains(&path) => return Ok(Descend::No),
            FileType::Directory => EntryKind::Directory,
            FileType::RegularFile => {
                let sha1 = if request.digest { digest(found)? } else { None };
                EntryKind::regular(size(found), modified(found), sha1)
            }
            FileType::BlockDevice
            | FileType::CharacterDevice
            | FileType::Fifo
            | FileType::Socket
            | FileType::Symlink
            | FileType::Unknown => EntryKind::Other,
        };
        writeln!(
            out,
            "{}",
            Entry::new(mode_string(found.stat.st_mode), path, kind)
        )?;
        Ok(if request.recursive {
            Descend::Yes
        } else {
            Descend::No
        })
    })
}

/// The size of a file.
pub(crate) fn size(found: &Found<'_>) -> u64 {
    u64::try_from(found.stat.st_size).unwrap_or(0)
}

/// When a file was last written, in whole seconds; 1970 for what is older.
pub(crate) fn modified(found: &Found<'_>) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(found.stat.st_mtime).unwrap_or(0))
}

fn digest(found: &Found<'_>) -> io::Result<Option<String>> {
    let Some(mut file) = found.open()? else {
        return Ok(None);
    };
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            length => context.update(&chunk[..length]),
        }
    }
    let digest = context.finish();
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    Ok(Some(hex.collect()))
}
