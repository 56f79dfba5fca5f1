//! A host and a port.

use http::uri::Authority;

/// Where to connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Endpoint {
    host: Box<str>,
    port: u16,
    authority: Authority,
}

impl Endpoint {
    /// Reads `HOST[:PORT]`; an address of version 6 stands in brackets.
    pub(super) fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (text, default_port),
        };
        let (bare, in_brackets) = match host.strip_prefix('[') {
            Some(rest) => (rest.strip_suffix(']')?, true),
            None => (host, false),
        };
        let plausible = !bare.is_empty() && !bare.contains(['@', '[', ']']);
        if !plausible || bare.contains(':') != in_brackets {
            return None;
        }
        Some(Self {
            host: bare.into(),
            port,
            authority: format!("{host}:{port}").parse().ok()?,
        })
    }

    /// The host, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Both, as they stand in a URI.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_their_parts() {
        for (text, host, authority) in [
            ("farm.example", "farm.example", "farm.example:443"),
            ("farm.example:80", "farm.example", "farm.example:80"),
            ("[::1]", "::1", "[::1]:443"),
            ("[::1]:80", "::1", "[::1]:80"),
        ] {
            let endpoint = Endpoint::parse(text, 443).unwrap();
            assert_eq!(endpoint.host(), host);
            assert_eq!(endpoint.authority().as_str(), authority);
        }
        for bad in [
            "", ":", "x:", ":80", "x:65536", "::1", "[x]:1", "[::1", "a@b", "a b", "a/b", "x:y:1",
        ] {
            assert_eq!(Endpoint::parse(bad, 443), None, "{bad}");
        }
    }
}
