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
//! | `health` | whether the machine is well, and the port of `--health-addr` |
//! | `disk` | how full the disk may become |
//! | `archive` | gzip-compressed tar archives, both ways |
//! | `fetch` | archives that the machine fetches by their URL |
//! | `exec` | commands: the program, its directory and its environment |
//! | `jobs` | commands that run: their output, their end, and all that is asked about them |
//! | `supervisor` | the process between the buildlet and each command, which kills its tree whole |
//! | `strays` | processes that are left behind by other ways than jobs |
//! | `platform` | what depends on the operating system |
//! | `ssh` | the SSH server behind `/connect-ssh` |
//! | `ports` | the TCP ports behind `/connect-tcp` |
//! | `workdir` | the work directory's own life: made, locked, wiped |
//! | `reverse`, `listen` | the two ways to be reached |

mod app;
mod archive;
mod args;
mod disk;
mod exec;
mod fetch;
mod files;
mod health;
mod jobs;
mod listen;
mod listing;
mod machine;
mod platform;
mod ports;
mod reverse;
mod root;
mod ssh;
mod strays;
mod stream;
mod supervisor;
mod walk;
mod workdir;

pub use app::{interrupted, run, run_alone};
pub use args::{Args, SshMode};
pub use jobs::{JobLimits, JobSettings};
pub use machine::Machine;
pub use supervisor::{Supervisor, supervise};
