//! `NO_PROXY`: which servers are reached without a proxy.

use std::convert::Infallible;
use std::net::IpAddr;
use std::str::FromStr;

/// Servers that are reached without a proxy.
///
/// The rule is Go's ([`golang.org/x/net/http/httpproxy`](https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config)),
/// so that one environment means the same to Go's buildlets and to us. Entries are separated by commas or spaces:
///
/// | entry | what it matches |
/// |---|---|
/// | `*` | everything |
/// | `example.org` | that host, and every host below it |
/// | `.example.org`, `*.example.org` | every host below it, not itself |
/// | `192.0.2.1`, `2001:db8::1` | that address |
/// | `192.0.2.0/24`, `2001:db8::/32` | the addresses of that network |
/// | any name or address with `:PORT` (`[2001:db8::1]:443`) | that port alone |
///
/// Names are compared without regard to case and to a final dot. They are not resolved: an address entry matches servers
/// that are given by address. An entry that is none of these matches nothing. Whatever is written here, **loopback is
/// never proxied**: `localhost`, what is below it, `127.0.0.0/8` and `::1`.
///
/// ```
/// use revdial::connector::NoProxy;
///
/// let direct: NoProxy = "farm.internal, .example.org:8443, 10.0.0.0/8".parse()?;
/// assert!(direct.matches("build.farm.internal", 443));
/// assert!(!direct.matches("build.example.org", 443));
/// assert!(direct.matches("10.1.2.3", 443));
/// assert!(direct.matches("localhost", 443));
/// # Ok::<(), std::convert::Infallible>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NoProxy(Vec<Rule>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Rule {
    Everything,
    Network {
        address: IpAddr,
        prefix: u32,
    },
    Address {
        address: IpAddr,
        port: Option<u16>,
    },
    Name {
        name: Box<str>,
        own: Own,
        port: Option<u16>,
    },
}

/// Says whether a name's rule matches the name itself, beside what is below it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Own {
    Excluded,
    Included,
}

impl NoProxy {
    /// Says whether `host` is reached without a proxy.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        let host = Host::new(host);
        host.is_loopback() || self.0.iter().any(|rule| rule.matches(&host, port))
    }
}

impl FromStr for NoProxy {
    type Err = Infallible;

    fn from_str(list: &str) -> Result<Self, Infallible> {
        let entries = list.split(|c: char| c == ',' || c.is_whitespace());
        let rules = entries.filter(|entry| !entry.is_empty());
        Ok(Self(rules.filter_map(Rule::parse).collect()))
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, prefix)) = entry.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let prefix = prefix.parse().ok()?;
            return (prefix <= bits(address)).then_some(Self::Network { address, prefix });
        }
        let (host, port) = split_port(entry)?;
        if let Host::Address(address) = Host::new(host) {
            return Some(Self::Address { address, port });
        }
        let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
        let own = if below.is_some() {
            Own::Excluded
        } else {
            Own::Included
        };
        let name = normal(below.unwrap_or(host));
        (!name.is_empty()).then(|| Self::Name {
            name: name.into(),
            own,
            port,
        })
    }

    fn matches(&self, host: &Host, port: u16) -> bool {
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Network { address, prefix }, Host::Address(host)) => {
                shares_prefix(*address, *host, *prefix)
            }
            (
                Self::Address {
                    address,
                    port: only,
                },
                Host::Address(host),
            ) => address == host && only.is_none_or(|only| only == port),
            (
                Self::Name {
                    name,
                    own,
                    port: only,
                },
                Host::Name(host),
            ) => {
                let itself = *own == Own::Included && **name == **host;
                (itself || is_below(host, name)) && only.is_none_or(|only| only == port)
            }
            (Self::Network { .. } | Self::Address { .. }, Host::Name(_))
            | (Self::Name { .. }, Host::Address(_)) => false,
        }
    }
}

