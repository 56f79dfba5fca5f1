//! Names of an archive that a machine's file system does not tell apart, such as `README` and `Readme` on macOS.
//!
//! Of two such files the second would silently take the place of the first, and what is built then is not what was sent. What
//! the system takes for the same is asked of the system: it is more than letters' case, and differs from one to the next.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use buildlet_proto::RelPath;
use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;

use crate::root::Root;
use crate::walk::names;

/// Whether the file system tells names apart that differ in letters' case, and what is known where it does not.
#[derive(Debug)]
pub(super) enum Case {
    /// It does not: the paths of the archive's directories, by device and number.
    Folded(HashMap<(u64, u64), RelPath>),
    /// It does, and no two names are the same.
    Kept,
}

impl Case {
    /// Asks the file system of `dir`, which holds `name`, a name in lower case.
    pub(super) fn of(dir: &OwnedFd, name: &str) -> Self {
        match stat(dir, &name.to_uppercase()) {
            Ok(_) => Self::Folded(HashMap::new()),
            Err(_) => Self::Kept,
        }
    }

    /// Refuses `name` where it leads to something of another name.
    pub(super) fn check_taken(&self, dir: &OwnedFd, name: &str) -> io::Result<()> {
        if matches!(self, Self::Kept) {
            return Ok(());
        }
        let taken = match stat(dir, name) {
            Ok(taken) => identity(&taken),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut there = Vec::new();
        for other in names(dir.as_fd())? {
            let other = other.to_string_lossy().into_owned();
            if other == name {
                return Ok(());
            }
            if stat(dir, &other).is_ok_and(|stat| identity(&stat) == taken) {
                there.push(other);
            }
        }
        there.first().map_or(Ok(()), |other| Err(same(other, name)))
    }

    /// Refuses the directory `path` where it, or one above it, is one that the archive has by another name.
    pub(super) fn check_dir(&mut self, root: &Root, path: &RelPath) -> io::Result<()> {
        let Self::Folded(known) = self else {
            return Ok(());
        };
        let mut above = RelPath::ROOT;
        for element in path.elements() {
            above = above.join(element).map_err(io::Error::other)?;
            let stat = rustix::fs::fstat(root.open_dir(&above)?)?;
            let other = known
                .entry(identity(&stat))
                .or_insert_with(|| above.clone());
            // A symbolic link is another way to the same, and no accident.
            let is_same = other.as_str().to_lowercase() == above.as_str().to_lowercase();
            if is_same && *other != above {
                return Err(same(other.as_str(), above.as_str()));
            }
        }
        Ok(())
    }
}

fn stat(dir: &OwnedFd, name: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn same(one: &str, other: &str) -> io::Error {
    io::Error::other(format!(
        "the archive has both {one:?} and {other:?}, and this machine's file system does not tell these names apart"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded() -> Case {
        Case::Folded(HashMap::new())
    }

    #[test]
    fn what_the_file_system_does_is_asked_of_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("name"), "").unwrap();
        let expected = dir.path().join("NAME").exists();
        let open = Root::new(dir.path()).open().unwrap();
        let case = Case::of(&open, "name");
        assert_eq!(matches!(case, Case::Folded(_)), expected);
    }

    /// A second name of a file stands for what a file system does that does not tell the two apart: both lead to one file.
    #[test]
    fn a_name_that_leads_to_another_is_refused_with_both() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("README"), "").unwrap();
        let open = Root::new(dir.path()).open().unwrap();
        folded().check_taken(&open, "README").unwrap();
        folded().check_taken(&open, "none").unwrap();
        let names = ["README", "Readme"];
        let error = same(names[0], names[1]).to_string();
        assert!(names.iter().all(|name| error.contains(name)), "{error}");
    }

    #[test]
    fn a_directory_by_two_paths_is_refused_and_links_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        root.make_dir(&RelPath::new("Src/a").unwrap()).unwrap();
        let mut case = folded();
        let check =
            |case: &mut Case, path: &str| case.check_dir(&root, &RelPath::new(path).unwrap());
        check(&mut case, "Src/a").unwrap();
        check(&mut case, "Src").unwrap();
        std::os::unix::fs::symlink("Src", dir.path().join("other")).unwrap();
        check(&mut case, "other/a").unwrap();
        std::os::unix::fs::symlink("Src", dir.path().join("src")).unwrap();
        let error = check(&mut case, "src/a").unwrap_err().to_string();
        assert!(error.contains("\"Src\" and \"src\""), "{error}");
    }
}
