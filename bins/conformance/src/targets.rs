//! The transports that are built in.

mod http2;
mod layered;
mod muxes;
mod plain;

use conn_conformance::Target;

/// Their names, in the order of the report card.
pub(crate) const NAMES: &[&str] = &[
    "duplex",
    "tcp",
    "unix",
    "tls",
    "h2",
    "quinn",
    "yamux",
    "tokio-yamux",
];

/// The transport of this name.
pub(crate) fn find(name: &str) -> Option<Target> {
    match name {
        "duplex" => Some(plain::duplex()),
        "tcp" => Some(plain::tcp()),
        "unix" => Some(plain::unix()),
        "tls" => Some(layered::tls()),
        "h2" => Some(http2::h2()),
        "quinn" => Some(layered::quinn()),
        "yamux" => Some(muxes::yamux()),
        "tokio-yamux" => Some(muxes::tokio_yamux()),
        _ => None,
    }
}

/// A transport in a sentence, with its version.
pub(crate) fn about(name: &str) -> &'static str {
    match name {
        "duplex" => "`tokio::io::duplex` of tokio 1.54, in the suite's `Deadlined`",
        "tcp" => "TCP over loopback by tokio 1.54, in the suite's `Deadlined`",
        "unix" => "a pair of Unix sockets by tokio 1.54, in the suite's `Deadlined`",
        "tls" => "TLS 1.3 by tokio-rustls 0.26 and rustls 0.23, in the suite's `Deadlined`",
        "h2" => "one request and its response by h2 0.4, in the suite's `Deadlined`",
        "quinn" => "one stream of QUIC by quinn 0.11, in the suite's `Deadlined`",
        "yamux" => "streams of the `yamux` crate 0.14.1",
        "tokio-yamux" => "streams of the `tokio-yamux` crate 0.3.20",
        _ => "",
    }
}
