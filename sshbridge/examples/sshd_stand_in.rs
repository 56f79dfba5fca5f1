//! A gateway that can be put in sshd's place, with sshd's arguments, and with the real sshd behind it.
//!
//! ```text
//! sshd_stand_in /usr/sbin/sshd -i -f sshd_config      one connection, on standard input and output
//! sshd_stand_in /usr/sbin/sshd -f sshd_config         listens until SIGTERM, and keeps a pid file
//! sshd_stand_in built-in -f sshd_config               the same, and the server for machines is behind it, in this process
//! ```
//!
//! Of the configuration it heeds what concerns a gateway: `AuthorizedKeysFile`, `Banner`, `HostKey` (Ed25519 alone),
//! `ListenAddress`, `LoginGraceTime`, `PidFile`, `Port` and `RekeyLimit`. Everything else is for the sshd behind it, which is started anew for
//! each connection to it with the same file. OpenSSH's regression suite is run through it by `interop/openssh/regress`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sshbridge::auth::{Grant, Machine, MachineResolver, Refusal};
use sshbridge::authorize::{KeyAuthorizer, KeyUser};
use sshbridge::backend::BackendError;
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::hostkey::HostKeys;
use sshbridge::keysource::FileKeys;
use sshbridge::machine::{LocalSettings, MachineServer};
use sshbridge::server::{AcceptEnv, Server, ServerConfig};
use tempfile::TempDir;
use tokio::io::Join;
use tokio::net::TcpListener;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let served = runtime.block_on(run());
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    served
}

async fn run() -> Result<ExitCode, Failure> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1)) else {
        return Err("usage: sshd_stand_in SSHD [-i] -f CONFIG [-E LOG]".into());
    };
    let settings = Settings::parse(&fs::read_to_string(&arguments.config)?);
    let directory =
        tempfile::tempdir_in(arguments.config.parent().unwrap_or_else(|| Path::new(".")))?;
    let server = server(&arguments, &settings, &directory)?;
    match arguments.mode {
        Mode::Inetd => {
            let stream = tokio::io::join(tokio::io::stdin(), tokio::io::stdout());
            let served = server.serve_stream(stream, None).await;
            // sshd exits with 255 as well.
            Ok(served.map_or_else(|_| ExitCode::from(255), |()| ExitCode::SUCCESS))
        }
        Mode::Listen => listen(server, &settings).await,
    }
}

