//! Unix: sessions, process groups, signals, descriptors that travel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use buildlet_proto::ProcessState;
use buildlet_proto::jobs;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal, ioctl_tiocsctty, kill_process_group, setsid};
use rustix::termios::tcgetpgrp;
use sshbridge::machine::TerminalMaster;

mod signal;
mod tree;

pub(crate) use self::tree::{Marked, Tree};

/// Makes `command` the leader of a session and a process group of its own, which dies with this process.
///
/// Where the command's standard input is a terminal, that becomes the session's own. Signals that this program was started
/// with as ignored, as under `nohup` or in the background of a script, end the command again as usual.
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
        for signal in RESET_SIGNALS {
            // SAFETY: it changes what becomes of a signal in the child, where no handler of ours is to run any more.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes plain system calls: it allocates nothing, takes no lock, and
    // standard input is open, because the standard library has put the child's in place before it runs the closure.
    unsafe {
        command.pre_exec(start);
    }
}

/// Closes every descriptor but the three standard ones: whoever started this program may have left some open.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "descriptors are closed by number")]
pub(crate) fn close_inherited() {
    // SAFETY: it is the first thing this process does, so nothing in it owns one of them.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Elsewhere they stay with the supervisor; the command has none of them, as they are closed when it is executed.
#[cfg(not(target_os = "linux"))]
pub(crate) fn close_inherited() {}

/// Sends descriptors, and one byte with them.
pub(crate) fn send_descriptors(socket: &UnixStream, descriptors: &[OwnedFd; 3]) -> io::Result<()> {
    let borrowed = [
        descriptors[0].as_fd(),
        descriptors[1].as_fd(),
        descriptors[2].as_fd(),
    ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&borrowed));
    sendmsg(
        socket,
        &[IoSlice::new(&[0])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives what [`send_descriptors`] sent.
pub(crate) fn receive_descriptors(socket: &UnixStream) -> io::Result<[OwnedFd; 3]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RECEIVE_FLAGS,
    )?;
    let mut received = Vec::with_capacity(3);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            received.extend(descriptors);
        }
    }
    received
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(target_os = "linux")]
const RECEIVE_FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const RECEIVE_FLAGS: RecvFlags = RecvFlags::empty();

/// The processes of a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Group(Pid);

impl Group {
    /// The group that the process `leader` leads.
    pub(crate) fn led_by(leader: u32) -> Option<Self> {
        Pid::from_raw(i32::try_from(leader).ok()?).map(Self)
    }

    /// The group in the foreground of a terminal, if there is one.
    pub(crate) fn in_foreground(terminal: &TerminalMaster) -> Option<Self> {
        tcgetpgrp(terminal).ok().map(Self)
    }

    /// Sends a signal, by its number, to every process of the group. A group without processes is no error.
    pub(crate) fn signal(self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            // Whoever is gone is as good as signalled.
            let _ = kill_process_group(self.0, signal);
        }
    }

    /// Ends the group without asking.
    pub(crate) fn kill(self) {
        self.signal(libc::SIGKILL);
    }
}

/// The number of a signal.
pub(crate) fn number_of(signal: jobs::Signal) -> i32 {
    signal::number(signal)
}

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// In the words of Go.
    pub(crate) state: ProcessState,
    /// The signal that ended it, by name or number.
    pub(crate) signal: Option<String>,
}

/// Reads a status as `wait` gives it.
pub(crate) fn end_of(status: i32) -> End {
    let status = ExitStatus::from_raw(status);
    match (status.code(), status.signal()) {
        (Some(code), _) => End {
            state: ProcessState::exited(code),
            signal: None,
        },
        (None, Some(number)) => {
            let core = if status.core_dumped() {
                " (core dumped)"
            } else {
                ""
            };
            let description = signal::description(number);
            End {
                state: ProcessState::signaled(&format!("{description}{core}")),
                signal: Some(signal::name(number)),
            }
        }
        (None, None) => End {
            state: ProcessState::not_started("the command ended without a status"),
            signal: None,
        },
    }
}

/// What a terminal and whoever closes it send, and what a daemon ignores.
const RESET_SIGNALS: [libc::c_int; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGPIPE,
    libc::SIGUSR1,
    libc::SIGUSR2,
];
