//! What depends on the operating system: sessions, the tree of processes below one, and how a command's end is
//! told.
//!
//! Another system is added as a module with the same names. Windows needs a job object in the place of the tree
//! (`TerminateJobObject` kills it whole) and a pseudoconsole in that of the terminal; it is not built here. Beside this
//! module, what would have to be written anew for it is how files are reached without following a link out of the work
//! directory (`root`, `walk`, `files`, `archive`, which open everything below a directory's descriptor) and the work
//! directory's lock and owner (`workdir`).

#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
compile_error!("the buildlet is built for Unix only");

#[cfg(unix)]
pub(crate) use self::unix::{
    Group, Marked, Tree, close_inherited, end_of, lead_session, number_of, receive_descriptors,
    send_descriptors,
};
