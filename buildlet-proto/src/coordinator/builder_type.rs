//! What a coordinator has to lease.

use serde::{Deserialize, Serialize};

/// Something that can be leased, and how busy its machines are at the moment.
///
/// As JSON, an object of `Name`, `HostType`, `Machines`, `Idle` and `Waiting`. Builder types of one host type share its
/// machines and its queue, so their numbers are the same.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct BuilderType {
    /// The name by which users ask for it: `openbsd-amd64-60`.
    pub name: String,
    /// The kind of machine that it runs on.
    pub host_type: String,
    /// How many machines of that kind are there, idle or not.
    pub machines: u64,
    /// How many of them can be leased at once.
    pub idle: u64,
    /// How many requests wait for one.
    pub waiting: u64,
}

impl BuilderType {
    /// A builder type without machines.
    pub fn new(name: impl Into<String>, host_type: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            host_type: host_type.into(),
            machines: 0,
            idle: 0,
            waiting: 0,
        }
    }
}
