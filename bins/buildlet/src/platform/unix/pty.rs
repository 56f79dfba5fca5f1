//! Pseudoterminals.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use buildlet_proto::jobs::TerminalSize;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetpgrp, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Group;

/// A new terminal, before anything runs on it.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The end that this program reads and writes.
    pub(crate) master: Arc<Master>,
    /// The end that the command is started on.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// Makes a terminal of a size.
    pub(crate) fn open(size: TerminalSize) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        fcntl_setfd(&master, fcntl_getfd(&master)? | FdFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(
            name.as_c_str(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        tcsetwinsize(&slave, winsize(size))?;
        Ok(Self {
            master: Arc::new(Master::new(master)?),
            slave,
        })
    }
}

/// The end of a terminal that this program holds. When the last copy is dropped the terminal hangs up.
#[derive(Debug)]
pub(crate) struct Master(AsyncFd<OwnedFd>);

impl Master {
    #[expect(
        unsafe_code,
        reason = "an `AsyncFd` is registered on the promise that its descriptor stays"
    )]
    fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the `AsyncFd` owns the descriptor, which is therefore open and the same until it is dropped.
        let master = unsafe { AsyncFd::register_with_interest(master, interest) };
        Ok(Self(master?))
    }

    /// Reads what was written on the terminal; 0 when nothing holds the other end any more. Cancel safe.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0
            .async_io(Interest::READABLE, |master| {
                match rustix::io::read(master, &mut *buffer) {
                    // Linux's way to say that the other end is closed.
                    Err(Errno::IO) => Ok(0),
                    result => Ok(result?),
                }
            })
            .await
    }

    /// Types a part of `data` on the terminal; tells how much it took. Cancel safe.
    pub(crate) async fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.0
            .async_io(Interest::WRITABLE, |master| {
                Ok(rustix::io::write(master, data)?)
            })
            .await
    }

    /// Changes the size, which tells the programs in the foreground.
    pub(crate) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        Ok(tcsetwinsize(&self.0, winsize(size))?)
    }

    /// The processes in the foreground, if any.
    pub(crate) fn foreground(&self) -> Option<Group> {
        tcgetpgrp(&self.0).ok().map(Group)
    }
}

fn winsize(size: TerminalSize) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
