//! Unix: sessions, process groups, signals.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use rustix::process::{Pid, ioctl_tiocsctty, kill_process_group, setsid, test_kill_process_group};
use tokio::process::{Child, Command};

use crate::backend::ChannelEvent;

mod account;
mod modes;
mod pty;
mod socket;

pub(crate) use self::account::{group_name, local_time, login_variables, user_name};
pub use self::pty::{Terminal, TerminalMaster};
pub(crate) use self::socket::{SocketPath, listen_privately};
pub(crate) use rustix::process::Signal;

/// Makes `command` the leader of a session and a process group of its own, so that it and its children can be signalled
/// together and none of them is attached to the terminal of this program.
///
/// Where the command's standard input is a terminal, that becomes the session's own. Signals that this program was started
/// with as ignored, as under `nohup` or in the background of a script, are ended by the command again as usual.
#[expect(
    unsafe_code,
    reason = "std has no stable setsid, and nothing at all for a controlling terminal and for signals"
)]
pub(crate) fn lead_session(command: &mut Command, on_terminal: bool) {
    let start = move || -> io::Result<()> {
        setsid()?;
        if on_terminal {
            ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        for signal in TERMINAL_SIGNALS {
            // SAFETY: it changes what becomes of a signal in the child, where no handler of ours is to run any more.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes plain system calls: it allocates nothing, takes no lock, and
    // standard input is open, because the standard library has put the child's in place before it runs the closure.
    unsafe {
        command.pre_exec(start);
    }
}

/// What a terminal and whoever closes it send.
const TERMINAL_SIGNALS: [libc::c_int; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// The name that tells a shell that it is a login shell: that of its file after a hyphen.
pub(crate) fn login_name(shell: &Path) -> OsString {
    let mut name = OsString::from("-");
    name.push(shell.file_name().unwrap_or_else(|| OsStr::new("sh")));
    name
}

/// How many bytes can be read from a pipe or a terminal without waiting; 0 where the system does not say.
pub(crate) fn unread(stream: impl AsFd) -> u64 {
    rustix::io::ioctl_fionread(stream).unwrap_or(0)
}

/// The processes of a group, by the id of the one that leads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Group(Pid);

impl Group {
    /// The group that `child` leads, while it was not waited for.
    pub(crate) fn led_by(child: &Child) -> Option<Self> {
        let id = i32::try_from(child.id()?).ok()?;
        Pid::from_raw(id).map(Self)
    }

    /// Sends a signal to every process of the group. A group without processes is no error.
    pub(crate) fn signal(self, signal: Signal) {
        if let Err(error) = kill_process_group(self.0, signal) {
            tracing::trace!(%error, "a process group took no signal");
        }
    }

    /// Tells the group that its user is gone; what is stopped is woken to hear it.
    pub(crate) fn hang_up(self) {
        self.signal(Signal::HUP);
        self.signal(Signal::CONT);
    }

    /// Ends the group without asking.
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Whether no process of the group is left, a zombie being one.
    pub(crate) fn is_empty(self) -> bool {
        matches!(
            test_kill_process_group(self.0),
            Err(rustix::io::Errno::SRCH)
        )
    }

    /// Whether the leader of the group lives in the session that `leader` leads.
    pub(crate) fn is_in_session_of(self, leader: Self) -> bool {
        rustix::process::getsid(Some(self.0)).is_ok_and(|session| session == leader.0)
    }
}

/// The signal that a client names (RFC 4254 §6.9), and the two more that OpenSSH forwards or users ask for.
pub(crate) fn signal_named(name: &str) -> Option<Signal> {
    let (_, signal) = NAMES.iter().find(|(known, _)| *known == name)?;
    Some(*signal)
}

/// How a command ended, in the terms of RFC 4254 §6.10.
pub(crate) fn exit_event(status: ExitStatus) -> ChannelEvent {
    if let Some(code) = status.code() {
        return ChannelEvent::ExitStatus(u32::from_ne_bytes(code.to_ne_bytes()));
    }
    let number = status.signal().unwrap_or(0);
    let known = NAMES[..RFC_NAMES]
        .iter()
        .find(|(_, signal)| signal.as_raw() == number);
    let (signal, message) = match known {
        Some((name, _)) => ((*name).to_owned(), String::new()),
        None => (OTHER_SIGNAL.to_owned(), format!("ended by signal {number}")),
    };
    ChannelEvent::ExitSignal {
        signal,
        core_dumped: status.core_dumped(),
        message,
    }
}

/// How many of [`NAMES`] RFC 4254 §6.10 knows.
const RFC_NAMES: usize = 13;

/// Signals by name: those of RFC 4254 §6.10, then those that only come from a client.
const NAMES: [(&str, Signal); 15] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
];

/// What OpenSSH's server calls a signal that RFC 4254 has no name for.
const OTHER_SIGNAL: &str = "SIG@openssh.com";
