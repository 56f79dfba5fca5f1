//! Lines as from `ls -l`.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};

use crate::machine::platform;

/// The names of users and groups, each asked for once.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// The line that OpenSSH's server makes.
    pub(super) fn long_name(&mut self, name: &[u8], stat: &Stat) -> Vec<u8> {
        let user = self.users.entry(stat.st_uid);
        let user = user.or_insert_with(|| named(platform::user_name(stat.st_uid), stat.st_uid));
        let group = self.groups.entry(stat.st_gid);
        let group = group.or_insert_with(|| named(platform::group_name(stat.st_gid), stat.st_gid));
        let line = format!(
            "{} {:>3} {user:<8} {group:<8} {:>8} {} ",
            mode(stat.st_mode),
            stat.st_nlink,
            stat.st_size,
            time(stat.st_mtime, now()),
        );
        let mut line = line.into_bytes();
        line.extend_from_slice(name);
        line
    }
}

fn named(name: Option<String>, number: u32) -> String {
    name.unwrap_or_else(|| number.to_string())
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed.map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX))
}

/// The kind of file and who may do what with it, as POSIX's `ls -l` writes them.
fn mode(mode: u32) -> String {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::BlockDevice => 'b',
        FileType::CharacterDevice => 'c',
        FileType::Directory => 'd',
        FileType::Fifo => 'p',
        FileType::RegularFile => '-',
        FileType::Socket => 's',
        FileType::Symlink => 'l',
        _ => '?',
    };
    let bit = |bit: u32, letter: char| if mode & bit != 0 { letter } else { '-' };
    let special = |execute: u32, special: u32, letter: char| match (mode & execute, mode & special)
    {
        (0, 0) => '-',
        (_, 0) => 'x',
        (0, _) => letter.to_ascii_uppercase(),
        (_, _) => letter,
    };
    let mut text = String::with_capacity(11);
    text.push(kind);
    for (shift, letter, set) in [(6, 's', 0o4000), (3, 's', 0o2000), (0, 't', 0o1000)] {
        text.push(bit(4 << shift, 'r'));
        text.push(bit(2 << shift, 'w'));
        text.push(special(1 << shift, set, letter));
    }
    // Where other systems mark access lists.
    text.push(' ');
    text
}

/// The hour for half a year, then the year instead.
fn time(seconds: i64, now: i64) -> String {
    let Some(time) = platform::local_time(seconds) else {
        return String::new();
    };
    let month = MONTHS.get(time.month).copied().unwrap_or("???");
    let day = time.day;
    if seconds <= now && seconds > now - HALF_YEAR {
        format!("{month} {day:>2} {:02}:{:02}", time.hour, time.minute)
    } else {
        format!("{month} {day:>2}  {}", time.year)
    }
}

const HALF_YEAR: i64 = 365 * 24 * 60 * 60 / 2;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_ls_does() {
        for (bits, text) in [
            (0o100_644, "-rw-r--r-- "),
            (0o040_755, "drwxr-xr-x "),
            (0o041_777, "drwxrwxrwt "),
            (0o104_755, "-rwsr-xr-x "),
            (0o102_644, "-rw-r-Sr-- "),
            (0o120_777, "lrwxrwxrwx "),
        ] {
            assert_eq!(mode(bits), text);
        }
    }

    #[test]
    fn old_files_show_their_year() {
        let now = 1_700_000_000;
        assert!(time(now - 1000, now).contains(':'));
        assert!(
            time(0, now).ends_with("19" /* 70 or, west of Greenwich, 69 */)
                || !time(0, now).contains(':')
        );
        assert!(
            !time(now + 1000, now).contains(':'),
            "what is in the future"
        );
    }
}
