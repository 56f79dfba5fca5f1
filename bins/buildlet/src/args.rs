//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use buildlet_proto::tls::Pin;
use clap::{Args as ClapArgs, ValueEnum};

/// How a buildlet is reached, and what it offers.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
#[non_exhaustive]
pub struct Args {
    /// Dial out to this coordinator, HOST:PORT or https://HOST:PORT, and serve that connection.
    #[arg(
        long,
        value_name = "ADDRESS",
        required_unless_present = "listen",
        conflicts_with = "listen"
    )]
    pub coordinator: Option<String>,
    /// Trust just the certificate authority with this public key (sha256:...), which the coordinator prints; without it,
    /// those of the system.
    #[arg(long, requires = "coordinator")]
    pub pin: Option<Pin>,
    /// What kind of machine this is, by a name that the coordinator knows.
    #[arg(long, value_name = "TYPE", required_unless_present = "listen")]
    pub host_type: Option<String>,
    /// The file with this machine's key, which the coordinator has made.
    #[arg(long, value_name = "FILE", required_unless_present = "listen")]
    pub key_file: Option<PathBuf>,
    /// This machine's name in the coordinator's listings [default: the system's host name].
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// Listen on this address instead, for whoever knows the password.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// The file with the password of listen mode; without it, one is made and printed.
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub password_file: Option<PathBuf>,
    /// The certificate chain for TLS in listen mode, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_key"])]
    pub tls_cert: Option<PathBuf>,
    /// The private key for TLS in listen mode, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["listen", "tls_cert"])]
    pub tls_key: Option<PathBuf>,

    /// The directory that is offered; it is WIPED at start, and refused if it is not empty and no buildlet made it
    /// [default: workdir-TYPE in the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// Which SSH server /connect-ssh reaches.
    #[arg(long, value_enum, default_value_t = SshMode::Builtin, value_name = "SERVER")]
    pub ssh: SshMode,
    /// The sshd of --ssh=system.
    #[arg(long, value_name = "FILE", default_value = "/usr/sbin/sshd")]
    pub sshd: PathBuf,
}

/// Which SSH server a machine offers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
#[non_exhaustive]
pub enum SshMode {
    /// The one in this program, with the work directory and environment of commands.
    Builtin,
    /// None.
    Off,
    /// The machine's own sshd, started for each connection.
    System,
}
