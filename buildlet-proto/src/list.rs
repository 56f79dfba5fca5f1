//! Listings, one text line an entry, as Go's buildlets write them.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One line of a listing.
///
/// On the wire: the mode as Go prints an `os.FileMode`, a tab, and the path; a directory's path ends in `/`; a regular
/// file goes on with a tab and its size, a tab and its modification time (RFC 3339, UTC, whole seconds), and, where
/// asked for, a tab and its SHA-1 in lower-case hex.
///
/// [`Display`](fmt::Display) and [`FromStr`] write and read such a line, without the line feed that ends it. A path that
/// holds a line feed cannot be listed, and a tab in a path only where it is not a regular file's.
///
/// ```
/// use buildlet_proto::Entry;
///
/// let line = "-rw-r--r--\ta/b.txt\t5\t2026-11-23T15:34:13Z";
/// let entry: Entry = line.parse()?;
/// assert_eq!(entry.path, "a/b.txt");
/// assert_eq!(entry.to_string(), line);
/// # Ok::<(), buildlet_proto::list::BadLine>(())
/// ```
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

impl Entry {
    /// An entry with the mode string `mode`, as [`mode_string`] makes it.
    pub fn new(mode: impl Into<String>, path: impl Into<String>, kind: EntryKind) -> Self {
        Self {
            mode: mode.into(),
            path: path.into(),
            kind,
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\t{}", self.mode, self.path)?;
        match &self.kind {
            EntryKind::Directory => f.write_str("/"),
            EntryKind::Other => Ok(()),
            EntryKind::Regular {
                size,
                modified,
                sha1,
            } => {
                write!(f, "\t{size}\t{}", Rfc3339(*modified))?;
                sha1.iter().try_for_each(|sha1| write!(f, "\t{sha1}"))
            }
        }
    }
}

impl FromStr for Entry {
    type Err = BadLine;

