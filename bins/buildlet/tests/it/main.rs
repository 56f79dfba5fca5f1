//! The buildlet over real sockets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod archives;
mod client;
mod commands;
mod disk;
mod fetch;
mod files;
mod health;
mod job_faults;
mod jobs;
mod ports;
mod programs;
mod protocol;
mod reverse;
mod strays;
mod support;
mod trees;