/// Serves until SIGTERM, while there is a pid file.
async fn listen(server: Server, settings: &Settings) -> Result<ExitCode, Failure> {
    let listener = TcpListener::bind((settings.host.as_str(), settings.port)).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    if let Some(path) = &settings.pid_file {
        fs::write(path, format!("{}\n", std::process::id()))?;
    }
    let shutdown = CancellationToken::new();
    tokio::select! {
        () = server.serve(listener, shutdown) => {}
        _ = terminate.recv() => {}
    }
    if let Some(path) = &settings.pid_file {
        fs::remove_file(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn server(
    arguments: &Arguments,
    settings: &Settings,
    directory: &TempDir,
) -> Result<Server, Failure> {
    let key = settings.host_key.as_ref().ok_or("no Ed25519 host key")?;
    let own = directory.path().join("ssh_host_ed25519_key");
    fs::copy(key, &own)?;
    let mut config = ServerConfig::new(HostKeys::load_or_create(directory.path())?);
    config.banner = settings.banner.clone();
    config.accept_env = AcceptEnv::Any;
    config.login_grace = settings.login_grace.unwrap_or(config.login_grace);
    config.rekey_bytes = settings.rekey_bytes.unwrap_or(config.rekey_bytes);
    config.rekey_time = settings.rekey_time.unwrap_or(config.rekey_time);
    let keys = Arc::new(FileKeys::new(&settings.authorized_keys));
    let users = [KeyUser::new(user()).with_source(keys, user())];
    let machine: Arc<dyn SshDialer> = if arguments.sshd == Path::new("built-in") {
        let settings = LocalSettings::new(std::env::temp_dir());
        let server = MachineServer::new(HostKeys::ephemeral(), settings);
        Arc::new(ToBuiltIn(server, Handle::current()))
    } else {
        Arc::new(ToSshd {
            sshd: arguments.sshd.clone(),
            config: arguments.config.clone(),
            log: arguments.log.clone(),
            host_key: own,
            admitted: directory.path().join("authorized_keys"),
        })
    };
    let authorizer = Arc::new(KeyAuthorizer::new(users));
    let machine = Arc::new(OneMachine(machine));
    Ok(Server::new(config, authorizer, machine))
}

struct OneMachine(Arc<dyn SshDialer>);

#[async_trait]
impl MachineResolver for OneMachine {
    async fn resolve(&self, grant: &Grant) -> Result<Machine, Refusal> {
        let backend = Arc::new(SshBackend::new(self.0.clone()));
        Ok(Machine::new(&grant.login, backend))
    }
}

/// The server for machines, over a pipe in memory, on threads of its own as on a machine of its own.
struct ToBuiltIn(MachineServer, Handle);

#[async_trait]
impl SshDialer for ToBuiltIn {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        let (near, far) = tokio::io::duplex(PIPE);
        let (server, key) = (self.0.clone(), authorized_key.to_owned());
        // It ends with its connection.
        self.1.spawn(async move { server.serve(far, &key).await });
        Ok(SshTarget::new(near, user()))
    }
}

/// The real sshd, one process for each connection.
struct ToSshd {
    sshd: PathBuf,
    config: PathBuf,
    log: Option<PathBuf>,
    host_key: PathBuf,
    admitted: PathBuf,
}

#[async_trait]
impl SshDialer for ToSshd {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        let stream = self
            .start(authorized_key)
            .map_err(BackendError::Unreachable)?;
        Ok(SshTarget::new(stream, user()))
    }
}

impl ToSshd {
    fn start(&self, authorized_key: &str) -> io::Result<Join<ChildStdout, ChildStdin>> {
        let mut admitted = fs::OpenOptions::new();
        let mut admitted = admitted.append(true).create(true).open(&self.admitted)?;
        writeln!(admitted, "{authorized_key}")?;
        let mut command = Command::new(&self.sshd);
        command.arg("-i").arg("-f").arg(&self.config);
        match &self.log {
            Some(log) => command.arg("-E").arg(log),
            None => command.arg("-e"),
        };
        // What stands first counts, so these win over the file.
        for (option, path) in [
            ("AuthorizedKeysFile", &self.admitted),
            ("HostKey", &self.host_key),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", path.display()));
        }
        for option in BEHIND {
            command.args(["-o", option]);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // It ends with its connection, and the runtime reaps it.
        let child = command.spawn()?;
        let (output, input) = (child.stdout, child.stdin);
        let pipes = output.zip(input).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(tokio::io::join(pipes.0, pipes.1))
    }
}

/// What the sshd behind the gateway must not take from the file, which is written for the one in front.
const BEHIND: &[&str] = &[
    "Banner=none",
    "Ciphers=aes256-gcm@openssh.com",
    "HostKeyAlgorithms=ssh-ed25519",
    "KexAlgorithms=curve25519-sha256",
    "MACs=hmac-sha2-256-etm@openssh.com",
    "PubkeyAcceptedAlgorithms=ssh-ed25519",
    "RekeyLimit=default none",
];

struct Arguments {
    sshd: PathBuf,
    config: PathBuf,
    log: Option<PathBuf>,
    mode: Mode,
}

enum Mode {
    Inetd,
    Listen,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Option<Self> {
        let sshd = given.next()?.into();
        let (mut config, mut log, mut mode) = (None, None, Mode::Listen);
        while let Some(argument) = given.next() {
            match argument.as_str() {
                "-i" => mode = Mode::Inetd,
                "-f" => config = given.next().map(PathBuf::from),
                "-E" => log = given.next().map(PathBuf::from),
                // Levels of debugging and options are the real sshd's.
                other => log = other.strip_prefix("-E").map(PathBuf::from).or(log),
            }
        }
        Some(Self {
            sshd,
            config: config?,
            log,
            mode,
        })
    }
}

/// What of sshd's configuration concerns a gateway.
#[derive(Default)]
struct Settings {
    authorized_keys: PathBuf,
    banner: Option<String>,
    host: String,
    host_key: Option<PathBuf>,
    login_grace: Option<Duration>,
    pid_file: Option<PathBuf>,
    port: u16,
    rekey_bytes: Option<usize>,
    rekey_time: Option<Duration>,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for line in text.lines() {
            let words = line.split(|c: char| c.is_whitespace() || c == '=');
            let mut words = words.filter(|word| !word.is_empty());
            let (Some(name), Some(value)) = (words.next(), words.next()) else {
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "authorizedkeysfile" => {
                    settings.authorized_keys = value.replace("%u", &user()).into();
                }
                "banner" => {
                    let text = fs::read_to_string(value).ok();
                    settings.banner = text.filter(|text| !text.is_empty());
                }
                "hostkey" if is_ed25519(value) => settings.host_key = Some(value.into()),
                "logingracetime" => {
                    let seconds = value.trim_end_matches('s').parse().ok();
                    settings.login_grace = seconds.map(Duration::from_secs);
                }
                "listenaddress" => value.clone_into(&mut settings.host),
                "pidfile" => settings.pid_file = Some(value.into()),
                "port" => settings.port = value.parse().unwrap_or_default(),
                "rekeylimit" => {
                    settings.rekey_bytes = bytes(value);
                    let seconds = words.next().and_then(|seconds| seconds.parse().ok());
                    settings.rekey_time = seconds.map(Duration::from_secs);
                }
                _ => {}
            }
        }
        settings
    }
}

/// Whether the private key's public half, beside it, is of the type that a gateway has.
fn is_ed25519(path: &str) -> bool {
    let public = fs::read_to_string(format!("{path}.pub"));
    let own = || fs::read_to_string(path).is_ok_and(|text| text.len() < ED25519_FILE);
    public.map_or_else(|_| own(), |line| line.starts_with("ssh-ed25519 "))
}

/// `16`, `128k`, `1M`; nothing for `default`.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| "root".to_owned())
}

/// As much as a socket takes.
const PIPE: usize = 256 << 10;

/// A file with an unencrypted Ed25519 key is shorter than that, and one with any other key is longer.
const ED25519_FILE: usize = 450;
