//! The machine's own sshd, for one connection at a time.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use rustix::process::{Pid, Signal, getsid, kill_process_group};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio_util::task::AbortOnDropHandle;

use super::platform;
use crate::hostkey::HostKeys;
use crate::key::AuthorizedKey;

/// The sshd of this machine, which is started anew for each connection (`sshd -i`).
///
/// It gets a configuration, a host key and a list of the one admitted key of its own, in a temporary directory: nothing
/// is written into anybody's home, no port is opened, and the machine's own configuration is not read. It runs as this
/// program's user, so only where that is root can it let others in. A command that still runs when its connection is cut is
/// told to hang up: by its terminal, where it has one, and by us where it has none and the system is Linux (sshd itself
/// leaves it alone).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Sshd {
    /// The program, as an absolute path.
    pub path: PathBuf,
}

impl Sshd {
    /// Uses the program at `path`, such as `/usr/sbin/sshd`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Starts sshd for one connection, on which just the holder of `authorized_key`, `TYPE BASE64 [COMMENT]`, may log in
    /// and just as `user`. Such a session has terminals and forwarding of ports and agents.
    ///
    /// Where root runs this and sshd misses the directory that it locks its unprivileged part into, that is made.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] where the user's name or the key is none, or the path is not absolute;
    /// otherwise what the system or sshd itself says.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn connect(&self, user: &str, authorized_key: &str) -> io::Result<SshdConn> {
        if !self.path.is_absolute() {
            return Err(invalid("the path of sshd is not absolute"));
        }
        let directory = Directory::new(user, authorized_key)?;
        self.check(&directory).await?;
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let theirs = OwnedFd::from(theirs);
        let mut child = self
            .command(&directory)
            .arg("-i")
            .stdin(theirs.try_clone()?)
            .stdout(theirs)
            .kill_on_drop(false)
            .spawn()?;
        let log = child
            .stderr
            .take()
            .map(|stderr| AbortOnDropHandle::new(tokio::spawn(log(stderr))));
        Ok(SshdConn {
            host_key_line: directory.host_keys.public_line(),
            stream: SshdStream {
                stream: UnixStream::from_std(ours)?,
                _process: SshdProcess {
                    child,
                    mark: directory.mark(),
                },
                _log: log,
                _directory: directory,
            },
        })
    }

    /// Asks sshd whether it could start, so that its reason reaches the user.
    async fn check(&self, directory: &Directory) -> io::Result<()> {
        let Some(reason) = self.refusal(directory).await? else {
            return Ok(());
        };
        // It tells the path, which differs between systems; `/run` is empty after a boot.
        let missing = reason
            .lines()
            .find_map(|line| line.trim().strip_prefix(MISSING_DIRECTORY));
        if let Some(missing) = missing
            && fs::create_dir(missing).is_ok()
        {
            fs::set_permissions(missing, fs::Permissions::from_mode(0o755))?;
            return match self.refusal(directory).await? {
                Some(reason) => Err(refused(&reason)),
                None => Ok(()),
            };
        }
        Err(refused(&reason))
    }

    /// Why sshd would not start, if so.
    async fn refusal(&self, directory: &Directory) -> io::Result<Option<String>> {
        let output = self.command(directory).arg("-t").output().await?;
        if output.status.success() {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn command(&self, directory: &Directory) -> Command {
        let mut command = Command::new(&self.path);
        command
            .arg("-e")
            .arg("-f")
            .arg(directory.config())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        platform::lead_session(&mut command, false);
        command
    }
}

/// A connection to the machine's sshd.
#[derive(Debug)]
#[non_exhaustive]
pub struct SshdConn {
    /// The host key of this one connection, as a line without comment.
    pub host_key_line: String,
    /// The bytes of SSH.
    pub stream: SshdStream,
}

/// The stream to an sshd. Dropping it ends that, and removes what was made for it.
#[derive(Debug)]
pub struct SshdStream {
    stream: UnixStream,
    _process: SshdProcess,
    _log: Option<AbortOnDropHandle<()>>,
    _directory: Directory,
}

impl AsyncRead for SshdStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SshdStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// An sshd that is asked to end when it is dropped. It then tells its sessions and closes their terminals, which a killed
/// one would not; the runtime reaps it.
#[derive(Debug)]
struct SshdProcess {
    child: Child,
    /// The variable by which the commands of its sessions are known.
    mark: String,
}

impl Drop for SshdProcess {
    fn drop(&mut self) {
        if let Some(group) = platform::Group::led_by(&self.child) {
            group.signal(Signal::TERM);
        }
        hang_up_commands(&self.mark);
    }
}

/// Hangs up every command that was started with the variable `mark` and still leads its session: the connection that
/// it ran for is gone. What a finished command left in the background has lost its leader, and is left alone.
///
/// Linux tells the environment that a process was started with; elsewhere there is nothing to find.
fn hang_up_commands(mark: &str) {
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let id = process.file_name().to_str().and_then(|id| id.parse().ok());
        let Some(id) = id.and_then(Pid::from_raw) else {
            continue;
        };
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        if variables.any(|variable| variable == mark.as_bytes()) && getsid(Some(id)) == Ok(id) {
            // It may have ended since.
            let _ = kill_process_group(id, Signal::HUP);
        }
    }
}

/// What is made for one connection.
#[derive(Debug)]
struct Directory {
    directory: TempDir,
    host_keys: HostKeys,
}

