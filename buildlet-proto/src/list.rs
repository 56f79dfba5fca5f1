//! Listings, one text line an entry, as Go's buildlets write them.

use std::time::SystemTime;

/// One line of a listing.
///
/// On the wire: the mode as Go prints an `os.FileMode`, a tab, and the path; a directory's path ends in `/`; a regular
/// file goes on with a tab and its size, a tab and its modification time (RFC 3339, UTC, whole seconds), and, where
/// asked for, a tab and its SHA-1 in lower-case hex.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The permissions and kind, as Go prints them: `-rw-r--r--`, `drwxr-xr-x`, `Lrwxrwxrwx`, `dtrwxrwxrwx`.
    pub mode: String,
    /// The path relative to the listed directory, without a trailing slash.
    pub path: String,
    /// What more there is to say, by kind.
    pub kind: EntryKind,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A symbolic link, a device, a socket or a pipe.
    Other,
    /// A regular file.
    #[non_exhaustive]
    Regular {
        /// The size in bytes.
        size: u64,
        /// When the content was last written.
        modified: SystemTime,
        /// The SHA-1 of the content, in lower-case hex.
        sha1: Option<String>,
    },
}
