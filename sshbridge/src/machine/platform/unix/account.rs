//! What the system knows of its users, and of the time.
//!
//! The names come from the C library: they may be kept anywhere, not just in `/etc/passwd`.

use nix::unistd::{Gid, Group, Uid, User};

/// The name of a user.
pub(crate) fn user_name(user: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(user)).ok()??.name)
}

/// The name of a group.
pub(crate) fn group_name(group: u32) -> Option<String> {
    Some(Group::from_gid(Gid::from_raw(group)).ok()??.name)
}

/// The variables with which a login of this program's own user begins: name, home and shell. None where the system does
/// not know it, as in a container that was given a number.
pub(crate) fn login_variables() -> Vec<(&'static str, String)> {
    let Ok(Some(user)) = User::from_uid(Uid::effective()) else {
        return Vec::new();
    };
    let path = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let mut variables = vec![
        ("HOME", path(user.dir)),
        ("LOGNAME", user.name.clone()),
        ("USER", user.name),
        ("SHELL", path(user.shell)),
    ];
    // An entry without a shell means /bin/sh (passwd(5)).
    variables.retain(|(_, value)| !value.is_empty());
    variables
}

/// A time on the clocks of this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct LocalTime {
    pub(crate) year: i64,
    /// From 0.
    pub(crate) month: usize,
    pub(crate) day: i32,
    pub(crate) hour: i32,
    pub(crate) minute: i32,
}

/// What the clocks show at so many seconds after 1970.
#[expect(unsafe_code, reason = "nothing safe knows the machine's time zone")]
pub(crate) fn local_time(seconds: i64) -> Option<LocalTime> {
    let seconds = libc::time_t::from(seconds);
    // SAFETY: all zeros is a value of this plain C struct, whose pointer is not used here.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types.
    let filled = unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    (!filled.is_null()).then(|| LocalTime {
        year: i64::from(time.tm_year) + 1900,
        month: usize::try_from(time.tm_mon).unwrap_or(usize::MAX),
        day: time.tm_mday,
        hour: time.tm_hour,
        minute: time.tm_min,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_nobody_has_the_last_number() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert!(group_name(0).is_some());
        assert_eq!(user_name(u32::MAX - 7), None);
    }

    #[test]
    fn this_user_has_a_home_and_a_shell() {
        let variables = login_variables();
        let of = |name| variables.iter().find(|(other, _)| *other == name);
        let user = user_name(Uid::effective().as_raw());
        assert_eq!(of("USER").map(|(_, value)| value.clone()), user);
        for (name, value) in variables {
            let is_path = matches!(name, "HOME" | "SHELL");
            assert_eq!(value.starts_with('/'), is_path, "{name}={value}");
        }
    }

    #[test]
    fn the_clock_shows_a_day_of_a_year() {
        let time = local_time(1_700_000_000).unwrap();
        assert_eq!((time.year, time.month), (2023, 10));
        assert!(time.day == 14 || time.day == 15);
    }
}
