//! The work directory's own life: made, locked, wiped.
//!
//! Beside the work directory `D` lies `D.buildlet`, a directory that says that a buildlet made `D` and may wipe it. It also
//! holds the lock that keeps two buildlets apart, and the SSH host key.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use buildlet_proto::RelPath;
use rustix::fs::FlockOperation;

use crate::exec::TMP;
use crate::files::remove_all;
use crate::root::Root;

/// A work directory that is ours as long as this lives.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    state: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// Where the work directory of a host type is by default.
    pub(crate) fn default_path(host_type: &str) -> PathBuf {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        };
        let host_type: String = host_type.chars().map(plain).collect();
        std::env::temp_dir().join(format!("workdir-{host_type}"))
    }

    /// Makes the directory, or wipes it where an earlier buildlet made it.
    ///
    /// # Errors
    ///
    /// Where it holds files and no buildlet made it, where it belongs to another user, or is in use.
    pub(crate) fn prepare(path: &Path) -> anyhow::Result<Self> {
        let name = path
            .file_name()
            .context("the work directory cannot be the root of the system")?;
        let mut state_name = name.to_owned();
        state_name.push(".buildlet");
        let state = path.with_file_name(state_name);

        let ours = match std::fs::symlink_metadata(&state) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(error).with_context(|| format!("reading {}", state.display()));
            }
        };
        check_owner(&state)?;
        check_owner(path)?;
        ensure!(
            ours || is_empty(path)?,
            "{} holds files and was not made by a buildlet, which would wipe it; give another --workdir, or empty it",
            path.display()
        );
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("making {}", parent.display()))?;
        }
        make(&state, 0o700)?;
        let lock = lock(&state.join("lock"))?;
        make(path, 0o755)?;
        remove_all(&Root::new(path), &[RelPath::ROOT])
            .with_context(|| format!("wiping {}", path.display()))?;
        make_inside(path)?;
        Ok(Self {
            path: path.to_owned(),
            state,
            _lock: lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where to keep what outlives a wipe.
    pub(crate) fn state_dir(&self) -> &Path {
        &self.state
    }
}

/// Makes the work directory and `TMPDIR` where they are missing. What a user has put in the place of `TMPDIR` stays.
pub(crate) fn make_inside(work_dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755).create(work_dir)?;
    match builder.recursive(false).create(work_dir.join(TMP)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a directory that another user has put where we expect ours: the system's temporary directory is everybody's.
fn check_owner(path: &Path) -> anyhow::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    ensure!(metadata.is_dir(), "{} is not a directory", path.display());
    let user = rustix::process::geteuid().as_raw();
    ensure!(
        metadata.uid() == user,
        "{} belongs to another user; give another --workdir",
        path.display()
    );
    Ok(())
}

fn is_empty(path: &Path) -> anyhow::Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn make(path: &Path, mode: u32) -> anyhow::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("making {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another buildlet uses this work directory; give another --workdir");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_buildlet_made_is_wiped_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("new/work");
        drop(WorkDir::prepare(&ours).unwrap());
        std::fs::write(ours.join("left"), "over").unwrap();
        drop(WorkDir::prepare(&ours).unwrap());
        assert!(!ours.join("left").exists());

        let theirs = dir.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("thesis"), "dear").unwrap();
        let error = WorkDir::prepare(&theirs).unwrap_err();
        assert!(
            error.to_string().contains("was not made by a buildlet"),
            "{error}"
        );
        assert!(theirs.join("thesis").exists());
    }

    #[test]
    fn two_buildlets_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("work");
        let first = WorkDir::prepare(&path).unwrap();
        let error = WorkDir::prepare(&path).unwrap_err();
        assert!(error.to_string().contains("another buildlet"), "{error}");
        drop(first);
        WorkDir::prepare(&path).unwrap();
    }

    #[test]
    fn a_link_is_no_work_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("work");
        std::os::unix::fs::symlink(dir.path(), &path).unwrap();
        assert!(WorkDir::prepare(&path).is_err());
    }

    #[test]
    fn host_types_cannot_choose_the_directory() {
        let path = WorkDir::default_path("../../etc/x y");
        assert_eq!(path.file_name().unwrap(), "workdir-..-..-etc-x-y");
    }
}
