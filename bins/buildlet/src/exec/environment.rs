//! The environment of commands.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What a command finds in its environment: the buildlet's own, what every command on this machine gets, and what its
/// request adds, the last of a name winning.
#[derive(Clone, Debug)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub(crate) fn new(work_dir: &Path, added: &[String], path: Option<&[String]>) -> Self {
        Self::from_base(std::env::vars_os(), work_dir, added, path)
    }

    fn from_base(
        base: impl Iterator<Item = (OsString, OsString)>,
        work_dir: &Path,
        added: &[String],
        path: Option<&[String]>,
    ) -> Self {
        let mut env = Self(base.collect());
        for (name, value) in machine_variables(work_dir) {
            env.0.insert(name.into(), value);
        }
        for pair in added {
            // What is no pair, or cannot be one, is dropped, as Go does.
            match pair.split_once('=') {
                Some((name, value)) if !name.is_empty() && !pair.contains('\0') => {
                    env.0.insert(name.into(), value.into());
                }
                _ => {}
            }
        }
        if let Some(elements) = path {
            env.set_path(work_dir, elements);
        }
        env
    }

    /// The same environment with one more variable.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.0.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// All variables as `NAME=value`.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
    }

    /// All variables, by name.
    pub(crate) fn into_variables(self) -> Vec<(OsString, OsString)> {
        self.0.into_iter().collect()
    }

    fn set_path(&mut self, work_dir: &Path, elements: &[String]) {
        let old = self.0.remove(OsStr::new(PATH));
        if elements.is_empty() {
            return;
        }
        let mut path = OsString::new();
        for (position, element) in elements.iter().enumerate() {
            if position > 0 {
                path.push(":");
            }
            match element.as_str() {
                "$PATH" => path.push(old.as_deref().unwrap_or_default()),
                _ => path.push(element.replace("$WORKDIR", &work_dir.to_string_lossy())),
            }
        }
        self.0.insert(PATH.into(), path);
    }
}

/// What every command on this machine gets, whether it is started by `/exec` or over SSH: the work directory, and places
/// below it for what Go's tools would otherwise leave elsewhere.
pub(crate) fn machine_variables(work_dir: &Path) -> Vec<(&'static str, OsString)> {
    vec![
        ("WORKDIR", work_dir.into()),
        ("GOROOT_BOOTSTRAP", work_dir.join("go1.4").into()),
        ("TMPDIR", work_dir.join(TMP).into()),
        ("GOCACHE", work_dir.join("gocache").into()),
        ("GOPLSCACHE", work_dir.join("goplscache").into()),
    ]
}

/// The directory that `TMPDIR` names, below the work directory.
pub(crate) const TMP: &str = "tmp";

const PATH: &str = "PATH";

#[cfg(test)]
mod tests {
    use super::*;

    fn env(added: &[&str], path: Option<&[&str]>) -> Environment {
        let base = [("PATH", "/bin"), ("A", "old"), ("WORKDIR", "/elsewhere")];
        let strings = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let path = path.map(strings);
        Environment::from_base(
            base.into_iter()
                .map(|(name, value)| (name.into(), value.into())),
            Path::new("/machine"),
            &strings(added),
            path.as_deref(),
        )
    }

    fn value(env: &Environment, name: &str) -> Option<String> {
        let value = env.0.get(OsStr::new(name))?;
        Some(value.to_string_lossy().into_owned())
    }

    #[test]
    fn the_last_of_a_name_wins() {
        let env = env(&["A=1", "A=2", "=x", "B"], None);
        assert_eq!(value(&env, "A").as_deref(), Some("2"));
        assert_eq!(value(&env, "WORKDIR").as_deref(), Some("/machine"));
        assert_eq!(value(&env, "TMPDIR").as_deref(), Some("/machine/tmp"));
        assert_eq!(value(&env, "B"), None);
    }

    #[test]
    fn the_path_is_made_of_the_old_one_and_the_work_directory() {
        let given = env(&["PATH=/sbin"], Some(&["$WORKDIR/bin", "$PATH", "/x"]));
        assert_eq!(
            value(&given, "PATH").as_deref(),
            Some("/machine/bin:/sbin:/x")
        );
        assert_eq!(value(&env(&[], None), "PATH").as_deref(), Some("/bin"));
        assert_eq!(value(&env(&[], Some(&[])), "PATH"), None);
    }
}
