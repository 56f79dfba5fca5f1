//! The buildlet over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod archives;
mod client;
mod commands;
mod files;
mod programs;
mod protocol;
mod reverse;
mod support;
