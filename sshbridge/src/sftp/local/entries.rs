use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, Dir, Stat, StatVfs, statat};

use super::blocking;
use super::names::Names;
use crate::sftp::{Attributes, DirectoryEntry, FileError, FileSystem, OpenDirectory};

/// A directory that is open on this machine.
#[derive(Debug)]
pub(super) struct LocalDirectory {
    reading: Arc<Mutex<Reading>>,
}

#[derive(Debug)]
struct Reading {
    entries: Dir,
    names: Names,
}

impl LocalDirectory {
    pub(super) fn new(directory: OwnedFd) -> rustix::io::Result<Self> {
        let reading = Reading {
            entries: Dir::new(directory)?,
            names: Names::default(),
        };
        Ok(Self {
            reading: Arc::new(Mutex::new(reading)),
        })
    }
}

#[async_trait]
impl OpenDirectory for LocalDirectory {
    async fn next(&self, max: usize) -> Result<Vec<DirectoryEntry>, FileError> {
        let reading = self.reading.clone();
        blocking(move || {
            let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.next(max)
        })
        .await
    }
}

impl Reading {
    /// The entries, without those that are gone by the time that they are looked at.
    fn next(&mut self, max: usize) -> rustix::io::Result<Vec<DirectoryEntry>> {
        let mut found = Vec::new();
        while found.len() < max
            && let Some(entry) = self.entries.read()
        {
            let entry = entry?;
            let name = entry.file_name();
            let directory = self.entries.fd()?;
            let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let long_name = self.names.long_name(name.to_bytes(), &stat);
            found.push(DirectoryEntry {
                name: Bytes::copy_from_slice(name.to_bytes()),
                long_name: Bytes::from(long_name),
                attributes: attributes(&stat),
            });
        }
        Ok(found)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the protocol has 32 bits for times"
)]
pub(super) fn attributes(stat: &Stat) -> Attributes {
    Attributes {
        size: u64::try_from(stat.st_size).ok(),
        owner: Some((stat.st_uid, stat.st_gid)),
        permissions: Some(stat.st_mode),
        times: Some((stat.st_atime as u32, stat.st_mtime as u32)),
    }
}

pub(super) fn file_system(system: &StatVfs) -> FileSystem {
    let flag = |set: bool, bit: u64| if set { bit } else { 0 };
    let has = |it: rustix::fs::StatVfsMountFlags| system.f_flag.contains(it);
    FileSystem {
        block_size: system.f_bsize,
        fragment_size: system.f_frsize,
        blocks: system.f_blocks,
        free_blocks: system.f_bfree,
        available_blocks: system.f_bavail,
        files: system.f_files,
        free_files: system.f_ffree,
        available_files: system.f_favail,
        id: system.f_fsid,
        flags: flag(has(rustix::fs::StatVfsMountFlags::RDONLY), 1)
            | flag(has(rustix::fs::StatVfsMountFlags::NOSUID), 2),
        max_name: system.f_namemax,
    }
}
