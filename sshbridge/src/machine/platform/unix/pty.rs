//! Pseudoterminals.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetpgrp, tcsetattr, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Group, modes};
use crate::backend::{PtyRequest, WindowSize};

/// A new terminal, before anything runs on it.
#[derive(Debug)]
pub struct Terminal {
    master: Arc<TerminalMaster>,
    slave: OwnedFd,
    name: CString,
}

impl Terminal {
    /// Makes a terminal of the size and with the modes that were asked for. Modes that this system does not know are
    /// left out, as RFC 4254 §8 wants.
    ///
    /// # Errors
    ///
    /// Those of `posix_openpt(3)` and what belongs to it, where the system has no terminal left, for one.
    ///
    /// # Panics
    ///
    /// Outside a runtime of tokio whose I/O is enabled.
    pub fn open(request: &PtyRequest) -> io::Result<Self> {
        let master = openpt(MASTER_FLAGS)?;
        fcntl_setfd(&master, fcntl_getfd(&master)? | FdFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(
            name.as_c_str(),
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut termios = tcgetattr(&slave)?;
        modes::apply(&mut termios, &request.modes);
        tcsetattr(&slave, OptionalActions::Now, &termios)?;
        tcsetwinsize(&slave, winsize(request.size))?;
        Ok(Self {
            master: Arc::new(TerminalMaster::new(master)?),
            slave,
            name,
        })
    }

    /// The end that this program reads and writes.
    pub fn master(&self) -> Arc<TerminalMaster> {
        Arc::clone(&self.master)
    }

    /// The path of the command's end, such as `/dev/pts/3`.
    pub fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    /// A descriptor of the command's end, to be its standard input, output or error. The terminal lives for as long as there
    /// is one, or this value.
    ///
    /// # Errors
    ///
    /// Where this process has too many descriptors.
    pub fn slave(&self) -> io::Result<OwnedFd> {
        self.slave.try_clone()
    }
}

/// The end of a terminal that this program holds. When the last copy is dropped the terminal hangs up.
#[derive(Debug)]
pub struct TerminalMaster(AsyncFd<OwnedFd>);

impl TerminalMaster {
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
    ///
    /// # Errors
    ///
    /// Those of `read(2)`.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
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

    /// Reads what was written, without waiting for more; 0 where there is nothing.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> usize {
        rustix::io::read(&self.0, buffer).unwrap_or(0)
    }

    /// Types a part of `data` on the terminal; tells how much it took. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of `write(2)`.
    pub async fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.0
            .async_io(Interest::WRITABLE, |master| {
                Ok(rustix::io::write(master, data)?)
            })
            .await
    }

    /// Changes the size, which tells the programs in the foreground.
    ///
    /// # Errors
    ///
    /// Those of `ioctl(2)`.
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        Ok(tcsetwinsize(&self.0, winsize(size))?)
    }

    /// The processes in the foreground, if any.
    pub(crate) fn foreground(&self) -> Option<Group> {
        tcgetpgrp(&self.0).ok().map(Group)
    }
}

impl AsFd for TerminalMaster {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A size as the system takes it: what does not fit is the largest that does.
fn winsize(size: WindowSize) -> Winsize {
    let clamp = |number| u16::try_from(number).unwrap_or(u16::MAX);
    Winsize {
        ws_row: clamp(size.rows),
        ws_col: clamp(size.columns),
        ws_xpixel: clamp(size.width_pixels),
        ws_ypixel: clamp(size.height_pixels),
    }
}

#[cfg(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd"
))]
const MASTER_FLAGS: OpenptFlags = OpenptFlags::RDWR
    .union(OpenptFlags::NOCTTY)
    .union(OpenptFlags::CLOEXEC);
/// Elsewhere the end is closed on exec a moment after it was made.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd"
)))]
const MASTER_FLAGS: OpenptFlags = OpenptFlags::RDWR.union(OpenptFlags::NOCTTY);
