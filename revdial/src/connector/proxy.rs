//! Which proxy leads to a server.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;

use crate::connector::endpoint::Endpoint;
use crate::connector::no_proxy::NoProxy;

/// An HTTP proxy that makes tunnels with `CONNECT`.
///
/// As text: `http://[USER:PASSWORD@]HOST[:PORT]`, or `https://…` for one that is itself reached over TLS, or a bare
/// `HOST:PORT`, which means `http://`. Reserved characters of user and password are percent-encoded. The port is 80 or
/// 443 where none is given.
///
/// The credentials are never shown: `Display` and `Debug` leave them out.
///
/// ```
/// let proxy: revdial::connector::Proxy = "http://machine:s3cr%40t@proxy.example:3128".parse()?;
/// assert_eq!(proxy.to_string(), "http://proxy.example:3128");
/// # Ok::<(), revdial::connector::InvalidProxy>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Proxy {
    scheme: ProxyScheme,
    endpoint: Endpoint,
    authorization: Option<HeaderValue>,
}

/// How a proxy is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ProxyScheme {
    Http,
    Https,
}

/// Why a text names no proxy. The text is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProxy {
    /// Neither `http` nor `https`.
    #[error("only http:// and https:// proxies are supported, not SOCKS")]
    Scheme,
    /// Something else.
    #[error(
        "a proxy is http://[USER:PASSWORD@]HOST[:PORT], with reserved characters percent-encoded"
    )]
    Syntax,
}

/// An environment variable that names no proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the environment variable {variable} is not understood")]
#[non_exhaustive]
pub struct InvalidEnvironment {
    /// The variable.
    pub variable: &'static str,
    /// What is wrong with it.
    #[source]
    pub reason: InvalidProxy,
}

impl Proxy {
    /// Uses these credentials, with the `Basic` scheme.
    pub fn with_credentials(mut self, user: &str, password: &str) -> Self {
        self.authorization = Some(basic(format!("{user}:{password}").as_bytes()));
        self
    }

    pub(super) fn scheme(&self) -> ProxyScheme {
        self.scheme
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let (scheme, rest) = match text.split_once("://") {
            None => (ProxyScheme::Http, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                (ProxyScheme::Http, rest)
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                (ProxyScheme::Https, rest)
            }
            Some(_) => return Err(InvalidProxy::Scheme),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        let default_port = match scheme {
            ProxyScheme::Http => 80,
            ProxyScheme::Https => 443,
        };
        Ok(Self {
            scheme,
            endpoint: Endpoint::parse(authority, default_port).ok_or(InvalidProxy::Syntax)?,
            authorization: credentials.map(authorization),
        })
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            ProxyScheme::Http => "http",
            ProxyScheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.endpoint.authority())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which proxy leads to which server.
///
/// Servers that [`NoProxy`] lists, and loopback, are reached without one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Proxies {
    proxy: Option<Proxy>,
    direct: NoProxy,
    covers: Covers,
}

/// Which servers the proxy is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Covers {
    #[default]
    Everything,
    /// `HTTPS_PROXY` says nothing about `http://`.
    Https,
}

impl Proxies {
    /// Reaches every server directly; the default.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reaches every server through `proxy`, but for those in `direct`.
    pub fn new(proxy: Proxy, direct: NoProxy) -> Self {
        Self {
            proxy: Some(proxy),
            direct,
            covers: Covers::Everything,
        }
    }

    /// Reads `HTTPS_PROXY`, else `https_proxy`, for `https://` servers, and `NO_PROXY`, else `no_proxy`.
    ///
    /// An empty variable counts as one that is not set. The upper case comes first, as with Go and unlike curl.
    ///
    /// # Errors
    ///
    /// A variable that names no proxy.
    pub fn from_env() -> Result<Self, InvalidEnvironment> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Like [`from_env`](Self::from_env), with the variables that `var` knows.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidEnvironment> {
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                let value = var(name)?;
                let value = value.trim();
                (!value.is_empty()).then(|| (name, value.to_owned()))
            })
        };
        let proxy = first(["HTTPS_PROXY", "https_proxy"])
            .map(|(variable, value)| {
                let invalid = |reason| InvalidEnvironment { variable, reason };
                value.parse().map_err(invalid)
            })
            .transpose()?;
        let direct = first(["NO_PROXY", "no_proxy"]).map(|(_, list)| list);
        let Ok(direct) = direct.unwrap_or_default().parse();
        Ok(Self {
            proxy,
            direct,
            covers: Covers::Https,
        })
    }

    /// The proxy that leads to a server, if any.
    pub(super) fn proxy_for(&self, security: Security, server: &Endpoint) -> Option<&Proxy> {
        let proxy = self.proxy.as_ref()?;
        let covered = self.covers == Covers::Everything || security == Security::Tls;
        let direct = self.direct.matches(server.host(), server.port());
        (covered && !direct).then_some(proxy)
    }
}

/// Says whether the server is reached over TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Security {
    Plain,
    Tls,
}

