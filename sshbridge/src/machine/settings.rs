//! How a machine runs what its user asks for.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::platform::login_variables;

/// Where and how the sessions of a [`LocalBackend`](super::LocalBackend) run.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LocalSettings {
    /// The directory that shells and commands start in. It is not made here.
    pub work_dir: PathBuf,
    /// The shell that is started, and that interprets commands. Without one it is what [`Self::env`] has as `SHELL`,
    /// else `/bin/sh`.
    pub shell: Option<PathBuf>,
    /// The whole environment of every session, before what the client sends. Nothing else of this program's own
    /// environment is passed on, so that its secrets stay with it.
    pub env: Vec<(String, String)>,
    /// How long what a command left running may go on writing to the channel once the command has exited. The command's
    /// own output is always delivered whole. It keeps a forgotten background process from holding a session for ever.
    pub hold: Duration,
    /// How long a cut session's processes have between being told (`SIGHUP`) and being killed (`SIGKILL`).
    pub grace: Duration,
}

impl LocalSettings {
    /// Runs sessions in `work_dir`, with the few variables of this program's environment that say who and where the
    /// user is (`HOME`, `LANG`, `LOGNAME`, `PATH`, `SHELL`, `TMPDIR`, `TZ`, `USER`), a hold of one second and a grace of
    /// two. A service often has none of them: then home, name and shell are those that the system's list of users has.
    pub fn new(work_dir: impl Into<PathBuf>) -> Self {
        Self {
            work_dir: work_dir.into(),
            shell: None,
            env: environment(|name| env::var(name).ok(), login_variables()),
            hold: Duration::from_secs(1),
            grace: Duration::from_secs(2),
        }
    }

    /// The shell, by the rule of [`Self::shell`].
    pub(super) fn shell(&self) -> PathBuf {
        let named = || {
            let (_, shell) = self.env.iter().rev().find(|(name, _)| name == "SHELL")?;
            Some(PathBuf::from(shell))
        };
        self.shell
            .clone()
            .or_else(named)
            .filter(|shell| !shell.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("/bin/sh").to_owned())
    }
}

/// The variables of [`PASSED_ON`]: what this program has, else what the system knows of its user.
fn environment(
    inherited: impl Fn(&str) -> Option<String>,
    login: Vec<(&'static str, String)>,
) -> Vec<(String, String)> {
    let known = |wanted: &str| match wanted {
        "PATH" => Some(DEFAULT_PATH.to_owned()),
        _ => {
            let (_, value) = login.iter().find(|(name, _)| *name == wanted)?;
            Some(value.clone())
        }
    };
    PASSED_ON
        .iter()
        .filter_map(|&name| {
            let value = inherited(name).or_else(|| known(name))?;
            Some((name.to_owned(), value))
        })
        .collect()
}

/// The variables that are passed on unless told otherwise.
const PASSED_ON: [&str; 8] = [
    "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER",
];

/// The search path where this program has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_does_not_have_is_taken_from_its_user() {
        let inherited = |name: &str| match name {
            "HOME" => Some("/srv/elsewhere".to_owned()),
            _ => None,
        };
        let login = vec![
            ("HOME", "/root".to_owned()),
            ("SHELL", "/bin/bash".to_owned()),
        ];
        let env = environment(inherited, login);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let want = [
            pair("HOME", "/srv/elsewhere"),
            pair("PATH", DEFAULT_PATH),
            pair("SHELL", "/bin/bash"),
        ];
        assert_eq!(env, want);

        let mut settings = LocalSettings::new("/");
        settings.env = env;
        assert_eq!(settings.shell(), Path::new("/bin/bash"));
        settings.env.clear();
        assert_eq!(settings.shell(), Path::new("/bin/sh"));
    }
}
