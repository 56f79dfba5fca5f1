//! Directories, by the lines of the buildlet's listing.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use buildlet_proto::Entry;
use buildlet_proto::api::ByteReader;
use buildlet_proto::list::EntryKind;
use bytes::Bytes;
use sshbridge::sftp::{Attributes, DirectoryEntry, FileError, OpenDirectory};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::AWAY;

/// The lines of a directory, as they arrive.
pub(super) struct Listing {
    lines: BufReader<ByteReader>,
}

impl Listing {
    pub(super) fn new(lines: ByteReader) -> Self {
        Self {
            lines: BufReader::new(lines),
        }
    }

    /// The next entry. Lines that are none are left out, and names that would lead elsewhere: machines may say anything.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>, FileError> {
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut self.lines).take(MAX_LINE);
            let read = limited.read_until(b'\n', &mut line).await;
            if read.map_err(|_| FileError::FailedBecause(AWAY))? == 0 {
                return Ok(None);
            }
            let line = line.strip_suffix(b"\n").ok_or(FileError::Failure)?;
            let entry = str::from_utf8(line).ok().and_then(|it| it.parse().ok());
            if let Some(entry) = entry.filter(|it: &Entry| is_name(&it.path)) {
                return Ok(Some(entry));
            }
        }
    }
}

/// A directory that is open.
pub(super) struct Directory {
    listing: Mutex<Listing>,
    _transfer: OwnedSemaphorePermit,
}

impl Directory {
    pub(super) fn new(listing: Listing, transfer: OwnedSemaphorePermit) -> Self {
        Self {
            listing: Mutex::new(listing),
            _transfer: transfer,
        }
    }
}

#[async_trait]
impl OpenDirectory for Directory {
    async fn next(&self, max: usize) -> Result<Vec<DirectoryEntry>, FileError> {
        let mut listing = self.listing.lock().await;
        let mut entries = Vec::new();
        while entries.len() < max
            && let Some(entry) = listing.next().await?
        {
            entries.push(DirectoryEntry {
                long_name: Bytes::from(long_name(&entry)),
                attributes: attributes(&entry),
                name: Bytes::from(entry.path),
            });
        }
        Ok(entries)
    }
}

/// What is known of an entry.
pub(super) fn attributes(entry: &Entry) -> Attributes {
    let (size, modified) = match &entry.kind {
        EntryKind::Regular { size, modified, .. } => (Some(*size), Some(*modified)),
        EntryKind::Directory | EntryKind::Other | _ => (None, None),
    };
    let times = modified.map(|it| (seconds(it), seconds(it)));
    Attributes {
        size,
        owner: None,
        permissions: Some(mode(&entry.mode)),
        times,
    }
}

pub(super) fn is_directory(attributes: &Attributes) -> bool {
    attributes.permissions.unwrap_or(0) & KIND == DIRECTORY
}

/// A mode of POSIX from what Go prints.
fn mode(text: &str) -> u32 {
    let split = text.len().saturating_sub(9);
    let (letters, permissions) = text.split_at_checked(split).unwrap_or_default();
    let bits = permissions
        .chars()
        .fold(0, |bits, letter| bits << 1 | u32::from(letter != '-'));
    letters.chars().fold(bits, |bits, letter| match letter {
        'd' => bits | DIRECTORY,
        'L' => bits | 0o120_000,
        'D' => bits | 0o060_000,
        // A character device is `Dc`.
        'c' => bits & !KIND | 0o020_000,
        'p' => bits | 0o010_000,
        'S' => bits | 0o140_000,
        'u' => bits | 0o4000,
        'g' => bits | 0o2000,
        't' => bits | 0o1000,
        _ => bits,
    }) | if letters.contains(['d', 'L', 'D', 'c', 'p', 'S']) {
        0
    } else {
        REGULAR
    }
}

/// A line for people, with as much as is known.
fn long_name(entry: &Entry) -> String {
    let (size, time) = match &entry.kind {
        EntryKind::Regular { size, modified, .. } => (
            size.to_string(),
            humantime::format_rfc3339_seconds(*modified).to_string(),
        ),
        EntryKind::Directory | EntryKind::Other | _ => (String::new(), String::new()),
    };
    format!("{:<11} {size:>12} {time:20} {}", entry.mode, entry.path)
}

fn is_name(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '\0'])
}

/// Seconds since 1970, as far as the protocol can say them.
fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// What is said of the work directory, which is in no listing.
pub(super) const ROOT: Attributes = Attributes {
    size: None,
    owner: None,
    permissions: Some(DIRECTORY | 0o755),
    times: None,
};

const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
pub(super) const REGULAR: u32 = 0o100_000;

/// The longest line: a path of 4 KiB, whose every byte may be shown as three, and what stands around it.
const MAX_LINE: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use buildlet_proto::list::mode_string;

    use super::*;

    #[test]
    fn modes_are_what_they_were() {
        for st_mode in [
            0o100_644, 0o040_755, 0o120_777, 0o060_600, 0o010_600, 0o140_700, 0o020_620, 0o041_777,
            0o106_711,
        ] {
            assert_eq!(mode(&mode_string(st_mode)), st_mode, "{st_mode:o}");
        }
    }

    #[tokio::test]
    async fn lines_that_lead_elsewhere_or_make_no_sense_are_left_out() {
        let lines = "drwxr-xr-x\ta/\n-rw-r--r--\t../x\t1\t2026-11-23T15:34:13Z\nnonsense\n-rw-r--r--\tb\t7\t2026-11-23T15:34:13Z\n";
        let mut listing = Listing::new(Box::pin(lines.as_bytes()));
        assert_eq!(listing.next().await.unwrap().unwrap().path, "a");
        let entry = listing.next().await.unwrap().unwrap();
        let attributes = attributes(&entry);
        assert_eq!(
            (attributes.size, attributes.times),
            (Some(7), Some((1_795_448_053, 1_795_448_053)))
        );
        assert_eq!(listing.next().await, Ok(None));
    }

    #[tokio::test]
    async fn a_line_without_end_is_a_failure() {
        let lines = Box::pin(tokio::io::repeat(b'x'));
        let failed = Listing::new(lines).next().await;
        assert_eq!(failed, Err(FileError::Failure));
    }
}
