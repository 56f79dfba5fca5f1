//! How the program ends.

use std::process::ExitCode;

use buildlet_proto::ApiError;
use buildlet_proto::coordinator::EXPIRED;
use http::StatusCode;

/// An exit code.
///
/// `run`, `attach`, `wait` and `ssh` exit as the remote command does, with 128 and the signal's number where a signal ended it, with 127
/// where it could not be started, and with 255 where the fault is not the command's. The other commands use the
/// constants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exit(u8);

impl Exit {
    /// Done.
    pub const OK: Self = Self(0);
    /// The work failed.
    pub const FAILED: Self = Self(1);
    /// The arguments or the configuration are wrong.
    pub const USAGE: Self = Self(2);
    /// There is no such instance, builder type or file.
    pub const NOT_FOUND: Self = Self(3);
    /// The coordinator does not know us, or we may not.
    pub const AUTH: Self = Self(4);
    /// The remote command could not be started, as shells say it.
    pub const NOT_STARTED: Self = Self(127);
    /// Ended by SIGINT or SIGTERM.
    pub const INTERRUPTED: Self = Self(130);
    /// What is not the remote command's fault, as ssh says it.
    pub const NOT_THE_COMMAND: Self = Self(255);

    /// The remote command ended with `code`, of which the lowest eight bits are seen, as everywhere.
    pub fn of_command(code: i32) -> Self {
        Self(code.to_le_bytes()[0])
    }

    /// The remote command was ended by the signal with this number.
    pub fn of_signal(number: u8) -> Self {
        Self(number.saturating_add(128))
    }

    /// The number.
    pub fn code(self) -> u8 {
        self.0
    }

    /// What an error means.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        if error.is::<Usage>() {
            return Self::USAGE;
        }
        if error.is::<NotFound>() {
            return Self::NOT_FOUND;
        }
        error.downcast_ref().map_or(Self::FAILED, of_api_error)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The user said something that cannot be.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

/// The user named something that does not exist.
#[derive(Debug)]
pub(crate) struct NotFound(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

impl std::fmt::Display for NotFound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotFound {}

/// What to do next about an error, where that is known.
pub(crate) fn advice(error: &anyhow::Error) -> Option<&'static str> {
    let error: &ApiError = error.downcast_ref()?;
    let message = error.message();
    if is_auth(error) {
        return Some(if message == NOT_YOURS {
            "`gomote list` shows the instances that are yours"
        } else {
            "check the user and the token: --user and --token-file, or `user` and `token` in the configuration file"
        });
    }
    if message.contains(EXPIRED) {
        return Some("its lease has ended or it never was; `gomote list` shows what you hold");
    }
    if message.starts_with("the server cannot be reached") {
        return Some("check --server, and that the coordinator runs");
    }
    None
}

fn of_api_error(error: &ApiError) -> Exit {
    if is_auth(error) {
        return Exit::AUTH;
    }
    let message = error.message();
    let missing = [EXPIRED, "unknown builder type"];
    if error.status().status() == StatusCode::NOT_FOUND
        || missing.iter().any(|text| message.contains(text))
    {
        return Exit::NOT_FOUND;
    }
    Exit::FAILED
}

fn is_auth(error: &ApiError) -> bool {
    let status = error.status().status();
    // Go's coordinators answer 400 to a request without credentials.
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        || error.message().contains("missing required authentication")
}

const NOT_YOURS: &str = "you don't own that buildlet";

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use buildlet_proto::ErrorStatus;

    use super::*;

    #[test]
    fn errors_of_the_coordinator_have_exit_codes() {
        let cases = [
            (
                ErrorStatus::UNAUTHORIZED,
                "bad username or password",
                Exit::AUTH,
            ),
            (
                ErrorStatus::BAD_REQUEST,
                "missing required authentication",
                Exit::AUTH,
            ),
            (
                ErrorStatus::BAD_GATEWAY,
                "unknown or expired buildlet",
                Exit::NOT_FOUND,
            ),
            (
                ErrorStatus::BAD_REQUEST,
                "unknown builder type in 'builderType' parameter",
                Exit::NOT_FOUND,
            ),
            (ErrorStatus::NOT_FOUND, "no such file", Exit::NOT_FOUND),
            (ErrorStatus::INTERNAL, "disk full", Exit::FAILED),
        ];
        for (status, message, want) in cases {
            let error = Err::<(), _>(ApiError::new(status, message))
                .context("creating x")
                .unwrap_err();
            assert_eq!(Exit::of_error(&error), want, "{message}");
        }
    }

    #[test]
    fn codes_of_commands_are_seen_as_everywhere() {
        assert_eq!(Exit::of_command(42).code(), 42);
        assert_eq!(Exit::of_command(-1).code(), 255);
        assert_eq!(Exit::of_signal(9).code(), 137);
    }
}