/// The header for percent-encoded `USER[:PASSWORD]`.
fn authorization(credentials: &str) -> HeaderValue {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut decoded: Vec<u8> = percent_decode_str(user).collect();
    decoded.push(b':');
    decoded.extend(percent_decode_str(password));
    basic(&decoded)
}

fn basic(credentials: &[u8]) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(credentials));
    let mut value = HeaderValue::try_from(text).expect("base64 fits a header");
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &'static [(&str, &str)]) -> Result<Proxies, InvalidEnvironment> {
        Proxies::from_vars(|name| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn server(host: &str) -> Endpoint {
        Endpoint::parse(host, 443).unwrap()
    }

    fn chosen(vars: &'static [(&str, &str)], security: Security, host: &str) -> Option<String> {
        let proxies = from(vars).unwrap();
        let proxy = proxies.proxy_for(security, &server(host));
        proxy.map(ToString::to_string)
    }

    #[test]
    fn proxies_are_read_with_and_without_their_parts() {
        for (text, shown, authorization) in [
            ("proxy.example:3128", "http://proxy.example:3128", None),
            ("http://proxy.example", "http://proxy.example:80", None),
            ("HTTPS://proxy.example/", "https://proxy.example:443", None),
            (
                "http://[2001:db8::1]:8080",
                "http://[2001:db8::1]:8080",
                None,
            ),
            // `printf aladdin:opensesame | base64`
            (
                "http://aladdin:opensesame@p:1",
                "http://p:1",
                Some("Basic YWxhZGRpbjpvcGVuc2VzYW1l"),
            ),
            // `printf 'a@b:c:d/' | base64`
            (
                "http://a%40b:c%3Ad%2F@p:1",
                "http://p:1",
                Some("Basic YUBiOmM6ZC8="),
            ),
            ("http://user@p:1", "http://p:1", Some("Basic dXNlcjo=")),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(proxy.to_string(), shown);
            let got = proxy.authorization().map(|value| value.to_str().unwrap());
            assert_eq!(got, authorization, "{text}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for text in ["socks5://p:1", "socks5h://p", "ftp://p", "://p"] {
            assert_eq!(text.parse::<Proxy>(), Err(InvalidProxy::Scheme), "{text}");
        }
        for text in [
            "",
            "http://",
            "http://p:99999",
            "http://p:",
            "http://:80",
            "http://p/path",
            "http://a b",
            "http://[::1",
            "http://::1",
            "http://[p]:1",
            "http://p:1?x",
            "http://u:p@",
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(InvalidProxy::Syntax), "{text}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let by_url: Proxy = "http://user:secret@p:1".parse().unwrap();
        let set = by_url.clone().with_credentials("user", "secret");
        assert_eq!(by_url, set);
        let proxies = Proxies::new(by_url, NoProxy::default());
        let shown = format!("{proxies:?} {set} {:?}", set.authorization());
        for part in ["secret", "user:", "Basic", &STANDARD.encode("user:secret")] {
            assert!(!shown.contains(part), "{shown}");
        }
        let error = from(&[("HTTPS_PROXY", "socks5://user:secret@p:1")]).unwrap_err();
        assert!(!format!("{error} {error:?} {}", error.reason).contains("secret"));
    }

    #[test]
    fn the_environment_is_read_in_gos_order() {
        let upper = [("HTTPS_PROXY", "upper:1"), ("https_proxy", "lower:1")];
        let proxies = Proxies::from_vars(|name| {
            let found = upper.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        let proxy = proxies.unwrap().proxy.unwrap();
        assert_eq!(proxy.to_string(), "http://upper:1");
        let lower: &[_] = &[("HTTPS_PROXY", " "), ("https_proxy", "lower:1")];
        let got = chosen(lower, Security::Tls, "farm.example");
        assert_eq!(got.as_deref(), Some("http://lower:1"));
        assert_eq!(chosen(&[], Security::Tls, "farm.example"), None);
    }

    #[test]
    fn the_environments_proxy_is_for_https_alone() {
        let vars: &[_] = &[("HTTPS_PROXY", "p:1")];
        assert!(chosen(vars, Security::Tls, "farm.example").is_some());
        assert!(chosen(vars, Security::Plain, "farm.example").is_none());
        let explicit = Proxies::new("p:1".parse().unwrap(), NoProxy::default());
        let proxy = explicit.proxy_for(Security::Plain, &server("farm.example"));
        assert!(proxy.is_some());
        let loopback = explicit.proxy_for(Security::Tls, &server("127.0.0.1"));
        assert!(loopback.is_none());
    }

    #[test]
    fn exceptions_are_honoured() {
        let vars: &[_] = &[("HTTPS_PROXY", "p:1"), ("no_proxy", "farm.example")];
        assert!(chosen(vars, Security::Tls, "farm.example").is_none());
        assert!(chosen(vars, Security::Tls, "other.example").is_some());
    }

    #[test]
    fn an_unknown_kind_of_proxy_is_an_error_that_names_the_variable() {
        let error = from(&[("https_proxy", "socks5://p:1")]).unwrap_err();
        assert_eq!(error.variable, "https_proxy");
        assert_eq!(error.reason, InvalidProxy::Scheme);
    }
}
