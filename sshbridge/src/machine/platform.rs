//! What depends on the operating system: terminals, process groups, how a command's end is told.
//!
//! Another system is added as a module with the same names: `Terminal` and `TerminalMaster` (a terminal's two ends), `Group`
//! (the processes of a session), `Signal`, `signal_named`, `exit_event`,
//! `lead_session`, `login_name`, `unread`, `listen_privately` and `SocketPath` (a socket that is this user's
//! alone), `user_name`, `group_name`, `login_variables`, `local_time`.

#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
compile_error!("the feature `machine` is built for Unix only");

#[cfg(unix)]
pub(crate) use self::unix::{
    Group, Signal, SocketPath, exit_event, group_name, lead_session, listen_privately, local_time,
    login_name, login_variables, signal_named, unread, user_name,
};
#[cfg(unix)]
pub use self::unix::{Terminal, TerminalMaster};
