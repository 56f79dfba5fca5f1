//! Certificates that `ssh-keygen` made, one for each rule.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::auth::{Authorizer, CertificateRequest, Scope};
use crate::authorize::{KeyAuthorizer, KeyUser};
use crate::keysource::FileKeys;

/// A directory with a user's key, an authority's, and the certificates that are made there.
struct Dir(PathBuf);

impl Dir {
    /// `None`, with a word about it, where there is no `ssh-keygen`.
    fn new(name: &str) -> Option<Self> {
        let path = std::env::temp_dir().join(format!("sshbridge-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let dir = Self(path);
        if Command::new("ssh-keygen").arg("-?").output().is_err() {
            eprintln!("SKIPPED: there is no ssh-keygen here");
            return None;
        }
        for key in ["user", "ca"] {
            dir.key(key, &["-t", "ed25519"]);
        }
        Some(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn key(&self, name: &str, kind: &[&str]) {
        keygen(&self.0, &[kind, &["-q", "-N", "", "-f", name]].concat());
    }

    fn public(&self, name: &str) -> AuthorizedKey {
        let line = std::fs::read_to_string(self.path(&format!("{name}.pub")));
        line.unwrap().parse().unwrap()
    }

    /// Certifies the key `user`.
    fn certify(&self, user: &str, ca: &str, options: &[&str]) -> UserCertificate {
        let public = format!("{user}.pub");
        let args = [&["-q", "-s", ca, "-I", "an id", "-z", "7"], options];
        keygen(&self.0, &[&args.concat()[..], &[&public]].concat());
        let line = std::fs::read_to_string(self.path(&format!("{user}-cert.pub")));
        line.unwrap().parse().unwrap()
    }

    /// Checks a certificate with these options, from 192.0.2.1 and now.
    fn check(&self, options: &[&str]) -> Result<Certified, CertificateError> {
        let certificate = self.certify("user", "ca", options);
        let peer = Some(IpAddr::from([192, 0, 2, 1]));
        certificate.check(&[self.public("ca")], peer, SystemTime::now())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn keygen(dir: &Path, args: &[&str]) {
    let output = Command::new("ssh-keygen")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {errors}");
}

#[test]
fn a_certificate_says_who_its_holder_is_and_what_they_may_do() {
    let Some(dir) = Dir::new("certified") else {
        return;
    };
    let certificate = dir.certify("user", "ca", &["-n", "anna,otto", "-V", "+5m"]);
    assert_eq!((certificate.key_id(), certificate.serial()), ("an id", 7));
    assert_eq!(certificate.fingerprint(), dir.public("user").fingerprint());
    assert_eq!(certificate.authority(), dir.public("ca").fingerprint());
    let authorities = [dir.public("user"), dir.public("ca")];
    let certified = certificate.check(&authorities, None, SystemTime::now());
    let certified = certified.unwrap();
    assert_eq!(certified.principals, ["anna", "otto"]);
    assert_eq!(certified.command, None);
    assert_eq!(certified.terminal, Permission::Allowed);
    assert_eq!(certified.forwarding, Forwarding::default());
}

#[test]
fn what_is_not_permitted_is_refused() {
    let Some(dir) = Dir::new("extensions") else {
        return;
    };
    let certified = dir.check(&["-n", "anna", "-O", "clear"]).unwrap();
    assert_eq!(certified.terminal, Permission::Refused);
    let refused = Forwarding {
        agent: Permission::Refused,
        direct: Permission::Refused,
        remote: Permission::Refused,
        unix: Permission::Refused,
    };
    assert_eq!(certified.forwarding, refused);
    let options = ["-n", "anna", "-O", "clear", "-O", "permit-port-forwarding"];
    let certified = dir.check(&options).unwrap();
    assert_eq!(certified.forwarding.direct, Permission::Allowed);
    assert_eq!(certified.forwarding.agent, Permission::Refused);
    let unknown = ["-n", "anna", "-O", "extension:sudo@example.org=1"];
    assert!(
        dir.check(&unknown).is_ok(),
        "unknown extensions are nothing"
    );
}

#[test]
fn only_a_configured_authority_is_believed() {
    let Some(dir) = Dir::new("authority") else {
        return;
    };
    dir.key("other", &["-t", "ed25519"]);
    let certificate = dir.certify("user", "other", &["-n", "anna"]);
    let check =
        |authorities: &[AuthorizedKey]| certificate.check(authorities, None, SystemTime::now());
    let unknown = Err(CertificateError::UnknownAuthority);
    assert_eq!(check(&[]), unknown);
    assert_eq!(check(&[dir.public("ca"), dir.public("user")]), unknown);
    assert!(check(&[dir.public("other")]).is_ok());
    // A certificate does not make authorities, and nobody certifies themselves.
    let own = dir.certify("user", "user", &["-n", "anna"]);
    let own = own.check(&[dir.public("ca")], None, SystemTime::now());
    assert_eq!(own, unknown);
}

#[test]
fn a_certificate_holds_within_its_time_alone() {
    let Some(dir) = Dir::new("time") else {
        return;
    };
    let validity = "20300101000000Z:20300102000000Z";
    let certificate = dir.certify("user", "ca", &["-n", "anna", "-V", validity]);
    let begin = UNIX_EPOCH + Duration::from_secs(1_893_456_000);
    let second = Duration::from_secs(1);
    let day = Duration::from_secs(24 * 60 * 60);
    let at = |now| {
        let authorities = [dir.public("ca")];
        certificate.check(&authorities, None, now).map(|_| ())
    };
    assert_eq!(at(begin - second), Err(CertificateError::NotYetValid));
    assert_eq!(at(begin), Ok(()));
    assert_eq!(at(begin + day - second), Ok(()));
    assert_eq!(at(begin + day), Err(CertificateError::Expired));
    assert_eq!(at(UNIX_EPOCH - second), Err(CertificateError::NotYetValid));
}

#[test]
fn a_certificate_that_names_nobody_is_nobodys() {
    let Some(dir) = Dir::new("principals") else {
        return;
    };
    assert_eq!(dir.check(&[]), Err(CertificateError::NoPrincipal));
}

#[test]
fn a_certificate_of_a_host_lets_no_user_in() {
    let Some(dir) = Dir::new("host") else {
        return;
    };
    let host = dir.check(&["-h", "-n", "anna"]);
    assert_eq!(host, Err(CertificateError::NotForUsers));
}

#[test]
fn critical_options_are_enforced_or_refuse_the_certificate() {
    let Some(dir) = Dir::new("options") else {
        return;
    };
    let with = |option: &str| dir.check(&["-n", "anna", "-O", option]);
    let forced = with("force-command=git-shell -c x").unwrap();
    assert_eq!(forced.command.as_deref(), Some("git-shell -c x"));
    assert!(with("source-address=192.0.2.0/24").is_ok());
    let elsewhere = with("source-address=198.51.100.0/24,2001:db8::/32");
    assert_eq!(elsewhere, Err(CertificateError::Source));
    for option in ["verify-required", "critical:max-sessions@example.org=1"] {
        assert_eq!(
            with(option),
            Err(CertificateError::CriticalOption),
            "{option}"
        );
    }
    // Nobody knows where a client without an address is.
    let certificate = dir.certify(
        "user",
        "ca",
        &["-n", "anna", "-O", "source-address=0.0.0.0/0"],
    );
    let nowhere = certificate.check(&[dir.public("ca")], None, SystemTime::now());
    assert_eq!(nowhere, Err(CertificateError::Source));
}

#[test]
fn authorities_sign_with_algorithms_that_hold() {
    let Some(dir) = Dir::new("algorithms") else {
        return;
    };
    dir.key("rsa", &["-t", "rsa", "-b", "2048"]);
    dir.key("ecdsa", &["-t", "ecdsa"]);
    let check = |ca: &str, algorithm: &[&str]| {
        let options = [&["-n", "anna"], algorithm].concat();
        let certificate = dir.certify("user", ca, &options);
        let checked = certificate.check(&[dir.public(ca)], None, SystemTime::now());
        checked.map(|_| ())
    };
    assert_eq!(check("rsa", &["-t", "rsa-sha2-512"]), Ok(()));
    assert_eq!(check("rsa", &["-t", "rsa-sha2-256"]), Ok(()));
    assert_eq!(check("ecdsa", &[]), Ok(()));
    let sha1 = check("rsa", &["-t", "ssh-rsa"]);
    assert_eq!(sha1, Err(CertificateError::WeakSignature));
}

#[test]
fn keys_of_all_kinds_are_certified_but_for_short_ones() {
    let Some(dir) = Dir::new("kinds") else {
        return;
    };
    for (name, kind) in [("rsa", "rsa"), ("ecdsa", "ecdsa")] {
        dir.key(name, &["-t", kind]);
        let certificate = dir.certify(name, "ca", &["-n", "anna"]);
        let checked = certificate.check(&[dir.public("ca")], None, SystemTime::now());
        assert!(checked.is_ok(), "{kind}");
    }
    dir.key("short", &["-t", "rsa", "-b", "1024"]);
    let certificate = dir.certify("short", "ca", &["-n", "anna"]);
    let short = certificate.check(&[dir.public("ca")], None, SystemTime::now());
    let bits = KeyError::ShortRsa { bits: 1024 };
    assert_eq!(short, Err(CertificateError::Key(bits)));
}

#[test]
fn a_certificate_that_was_changed_is_forged() {
    let Some(dir) = Dir::new("forged") else {
        return;
    };
    let certificate = dir.certify("user", "ca", &["-n", "anna"]);
    let mut bytes = certificate.certificate.to_bytes().unwrap();
    let place = bytes.windows(4).position(|name| name == b"anna").unwrap();
    bytes[place..place + 4].copy_from_slice(b"otto");
    let changed = UserCertificate::from(&Certificate::from_bytes(&bytes).unwrap());
    let changed = changed.check(&[dir.public("ca")], None, SystemTime::now());
    assert_eq!(changed, Err(CertificateError::Forged));
}

#[tokio::test]
async fn a_certificate_for_an_instance_reaches_no_other() {
    let Some(dir) = Dir::new("scope") else { return };
    let keys = Arc::new(FileKeys::new(dir.path("ca.pub")));
    let al = KeyUser::new("al").with_principal("al@here");
    let authorizer = KeyAuthorizer::new([al]).with_authorities(keys);
    for (principal, scope) in [("al@here", Scope::User), ("user-al-t-0", Scope::Login)] {
        let certificate = dir.certify("user", "ca", &["-n", principal]);
        let request = CertificateRequest::new("user-al-t-0", certificate, None);
        let grant = authorizer.authorize_certificate(&request).await.unwrap();
        assert_eq!((grant.user.as_str(), grant.scope), ("al", scope));
    }
}
