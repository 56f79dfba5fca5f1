//! The `[ssh]` table.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The SSH gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshGateway {
    /// Files with the public keys of authorities whose user certificates are believed, one key on a line. They are read
    /// again when they change.
    pub user_ca_files: Vec<PathBuf>,
    /// A file that what happens is written to, one JSON object a line. Without it nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_log: Option<PathBuf>,
    /// What one source of connections may use up.
    pub source_limits: SourceLimits,
}

/// What one source of connections may use up: an IPv4 address or an IPv6 /64. The loopback interface is excepted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceLimits {
    /// Connections in a second; 0 is no limit. Those beyond wait 2 s for their turn and are then refused.
    pub rate: u32,
    /// Connections that may come at once before the rate counts.
    pub burst: u32,
    /// Penalties that are borne: 1 s for a connection that does not try to log in, 5 s for one whose keys are rejected, 10 s
    /// for one that only waits. A source with more than that is refused until they are over.
    pub patience_seconds: u32,
    /// The most that penalties add up to; not above `patience_seconds` turns them off.
    pub max_penalty_seconds: u32,
}

impl Default for SourceLimits {
    /// The library's.
    fn default() -> Self {
        let limits = sshbridge::server::SourceLimits::default();
        let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        Self {
            rate: limits.rate,
            burst: limits.burst,
            patience_seconds: seconds(limits.patience),
            max_penalty_seconds: seconds(limits.max_penalty),
        }
    }
}

impl From<SourceLimits> for sshbridge::server::SourceLimits {
    fn from(limits: SourceLimits) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let mut of_library = Self::default();
        of_library.rate = limits.rate;
        of_library.burst = limits.burst;
        of_library.patience = seconds(limits.patience_seconds);
        of_library.max_penalty = seconds(limits.max_penalty_seconds);
        of_library
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<sshbridge::server::SourceLimits, String> {
        let ssh: Result<SshGateway, _> = toml::from_str(text);
        ssh.map(|ssh| ssh.source_limits.into())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn limits_that_are_left_out_are_the_librarys() {
        let default = sshbridge::server::SourceLimits::default();
        assert_eq!(limits(""), Ok(default));
        let read = limits("[source_limits]\nrate = 3\nmax_penalty_seconds = 0").unwrap();
        assert_eq!((read.rate, read.burst), (3, default.burst));
        assert_eq!(read.patience, default.patience);
        assert_eq!(read.max_penalty, Duration::ZERO);
    }

    #[test]
    fn a_mistyped_limit_is_no_default() {
        assert!(limits("[source_limits]\nrates = 3").is_err());
        assert!(limits("[source_limits]\nrate = -3").is_err());
    }
}
