//! The directory of a demo: keys, work directories, and configuration for gomote and ssh.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use sshbridge::hostkey::HostKeys;

use crate::app::{MACHINE_KEY_PREFIX, USER_TOKEN_PREFIX};
use crate::config::{BuilderType, Config, HostType, Listen, User};
use crate::secret::Secret;
use crate::server::Addresses;

use super::{BUILDER_TYPE, HOST_TYPE, MACHINES, USER};

/// A directory that belongs to one running demo. Secrets are made anew at each start; the certificate authority, the
/// SSH host key and the user's SSH key are kept, so that pins and known hosts go on being true.
pub(super) struct DemoFiles {
    dir: PathBuf,
    token: Secret,
    machine_key: Secret,
    _lock: File,
}

impl DemoFiles {
    /// Makes the directory, or takes one that an earlier demo made.
    pub(super) fn prepare(dir: &Path) -> anyhow::Result<Self> {
        let lock = claim(dir).with_context(|| format!("demo directory {}", dir.display()))?;
        let files = Self {
            dir: dir.to_owned(),
            token: Secret::generate(USER_TOKEN_PREFIX)?,
            machine_key: Secret::generate(MACHINE_KEY_PREFIX)?,
            _lock: lock,
        };
        replace_private(&files.machine_key_file(), files.machine_key.expose())?;
        make_private_dir(&files.machines_dir())?;
        make_private_dir(&files.identity_dir())?;
        let identity = HostKeys::load_or_create(&files.identity_dir())?;
        replace_private(
            &files.authorized_keys(),
            &format!("{}\n", identity.public_line()),
        )?;
        Ok(files)
    }

    /// What the coordinator of the demo is told.
    pub(super) fn config(&self, https: SocketAddr, ssh: SocketAddr) -> Config {
        let host_type = HostType {
            key_hash: Some(self.machine_key.hash()),
            machines: MACHINES
                .map(|name| (name.to_owned(), Default::default()))
                .into(),
            ..HostType::default()
        };
        let user = User {
            token_hash: Some(self.token.hash()),
            key_files: vec![self.authorized_keys()],
            ..User::default()
        };
        let builder_type = BuilderType {
            host_type: HOST_TYPE.to_owned(),
            env: Default::default(),
        };
        Config {
            data_dir: self.dir.join("coordinator"),
            listen: Listen { https, ssh },
            tls: Default::default(),
            ssh: Default::default(),
            host_types: [(HOST_TYPE.to_owned(), host_type)].into(),
            builder_types: [(BUILDER_TYPE.to_owned(), builder_type)].into(),
            users: [(USER.to_owned(), user)].into(),
            go_keys: None,
        }
    }

    /// The command line of a machine, after the program's name.
    pub(super) fn machine_args(&self, hostname: &str, addresses: &Addresses) -> Vec<OsString> {
        let coordinator = format!("https://localhost:{}", addresses.https.port());
        let pin = addresses.pin.to_string();
        let work_dir = self.machines_dir().join(hostname);
        let mut args: Vec<OsString> = ["buildlet", "--coordinator", &coordinator, "--pin", &pin]
            .map(Into::into)
            .into();
        args.extend(
            [
                "--host-type",
                HOST_TYPE,
                "--hostname",
                hostname,
                "--key-file",
            ]
            .map(Into::into),
        );
        args.extend([
            self.machine_key_file().into(),
            "--workdir".into(),
            work_dir.into(),
        ]);
        args
    }

    /// Writes what gomote and ssh need to find the demo.
    pub(super) fn write_client_files(&self, addresses: &Addresses) -> anyhow::Result<()> {
        let gomote = gomote::config::File {
            server: Some(format!("https://localhost:{}", addresses.https.port())),
            pin: Some(addresses.pin.to_string()),
            user: Some(USER.to_owned()),
            token: Some(self.token.expose().to_owned()),
            ssh: Some(format!("localhost:{}", addresses.ssh.port())),
            ssh_host_key: Some(addresses.ssh_host_key.clone()),
            ssh_identity: Some(self.identity()),
        };
        replace_private(&self.gomote_config(), &gomote.to_toml())?;
        let known_hosts = format!(
            "[localhost]:{} {}\n",
            addresses.ssh.port(),
            addresses.ssh_host_key
        );
        replace_private(&self.known_hosts(), &known_hosts)?;
        let ssh = format!(
            "# Finds the demo coordinator: its host key is known, and the key of its one user is offered.\n\
             Host *\n  IdentityFile \"{}\"\n  IdentitiesOnly yes\n  UserKnownHostsFile \"{}\"\n",
            self.identity().display(),
            self.known_hosts().display(),
        );
        replace_private(&self.ssh_config(), &ssh)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn gomote_config(&self) -> PathBuf {
        self.dir.join("gomote.toml")
    }

    pub(super) fn ssh_config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    fn authorized_keys(&self) -> PathBuf {
        self.dir.join("authorized_keys")
    }

    fn identity(&self) -> PathBuf {
        self.identity_dir().join("ssh_host_ed25519_key")
    }

    /// The user's key is of the same make as a host key, so the same code keeps it.
    fn identity_dir(&self) -> PathBuf {
        self.dir.join("user")
    }

    fn known_hosts(&self) -> PathBuf {
        self.dir.join("known_hosts")
    }

    fn machine_key_file(&self) -> PathBuf {
        self.dir.join("machine.key")
    }

    fn machines_dir(&self) -> PathBuf {
        self.dir.join("machines")
    }
}

/// Makes the directory ours: new, or made by an earlier demo, and used by no other at the moment.
fn claim(dir: &Path) -> anyhow::Result<File> {
    let marker = dir.join(MARKER);
    let is_new = !dir.exists() || fs::read_dir(dir)?.next().is_none();
    if !is_new && !marker.exists() {
        bail!("it holds other files; name a new directory with --dir");
    }
    make_private_dir(dir)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&marker)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            bail!("another demo runs in it; end that, or name another with --dir")
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a file that nobody else may read, in place of the one that is there.
fn replace_private(path: &Path, content: &str) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    crate::identity::write_private(path, content)
}

const MARKER: &str = ".gomote-demo";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_other_files_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains("holds other files"), "{error}");
    }

    #[test]
    fn two_demos_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path()).unwrap();
        let error = claim(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another demo"), "{error}");
        drop(first);
        claim(dir.path()).unwrap();
    }
}
