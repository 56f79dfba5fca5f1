//! Why a server was not reached: which phase failed, and what to do about it.

use std::io;
use std::time::Duration;

use http::StatusCode;
use http::uri::Authority;

use crate::handshake::HandshakeError;

/// Why an attempt to make a link failed.
///
/// The message says what failed and what to look at; its source says why. Neither holds credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    // Us.
    /// The proxy is reached over TLS, and the connector was not told how to verify it.
    #[error("an https:// proxy needs a TLS configuration of its own; see `Connector::proxy_tls`")]
    ProxyNeedsTls,

    // What is between.
    /// The proxy made no tunnel.
    #[error("the proxy {proxy} made no tunnel to {server}")]
    Proxy {
        /// The proxy, without credentials.
        proxy: Authority,
        /// Where the tunnel should have led.
        server: Authority,
        /// Why.
        source: ProxyError,
    },
    /// No address of the server, or of the proxy before it, takes connections.
    #[error(
        "cannot connect to {to} (addresses tried: {addresses}); is it running, and do firewalls let us through?"
    )]
    Connect {
        /// The server, or the proxy.
        to: Authority,
        /// How many addresses were tried.
        addresses: usize,
        /// What the last one said.
        source: io::Error,
    },
    /// The name has no address.
    #[error(
        "cannot resolve the name of {name}; is it spelled right, and does this machine's DNS work?"
    )]
    Resolve {
        /// The server, or the proxy.
        name: Authority,
        /// What the resolver said.
        source: io::Error,
    },
    /// A phase took too long.
    #[error("{phase} took longer than {limit:?}")]
    TimedOut {
        /// What was waited for.
        phase: Phase,
        /// How long.
        limit: Duration,
    },

    // The peer.
    /// The TLS handshake failed: the server is not who it should be, or it speaks no TLS.
    #[error("cannot verify {server}")]
    Tls {
        /// The server, or the proxy.
        server: Authority,
        /// Why.
        source: io::Error,
    },
    /// The server did not take the registration.
    #[error("registering")]
    Register(#[from] HandshakeError),
}

/// A part of an attempt that has a time limit of its own; see [`Timing`](crate::connector::Timing).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Resolving a name.
    Resolve,
    /// Getting a tunnel from a proxy.
    Proxy,
    /// The TLS handshake with the server.
    Tls,
    /// The registration.
    Register,
}

/// Why a proxy made no tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    // Us.
    /// 407, and we gave no credentials.
    #[error("it wants credentials (407); give them as http://USER:PASSWORD@HOST:PORT")]
    CredentialsMissing,
    /// 407, and we gave credentials.
    #[error("it refused the credentials (407); check user and password")]
    CredentialsRefused,
    /// 407, and it wants a scheme that we do not have.
    #[error("it wants credentials of a kind other than Basic (407), which are not supported")]
    NoBasic,

    // The proxy.
    /// Another status: the proxy does not allow the server, or cannot reach it.
    #[error("it answered {0}; ask its operator whether CONNECT to that server and port is allowed")]
    Refused(StatusCode),
    /// The head of its answer is longer than 16 KiB, or has more than 100 lines.
    #[error("the head of its answer is too long; is it a proxy?")]
    HeadTooLong,
    /// Its answer is not HTTP.
    #[error("its answer is not HTTP; is it a proxy?")]
    NotHttp(#[source] httparse::Error),

    // The transport.
    /// It closed the connection.
    #[error("it closed the connection without an answer")]
    Cut,
    /// Reading or writing failed.
    #[error("the connection to it broke")]
    Transport(#[from] io::Error),
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "resolving the name",
            Self::Proxy => "getting a tunnel from the proxy",
            Self::Tls => "the TLS handshake",
            Self::Register => "the registration",
        })
    }
}

impl ConnectError {
    /// Says whether somebody was reached who said no, and is likely to say so again: the server refused the
    /// registration, or the proxy the tunnel.
    ///
    /// 502, 503 and 504 are no refusals: they say that somebody behind the address is away, and may be back soon.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Register(HandshakeError::Refused { status, .. }) => !is_away(*status),
            Self::Register(HandshakeError::Redirect(_) | HandshakeError::BadRequest) => true,
            Self::Proxy { source, .. } => match source {
                ProxyError::CredentialsMissing
                | ProxyError::CredentialsRefused
                | ProxyError::NoBasic => true,
                ProxyError::Refused(status) => !is_away(*status),
                ProxyError::HeadTooLong
                | ProxyError::NotHttp(_)
                | ProxyError::Cut
                | ProxyError::Transport(_) => false,
            },
            Self::ProxyNeedsTls => true,
            Self::Register(_)
            | Self::Connect { .. }
            | Self::Resolve { .. }
            | Self::TimedOut { .. }
            | Self::Tls { .. } => false,
        }
    }

    /// How long the server asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Register(HandshakeError::Refused { retry_after, .. }) = self {
            return *retry_after;
        }
        None
    }
}

fn is_away(status: StatusCode) -> bool {
    [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]
    .contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> ConnectError {
        ConnectError::Register(HandshakeError::Refused {
            status: StatusCode::from_u16(status).unwrap(),
            body: "no".into(),
            retry_after: Some(Duration::from_secs(7)),
            location: None,
        })
    }

    #[test]
    fn a_server_that_says_no_refuses_and_one_that_is_away_does_not() {
        for status in [400, 401, 403, 404, 409, 412, 429, 500] {
            assert!(answered(status).is_refusal(), "{status}");
        }
        for status in [502, 503, 504] {
            assert!(!answered(status).is_refusal(), "{status}");
            assert_eq!(answered(status).retry_after(), Some(Duration::from_secs(7)));
        }
        assert!(!ConnectError::Register(HandshakeError::Cut).is_refusal());
    }

    #[test]
    fn a_proxy_that_wants_other_credentials_refuses() {
        let proxied = |source| ConnectError::Proxy {
            proxy: Authority::from_static("p:1"),
            server: Authority::from_static("s:1"),
            source,
        };
        assert!(proxied(ProxyError::CredentialsMissing).is_refusal());
        assert!(proxied(ProxyError::Refused(StatusCode::FORBIDDEN)).is_refusal());
        assert!(!proxied(ProxyError::Refused(StatusCode::BAD_GATEWAY)).is_refusal());
        assert!(!proxied(ProxyError::Cut).is_refusal());
    }
}
