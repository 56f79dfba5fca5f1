//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::tls::Pin;

/// A TCP tunnel out of a network that cannot be reached from outside.
///
/// The client dials the server, and the server's entry leads through that one connection to the client's side.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Threads [default: one for two processors]. With one, a busy connection holds up the others a little.
    #[arg(long, global = true, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) threads: Option<u8>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Move some data through a tunnel on loopback, and say whether all of it arrived.
    Check,
    /// Dial out, and connect what comes back to a local address; reconnects for ever.
    Client(Client),
    /// Wait for a client, and lead what connects to the entry to it.
    Server(Server),
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Server {
    /// Where the client dials in.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,
    /// Where connections go into the tunnel.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) entry: SocketAddr,
    /// Encrypt; without --cert a certificate is made at every start, and its pin printed.
    #[arg(long)]
    pub(crate) tls: bool,
    /// The certificate chain, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    pub(crate) cert: Option<PathBuf>,
    /// The private key, as PEM.
    #[arg(long, value_name = "FILE", requires_all = ["tls", "cert"])]
    pub(crate) key: Option<PathBuf>,
    /// A file with a word that the client has to know; without it anybody may be the client.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// What is spoken on the connection.
    #[arg(long, value_enum, default_value_t = Dialect::V3)]
    pub(crate) dialect: Dialect,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Client {
    /// The server's --listen. HTTPS_PROXY and NO_PROXY are honoured with --tls.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) server: String,
    /// Where connections out of the tunnel lead.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) to: String,
    /// Encrypt.
    #[arg(long)]
    pub(crate) tls: bool,
    /// Trust just this certificate (sha256:..., which the server prints); without it, the system's authorities.
    #[arg(long, requires = "tls")]
    pub(crate) pin: Option<Pin>,
    /// A file with the word that the server wants.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// What is spoken on the connection.
    #[arg(long, value_enum, default_value_t = Dialect::V3)]
    pub(crate) dialect: Dialect,
}

/// What is spoken on the connection that the client dials.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Dialect {
    /// A further connection of the client's for each that enters: slower to open, faster where many are busy, and each with the
    /// kernel's flow control.
    /// Without --tls a connection that breaks looks like one that ends.
    V2,
    /// Many connections over one.
    V3,
}

impl Dialect {
    pub(crate) fn of_revdial(self) -> revdial::handshake::Dialect {
        match self {
            Self::V2 => revdial::handshake::Dialect::V2,
            Self::V3 => revdial::handshake::Dialect::V3,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  A web server on a laptop, reached at port 8080 of a host that everybody reaches:

    host$   tunnel server --listen 0.0.0.0:7000 --entry 0.0.0.0:8080 --tls --token-file word
    pin sha256:5f1c...
    laptop$ tunnel client --server host:7000 --to localhost:80 --tls --pin sha256:5f1c... --token-file word
    host$   curl http://localhost:8080/

  Unencrypted, on loopback:

    $ tunnel server --listen 127.0.0.1:7000 --entry 127.0.0.1:8080
    $ tunnel client --server 127.0.0.1:7000 --to 127.0.0.1:80";
