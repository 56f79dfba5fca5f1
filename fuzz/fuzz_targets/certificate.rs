//! A certificate is believed only where every rule about it holds, and bytes that are none make nobody panic.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use revdial_fuzz::Script;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::Certificate;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::Ed25519Keypair;
use sshbridge::auth::Permission;
use sshbridge::certificate::{Certified, UserCertificate};
use sshbridge::key::AuthorizedKey;

/// A user's key, the authority's that is believed, and another one's.
static KEYS: LazyLock<[PrivateKey; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|seed| Ed25519Keypair::from_seed(&[seed; 32]).into()));

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

const OPTIONS: [&str; 4] = ["force-command", "source-address", "verify-required", "x"];

const VALUES: [&str; 6] = [
    "",
    "true",
    "192.0.2.0/24",
    "198.51.100.1",
    "*",
    "192.0.2.1,bad",
];

const EXTENSIONS: [&str; 4] = [
    "permit-pty",
    "permit-port-forwarding",
    "permit-agent-forwarding",
    "permit-x",
];

/// What a certificate says.
struct Said {
    signer: usize,
    kind: CertType,
    after: u64,
    before: u64,
    principals: Vec<String>,
    options: Vec<(&'static str, &'static str)>,
    extensions: Vec<&'static str>,
}

impl Said {
    fn read(script: &mut Script<'_>) -> Self {
        let flags = script.byte();
        let pick = |byte: u8, from: &[&'static str]| from[usize::from(byte) % from.len()];
        let mut principals = Vec::new();
        for _ in 0..flags & 3 {
            let length = usize::from(script.byte() % 5);
            principals.push(String::from_utf8_lossy(script.bytes(length)).into_owned());
        }
        Self {
            signer: 1 + usize::from(flags >> 7),
            kind: if flags & 64 == 0 {
                CertType::User
            } else {
                CertType::Host
            },
            principals,
            after: script.byte().into(),
            before: script.byte().into(),
            options: (0..flags >> 2 & 3)
                .map(|_| (pick(script.byte(), &OPTIONS), pick(script.byte(), &VALUES)))
                .collect(),
            extensions: (0..flags >> 4 & 3)
                .map(|_| pick(script.byte(), &EXTENSIONS))
                .collect(),
        }
    }

    /// `None` for what no authority can say.
    fn sign(&self) -> Option<Certificate> {
        let key = KEYS[0].public_key().key_data().clone();
        let mut builder = Builder::new(vec![7; 16], key, self.after, self.before).ok()?;
        builder.cert_type(self.kind).ok()?;
        for principal in &self.principals {
            builder.valid_principal(principal.as_str()).ok()?;
        }
        if self.principals.is_empty() {
            builder.all_principals_valid().ok()?;
        }
        for (name, value) in &self.options {
            builder.critical_option(*name, *value).ok()?;
        }
        for name in &self.extensions {
            builder.extension(*name, "").ok()?;
        }
        builder.sign(&KEYS[self.signer]).ok()
    }

    fn has(&self, extension: &str) -> Permission {
        if self.extensions.contains(&extension) {
            Permission::Allowed
        } else {
            Permission::Refused
        }
    }

    /// What the rules make of it for a client at [`PEER`] at this second.
    fn is_believed(&self, now: u64) -> bool {
        let holds = |(name, value): &(&str, &str)| match *name {
            "force-command" => !value.is_empty(),
            "source-address" => *value == "192.0.2.0/24",
            _ => false,
        };
        self.signer == 1
            && self.kind == CertType::User
            && (self.after..self.before).contains(&now)
            && !self.principals.is_empty()
            && self.principals.iter().all(|it| !it.is_empty())
            && self.options.iter().all(holds)
    }
}

fn check(certificate: &UserCertificate, now: u64) -> Option<Certified> {
    let line = KEYS[1].public_key().to_openssh().expect("a line");
    let authority: AuthorizedKey = line.parse().expect("a key");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
    certificate.check(&[authority], Some(PEER), now).ok()
}

fn said(bytes: &[u8]) {
    let mut script = Script(bytes);
    let now = u64::from(script.byte());
    let said = Said::read(&mut script);
    let Some(certificate) = said.sign() else {
        return;
    };
    let certificate = UserCertificate::from(&certificate);
    let Some(certified) = check(&certificate, now) else {
        assert!(!said.is_believed(now));
        return;
    };
    assert!(said.is_believed(now));
    assert_eq!(certified.principals, said.principals);
    let forced = said
        .options
        .iter()
        .find(|(name, _)| *name == "force-command");
    assert_eq!(
        certified.command.as_deref(),
        forced.map(|(_, command)| *command)
    );
    assert_eq!(certified.terminal, said.has("permit-pty"));
    assert_eq!(
        certified.forwarding.agent,
        said.has("permit-agent-forwarding")
    );
    assert_eq!(
        certified.forwarding.direct,
        said.has("permit-port-forwarding")
    );
    assert_eq!(certified.forwarding.remote, certified.forwarding.direct);
    assert_eq!(certified.forwarding.unix, certified.forwarding.direct);
}

/// Bytes that are a certificate, or are not. Whatever is signed by the authority it has signed.
fn bytes(bytes: &[u8]) {
    let Ok(certificate) = Certificate::from_bytes(bytes) else {
        return;
    };
    let certificate = UserCertificate::from(&certificate);
    let _ = format!("{certificate:?}");
    if let Some(certified) = check(&certificate, 100) {
        assert!(!certified.principals.is_empty());
    }
}

fuzz_target!(|input: &[u8]| match input.split_first() {
    Some((0, rest)) => bytes(rest),
    Some((1, text)) => {
        let _ = String::from_utf8_lossy(text).parse::<UserCertificate>();
    }
    Some((_, script)) => said(script),
    None => {}
});
