//! The machine's side of life: dial a server, through proxies if need be, register, serve, and come back.
//!
//! [`Connector`](crate::Connector) is the whole of it. An attempt has phases, each with a time limit of its own in
//! [`Timing`] and an error of its own in [`ConnectError`]:
//!
//! 1. resolve the name of the server, or of the [`Proxy`] before it;
//! 2. connect to one of its addresses;
//! 3. get a tunnel from the proxy, with `CONNECT`;
//! 4. verify the server, with TLS;
//! 5. register, with an HTTP upgrade: [`upgrade_following`](crate::handshake::upgrade_following).
//!
//! What follows is a [`Listener`](crate::Listener). When its link ends, or an attempt fails, [`Links`] waits and begins
//! anew:
//!
//! | what happened | the wait before the next attempt |
//! |---|---|
//! | the server said goodbye (GoAway 0) | up to a second: it wants the machine back |
//! | the link was lost, nobody was reached, 502, 503, 504 | full jitter, up to a ceiling that doubles from 1 s to 60 s |
//! | any other refusal, of the server or the proxy | the same from 30 s to 10 min |
//! | the refusal has a `Retry-After` | that long, an hour at most, and the random wait on top |

pub(crate) mod client;
mod endpoint;
mod error;
mod links;
mod no_proxy;
mod proxy;
mod tcp;
mod timing;
mod tls;
mod transport;
mod tunnel;

use std::future::Future;
use std::time::Duration;

pub use self::error::{ConnectError, Phase, ProxyError};
pub use self::links::{Links, Step};
pub use self::no_proxy::NoProxy;
pub use self::proxy::{InvalidEnvironment, InvalidProxy, Proxies, Proxy};
pub use self::tcp::SocketOptions;
pub use self::timing::Timing;
pub use self::transport::Transport;

/// Why a URI names no server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidServer {
    /// User and password in the URI.
    #[error("credentials do not belong into a server's URI; send them as a header")]
    Credentials,
    /// No host, or one that cannot be read.
    #[error("the URI names no host")]
    Host,
    /// An `https://` URI without a TLS configuration.
    #[error("an https:// server needs `Connector::with_tls`, of the feature `rustls`")]
    NeedsTls,
    /// Neither `http` nor `https`, or `http` where TLS is wanted.
    #[error("the scheme is not the one that is wanted: https with TLS, http without")]
    Scheme,
}

/// Gives a phase its time limit.
async fn within<F: Future>(
    phase: Phase,
    limit: Duration,
    work: F,
) -> Result<F::Output, ConnectError> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| ConnectError::TimedOut { phase, limit })
}
