//! TCP connections: to one of several addresses, and watched over by the system.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use crate::connector::Timing;
use crate::connector::endpoint::Endpoint;
use crate::connector::error::{ConnectError, Phase};
use crate::connector::within;

/// What a link wants of the socket below it. Good for both ends.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Silence after which the system probes the peer, and the time between probes; 15 s. It notices a peer that is
    /// gone even where a link's own keep-alive is turned off.
    pub keep_alive: Option<Duration>,
    /// Time after which sent data that nobody acknowledged breaks the connection; 60 s (Linux). Without it, one that we
    /// write to outlives its peer by a quarter of an hour.
    pub user_timeout: Option<Duration>,
    /// Bytes that the system takes ahead of what it has sent; 128 KiB (Linux). What waits in the socket cannot be
    /// overtaken: a keystroke would stand behind megabytes of bulk. A millisecond of 1 Gbit/s keeps the network busy.
    pub unsent: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            keep_alive: Some(Duration::from_secs(15)),
            user_timeout: Some(Duration::from_secs(60)),
            unsent: Some(128 * 1024),
        }
    }
}

impl SocketOptions {
    /// Sets the options, and `TCP_NODELAY`: the driver makes the batches.
    ///
    /// # Errors
    ///
    /// The first option that the system does not take; those before it are set.
    pub fn apply(&self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(tcp);
        if let Some(silence) = self.keep_alive {
            let probes = TcpKeepalive::new()
                .with_time(silence)
                .with_interval(silence);
            socket.set_tcp_keepalive(&probes)?;
        }
        #[cfg(target_os = "linux")]
        {
            if self.user_timeout.is_some() {
                socket.set_tcp_user_timeout(self.user_timeout)?;
            }
            if let Some(unsent) = self.unsent {
                socket.set_tcp_notsent_lowat(unsent)?;
            }
        }
        Ok(())
    }
}

/// Resolves and connects.
pub(super) async fn connect(
    endpoint: &Endpoint,
    timing: &Timing,
    options: &SocketOptions,
) -> Result<TcpStream, ConnectError> {
    let name = || endpoint.authority().clone();
    let target = (endpoint.host(), endpoint.port());
    let resolved = within(Phase::Resolve, timing.resolve, lookup_host(target)).await?;
    let addresses: Vec<_> = match resolved {
        Ok(addresses) => alternate(addresses.take(ADDRESSES_MAX)),
        Err(source) => {
            return Err(ConnectError::Resolve {
                name: name(),
                source,
            });
        }
    };
    let count = addresses.len();
    let tcp = first_of(addresses, timing)
        .await
        .map_err(|source| ConnectError::Connect {
            to: name(),
            addresses: count,
            source,
        })?;
    if let Err(error) = options.apply(&tcp) {
        // The link has its own keep-alive.
        debug!(%error, "the system does not take a socket option");
    }
    Ok(tcp)
}

/// Connects to the first that answers: each is given a head start, and stays in the race behind it.
async fn first_of(addresses: Vec<SocketAddr>, timing: &Timing) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(attempt(address, timing.connect));
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let outcome = if addresses.len() == 0 {
            attempts.join_next().await
        } else {
            let answer = timeout(timing.stagger, attempts.join_next()).await;
            answer.unwrap_or_default()
        };
        match outcome {
            Some(Ok(Ok(tcp))) => return Ok(tcp),
            Some(Ok(Err(error))) => failure = error,
            Some(Err(_)) | None => {}
        }
    }
}

async fn attempt(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Alternates the families, so that one without a route costs one head start (RFC 8305, section 4).
fn alternate(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.peekable();
    let first_is_v4 = addresses.peek().is_some_and(SocketAddr::is_ipv4);
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.partition(|address| address.is_ipv4() == first_is_v4);
    let mut alternated = Vec::new();
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    loop {
        match (preferred.next(), other.next()) {
            (None, None) => return alternated,
            (first, second) => alternated.extend(first.into_iter().chain(second)),
        }
    }
}

/// Addresses of one name that are tried; a hostile DNS server may send thousands.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn bound() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// A port where nobody listens.
    async fn closed() -> SocketAddr {
        bound().await.1
    }

    #[tokio::test]
    async fn addresses_are_tried_until_one_answers() {
        let (_listener, address) = bound().await;
        let addresses = vec![closed().await, closed().await, address];
        let tcp = first_of(addresses, &Timing::default()).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn a_server_without_listener_is_a_refusal_with_its_name() {
        let address = closed().await;
        let endpoint = Endpoint::parse(&address.to_string(), 1).unwrap();
        let error = connect(&endpoint, &Timing::default(), &SocketOptions::default())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let ConnectError::Connect { source, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn the_options_are_set() {
        let (_listener, address) = bound().await;
        let tcp = TcpStream::connect(address).await.unwrap();
        SocketOptions::default().apply(&tcp).unwrap();
        let socket = SockRef::from(&tcp);
        assert!(tcp.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            let limit = socket.tcp_user_timeout().unwrap();
            assert_eq!(limit, Some(Duration::from_secs(60)));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024);
        }
    }

    #[test]
    fn families_alternate_and_the_resolvers_choice_is_first() {
        let [a, b, c, d] = ["[::1]:1", "[::2]:1", "192.0.2.1:1", "[::3]:1"]
            .map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(alternate([a, b, c, d].into_iter()), [a, c, b, d]);
        assert_eq!(alternate([c, a, b].into_iter()), [c, a, b]);
        assert_eq!(alternate([].into_iter()), []);
    }
}
