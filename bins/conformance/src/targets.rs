//! The transports that are built in.

mod hijack;
mod http2;
mod layered;
mod muxes;
mod plain;
mod revdial;
mod russh;

use conn_conformance::Target;

/// One of them.
pub(crate) struct BuiltIn {
    /// What `--on` calls it.
    pub(crate) name: &'static str,
    /// What it is, in a sentence, with its version.
    pub(crate) about: &'static str,
    make: fn() -> Target,
}

impl BuiltIn {
    /// The transport, ready to be run.
    pub(crate) fn target(&self) -> Target {
        (self.make)()
    }
}

/// All of them, in the order of the report card.
pub(crate) static ALL: &[BuiltIn] = &[
    built_in(
        "duplex",
        "`tokio::io::duplex` of tokio 1.54.1, in the suite's `Deadlined`",
        plain::duplex,
    ),
    built_in(
        "tcp",
        "TCP over loopback by tokio 1.54.1, in the suite's `Deadlined`",
        plain::tcp,
    ),
    built_in(
        "unix",
        "a pair of Unix sockets by tokio 1.54.1, in the suite's `Deadlined`",
        plain::unix,
    ),
    built_in(
        "tls",
        "TLS by tokio-rustls 0.26.6 and rustls 0.23.46, in the suite's `Deadlined`",
        layered::tls,
    ),
    built_in(
        "h2",
        "one request and its response by h2 0.4.20, in the suite's `Deadlined`",
        http2::h2,
    ),
    built_in(
        "quinn",
        "one stream of QUIC by quinn 0.11.12, in the suite's `Deadlined`",
        layered::quinn,
    ),
    built_in("yamux", "streams of yamux 0.14.1, the crate", muxes::yamux),
    built_in(
        "tokio-yamux",
        "streams of tokio-yamux 0.3.20",
        muxes::tokio_yamux,
    ),
    built_in(
        "russh-channel",
        "session channels of russh 0.65.1, by `Channel::into_stream` at both ends",
        russh::channel,
    ),
    built_in(
        "connect-ssh",
        "a buildlet's `/connect-ssh`, client and server, in the suite's `Deadlined`",
        hijack::connect_ssh,
    ),
    built_in(
        "revdial-v1",
        "connections of revdial's first dialect, that of Go's revdial of 2015, over a byte pipe",
        revdial::v1,
    ),
    built_in(
        "revdial-v1-tls",
        "connections of revdial's first dialect, over TLS over a byte pipe",
        revdial::v1_tls,
    ),
    built_in(
        "revdial-v2",
        "connections of revdial's second dialect, each picked up over TLS over a byte pipe",
        revdial::v2,
    ),
    built_in(
        "revdial-v3",
        "connections of revdial's third dialect, over a byte pipe",
        revdial::v3,
    ),
    built_in(
        "revdial-v3-tcp",
        "connections of revdial's third dialect, over TCP on loopback",
        revdial::v3_tcp,
    ),
    built_in(
        "revdial-v3-tls",
        "connections of revdial's third dialect, over TLS over a byte pipe",
        revdial::v3_tls,
    ),
];

const fn built_in(name: &'static str, about: &'static str, make: fn() -> Target) -> BuiltIn {
    BuiltIn { name, about, make }
}

/// The transport of this name.
pub(crate) fn find(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().find(|built_in| built_in.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transport_is_called_what_its_reports_call_it() {
        for built_in in ALL {
            assert_eq!(built_in.target().name(), built_in.name);
        }
    }

    #[test]
    fn the_versions_that_are_named_are_those_that_are_built() {
        let lock = include_str!("../../../Cargo.lock");
        for built_in in ALL {
            let words: Vec<_> = built_in.about.split([' ', ',']).collect();
            for pair in words.windows(2) {
                if pair[1].contains('.') {
                    let entry = format!("name = \"{}\"\nversion = \"{}\"\n", pair[0], pair[1]);
                    assert!(lock.contains(&entry), "{pair:?}");
                }
            }
        }
    }
}