    fn from_str(line: &str) -> Result<Self, BadLine> {
        let (mode, rest) = line.split_once('\t').ok_or(BadLine)?;
        let special = mode.strip_suffix(is_permission).is_some();
        if mode.len() < 10 || !special || !mode.is_ascii() || line.contains('\n') {
            return Err(BadLine);
        }
        let (path, kind) = if mode.starts_with('d') {
            let path = rest.strip_suffix('/').ok_or(BadLine)?;
            (path, EntryKind::Directory)
        } else if is_regular(mode) {
            parse_regular(rest)?
        } else {
            (rest, EntryKind::Other)
        };
        if path.is_empty() {
            return Err(BadLine);
        }
        Ok(Self::new(mode, path, kind))
    }
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

impl EntryKind {
    /// A regular file of `size` bytes, last written at `modified`.
    pub fn regular(size: u64, modified: SystemTime, sha1: Option<String>) -> Self {
        Self::Regular {
            size,
            modified,
            sha1,
        }
    }
}

/// Writes the `st_mode` of a Unix file as Go writes an `os.FileMode`: letters for the kind and the special bits, `-` where
/// there are none, then nine for the permissions.
pub fn mode_string(st_mode: u32) -> String {
    let mut mode = String::with_capacity(12);
    mode.push_str(match st_mode & 0o170_000 {
        0o040_000 => "d",
        0o120_000 => "L",
        0o060_000 => "D",
        0o010_000 => "p",
        0o140_000 => "S",
        0o020_000 => "Dc",
        _ => "",
    });
    for (bit, letter) in [(0o4000, 'u'), (0o2000, 'g'), (0o1000, 't')] {
        if st_mode & bit != 0 {
            mode.push(letter);
        }
    }
    if mode.is_empty() {
        mode.push('-');
    }
    for (position, letter) in PERMISSIONS.chars().enumerate() {
        let set = st_mode & (0o400 >> position) != 0;
        mode.push(if set { letter } else { '-' });
    }
    mode
}

/// A line that is not an entry of a listing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a line of a directory listing")]
#[non_exhaustive]
pub struct BadLine;

fn parse_regular(rest: &str) -> Result<(&str, EntryKind), BadLine> {
    let (rest, sha1) = match rest.rsplit_once('\t') {
        Some((rest, last)) if is_sha1(last) => (rest, Some(last.to_owned())),
        _ => (rest, None),
    };
    let (rest, modified) = rest.rsplit_once('\t').ok_or(BadLine)?;
    let (path, size) = rest.rsplit_once('\t').ok_or(BadLine)?;
    let kind = EntryKind::Regular {
        size: size.parse().map_err(|_| BadLine)?,
        modified: parse_rfc3339(modified).ok_or(BadLine)?,
        sha1,
    };
    Ok((path, kind))
}

fn is_sha1(field: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    field.len() == 40 && field.bytes().all(hex)
}

/// Whether nothing but special bits stands before the nine permissions.
fn is_regular(mode: &str) -> bool {
    let letters = mode.get(..mode.len() - PERMISSIONS.len());
    letters.is_some_and(|letters| letters.chars().all(|c| matches!(c, '-' | 'u' | 'g' | 't')))
}

fn is_permission(letter: char) -> bool {
    matches!(letter, 'r' | 'w' | 'x' | '-')
}

/// A time as `2026-11-23T15:34:13Z`; times before 1970 are shown as 1970.
struct Rfc3339(SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs().min(LAST_SECOND);
        let (year, month, day) = civil_from_days(seconds / DAY);
        let (hour, minute, second) = (seconds % DAY / 3600, seconds % 3600 / 60, seconds % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let shape = text.len() == 20
        && text
            .bytes()
            .zip(b"0000-00-00T00:00:00Z")
            .all(|(byte, &like)| {
                if like == b'0' {
                    byte.is_ascii_digit()
                } else {
                    byte == like
                }
            });
    if !shape {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01. The algorithm is Howard Hinnant's
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`], `None` for a day that the calendar does not have.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let shifted_year = year - u64::from(month <= 2);
    let (era, of_era) = (shifted_year / 400, shifted_year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = days.checked_sub(719_468)?;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

const DAY: u64 = 86_400;

/// 9999-12-31T23:59:59Z, the last that has four digits for its year.
const LAST_SECOND: u64 = 253_402_300_799;

const PERMISSIONS: &str = "rwxrwxrwx";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn modes_are_written_as_go_writes_them() {
        for (mode, want) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o104_755, "urwxr-xr-x"),
            (0o010_600, "prw-------"),
            (0o140_600, "Srw-------"),
            (0o020_620, "Dcrw--w----"),
            (0o060_660, "Drw-rw----"),
        ] {
            assert_eq!(mode_string(mode), want);
        }
    }

    #[test]
    fn lines_of_a_go_buildlet_are_read_and_written_back() {
        for line in [
            "-rw-r--r--\ta/b.txt\t5\t2026-11-23T15:34:13Z\taaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
            "-rw-r--r--\ta/b.txt\t5\t2026-11-23T15:34:13Z",
            "drwxr-xr-x\ta/",
            "dtrwxrwxrwx\ttmp/",
            "Lrwxrwxrwx\ta/l",
        ] {
            assert_eq!(line.parse::<Entry>().unwrap().to_string(), line);
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "Walk error: permission denied",
            "-rw-r--r--",
            "-rw-r--r--\t",
            "-rw-r--r--\ta",
            "-rw-r--r--\ta\t5",
            "-rw-r--r--\ta\t-5\t2026-11-23T15:34:13Z",
            "-rw-r--r--\ta\t5\t2026-02-30T15:34:13Z",
            "-rw-r--r--\ta\t5\t2026-13-01T15:34:13Z",
            "-rw-r--r--\t\t5\t2026-11-23T15:34:13Z",
            "drwxr-xr-x\ta",
            "drwxr-xr-x\t/",
            "rw\ta\t5\t2026-11-23T15:34:13Z",
        ] {
            assert_eq!(line.parse::<Entry>(), Err(BadLine), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn entries_survive_the_wire(
            mode in 0_u32..0o200_000, path in "[^\n]{1,20}", size: u64, seconds in 0..=LAST_SECOND,
            sha1 in proptest::option::of("[0-9a-f]{40}"),
        ) {
            let modified = UNIX_EPOCH + Duration::from_secs(seconds);
            let kind = match mode & 0o170_000 {
                0o040_000 => EntryKind::Directory,
                0o120_000 | 0o060_000 | 0o010_000 | 0o140_000 | 0o020_000 => EntryKind::Other,
                _ => EntryKind::Regular { size, modified, sha1 },
            };
            let entry = Entry::new(mode_string(mode), path, kind);
            prop_assert_eq!(entry.to_string().parse::<Entry>().unwrap(), entry);
        }

        #[test]
        fn no_line_panics(line in "[-dLrwx]{0,11}\t?.{0,20}\t?[0-9TZ:-]{0,21}") {
            drop(line.parse::<Entry>());
        }
    }
}