impl Directory {
    fn new(user: &str, authorized_key: &str) -> io::Result<Self> {
        check_name(user)?;
        let key: AuthorizedKey = authorized_key.parse().map_err(invalid)?;
        let key = key.line().ok_or(io::ErrorKind::InvalidInput)?;
        let is_root = rustix::process::geteuid().is_root();
        // sshd reads the admitted keys as the user that logs in, who is another one where root runs this.
        let mode = if is_root { 0o711 } else { 0o700 };
        let directory = tempfile::Builder::new()
            .prefix("sshd-")
            .permissions(fs::Permissions::from_mode(mode))
            .tempdir()?;
        let path = directory.path();
        let host_keys = HostKeys::load_or_create(path).map_err(io::Error::other)?;
        let keys = path.join(AUTHORIZED_KEYS);
        fs::write(&keys, format!("{OPTIONS} {key}\n"))?;
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o644))?;
        fs::write(path.join(CONFIG), configuration(path, user, is_root)?)?;
        Ok(Self {
            directory,
            host_keys,
        })
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join(CONFIG)
    }

    fn mark(&self) -> String {
        mark(self.directory.path())
    }
}

/// The variable that every command of a connection is started with. The name of the directory is random, and a client
/// cannot set it: what sshd sets itself comes last.
fn mark(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    format!("{MARK}={name}")
}

/// Passes what sshd says on to our own log.
async fn log(mut stderr: ChildStderr) {
    let mut buffer = vec![0; LOG_CHUNK];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]);
        tracing::debug!(message = text.trim_end(), "sshd");
    }
}

fn configuration(directory: &Path, user: &str, is_root: bool) -> io::Result<String> {
    let directory = directory.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
    if directory.contains(['"', '\\', '%', '\n']) {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    // Without PAM a locked password keeps keys out as well; PAM works for root only, and only where it knows sshd.
    let pam = if is_root && Path::new("/etc/pam.d/sshd").exists() {
        "yes"
    } else {
        "no"
    };
    Ok(format!(
        "HostKey \"{directory}/{HOST_KEY}\"\n\
         AuthorizedKeysFile \"{directory}/{AUTHORIZED_KEYS}\"\n\
         AllowUsers {user}\n\
         UsePAM {pam}\n\
         SetEnv {}\n\
         {SETTINGS}",
        mark(Path::new(directory)),
    ))
}

/// Takes names that cannot be mistaken for a pattern or for a second word in the configuration.
fn check_name(user: &str) -> io::Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if user.is_empty() || user.starts_with('-') || !user.bytes().all(fits) {
        return Err(invalid(
            "the user's name has characters that no Unix user's name has",
        ));
    }
    Ok(())
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn refused(reason: &str) -> io::Error {
    io::Error::other(format!("sshd does not start: {}", reason.trim()))
}

/// What sshd needs to be told on every system. The gateway has looked at its user's environment, and adds that of the
/// machine, so any is accepted. `StrictModes` would want the temporary directory to be the user's.
const SETTINGS: &str = "\
AuthenticationMethods publickey
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
PermitRootLogin prohibit-password
StrictModes no
PermitUserEnvironment no
PermitTunnel no
X11Forwarding no
AcceptEnv *
LoginGraceTime 30
UseDNS no
PrintMotd no
PidFile none
LogLevel ERROR
Subsystem sftp internal-sftp
";

/// What the admitted key may do besides running commands.
const OPTIONS: &str = "restrict,pty,port-forwarding,agent-forwarding";

const MARK: &str = "BUILDLET_SSHD";

const AUTHORIZED_KEYS: &str = "authorized_keys";
const CONFIG: &str = "sshd_config";
/// The name that [`HostKeys::load_or_create`] gives the key.
const HOST_KEY: &str = "ssh_host_ed25519_key";

/// How sshd says that the directory for its unprivileged part is missing.
const MISSING_DIRECTORY: &str = "Missing privilege separation directory: ";

/// The longest piece of sshd's log that is passed on at once.
const LOG_CHUNK: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_s_files_are_private_and_gone_with_it() {
        let directory = Directory::new("gopher", KEY).unwrap();
        let path = directory.directory.path().to_owned();
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            mode("") & 0o066,
            0,
            "nobody else lists or changes the directory"
        );
        assert_eq!(mode(HOST_KEY), 0o600);
        let keys = fs::read_to_string(path.join(AUTHORIZED_KEYS)).unwrap();
        assert_eq!(keys, format!("{OPTIONS} {KEY}\n"));
        let config = fs::read_to_string(path.join(CONFIG)).unwrap();
        assert!(config.contains("\nAllowUsers gopher\n"), "{config}");
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_name_or_key_that_could_be_more_than_one_is_refused() {
        for name in ["", "-o", "a b", "a\nb", "*", "?", "a@b", "!a", "ż", "a\"b"] {
            let error = Directory::new(name, KEY).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        for key in [
            "",
            "ssh-ed25519",
            "command=\"x\" ssh-ed25519 AAAA",
            "ssh-dss AAAA",
        ] {
            let error = Directory::new("gopher", key).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{key:?}");
        }
        // A second line would be a second key.
        let two = format!("{KEY} a\n{KEY} b");
        if let Ok(directory) = Directory::new("gopher", &two) {
            let keys = fs::read_to_string(directory.directory.path().join(AUTHORIZED_KEYS));
            assert_eq!(keys.unwrap().lines().count(), 1);
        }
    }

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
}
