//! The credentials of the Go tools: `hex(HMAC-MD5(master key, name))` for a host type or a `user-NAME`.
//!
//! They are weak by design (whoever knows the master key is everybody), so they count only where the configuration says
//! so. See `docs/security.md`.

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use subtle::ConstantTimeEq;

use crate::config::GoKeys;
use crate::secret::Secret;

/// The master keys that are honoured; none unless the configuration names some.
#[derive(Default)]
pub struct MasterKeys(Vec<Vec<u8>>);

impl MasterKeys {
    /// Reads the keys that the configuration names.
    ///
    /// # Errors
    ///
    /// An error that names the file that cannot be read or is empty.
    pub fn load(config: Option<&GoKeys>) -> anyhow::Result<Self> {
        let mut keys = Vec::new();
        let Some(config) = config else {
            return Ok(Self(keys));
        };
        if let Some(path) = &config.master_key_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?;
            anyhow::ensure!(!text.trim().is_empty(), "{} holds no key", path.display());
            keys.push(text.trim().as_bytes().to_vec());
        }
        if config.development_key {
            keys.push(DEVELOPMENT_KEY.to_vec());
        }
        Ok(Self(keys))
    }

    /// Whether `secret` is what one of the master keys makes of `name`.
    pub fn admit(&self, name: &str, secret: &Secret) -> bool {
        self.0.iter().any(|key| {
            derive(key, name)
                .as_bytes()
                .ct_eq(secret.expose().as_bytes())
                .into()
        })
    }
}

impl std::fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKeys({})", self.0.len())
    }
}

fn derive(key: &[u8], name: &str) -> String {
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(name.as_bytes());
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The key of the Go tools' development mode; it is in their source.
const DEVELOPMENT_KEY: &[u8] = b"gophers rule";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_development_key_gives_what_the_go_tools_compute() {
        let keys = MasterKeys::load(Some(&GoKeys {
            master_key_file: None,
            development_key: true,
        }))
        .unwrap();
        for (name, key) in [
            (
                "host-linux-amd64-localdev",
                "4d8129e2963df29b29cab65e108397d1",
            ),
            ("user-gopher", "875a7345b291621360b36e62a0fc6a14"),
            ("user-bradfitz", "2232b7f5ef5d435c05ddf6405760f365"),
            ("darwin-amd64-10_8", "2534a635324d7ebad731e54b99e0db30"),
        ] {
            assert!(keys.admit(name, &Secret::presented(key)), "{name}");
            assert!(!keys.admit("user-other", &Secret::presented(key)), "{name}");
        }
    }

    #[test]
    fn nothing_is_honoured_unless_it_is_configured() {
        let keys = MasterKeys::load(None).unwrap();
        assert!(!keys.admit(
            "user-gopher",
            &Secret::presented("875a7345b291621360b36e62a0fc6a14")
        ));
        let keys = MasterKeys::load(Some(&GoKeys {
            master_key_file: None,
            development_key: false,
        }))
        .unwrap();
        assert!(!keys.admit(
            "user-gopher",
            &Secret::presented("875a7345b291621360b36e62a0fc6a14")
        ));
    }
}
