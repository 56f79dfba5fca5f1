//! gomote: leases a machine from a coordinator, runs commands on it, copies files and opens SSH sessions.
//!
//! The program is [`run`]: it takes parsed arguments, the streams to talk to, and a future that asks it to stop, and it
//! returns how to exit. Nothing in it writes to the terminal by itself, so that other programs can drive it in process.
//!
//! | module | what is in it |
//! |---|---|
//! | `app` | [`run`], the table of contents |
//! | `cli` | [`Args`]: commands, flags, help |
//! | [`config`] | the configuration file, and what becomes of flags, environment and file |
//! | `server` | connections to the coordinator |
//! | `instance` | names of instances, abbreviated or not |
//! | `lease`, `exec`, `jobs`, `files`, `ssh` | the commands |
//! | `interrupt` | what is left to do after Ctrl-C |
//! | `archive` | a directory as a tar.gz, made while it is sent |
//! | `progress` | a bar on standard error |
//! | `streams` | [`Streams`]: where data and chatter go |
//! | `exit` | [`Exit`]: the exit codes |

mod app;
mod archive;
mod cli;
pub mod config;
mod exec;
mod exit;
mod files;
mod instance;
mod interrupt;
mod jobs;
mod lease;
mod progress;
mod server;
mod ssh;
mod streams;

pub use app::run;
pub use cli::{Args, accept_go_flags};
pub use exit::Exit;
pub use streams::Streams;
