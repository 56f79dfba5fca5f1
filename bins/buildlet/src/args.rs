//! The command line.

use std::convert::Infallible;
use std::net::{AddrParseError, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use buildlet_proto::tls::Pin;
use clap::{Args as ClapArgs, ValueEnum};
use revdial::connector::{InvalidProxy, Proxy};

use crate::jobs::JobLimits;

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
    /// Reach the coordinator through this HTTP proxy, `http://[USER:PASSWORD@]HOST:PORT` or https, with CONNECT
    /// [default: that of the environment variable HTTPS_PROXY or https_proxy]. Better put a password into the variable:
    /// everybody on the machine can read a command line. Hosts in NO_PROXY or no_proxy, and loopback, are reached
    /// without a proxy.
    // What is wrong with it is told later, by a message that does not repeat it.
    #[arg(long, value_name = "URL", requires = "coordinator", value_parser = proxy)]
    pub proxy: Option<Result<Proxy, InvalidProxy>>,
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
    /// Refuse uploads that would leave less of the disk free than this many MiB; 0 takes all of it.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(..1 << 40))]
    pub min_free_mib: u64,
    /// Below this many MiB of free disk the machine is unhealthy: it does not register anew, and its status and /healthz
    /// say so; 0 never [default: what --min-free-mib says].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(..1 << 40))]
    pub low_disk_mib: Option<u64>,
    /// Answer GET /healthz on this port, or address and port, without a password: `ok`, or 503 and what is wrong. A port
    /// alone is one on loopback.
    #[arg(
        long,
        value_name = "[ADDR:]PORT",
        num_args = 0..=1,
        default_missing_value = "8080",
        value_parser = health_address
    )]
    pub health_addr: Option<SocketAddr>,
    /// Which SSH server /connect-ssh reaches.
    #[arg(long, value_enum, default_value_t = SshMode::Builtin, value_name = "SERVER")]
    pub ssh: SshMode,
    /// The sshd of --ssh=system.
    #[arg(long, value_name = "FILE", default_value = "/usr/sbin/sshd")]
    pub sshd: PathBuf,
    /// Let clients reach this TCP port on the loopback interface, with /connect-tcp; may be repeated. It is for servers that
    /// are a machine's own way to log in (telnet, Plan 9's cpu); without it, no port is reached.
    #[arg(
        long = "allow-tcp-port",
        value_name = "PORT",
        env = "BUILDLET_ALLOW_TCP_PORT",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub allow_tcp_ports: Vec<u16>,

    /// How many jobs, and how much of their output.
    #[command(flatten)]
    pub jobs: JobLimits,
}

#[expect(clippy::unnecessary_wraps, reason = "clap's parsers return a result")]
fn proxy(text: &str) -> Result<Result<Proxy, InvalidProxy>, Infallible> {
    Ok(text.parse())
}

fn health_address(text: &str) -> Result<SocketAddr, AddrParseError> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse(),
    }
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
