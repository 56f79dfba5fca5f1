//! How a machine runs what its user asks for.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where and how the sessions of a [`LocalBackend`](super::LocalBackend) run.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct LocalSettings {
    /// The directory that shells and commands start in. It is not made here.
    pub work_dir: PathBuf,
    /// The shell that is started, and that interprets commands. Without one it is what [`Self::env`] has as `SHELL`,
    /// else what this program was started with as `SHELL`, else `/bin/sh`.
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
    /// two.
    pub fn new(work_dir: impl Into<PathBuf>) -> Self {
        let mut env: Vec<_> = PASSED_ON
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)))
            .collect();
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".to_owned(), DEFAULT_PATH.to_owned()));
        }
        Self {
            work_dir: work_dir.into(),
            shell: None,
            env,
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
            .or_else(|| env::var_os("SHELL").map(PathBuf::from))
            .filter(|shell| !shell.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("/bin/sh").to_owned())
    }
}

/// The variables that are passed on unless told otherwise.
const PASSED_ON: [&str; 8] = [
    "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER",
];

/// The search path where this program has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
