//! Reverse mode: dial out to a coordinator, and serve what it opens over that connection.

use std::time::Duration;

use anyhow::{Context, bail};
use buildlet_proto::server::{Auth, Server};
use buildlet_proto::tls;
use http::{HeaderName, HeaderValue, Uri};
use revdial::connector::{InvalidProxy, NoProxy, Proxies, Proxy, Step};
use revdial::{CloseReason, Connector, Listener};
use tokio::task::JoinSet;

use crate::args::Args;
use crate::health::Health;
use crate::machine::{Machine, PROTOCOL_LEVEL, Wiper};

/// A coordinator, and what this machine says to it.
pub(crate) struct Reverse(Connector);

impl Reverse {
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        let address = args.coordinator.as_deref().context("give --coordinator")?;
        let server = parse_address(address)?;
        let tls = tls::client_config(args.pin.as_ref())?;
        let mut connector = Connector::with_tls(&server, tls)
            .with_context(|| not_an_address(address))?
            .proxies(proxies(args.proxy.as_ref())?);
        // A proxy that is reached over TLS has a name that the system's authorities vouch for. Without any, others work.
        if let Ok(authorities) = tls::client_config(None) {
            connector = connector.proxy_tls(authorities);
        }
        for (name, value) in registration(args, &server)? {
            connector = connector.header(HeaderName::from_static(name), value);
        }
        Ok(Self(connector))
    }

    /// Serves over one connection after the other, for ever.
    ///
    /// A machine that is not well does not ask for work. One whose link was lost does come back: somebody may have leased
    /// it, and its status says what is wrong.
    pub(crate) async fn run(self, machine: Machine) -> anyhow::Result<()> {
        let coordinator = host(self.0.server().host()).to_owned();
        let (health, wiper) = (machine.health(), machine.wiper());
        // The coordinator proved who it is by its certificate, and it alone can open connections over the link.
        let server = Server::new(machine, Auth::open());
        let mut links = self.0.links();
        let mut is_idle = true;
        loop {
            if is_idle {
                recovered(&health, &wiper).await;
            }
            is_idle = false;
            match links.step().await {
                Step::Linked(listener) => {
                    tracing::info!(%coordinator, "registered");
                    serve(listener, &server).await;
                }
                // The coordinator says goodbye at the end of each lease, and wants the machine back at once. One that is
                // started anew does not: its leases go on.
                Step::Ended {
                    reason: CloseReason::PeerClosed,
                    ..
                } => {
                    tracing::info!("the coordinator closed the link");
                    is_idle = true;
                }
                step @ (Step::Ended { .. } | Step::Failed { .. } | _) => log(step),
            }
        }
    }
}

/// Says why there is no link.
fn log(step: Step) {
    match step {
        Step::Ended { reason, .. } => tracing::warn!(%reason, "the link to the coordinator ended"),
        Step::Failed { error, retry_in } => tracing::warn!(
            error = format!("{:#}", anyhow::Error::from(error)),
            ?retry_in,
            "no connection to the coordinator"
        ),
        step @ (Step::Linked(_) | _) => tracing::debug!(?step, "a step that has no name"),
    }
}

/// Resolves when the machine is well. What an earlier user has left is in nobody's way but ours, and is removed.
async fn recovered(health: &Health, wiper: &Wiper) {
    while let Some(why) = health.check().await {
        if let Err(error) = wiper.wipe().await {
            tracing::warn!(%error, "the work directory cannot be emptied");
        }
        if health.check().await.is_none() {
            return;
        }
        let retry_in = HEALTH_PAUSE;
        tracing::warn!(%why, ?retry_in, "this machine is not well, and does not register");
        tokio::time::sleep(HEALTH_PAUSE).await;
    }
}

/// The proxy of the command line, else that of the environment.
pub(crate) fn proxies(given: Option<&Result<Proxy, InvalidProxy>>) -> anyhow::Result<Proxies> {
    match given {
        None => Ok(Proxies::from_env()?),
        Some(proxy) => {
            let proxy = proxy.as_ref().map_err(|error| *error);
            let proxy = proxy.context("--proxy is not understood")?;
            let direct = ["NO_PROXY", "no_proxy"];
            let direct = direct.iter().find_map(|name| std::env::var(name).ok());
            let Ok(direct) = direct.unwrap_or_default().parse::<NoProxy>();
            Ok(Proxies::new(proxy.clone(), direct))
        }
    }
}

/// Serves what the coordinator opens, until the link ends; everything on it ends then.
async fn serve(mut listener: Listener, server: &Server<Machine>) {
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
                Err(_) => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What the request says that turns the connection around.
fn registration(args: &Args, server: &Uri) -> anyhow::Result<[(&'static str, HeaderValue); 6]> {
    let key_file = args.key_file.as_ref().context("give --key-file")?;
    let key = std::fs::read_to_string(key_file)
        .with_context(|| format!("reading the machine's key from {}", key_file.display()))?;
    let mut key =
        HeaderValue::from_str(key.trim()).context("the machine's key is not one line of text")?;
    key.set_sensitive(true);
    let host_type = args.host_type.as_deref().context("give --host-type")?;
    let hostname = args.hostname.clone().unwrap_or_else(system_hostname);
    let line = |text: &str| {
        HeaderValue::from_str(text).context("the host type or host name is not one line of text")
    };
    Ok([
        ("host", line(host(server.host().unwrap_or_default()))?),
        ("x-go-host-type", line(host_type)?),
        ("x-go-builder-key", key),
        ("x-go-builder-hostname", line(&hostname)?),
        ("x-go-builder-version", PROTOCOL_LEVEL.into()),
        ("x-buildlet-process", rand::random::<u64>().into()),
    ])
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

/// Reads `HOST[:PORT]` or `https://HOST[:PORT][/]`, and adds the path of registrations.
fn parse_address(address: &str) -> anyhow::Result<Uri> {
    if address.starts_with("http://") {
        bail!("a coordinator is reached over TLS: give https://HOST:PORT or HOST:PORT");
    }
    let bare = address.strip_prefix("https://").unwrap_or(address);
    let authority: http::uri::Authority = bare
        .trim_end_matches('/')
        .parse()
        .with_context(|| not_an_address(address))?;
    Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query("/reverse")
        .build()
        .with_context(|| not_an_address(address))
}

fn not_an_address(address: &str) -> String {
    format!("{address:?} is not HOST[:PORT] or https://HOST[:PORT]")
}

/// A host without the brackets of an address.
fn host(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// A disk does not fill, nor empty, in less.
const HEALTH_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the connector for `address` goes.
    fn server(address: &str) -> anyhow::Result<String> {
        let roots = rustls::RootCertStore::empty();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = Connector::with_tls(&parse_address(address)?, tls.into())?;
        Ok(connector.server().to_string())
    }

    #[test]
    fn addresses_are_read_with_and_without_their_parts() {
        for (given, expected) in [
            ("farm.example.org", "farm.example.org:443"),
            ("localhost:8119", "localhost:8119"),
            ("https://localhost:8119/", "localhost:8119"),
            ("https://farm.example.org", "farm.example.org:443"),
            ("[::1]:8119", "[::1]:8119"),
        ] {
            assert_eq!(server(given).unwrap(), expected, "{given}");
        }
        for bad in [
            "",
            "http://x:1",
            "a b",
            "x:99999",
            "user@x:1",
            "https://x/path",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }
}
