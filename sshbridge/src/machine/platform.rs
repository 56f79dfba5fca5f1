//! What depends on the operating system: terminals, process groups, how a command's end is told.
//!
//! Another system is added as a module with the same names: `Terminal` and `Master` (a terminal's two ends), `Group`
//! (the processes of a session), `Signal`, `signal_named`, `exit_event`,
//! `lead_session`, `login_name`, `unread`.

#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
compile_error!("the feature `machine` is built for Unix only");

#[cfg(unix)]
pub(crate) use self::unix::{
    Group, Master, Signal, Terminal, exit_event, lead_session, login_name, signal_named, unread,
};
