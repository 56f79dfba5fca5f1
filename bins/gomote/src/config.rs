//! The configuration file, and what becomes of flags, environment and file.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use buildlet_proto::tls::Pin;
use http::Uri;
use http::uri::Authority;
use serde::{Deserialize, Serialize};

use crate::exit::Usage;

/// A configuration file, in TOML. Every key may be missing; an unknown one is an error.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The coordinator: `https://HOST[:PORT]`.
    pub server: Option<String>,
    /// The pin of its certificate authority: `sha256:` and 64 hexadecimal digits. Without it the system's authorities
    /// count.
    pub pin: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The user's token. A file with one must be readable by its owner alone.
    pub token: Option<String>,
    /// The SSH gateway: `HOST:PORT`. Without it, port 2222 of the coordinator.
    pub ssh: Option<String>,
    /// The SSH gateway's host key, as an `authorized_keys` line. Without it, ssh's own known hosts count.
    pub ssh_host_key: Option<String>,
    /// The private key for the SSH gateway. Without it, ssh offers what it has.
    pub ssh_identity: Option<PathBuf>,
}

impl File {
    /// The text of the file.
    ///
    /// # Panics
    ///
    /// Where `ssh_identity` is not UTF-8, which TOML cannot hold.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("texts are TOML, and so are paths in UTF-8")
    }

    /// Reads a file; `None` where there is none.
    fn load(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => {
                text.with_context(|| format!("reading the configuration file {}", path.display()))?
            }
        };
        let file: Self = toml::from_str(&text).map_err(|error| {
            Usage(format!(
                "the configuration file {}: {error}",
                path.display()
            ))
        })?;
        if file.token.is_some() {
            check_private(path)?;
        }
        Ok(Some(file))
    }
}

/// What the command line or the environment says, for the file to complete.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Flags {
    /// The configuration file [default: $XDG_CONFIG_HOME/gomote/config.toml]
    #[arg(long, global = true, env = "GOMOTE_CONFIG", value_name = "FILE", help_heading = HEADING)]
    pub(crate) config: Option<PathBuf>,
    /// The coordinator, as `https://HOST[:PORT]`
    #[arg(long, global = true, env = "GOMOTE_SERVER", value_name = "URL", help_heading = HEADING)]
    pub(crate) server: Option<String>,
    /// The pin of the coordinator's certificate authority, as sha256:HEX
    #[arg(long, global = true, env = "GOMOTE_PIN", help_heading = HEADING)]
    pub(crate) pin: Option<String>,
    /// The user
    #[arg(long, global = true, env = "GOMOTE_USER", help_heading = HEADING)]
    pub(crate) user: Option<String>,
    /// A file with the user's token, readable by you alone
    #[arg(long, global = true, env = "GOMOTE_TOKEN_FILE", value_name = "FILE", help_heading = HEADING)]
    pub(crate) token_file: Option<PathBuf>,
}

/// Everything that was said, checked.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) authority: Authority,
    pub(crate) pin: Option<Pin>,
    pub(crate) user: String,
    pub(crate) token: String,
    pub(crate) gateway: Gateway,
}

