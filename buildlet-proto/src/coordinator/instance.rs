//! An instance as coordinators show it.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::rfc3339;

/// A machine that is leased to a user.
///
/// As JSON, an object of `User`, `Name`, `HostType`, `BuilderType`, `Created` and `Expires`, whose times are RFC 3339:
/// written in UTC, read with any offset, and of `Restarted` where there is one. A time before 1970, such as Go's zero time, is
/// read as 1970.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Instance {
    /// The user, with the `user-` of Go's coordinators.
    pub user: String,
    /// The name by which users ask for it: `user-bradfitz-openbsd-amd64-60-1`.
    pub name: String,
    /// The kind of machine.
    pub host_type: String,
    /// What the user asked for.
    pub builder_type: String,
    /// When the lease began.
    #[serde(with = "rfc3339")]
    pub created: SystemTime,
    /// When the lease ends unless it is renewed by use.
    #[serde(with = "rfc3339")]
    pub expires: SystemTime,
    /// When the machine came back in the middle of the lease with nothing of what was on it, if it has.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "rfc3339::option"
    )]
    pub restarted: Option<SystemTime>,
}

impl Instance {
    /// Describes an instance.
    pub fn new(
        user: impl Into<String>,
        name: impl Into<String>,
        host_type: impl Into<String>,
        builder_type: impl Into<String>,
        created: SystemTime,
        expires: SystemTime,
    ) -> Self {
        Self {
            user: user.into(),
            name: name.into(),
            host_type: host_type.into(),
            builder_type: builder_type.into(),
            created,
            expires,
            restarted: None,
        }
    }

    /// Adds when the machine was started anew, if it was.
    #[must_use]
    pub fn with_restart(mut self, restarted: Option<SystemTime>) -> Self {
        self.restarted = restarted;
        self
    }

    /// How much of the lease is left at `now`; nothing where it has ended.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.expires.duration_since(now).unwrap_or_default()
    }
}
