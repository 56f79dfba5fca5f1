//! The socket by which a session reaches its user's agent.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::forward::{Listener, Offers};
use crate::backend::Origin;

/// A socket of mode 0600 in a directory of mode 0700, both of which are gone when it is dropped.
pub(super) struct AgentSocket {
    path: PathBuf,
    // Before the directory, which must be empty.
    _listener: Listener,
    _directory: TempDir,
}

impl AgentSocket {
    /// Makes the socket; each connection to it is offered.
    pub(super) fn new(offers: Offers) -> io::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("ssh-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()?;
        let path = directory.path().join("agent");
        let listener = Listener::unix(path.clone(), Origin::Agent, offers)?;
        Ok(Self {
            path,
            _listener: listener,
            _directory: directory,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
