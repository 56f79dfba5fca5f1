//! What a machine brings to the bridge: a backend of local processes, and the SSH servers that a machine runs itself.
//!
//! - [`LocalBackend`] is a [`Backend`](crate::backend::Backend) whose sessions are shells and commands of this machine,
//!   on pipes or on a terminal.
//! - [`MachineServer`] is the SSH server built into a machine: [`Server`](crate::server::Server) over that backend, for
//!   one connection and one key at a time.
//! - [`Sshd`] is the machine's own sshd instead, started for one connection with a one-time host key.
//! - [`Terminal`] is the pseudoterminal that sessions run on, for programs that start commands on one themselves.
//!
//! What depends on the operating system is in `platform`, behind one small interface. It exists for Unix; Windows is
//! not built here.

mod agent;
mod backend;
mod forward;
mod input;
mod launch;
mod output;
pub(crate) mod platform;
mod process;
mod server;
mod settings;
mod sftp;
mod sshd;
#[cfg(test)]
mod tests;

pub use self::backend::LocalBackend;
pub use self::platform::{Terminal, TerminalMaster};
pub use self::server::{MachineServeError, MachineServer};
pub use self::settings::LocalSettings;
pub use self::sshd::{Sshd, SshdConn, SshdStream};
