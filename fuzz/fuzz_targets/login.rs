//! Whatever login a client names, a key logs in the user that it belongs to and nobody else, and no server is asked about
//! users that are only named.

#![no_main]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use libfuzzer_sys::fuzz_target;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use sshbridge::auth::{AuthRequest, Authorizer, Grant, Scope};
use sshbridge::authorize::{KeyAuthorizer, KeyUser};
use sshbridge::key::AuthorizedKey;
use sshbridge::keysource::{KeySource, KeySourceError, Reach};

/// Users whose names begin alike, or like something else.
const USERS: [&str; 5] = ["anna", "anna-maria", "user-anna", "mutable-x", "a.b_c"];

/// Has a key for each user, by the place of the name, and counts questions.
struct Keys {
    reach: Reach,
    asked: AtomicUsize,
}

impl Keys {
    fn new(reach: Reach) -> Arc<Self> {
        let asked = AtomicUsize::new(0);
        Arc::new(Self { reach, asked })
    }
}

#[async_trait]
impl KeySource for Keys {
    async fn keys(&self, account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let key = LINES.iter().zip(USERS).find(|(_, user)| *user == account);
        Ok(key
            .map(|(line, _)| line.parse().expect("a key"))
            .into_iter()
            .collect())
    }

    fn reach(&self) -> Reach {
        self.reach
    }
}

/// A key for each user, and one that is nobody's.
static LINES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let line = |seed: u8| {
        let pair = Ed25519Keypair::from_seed(&[seed; 32]);
        let key = PrivateKey::from(pair);
        key.public_key().to_openssh().expect("a line")
    };
    (1..=6).map(line).collect()
});

fn ask(reach: Reach, login: &str, line: &str) -> (Option<Grant>, usize) {
    let keys = Keys::new(reach);
    let users = USERS.map(|name| KeyUser::new(name).with_source(keys.clone(), name));
    let authorizer = KeyAuthorizer::new(users);
    let request = AuthRequest::new(login, line, None);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let answer = runtime
        .expect("a runtime")
        .block_on(authorizer.authorize(&request));
    (answer.ok(), keys.asked.load(Ordering::Relaxed))
}

fuzz_target!(|input: (u8, &str)| {
    let (which, login) = input;
    let which = usize::from(which) % LINES.len();
    let line = &LINES[which];
    let owner = USERS.get(which).copied();

    let (grant, _) = ask(Reach::Local, login, line);
    assert_eq!(grant.as_ref().map(|grant| grant.user.as_str()), owner);
    if let Some(grant) = grant {
        assert_eq!(grant.login, login);
        assert_eq!(grant.scope, Scope::User);
    }

    let (grant, asked) = ask(Reach::Remote, login, line);
    let instance = login.strip_prefix("mutable-").unwrap_or(login);
    let is_named = |user: &&&str| instance.starts_with(&format!("user-{user}-"));
    let named = USERS.iter().filter(is_named).max_by_key(|user| user.len());
    assert_eq!(asked, usize::from(named.is_some()));
    let expected = owner.filter(|owner| named == Some(owner));
    assert_eq!(grant.as_ref().map(|grant| grant.user.as_str()), expected);
});
