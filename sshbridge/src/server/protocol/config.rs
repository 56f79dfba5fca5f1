//! How russh is set up on the server side.

use std::borrow::Cow;
use std::sync::Arc;

use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, kex, mac};

use crate::flow::WINDOW;
use crate::server::{MAX_REKEY_BYTES, ServerConfig};

/// russh's form of a [`ServerConfig`].
pub(crate) struct ProtocolConfig(pub(super) Arc<russh::server::Config>);

impl From<&ServerConfig> for ProtocolConfig {
    fn from(config: &ServerConfig) -> Self {
        let mut methods = MethodSet::empty();
        methods.push(MethodKind::PublicKey);
        Self(Arc::new(russh::server::Config {
            server_id: SshId::Standard(Cow::Borrowed(concat!(
                "SSH-2.0-sshbridge_",
                env!("CARGO_PKG_VERSION")
            ))),
            methods,
            auth_rejection_time: config.rejection_time,
            auth_rejection_time_initial: Some(std::time::Duration::ZERO),
            keys: vec![config.host_keys.private_key().clone()],
            certificates: config
                .host_keys
                .certificate()
                .cloned()
                .into_iter()
                .collect(),
            window_size: WINDOW,
            preferred: preferred(),
            limits: limits(config),
            // One more for the `none` with which clients ask for the methods.
            max_auth_attempts: config.max_offers.saturating_add(1),
            inactivity_timeout: None,
            keepalive_interval: config.keepalive,
            keepalive_max: 3,
            ..russh::server::Config::default()
        }))
    }
}

fn limits(config: &ServerConfig) -> Limits {
    let bytes = config.rekey_bytes.min(MAX_REKEY_BYTES);
    Limits::new(bytes, bytes, config.rekey_time)
}

/// The algorithms without the findings of ssh-audit: no group exchange, no encrypt-and-MAC, no compression. AES comes
/// first, which the hardware does; the client's order decides.
fn preferred() -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const CIPHERS: &[cipher::Name] = &[
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_128_CTR,
    ];
    const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
    Preferred {
        kex: Cow::Borrowed(KEX),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        ..Preferred::DEFAULT
    }
}