/// A host as it is compared.
#[derive(Debug)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl Host {
    /// Reads a name, or an address with or without brackets.
    fn new(host: &str) -> Self {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => Self::Name(normal(bare)),
        }
    }

    fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == LOCALHOST || is_below(name, LOCALHOST),
        }
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_below(host: &str, name: &str) -> bool {
    host.strip_suffix(name)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// Splits `HOST[:PORT]`; an address of version 6 needs brackets to have a port. None for what is no port.
fn split_port(entry: &str) -> Option<(&str, Option<u16>)> {
    if entry.parse::<IpAddr>().is_ok() {
        return Some((entry, None));
    }
    match entry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((entry, None)),
    }
}

fn bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => u32::BITS,
        IpAddr::V6(_) => u128::BITS,
    }
}

fn shares_prefix(network: IpAddr, address: IpAddr, prefix: u32) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differs = network.to_bits() ^ address.to_bits();
            differs.leading_zeros() >= prefix
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differs = network.to_bits() ^ address.to_bits();
            differs.leading_zeros() >= prefix
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

const LOCALHOST: &str = "localhost";

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(list: &str, host: &str, port: u16) -> bool {
        list.parse::<NoProxy>()
            .unwrap_or_default()
            .matches(host, port)
    }

    #[test]
    fn a_name_matches_itself_and_what_is_below_it() {
        for host in [
            "example.org",
            "a.example.org",
            "a.b.EXAMPLE.org",
            "example.org.",
        ] {
            assert!(matches("Example.ORG", host, 443), "{host}");
        }
        for host in ["notexample.org", "example.org.evil", "example.com", "org"] {
            assert!(!matches("example.org", host, 443), "{host}");
        }
    }

    #[test]
    fn a_name_with_a_dot_before_it_matches_what_is_below_it() {
        for list in [".example.org", "*.example.org"] {
            assert!(matches(list, "a.example.org", 443));
            assert!(!matches(list, "example.org", 443));
            assert!(!matches(list, "aexample.org", 443));
        }
    }

    #[test]
    fn a_port_restricts_the_entry() {
        assert!(matches("example.org:8443", "example.org", 8443));
        assert!(!matches("example.org:8443", "example.org", 443));
        assert!(matches("192.0.2.1:1", "192.0.2.1", 1));
        assert!(!matches("192.0.2.1:1", "192.0.2.1", 2));
        assert!(matches("[2001:db8::1]:1", "[2001:db8::1]", 1));
        assert!(!matches("[2001:db8::1]:1", "2001:db8::1", 2));
    }

    #[test]
    fn addresses_and_networks_match_addresses() {
        assert!(matches("192.0.2.1", "192.0.2.1", 443));
        assert!(matches("192.0.2.1", "::ffff:192.0.2.1", 443));
        assert!(matches("2001:db8::1", "[2001:db8:0::1]", 443));
        assert!(matches("192.0.2.0/24", "192.0.2.255", 443));
        assert!(!matches("192.0.2.0/24", "192.0.3.0", 443));
        assert!(matches("2001:db8::/33", "2001:db8:7fff::", 443));
        assert!(!matches("2001:db8::/33", "2001:db8:8000::", 443));
        assert!(matches("0.0.0.0/0", "198.51.100.7", 443));
        assert!(!matches("0.0.0.0/0", "2001:db8::1", 443));
        assert!(!matches("0.0.0.0/0", "example.org", 443));
    }

    #[test]
    fn a_star_matches_everything_and_an_empty_list_nothing() {
        assert!(matches("a, *", "example.org", 443));
        assert!(matches("*", "192.0.2.1", 443));
        assert!(!matches("", "example.org", 443));
    }

    #[test]
    fn loopback_is_never_proxied() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
        ] {
            assert!(matches("", host, 443), "{host}");
        }
        assert!(!matches("", "localhost.example.org", 443));
    }

    #[test]
    fn entries_are_separated_by_commas_and_spaces_and_nonsense_is_skipped() {
        let list = " a.example,,b.example c.example\t300.0.0.0/8,192.0.2.0/33,x:port,[::1,., ";
        for host in ["a.example", "b.example", "c.example"] {
            assert!(matches(list, host, 443), "{host}");
        }
        for host in ["d.example", "192.0.2.1", "x"] {
            assert!(!matches(list, host, 443), "{host}");
        }
    }
}
