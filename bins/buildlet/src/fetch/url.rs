//! The URLs that are fetched: http and https.

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;

/// A URL of a scheme that we speak, and the credentials that stood in it.
#[derive(Clone, Debug)]
pub(super) struct Url {
    uri: Uri,
    credentials: Option<HeaderValue>,
}

impl Url {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (scheme, _) = text.split_once("://").context("no URL")?;
        if !["http", "https"]
            .map(|known| scheme.eq_ignore_ascii_case(known))
            .contains(&true)
        {
            bail!("unsupported protocol scheme {:?}", clean(scheme));
        }
        let uri: Uri = text.parse().context("no URL")?;
        let authority = uri.authority().context("no host in it")?.as_str();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let host: Authority = host.parse().context("no host in it")?;
        if host.host().is_empty() {
            bail!("no host in it");
        }
        let credentials = user.map(basic).transpose()?;
        let mut parts = uri.into_parts();
        parts.authority = Some(host);
        Ok(Self {
            uri: Uri::from_parts(parts).context("no URL")?,
            credentials,
        })
    }

    /// Where a redirect from here leads (RFC 3986, section 5.2). Credentials stay behind.
    pub(super) fn join(&self, location: &str) -> anyhow::Result<Self> {
        let scheme = if self.is_https() { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let (head, _) = location
            .split_once(['/', '?', '#'])
            .unwrap_or((location, ""));
        if head.contains(':') {
            return Self::parse(location);
        }
        let path = match location.chars().next() {
            Some('/') => location.to_owned(),
            Some('?') => format!("{}{location}", self.uri.path()),
            _ => {
                let dir = self.uri.path().rsplit_once('/').map_or("", |(dir, _)| dir);
                format!("{dir}/{location}")
            }
        };
        Self::parse(&format!(
            "{scheme}://{}{}",
            self.authority(),
            without_dots(&path)
        ))
    }

    pub(super) fn is_https(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(super) fn authority(&self) -> &str {
        self.uri.authority().map_or("", Authority::as_str)
    }

    /// Path and query.
    pub(super) fn path(&self) -> &str {
        let path = self.uri.path_and_query();
        path.map_or("/", http::uri::PathAndQuery::as_str)
    }

    pub(super) fn credentials(&self) -> Option<&HeaderValue> {
        self.credentials.as_ref()
    }
}

/// A URL as errors and logs show it: not all of a long one, and no password.
pub(super) fn shown(url: &str) -> String {
    let mut shown = match url.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    };
    shown.truncate(shown.floor_char_boundary(SHOWN));
    clean(&shown)
}

fn clean(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(visible).collect()
}

fn basic(user: &str) -> anyhow::Result<HeaderValue> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut pair: Vec<u8> = percent_decode_str(user).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A path without its `.` and `..`; the query is left alone.
fn without_dots(path: &str) -> String {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, rest) = path.split_at(end);
    let mut kept: Vec<&str> = Vec::new();
    let mut elements = path.split('/').skip(1).peekable();
    while let Some(element) = elements.next() {
        match element {
            ".." => drop(kept.pop()),
            "." => {}
            element => {
                kept.push(element);
                continue;
            }
        }
        if elements.peek().is_none() {
            kept.push("");
        }
    }
    format!("/{}{rest}", kept.join("/"))
}

const SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(url: &Url) -> String {
        url.uri.to_string()
    }

    #[test]
    fn http_and_https_are_spoken_and_nothing_else() {
        for good in [
            "http://x",
            "https://x:8443/a?b=c",
            "HTTP://[::1]:80/",
            "http://x/#part",
        ] {
            Url::parse(good).unwrap();
        }
        for bad in [
            "",
            "x",
            "ftp://x/y",
            "file:///etc/passwd",
            "http://",
            "http:///x",
            "https://@/x",
            "http://a b/",
            "http://\u{fc}/",
            "javascript:alert(1)",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn credentials_become_a_header_and_are_never_shown() {
        let url = Url::parse("https://me:p%40ss@host/x").unwrap();
        assert_eq!(text(&url), "https://host/x");
        assert_eq!(url.credentials().unwrap(), "Basic bWU6cEBzcw==");
        assert!(!format!("{url:?}").contains("bWU6"));
        assert_eq!(shown("https://me:p@ss@host/x@y"), "https://host/x@y");
        assert_eq!(shown("https://me:secret@host"), "https://host");
        assert!(url.join("/y").unwrap().credentials().is_none());
    }

    #[test]
    fn redirects_are_resolved_against_where_they_stand() {
        let base = Url::parse("https://x:1/a/b?c=d").unwrap();
        for (location, expected) in [
            ("http://y/z", "http://y/z"),
            ("//y/z", "https://y/z"),
            ("/z?q", "https://x:1/z?q"),
            ("z", "https://x:1/a/z"),
            ("../z/./w", "https://x:1/z/w"),
            ("../../../..", "https://x:1/"),
            ("?q=/../", "https://x:1/a/b?q=/../"),
            ("z:1/w", "error"),
            ("gopher://y", "error"),
        ] {
            let joined = base.join(location).ok();
            assert_eq!(
                joined.map_or_else(|| "error".to_owned(), |url| text(&url)),
                expected,
                "{location}"
            );
        }
    }
}
