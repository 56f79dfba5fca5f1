//! Paths that stay below the work directory.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use std::fmt;

/// A clean, relative, slash-separated path that does not leave the directory it is relative to.
///
/// No element is empty, `.` or `..`; there is no backslash (it separates on Windows), no colon in the first element
/// (`C:` names a drive), and no NUL. The directory itself is the empty path, shown as `.`.
///
/// This is a promise about the text alone. A symbolic link below the work directory can still lead out of it: whoever
/// opens the file must resolve it without following links out.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RelPath(String);

impl RelPath {
    /// The work directory itself.
    pub const ROOT: Self = Self(String::new());

    /// Reads a path, dropping empty and `.` elements and resolving `x/..`.
    ///
    /// # Errors
    ///
    /// [`InvalidPath`] where the path is absolute, would leave the directory, or holds a character that some system
    /// gives a meaning to.
    pub fn new(path: &str) -> Result<Self, InvalidPath> {
        if path.starts_with('/') || path.contains(['\\', '\0']) {
            return Err(InvalidPath);
        }
        let mut elements: Vec<&str> = Vec::new();
        for element in path.split('/') {
            match element {
                "" | "." => {}
                ".." => {
                    elements.pop().ok_or(InvalidPath)?;
                }
                _ => elements.push(element),
            }
        }
        if elements.first().is_some_and(|first| first.contains(':')) {
            return Err(InvalidPath);
        }
        Ok(Self(elements.join("/")))
    }

    /// Whether this is the work directory itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path as text; `.` for the work directory itself.
    pub fn as_str(&self) -> &str {
        if self.is_root() { "." } else { &self.0 }
    }

    /// The elements of the path, from the top; none for the work directory itself.
    pub fn elements(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|element| !element.is_empty())
    }

    /// The path below this one.
    ///
    /// # Errors
    ///
    /// As [`RelPath::new`]; `path` may not climb above `self`.
    pub fn join(&self, path: &str) -> Result<Self, InvalidPath> {
        let below = Self::new(path)?;
        if self.is_root() {
            return Ok(below);
        }
        if below.is_root() {
            return Ok(self.clone());
        }
        Ok(Self(format!("{}/{}", self.0, below.0)))
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A path that is absolute, leaves its directory, or holds a forbidden character.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the path must be relative, with forward slashes, and stay below the work directory")]
#[non_exhaustive]
pub struct InvalidPath;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clean_paths_are_kept() {
        for (given, want) in [
            ("a/b", "a/b"),
            ("", "."),
            (".", "."),
            ("a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
        ] {
            assert_eq!(RelPath::new(given).unwrap().as_str(), want, "{given:?}");
        }
    }

    #[test]
    fn paths_that_leave_are_refused() {
        for given in [
            "..", "../x", "a/../..", "/etc", "a\\b", "C:/x", "C:", "a\0b",
        ] {
            assert_eq!(RelPath::new(given), Err(InvalidPath), "{given:?}");
        }
    }

    #[test]
    fn join_stays_below() {
        let base = RelPath::new("a/b").unwrap();
        assert_eq!(base.join("c").unwrap().as_str(), "a/b/c");
        assert_eq!(base.join("").unwrap(), base);
        assert_eq!(base.join("../c"), Err(InvalidPath));
    }

    proptest! {
        #[test]
        fn no_element_is_special(path in "[a./\\\\:]{0,12}") {
            if let Ok(path) = RelPath::new(&path) {
                prop_assert!(path.elements().all(|e| !matches!(e, "" | "." | "..") && !e.contains('\\')));
                prop_assert_eq!(RelPath::new(path.as_str()).unwrap(), path);
            }
        }
    }
}