impl Settings {
    /// Joins the flags with the file that they name, or with that of the user's configuration directory.
    pub(crate) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let path = flags
            .config
            .clone()
            .or_else(|| default_path(|name| std::env::var_os(name)));
        let file = match &path {
            Some(path) => File::load(path)?,
            None => None,
        };
        if let (None, Some(named)) = (&file, &flags.config) {
            return Err(Usage(format!(
                "there is no configuration file {}",
                named.display()
            ))
            .into());
        }
        Self::join(flags, file.unwrap_or_default(), path.as_deref())
    }

    fn join(flags: &Flags, file: File, path: Option<&Path>) -> anyhow::Result<Self> {
        let place = path.map_or_else(
            || "a file that --config names".to_owned(),
            |path| path.display().to_string(),
        );
        let missing = |key: &str, flag: &str| {
            Usage(format!(
                "no {key} is configured: say {flag}, or write `{key} = \"..\"` into {place}"
            ))
        };
        let server = flags.server.as_ref().or(file.server.as_ref());
        let authority =
            parse_server(server.ok_or_else(|| missing("server", "--server https://HOST"))?)?;
        let pin = flags.pin.as_ref().or(file.pin.as_ref());
        let pin = pin
            .map(|pin| {
                pin.parse()
                    .map_err(|error| Usage(format!("{error}; got {pin:?}")))
            })
            .transpose()?;
        let user = flags
            .user
            .clone()
            .or(file.user)
            .ok_or_else(|| missing("user", "--user NAME"))?;
        let token = match &flags.token_file {
            Some(file) => Some(read_token(file)?),
            None => file.token,
        };
        let token = token.ok_or_else(|| missing("token", "--token-file FILE"))?;
        let gateway = Gateway::new(
            file.ssh.as_deref(),
            &authority,
            file.ssh_host_key,
            file.ssh_identity,
        )?;
        Ok(Self {
            authority,
            pin,
            user,
            token,
            gateway,
        })
    }
}

/// Where SSH sessions are opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Gateway {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) host_key: Option<String>,
    pub(crate) identity: Option<PathBuf>,
}

impl Gateway {
    fn new(
        address: Option<&str>,
        server: &Authority,
        host_key: Option<String>,
        identity: Option<PathBuf>,
    ) -> Result<Self, Usage> {
        let invalid = || {
            Usage(format!(
                "`ssh` must be HOST:PORT; got {:?}",
                address.unwrap_or_default()
            ))
        };
        let authority = match address {
            Some(address) => &address.parse::<Authority>().map_err(|_| invalid())?,
            None => server,
        };
        let port = match address {
            Some(_) => authority.port_u16().unwrap_or(SSH_PORT),
            None => SSH_PORT,
        };
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        // A host that begins like an option would be one to ssh.
        if host.is_empty() || host.starts_with('-') {
            return Err(invalid());
        }
        if host_key
            .as_ref()
            .is_some_and(|key| key.trim().contains(['\n', '\r']))
        {
            return Err(Usage("`ssh_host_key` must be one line".to_owned()));
        }
        Ok(Self {
            host,
            port,
            host_key,
            identity,
        })
    }
}

fn parse_server(url: &str) -> Result<Authority, Usage> {
    let invalid = || {
        Usage(format!(
            "the server must be https://HOST[:PORT]; got {url:?}"
        ))
    };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains('@'))
        .ok_or_else(invalid)?;
    if uri.scheme_str() != Some("https") || !is_bare {
        return Err(invalid());
    }
    Ok(authority.clone())
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading the token file {}", path.display()))?;
    check_private(path)?;
    Ok(text.trim().to_owned())
}

/// A token that others can read is theirs as well.
fn check_private(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)
        .with_context(|| format!("reading {}", path.display()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        let message = format!(
            "{path} holds a token and others can read it (mode {:03o}); run: chmod 600 {path}",
            mode & 0o777
        );
        return Err(Usage(message).into());
    }
    Ok(())
}

/// `$XDG_CONFIG_HOME/gomote/config.toml`, or its default (XDG Base Directory Specification).
fn default_path(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let dir = base_dir(&var, "XDG_CONFIG_HOME", ".config")?;
    Some(dir.join("gomote").join("config.toml"))
}

/// A directory of the XDG Base Directory Specification: an absolute path of the environment, or one below the home.
pub(crate) fn base_dir(
    var: &impl Fn(&str) -> Option<OsString>,
    name: &str,
    below_home: &str,
) -> Option<PathBuf> {
    let given = var(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    given.or_else(|| {
        var("HOME")
            .filter(|home| !home.is_empty())
            .map(|home| PathBuf::from(home).join(below_home))
    })
}

const HEADING: &str = "Which coordinator (flag, then environment, then configuration file)";
/// As Go's coordinators.
const SSH_PORT: u16 = 2222;

#[cfg(test)]
mod tests;
