//! A command, as the form that asks for it and the trailer that tells how it ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ApiError;

/// A command to run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ExecRequest {
    /// The command: a path below the work directory, or, at system level, anything that the machine's `PATH` finds.
    pub command: String,
    /// Where `command` is looked up.
    pub level: ExecLevel,
    /// The directory to run in; without one, the command's own directory, or at system level the work directory.
    pub dir: Option<String>,
    /// The arguments, without the command's own name.
    pub args: Vec<String>,
    /// `NAME=value` pairs, added to the environment of the buildlet; the last one of a name wins.
    pub env: Vec<String>,
    /// The new `PATH`, where given: an element `$PATH` stands for the old one, `$WORKDIR` inside one for the work
    /// directory. `Some` of nothing unsets `PATH`.
    pub path: Option<Vec<String>>,
    /// Whether the output begins with a line that tells what is run, in which directory and environment.
    pub debug: bool,
}

impl ExecRequest {
    /// Runs `command` below the work directory.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            ..Self::default()
        }
    }

    /// Runs `command` as the machine's `PATH` finds it.
    pub fn system(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            level: ExecLevel::System,
            ..Self::default()
        }
    }

    /// Writes the request as `application/x-www-form-urlencoded`, all seven kinds of key in Go's order.
    pub fn to_form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("cmd", &self.command);
        form.append_pair("mode", self.level.as_str());
        form.append_pair("dir", self.dir.as_deref().unwrap_or_default());
        for arg in &self.args {
            form.append_pair("cmdArg", arg);
        }
        for pair in &self.env {
            form.append_pair("env", pair);
        }
        match self.path.as_deref() {
            None => {}
            Some([]) => {
                form.append_pair("path", EMPTY_PATH);
            }
            Some(elements) => {
                for element in elements {
                    form.append_pair("path", element);
                }
            }
        }
        form.append_pair("debug", if self.debug { "true" } else { "false" });
        form.finish()
    }

    /// Reads the request from a urlencoded form.
    ///
    /// # Errors
    ///
    /// `requires 'cmd' parameter` where there is no command.
    pub fn from_form(form: &[u8]) -> Result<Self, ApiError> {
        let mut request = Self::default();
        let mut path = Vec::new();
        for (key, value) in form_urlencoded::parse(form) {
            let value = value.into_owned();
            match key.as_ref() {
                "cmd" => request.command = value,
                "mode" if value == ExecLevel::System.as_str() => request.level = ExecLevel::System,
                "dir" if !value.is_empty() => request.dir = Some(value),
                "cmdArg" => request.args.push(value),
                "env" => request.env.push(value),
                "path" => path.push(value),
                "debug" => request.debug = parse_bool(&value),
                _ => {}
            }
        }
        if request.command.is_empty() {
            return Err(ApiError::bad_request("requires 'cmd' parameter"));
        }
        request.path = match path.as_slice() {
            [] => None,
            [only] if only == EMPTY_PATH => Some(Vec::new()),
            _ => Some(path),
        };
        Ok(request)
    }
}

/// Where a command is looked up.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum ExecLevel {
    /// Below the work directory.
    #[default]
    WorkDir,
    /// In the machine's `PATH`.
    System,
}

impl ExecLevel {
    fn as_str(self) -> &'static str {
        match self {
            Self::WorkDir => "",
            Self::System => "sys",
        }
    }
}

/// How a command ended, as the `Process-State` trailer says it: `ok`, `exit status 2`, `signal: killed`, or why it
/// could not be started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ProcessState(String);

impl ProcessState {
    /// The command ended with `code`.
    pub fn exited(code: i32) -> Self {
        if code == 0 {
            Self(OK.to_owned())
        } else {
            Self(format!("{EXIT_STATUS}{code}"))
        }
    }

    /// The command was ended by `signal`, which is given by its description in Go's `syscall` package: `killed`,
    /// `terminated`, `segmentation fault`.
    pub fn signaled(signal: &str) -> Self {
        Self(format!("{SIGNAL}{signal}"))
    }

    /// The command could not be started, for the reason `why`.
    pub fn not_started(why: impl fmt::Display) -> Self {
        Self(why.to_string().replace(['\r', '\n'], " "))
    }

    /// Takes the value of the trailer.
    pub fn from_trailer(value: &str) -> Self {
        Self(value.trim().to_owned())
    }

    /// The value of the trailer.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the command ended by itself with status 0.
    pub fn is_ok(&self) -> bool {
        self.0 == OK
    }

    /// The status with which the command ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        if self.is_ok() {
            return Some(0);
        }
        self.0.strip_prefix(EXIT_STATUS)?.parse().ok()
    }

    /// The description of the signal that ended the command.
    pub fn signal(&self) -> Option<&str> {
        self.0.strip_prefix(SIGNAL)
    }
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a boolean as Go's `strconv.ParseBool` does; anything else is false.
pub(crate) fn parse_bool(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// The name of the trailer that tells how a command ended.
pub const PROCESS_STATE: &str = "Process-State";

const EMPTY_PATH: &str = "$EMPTY";
const EXIT_STATUS: &str = "exit status ";
const OK: &str = "ok";
const SIGNAL: &str = "signal: ";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_seven_keys_are_always_sent() {
        let form = ExecRequest::new("bin/go").to_form();
        assert_eq!(form, "cmd=bin%2Fgo&mode=&dir=&debug=false");
    }

    #[test]
    fn an_empty_path_is_told_from_no_path() {
        let mut request = ExecRequest::system("env");
        assert_eq!(
            ExecRequest::from_form(request.to_form().as_bytes())
                .unwrap()
                .path,
            None
        );
        request.path = Some(Vec::new());
        assert_eq!(
            ExecRequest::from_form(request.to_form().as_bytes())
                .unwrap()
                .path,
            Some(Vec::new())
        );
    }

    #[test]
    fn a_form_without_a_command_is_refused() {
        let error = ExecRequest::from_form(b"mode=sys").unwrap_err();
        assert_eq!(error.message(), "requires 'cmd' parameter");
    }

    #[test]
    fn process_states_read_as_go_writes_them() {
        assert_eq!(ProcessState::exited(0).as_str(), "ok");
        assert_eq!(ProcessState::exited(42).as_str(), "exit status 42");
        assert_eq!(
            ProcessState::from_trailer("exit status 42").exit_code(),
            Some(42)
        );
        assert_eq!(
            ProcessState::from_trailer("signal: killed").signal(),
            Some("killed")
        );
        assert_eq!(
            ProcessState::from_trailer("signal: killed").exit_code(),
            None
        );
        assert_eq!(
            ProcessState::not_started("no\r\nsuch file").as_str(),
            "no  such file"
        );
    }

    proptest! {
        #[test]
        fn forms_survive_the_wire(
            command in ".+", dir in proptest::option::of(".+"), args in proptest::collection::vec(".*", 0..4),
            env in proptest::collection::vec(".*", 0..4), debug: bool, system: bool,
            path in proptest::option::of(proptest::collection::vec("[^$]*", 0..3)),
        ) {
            let level = if system { ExecLevel::System } else { ExecLevel::WorkDir };
            let request = ExecRequest { command, level, dir, args, env, path, debug };
            prop_assert_eq!(ExecRequest::from_form(request.to_form().as_bytes()).unwrap(), request);
        }
    }
}
