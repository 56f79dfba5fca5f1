//! Reverse mode: dial out to a coordinator, and serve what it opens over that connection.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use buildlet_proto::server::Server;
use buildlet_proto::tls::{self, TlsStream};
use http::{HeaderValue, Request, StatusCode};
use revdial::backoff::FullJitter;
use revdial::handshake::{HandshakeError, Upgraded, upgrade};
use revdial::{CloseReason, Config, Listener};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::args::Args;
use crate::machine::{Machine, PROTOCOL_LEVEL};

/// A coordinator, and what this machine says to it.
pub(crate) struct Reverse {
    host: String,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    request: Request<()>,
}

impl Reverse {
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        let address = args.coordinator.as_deref().context("give --coordinator")?;
        let (host, port) = parse_address(address)?;
        let tls = tls::client_config(args.pin.as_ref())?;
        let request = registration(args, &host)?;
        Ok(Self {
            host,
            port,
            tls,
            request,
        })
    }

    /// Serves over one connection after the other, for ever.
    pub(crate) async fn run(&self, server: Server<Machine>) -> anyhow::Result<()> {
        let mut soon = FullJitter::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut late = FullJitter::new(Duration::from_secs(30), Duration::from_secs(600));
        loop {
            let delay = match self.connect().await {
                Ok(link) => {
                    let began = Instant::now();
                    tracing::info!(coordinator = %self.host, "registered");
                    let reason = serve(link, &server).await;
                    // The coordinator says goodbye at the end of each lease, and wants the machine back at once.
                    let said_goodbye = matches!(reason, CloseReason::PeerClosed);
                    if said_goodbye {
                        tracing::info!("the coordinator closed the link");
                    } else {
                        tracing::warn!(%reason, "the link to the coordinator ended");
                    }
                    if said_goodbye || began.elapsed() >= STEADY {
                        soon.reset();
                    }
                    late.reset();
                    soon.next_delay()
                }
                Err(error) => {
                    let delay = match refusal(&error) {
                        Some(asked) => late.next_delay().max(asked),
                        None => soon.next_delay(),
                    };
                    tracing::warn!(
                        error = format!("{error:#}"),
                        retry_in = ?delay,
                        "no connection to the coordinator"
                    );
                    delay
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    /// Dials, and is registered.
    async fn connect(&self) -> anyhow::Result<Upgraded<TlsStream<TcpStream>>> {
        let address = (self.host.as_str(), self.port);
        let tcp = within(DIAL, TcpStream::connect(address))
            .await
            .with_context(|| format!("connecting to {}:{}", self.host, self.port))?;
        watch_over(&tcp).context("setting the connection's options")?;
        let handshake = async {
            let tls = tls::connect(tcp, &self.host, self.tls.clone())
                .await
                .context("verifying the coordinator")?;
            let (link, _) = upgrade(tls, &self.request).await.context("registering")?;
            anyhow::Ok(link)
        };
        within(HANDSHAKE, handshake).await
    }
}

/// Serves what the coordinator opens, until the link ends; everything on it ends then.
async fn serve(link: Upgraded<TlsStream<TcpStream>>, server: &Server<Machine>) -> CloseReason {
    let mut listener = Listener::new(link, Config::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(conn) => {
                    let server = server.clone();
                    connections.spawn(async move {
                        if let Err(error) = server.serve(conn).await {
                            tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
                        }
                    });
                }
                Err(reason) => return reason,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The request that turns the connection around.
fn registration(args: &Args, host: &str) -> anyhow::Result<Request<()>> {
    let key_file = args.key_file.as_ref().context("give --key-file")?;
    let key = std::fs::read_to_string(key_file)
        .with_context(|| format!("reading the machine's key from {}", key_file.display()))?;
    let mut key =
        HeaderValue::from_str(key.trim()).context("the machine's key is not one line of text")?;
    key.set_sensitive(true);
    let host_type = args.host_type.as_deref().context("give --host-type")?;
    let hostname = args.hostname.clone().unwrap_or_else(system_hostname);
    Request::get("/reverse")
        .header("Host", host)
        .header("Connection", "Upgrade")
        .header("Upgrade", "revdial")
        .header("X-Revdial-Version", "3")
        .header("X-Go-Host-Type", host_type)
        .header("X-Go-Builder-Key", key)
        .header("X-Go-Builder-Hostname", hostname)
        .header("X-Go-Builder-Version", PROTOCOL_LEVEL)
        .body(())
        .context("the host type or host name is not one line of text")
}

fn system_hostname() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    if name.is_empty() {
        "buildlet".to_owned()
    } else {
        name
    }
}

/// How long to wait at least, where the coordinator was reached and said no.
fn refusal(error: &anyhow::Error) -> Option<Duration> {
    let HandshakeError::Refused {
        status,
        retry_after,
        ..
    } = error.downcast_ref()?
    else {
        return None;
    };
    // These say that somebody behind the address is away, and may be back soon.
    let away = [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    (!away.contains(status)).then(|| retry_after.unwrap_or_default())
}

/// Reads `HOST[:PORT]` or `https://HOST[:PORT][/]`; the port is 443 where none is given.
fn parse_address(address: &str) -> anyhow::Result<(String, u16)> {
    if address.starts_with("http://") {
        bail!("a coordinator is reached over TLS: give https://HOST:PORT or HOST:PORT");
    }
    let bare = address.strip_prefix("https://").unwrap_or(address);
    let authority: http::uri::Authority = bare
        .trim_end_matches('/')
        .parse()
        .with_context(|| format!("{address:?} is not HOST[:PORT] or https://HOST[:PORT]"))?;
    let host = authority.host();
    let port = match authority.port_u16() {
        None if host == authority.as_str() => HTTPS,
        Some(port) if !authority.as_str().contains('@') => port,
        _ => bail!("{address:?} is not HOST[:PORT] or https://HOST[:PORT]"),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), port))
}

/// Makes the system notice a coordinator that is gone without a word, also while we send.
fn watch_over(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    Ok(())
}

async fn within<T, E: Into<anyhow::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => bail!("no answer within {} seconds", limit.as_secs()),
    }
}

const HTTPS: u16 = 443;

const DIAL: Duration = Duration::from_secs(10);

/// TLS and registration together.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// A link that lasted this long was no accident, and the next attempt is the first.
const STEADY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_their_parts() {
        for (given, host, port) in [
            ("farm.example.org", "farm.example.org", 443),
            ("localhost:8119", "localhost", 8119),
            ("https://localhost:8119/", "localhost", 8119),
            ("https://farm.example.org", "farm.example.org", 443),
            ("[::1]:8119", "::1", 8119),
        ] {
            assert_eq!(
                parse_address(given).unwrap(),
                (host.to_owned(), port),
                "{given}"
            );
        }
        for bad in [
            "",
            "http://x:1",
            "a b",
            "x:99999",
            "user@x:1",
            "https://x/path",
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }
}
