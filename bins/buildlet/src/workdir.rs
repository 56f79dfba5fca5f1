//! The work directory's own life: made, locked, wiped.
//!
//! Beside the work directory `D` lies `D.buildlet`, a directory that says that a buildlet made `D` and may wipe it. It also
//! holds the lock that keeps two buildlets apart, and the SSH host key.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    mark: String,
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

    /// Makes the directory, or takes it over where an earlier buildlet made it, with all it holds.
    ///
    /// # Errors
    ///
    /// Where it holds files and no buildlet made it, where it belongs to another user, or stays in use.
    pub(crate) async fn claim(path: &Path) -> anyhow::Result<Self> {
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
        let lock = lock(&state.join("lock")).await?;
        let mark = mark(&state.join("mark"))?;
        make(path, 0o755)?;
        Ok(Self {
            path: path.to_owned(),
            state,
            mark,
            _lock: lock,
        })
    }

    /// Removes what it holds, and makes what belongs into it.
    pub(crate) fn wipe(&self) -> anyhow::Result<()> {
        remove_all(&Root::new(&self.path), &[RelPath::ROOT])
            .with_context(|| format!("wiping {}", self.path.display()))?;
        Ok(make_inside(&self.path)?)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A word that no other work directory has, from its first buildlet to its last.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
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

/// Reads the mark, or makes it where there is none.
fn mark(path: &Path) -> anyhow::Result<String> {
    let is_mark = |text: &String| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(mark) = std::fs::read_to_string(path).ok().filter(is_mark) {
        return Ok(mark);
    }
    let mark = format!("{:032x}", rand::random::<u128>());
    std::fs::write(path, &mark).with_context(|| format!("writing {}", path.display()))?;
    Ok(mark)
}

/// Waits for a while, because a buildlet that was killed holds its lock until the system has cleared up after it.
async fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    let locked = async {
        while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
    };
    if tokio::time::timeout(LOCK_LIMIT, locked).await.is_err() {
        bail!("another buildlet uses this work directory; give another --workdir");
    }
    Ok(file)
}

const LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// More than a process takes to end.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    async fn prepare(path: &Path) -> anyhow::Result<WorkDir> {
        let work_dir = WorkDir::claim(path).await?;
        work_dir.wipe()?;
        Ok(work_dir)
    }

    #[tokio::test(start_paused = true)]
    async fn the_mark_stays_and_is_the_directorys_own() {
        let dir = tempfile::tempdir().unwrap();
        let mark = async |name: &str| {
            let work_dir = prepare(&dir.path().join(name)).await.unwrap();
            work_dir.mark().to_owned()
        };
        let first = mark("a").await;
        assert_eq!(mark("a").await, first);
        assert_ne!(mark("b").await, first);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_buildlet_made_is_wiped_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("new/work");
        drop(prepare(&ours).await.unwrap());
        std::fs::write(ours.join("left"), "over").unwrap();
        drop(prepare(&ours).await.unwrap());
        assert!(!ours.join("left").exists());

        let theirs = dir.path().join("theirs");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("thesis"), "dear").unwrap();
        let error = prepare(&theirs).await.unwrap_err();
        assert!(
            error.to_string().contains("was not made by a buildlet"),
            "{error}"
        );
        assert!(theirs.join("thesis").exists());
    }

    #[tokio::test(start_paused = true)]
    async fn two_buildlets_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("work");
        let first = prepare(&path).await.unwrap();
        let error = prepare(&path).await.unwrap_err();
        assert!(error.to_string().contains("another buildlet"), "{error}");
        drop(first);
        prepare(&path).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_buildlet_that_is_about_to_end_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("work");
        let first = prepare(&path).await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(LOCK_LIMIT / 2).await;
            drop(first);
        });
        prepare(&path).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_no_work_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("work");
        std::os::unix::fs::symlink(dir.path(), &path).unwrap();
        assert!(prepare(&path).await.is_err());
    }

    #[test]
    fn host_types_cannot_choose_the_directory() {
        let path = WorkDir::default_path("../../etc/x y");
        assert_eq!(path.file_name().unwrap(), "workdir-..-..-etc-x-y");
    }
}
