//! Unix sockets that nobody else may connect to.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

/// Listens at `path`, which must not exist, for this program's user alone.
///
/// The mode is set before anybody can connect: on Linux the file is made with that of the socket, and elsewhere it is
/// changed while nothing listens yet.
pub(crate) fn listen_privately(path: PathBuf) -> io::Result<(UnixListener, SocketPath)> {
    let address = SocketAddrUnix::new(&path)?;
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    // Systems that cannot do it are served by the change below.
    let _ = fchmod(&socket, Mode::RUSR | Mode::WUSR);
    bind(&socket, &address)?;
    let made = SocketPath::new(path)?;
    if made.mode != PRIVATE {
        fs::set_permissions(&made.path, fs::Permissions::from_mode(PRIVATE))?;
    }
    rustix::io::fcntl_setfd(socket.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    listen(&socket, BACKLOG)?;
    let socket = UnixListener::from(socket);
    socket.set_nonblocking(true)?;
    Ok((socket, made))
}

/// The file of a socket, which is removed with this where nobody has replaced it.
#[derive(Debug)]
pub(crate) struct SocketPath {
    path: PathBuf,
    mode: u32,
    file: (u64, u64),
}

impl SocketPath {
    fn new(path: PathBuf) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(&path)?;
        Ok(Self {
            path,
            mode: metadata.permissions().mode() & 0o777,
            file: (metadata.dev(), metadata.ino()),
        })
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let same = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(same)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "removing a socket");
        }
    }
}

const PRIVATE: u32 = 0o600;

/// Connections that wait in the system until we take them.
const BACKLOG: i32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_and_gone_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, made) = listen_privately(path.clone()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, PRIVATE);
        let taken = listen_privately(path.clone()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop((listener, made));
        assert!(!path.exists());
    }

    #[test]
    fn what_somebody_else_put_there_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, made) = listen_privately(path.clone()).unwrap();
        // Renamed, so that its number is not given to the new file.
        fs::rename(&path, directory.path().join("moved")).unwrap();
        fs::write(&path, "precious").unwrap();
        drop((listener, made));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
