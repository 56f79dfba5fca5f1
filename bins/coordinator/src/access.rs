//! Who may come in: users with their tokens, machines with their keys.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config::{Config, USER_PREFIX};
use crate::go_keys::MasterKeys;
use crate::lease::MachineId;
use crate::secret::Secret;

/// Checks what users and machines present against what the configuration keeps of it.
#[derive(Debug)]
pub struct Access<'a> {
    config: Arc<Config>,
    go_keys: &'a MasterKeys,
}

impl<'a> Access<'a> {
    /// Checks against `config`, and against credentials of the Go tools where `go_keys` holds a master key.
    pub fn new(config: Arc<Config>, go_keys: &'a MasterKeys) -> Self {
        Self { config, go_keys }
    }

    /// Finds out who makes a request, from its Basic credentials: the user, with or without `user-`, and the token.
    ///
    /// # Errors
    ///
    /// [`NotAUser`] where there are no credentials or wrong ones.
    pub fn user(&self, headers: &HeaderMap) -> Result<String, NotAUser> {
        let (login, token) = basic_credentials(headers).ok_or(NotAUser::Missing)?;
        let name = login.strip_prefix(USER_PREFIX).unwrap_or(&login);
        let user = self.config.users.get(name).ok_or(NotAUser::Wrong)?;
        let by_token = user.token_hash.is_some_and(|hash| hash.matches(&token));
        if by_token || self.go_keys.admit(&format!("{USER_PREFIX}{name}"), &token) {
            return Ok(name.to_owned());
        }
        Err(NotAUser::Wrong)
    }

    /// Whether a machine may register as `machine` with `key`.
    ///
    /// # Errors
    ///
    /// [`NotAMachine`], whose reason is for our log alone.
    pub fn machine(&self, machine: &MachineId, key: &Secret) -> Result<(), NotAMachine> {
        let host_type = self
            .config
            .host_types
            .get(&machine.host_type)
            .ok_or(NotAMachine::UnknownHostType)?;
        let expected = host_type.machines.get(&machine.hostname);
        if expected.is_some_and(|expected| !expected.buildlet) {
            return Err(NotAMachine::NoBuildlet);
        }
        let own = expected.and_then(|expected| expected.key_hash);
        let hash = host_type.key_of(&machine.hostname);
        let admitted = hash.is_some_and(|hash| hash.matches(key));
        if admitted || (own.is_none() && self.go_keys.admit(&machine.host_type, key)) {
            return Ok(());
        }
        Err(NotAMachine::WrongKey)
    }
}

/// Why a request is nobody's. The texts and codes are those of Go's coordinator.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAUser {
    /// There are no credentials.
    #[error("missing required authentication")]
    Missing,
    /// There is no such user, or the token is not theirs.
    #[error("bad username or password")]
    Wrong,
}

/// Why a machine may not register.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAMachine {
    /// The configuration has the machine as one without a buildlet.
    #[error("the configuration says buildlet = false of the machine")]
    NoBuildlet,
    /// The configuration has no such host type.
    #[error("the configuration has no such host type")]
    UnknownHostType,
    /// The key is not that of the machine or of its host type.
    #[error("the key is not that of the machine or of its host type")]
    WrongKey,
}

fn basic_credentials(headers: &HeaderMap) -> Option<(String, Secret)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (login, token) = text.split_once(':')?;
    Some((login.to_owned(), Secret::presented(token)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Arc<Config> {
        let hash = |text| Secret::presented(text).hash();
        let config: Config = toml::from_str(&format!(
            "data_dir = '/x'\n[users.al]\ntoken_hash = '{}'\n[users.keyless]\n\
             [host_types.h]\nkey_hash = '{}'\nmachines.own.key_hash = '{}'\nmachines.none.buildlet = false\n[host_types.closed]\n",
            hash("token"),
            hash("key"),
            hash("own key"),
        ))
        .unwrap();
        Arc::new(config)
    }

    fn basic(credentials: &str) -> HeaderMap {
        let value = format!("Basic {}", STANDARD.encode(credentials));
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_user_is_known_by_the_token() {
        let (config, go_keys) = (config(), MasterKeys::default());
        let access = Access::new(config, &go_keys);
        assert_eq!(access.user(&basic("al:token")), Ok("al".to_owned()));
        assert_eq!(access.user(&basic("user-al:token")), Ok("al".to_owned()));
        for wrong in [
            "al:",
            "al:Token",
            "bo:token",
            ":token",
            "keyless:",
            "user-user-al:token",
        ] {
            assert_eq!(access.user(&basic(wrong)), Err(NotAUser::Wrong), "{wrong}");
        }
    }

    #[test]
    fn garbage_is_no_credential() {
        let (config, go_keys) = (config(), MasterKeys::default());
        let access = Access::new(config, &go_keys);
        for value in ["Basic", "Basic !!", "Bearer token", "Basic YWw=", ""] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            assert_eq!(access.user(&headers), Err(NotAUser::Missing), "{value}");
        }
        assert_eq!(access.user(&HeaderMap::new()), Err(NotAUser::Missing));
    }

    #[test]
    fn a_machine_is_known_by_its_own_key_or_that_of_its_type() {
        let (config, go_keys) = (config(), MasterKeys::default());
        let access = Access::new(config, &go_keys);
        let check = |host_type: &str, hostname: &str, key: &str| {
            let id = MachineId {
                host_type: host_type.into(),
                hostname: hostname.into(),
            };
            access.machine(&id, &Secret::presented(key))
        };
        assert_eq!(check("h", "any", "key"), Ok(()));
        assert_eq!(check("h", "own", "own key"), Ok(()));
        assert_eq!(check("h", "own", "key"), Err(NotAMachine::WrongKey));
        assert_eq!(check("h", "any", "own key"), Err(NotAMachine::WrongKey));
        assert_eq!(check("h", "none", "key"), Err(NotAMachine::NoBuildlet));
        assert_eq!(check("closed", "any", ""), Err(NotAMachine::WrongKey));
        assert_eq!(
            check("other", "any", "key"),
            Err(NotAMachine::UnknownHostType)
        );
    }

    #[test]
    fn gos_credentials_count_only_where_they_are_configured() {
        let config = config();
        let on = MasterKeys::load(Some(&crate::config::GoKeys {
            master_key_file: None,
            development_key: true,
        }))
        .unwrap();
        let login = format!("user-al:{}", "e".repeat(32));
        assert_eq!(
            Access::new(config.clone(), &on).user(&basic(&login)),
            Err(NotAUser::Wrong)
        );
        let id = MachineId {
            host_type: "host-linux-amd64-localdev".into(),
            hostname: "m".into(),
        };
        let key = Secret::presented("4d8129e2963df29b29cab65e108397d1");
        assert_eq!(
            Access::new(config, &on).machine(&id, &key),
            Err(NotAMachine::UnknownHostType)
        );
    }
}
