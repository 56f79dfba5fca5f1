//! A buildlet: runs on a machine, and runs commands and moves files there for whoever leases it.
//!
//! It either dials out to a coordinator and serves the connection it made, or listens on a port. What it serves is the
//! protocol of [`buildlet_proto`]; what is here is the machine behind it.
//!
//! | module | what is in it |
//! |---|---|
//! | `app` | [`run`], the program from its arguments to its end |
//! | `args` | [`Args`], the command line |
//! | `machine` | [`Machine`], the protocol's operations on this machine |
//! | `root` | the work directory, and paths that cannot leave it |
//! | `walk`, `listing`, `files` | directories and files |
//! | `archive` | gzip-compressed tar archives, both ways |
//! | `exec` | commands, their environment and their end |
//! | `ssh` | the SSH server behind `/connect-ssh` |
//! | `workdir` | the work directory's own life: made, locked, wiped |
//! | `reverse`, `listen` | the two ways to be reached |

mod app;
mod archive;
mod args;
mod exec;
mod files;
mod listen;
mod listing;
mod machine;
mod reverse;
mod root;
mod ssh;
mod stream;
mod walk;
mod workdir;

pub use app::run;
pub use args::{Args, SshMode};
pub use machine::Machine;
