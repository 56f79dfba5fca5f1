//! The authorizer of a gateway whose users are configured by name.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::auth::{AuthRequest, Authorizer, CertificateRequest, Denied, Grant, Scope};
use crate::certificate::Certified;
use crate::key::AuthorizedKey;
use crate::keysource::{KeySource, Reach};

/// A user, and where the keys of that user are found.
#[derive(Clone)]
pub struct KeyUser {
    name: String,
    sources: Vec<(Arc<dyn KeySource>, String)>,
    principals: Vec<String>,
}

impl KeyUser {
    /// A user without keys.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            sources: Vec::new(),
            principals: Vec::new(),
        }
    }

    /// Adds the keys that `source` has for `account`.
    pub fn with_source(mut self, source: Arc<dyn KeySource>, account: impl Into<String>) -> Self {
        self.sources.push((source, account.into()));
        self
    }

    /// Adds a name that authorities certify this user's keys for. Without any no certificate is this user's: that an
    /// authority and this configuration mean the same person by one name is never guessed.
    pub fn with_principal(mut self, principal: impl Into<String>) -> Self {
        self.principals.push(principal.into());
        self
    }

    /// Whether one of `principals` is this user's, for whatever login.
    fn is_one_of(&self, principals: &[String]) -> bool {
        self.principals.iter().any(|it| principals.contains(it))
    }

    /// Whether `key` is one of this user, by the sources within `reach`.
    async fn has(&self, key: &AuthorizedKey, reach: Reach) -> bool {
        for (source, account) in &self.sources {
            if reach == Reach::Local && source.reach() == Reach::Remote {
                continue;
            }
            match source.keys(account).await {
                Ok(keys) if keys.contains(key) => return true,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a key source failed");
                }
            }
        }
        false
    }

    /// Whether `key` is certainly none of this user any more: a source that fails may still have it.
    async fn has_lost(&self, key: &AuthorizedKey) -> bool {
        for (source, account) in &self.sources {
            match source.keys(account).await {
                Ok(keys) if !keys.contains(key) => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }
}

impl std::fmt::Debug for KeyUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyUser")
            .field("name", &self.name)
            .field("sources", &self.sources.len())
            .field("principals", &self.principals)
            .finish()
    }
}

/// Lets in whoever proves a key of a configured user.
///
/// It says who somebody is, not what they may reach: the instance in the login is the resolver's business. A login
/// such as `user-NAME-linux-amd64-0`, perhaps with `mutable-` before it, names a user, who is asked first and is the only
/// one whose remote key sources are asked: nobody makes us query a server about users that they just name. A key of
/// another user is found in the local sources, so that one who mistypes an instance is told so.
///
/// Certificates of configured authorities count for the user who has one of their principals
/// ([`KeyUser::with_principal`]); a principal that is the name of an instance counts for the user in that name, and for
/// logins to that instance alone. The certificate's time is that of the login; what is logged in by then stays.
///
/// A login is revoked when there is no such user, no source has the user's key any more, or none the certificate's authority. A source
/// that fails revokes nothing: a file that is being replaced, or a server that is down, must not throw everybody out.
#[derive(Clone)]
pub struct KeyAuthorizer {
    users: Vec<KeyUser>,
    authorities: Vec<Arc<dyn KeySource>>,
}

impl KeyAuthorizer {
    /// An authorizer for these users.
    pub fn new(users: impl IntoIterator<Item = KeyUser>) -> Self {
        Self {
            users: users.into_iter().collect(),
            authorities: Vec::new(),
        }
    }

    /// Believes certificates that are signed with one of the keys that `source` has, for whatever account. It is asked
    /// at every login, so an authority that leaves the source is believed no more.
    pub fn with_authorities(mut self, source: Arc<dyn KeySource>) -> Self {
        self.authorities.push(source);
        self
    }

    async fn owner(&self, login: &str, key: &AuthorizedKey) -> Option<&KeyUser> {
        let named = self.named(login);
        if let Some(user) = named
            && user.has(key, Reach::Remote).await
        {
            return Some(user);
        }
        for user in &self.users {
            if user.has(key, Reach::Local).await {
                return Some(user);
            }
        }
        None
    }

    /// Whether the authority with that fingerprint is certainly none of ours any more.
    async fn have_lost(&self, authority: &str) -> bool {
        for source in &self.authorities {
            match source.keys("").await {
                Ok(keys) if keys.iter().all(|key| key.fingerprint() != authority) => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    async fn check(&self, request: &CertificateRequest) -> Option<Certified> {
        let peer = request.peer.map(|peer| peer.ip());
        for source in &self.authorities {
            let authorities = match source.keys("").await {
                Ok(keys) => keys,
                Err(error) => {
                    tracing::warn!(%error, "the keys of certificate authorities cannot be known");
                    continue;
                }
            };
            match request
                .certificate
                .check(&authorities, peer, SystemTime::now())
            {
                Ok(certified) => return Some(certified),
                Err(error) => tracing::debug!(%error, "a certificate is not accepted"),
            }
        }
        None
    }

    /// The user whom `principals` name. The one in the login is first, where several are.
    fn certified(&self, login: &str, principals: &[String]) -> Option<&KeyUser> {
        let has = |user: &&KeyUser| user.is_one_of(principals);
        let instance = login.strip_prefix(MUTABLE).unwrap_or(login);
        let named = self.named(login);
        let is_for_instance = principals.iter().any(|it| it == instance);
        named
            .filter(|user| is_for_instance || has(user))
            .or_else(|| self.users.iter().find(has))
    }

    /// The user that a login names: the one with the longest name that fits, so that `anna` is not taken for
    /// `anna-maria`, nor the other way round.
    fn named(&self, login: &str) -> Option<&KeyUser> {
        let instance = login.strip_prefix(MUTABLE).unwrap_or(login);
        let rest = instance.strip_prefix(USER)?;
        let fits = |user: &&KeyUser| {
            rest.strip_prefix(user.name.as_str())
                .is_some_and(|rest| rest.starts_with('-'))
        };
        self.users
            .iter()
            .filter(fits)
            .max_by_key(|user| user.name.len())
    }
}

#[async_trait]
impl Authorizer for KeyAuthorizer {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        let key: AuthorizedKey = request.key.parse().map_err(|_| Denied)?;
        match self.owner(&request.login, &key).await {
            Some(user) => {
                let mut grant = Grant::new(&user.name, &request.login);
                grant.scope = Scope::User;
                Ok(grant)
            }
            None => Err(Denied),
        }
    }

    async fn authorize_certificate(&self, request: &CertificateRequest) -> Result<Grant, Denied> {
        let certified = self.check(request).await.ok_or(Denied)?;
        let user = self.certified(&request.login, &certified.principals);
        let user = user.ok_or(Denied)?;
        let mut grant = Grant::new(&user.name, &request.login);
        if user.is_one_of(&certified.principals) {
            grant.scope = Scope::User;
        }
        grant.forwarding = certified.forwarding;
        grant.terminal = certified.terminal;
        grant.command = certified.command;
        Ok(grant)
    }

    fn takes_certificates(&self) -> bool {
        !self.authorities.is_empty()
    }

    async fn is_revoked(&self, grant: &Grant) -> bool {
        let Some(user) = self.users.iter().find(|user| user.name == grant.user) else {
            return true;
        };
        match (&grant.authority, grant.key.as_ref().map(|key| key.parse())) {
            (Some(authority), _) => self.have_lost(authority).await,
            (None, Some(Ok(key))) => user.has_lost(&key).await,
            // Not reached: such a grant is none of ours.
            (None, Some(Err(_)) | None) => false,
        }
    }
}

impl std::fmt::Debug for KeyAuthorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyAuthorizer")
            .field("users", &self.users)
            .field("authorities", &self.authorities.len())
            .finish()
    }
}

/// The prefix of a login whose user may change the machine for good.
const MUTABLE: &str = "mutable-";

/// What instances that belong to users begin with.
const USER: &str = "user-";

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::hostkey::HostKeys;
    use crate::keysource::KeySourceError;

    /// Knows one key per account, and counts the questions.
    struct Fixed {
        keys: Vec<(&'static str, AuthorizedKey)>,
        reach: Reach,
        asked: AtomicUsize,
    }

    impl Fixed {
        fn new(reach: Reach, keys: &[(&'static str, &str)]) -> Arc<Self> {
            let keys = keys.iter().map(|(name, key)| (*name, key.parse().unwrap()));
            Arc::new(Self {
                keys: keys.collect(),
                reach,
                asked: AtomicUsize::new(0),
            })
        }
    }

    #[async_trait]
    impl KeySource for Fixed {
        async fn keys(&self, account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let of_account = self.keys.iter().filter(|(name, _)| *name == account);
            Ok(of_account.map(|(_, key)| key.clone()).collect())
        }

        fn reach(&self) -> Reach {
            self.reach
        }
    }

    fn key() -> String {
        HostKeys::ephemeral().public_line()
    }

    async fn user(authorizer: &KeyAuthorizer, login: &str, key: &str) -> Option<String> {
        let request = AuthRequest::new(login, key, None);
        authorizer.authorize(&request).await.ok().map(|g| g.user)
    }

    #[tokio::test]
    async fn the_owner_of_the_key_is_who_logs_in() {
        let (anna, maria) = (key(), key());
        let source = Fixed::new(Reach::Local, &[("anna", &anna), ("anna-maria", &maria)]);
        let authorizer = KeyAuthorizer::new(
            ["anna", "anna-maria"].map(|name| KeyUser::new(name).with_source(source.clone(), name)),
        );
        for login in [
            "user-anna-maria-linux-0",
            "user-anna-linux-0",
            "mutable-user-anna-linux-0",
            "user-nobody-linux-0",
            "anything",
        ] {
            assert_eq!(user(&authorizer, login, &anna).await.unwrap(), "anna");
            assert_eq!(
                user(&authorizer, login, &maria).await.unwrap(),
                "anna-maria"
            );
            assert_eq!(user(&authorizer, login, &key()).await, None);
        }
    }

    #[tokio::test]
    async fn remote_sources_are_asked_about_the_named_user_only() {
        let (anna, maria) = (key(), key());
        let source = Fixed::new(Reach::Remote, &[("anna", &anna), ("anna-maria", &maria)]);
        let authorizer = KeyAuthorizer::new(
            ["anna", "anna-maria"].map(|name| KeyUser::new(name).with_source(source.clone(), name)),
        );
        let named = "mutable-user-anna-maria-linux-amd64-0";
        assert_eq!(
            user(&authorizer, named, &maria).await.unwrap(),
            "anna-maria"
        );
        assert_eq!(user(&authorizer, named, &anna).await, None);
        let asked = source.asked.load(Ordering::Relaxed);
        for login in [
            "user-otto-linux-0",
            "user-",
            "user-anna",
            "anna",
            "user-annabel-linux-0",
        ] {
            assert_eq!(user(&authorizer, login, &anna).await, None, "{login}");
        }
        assert_eq!(source.asked.load(Ordering::Relaxed), asked);
    }

    #[test]
    fn principals_name_the_user_or_the_instance() {
        let anna = KeyUser::new("anna").with_principal("anna@example.org");
        let both = ["otto", "team"].map(str::to_owned);
        let otto = both
            .iter()
            .fold(KeyUser::new("otto"), KeyUser::with_principal);
        let authorizer = KeyAuthorizer::new([anna, otto, KeyUser::new("none")]);
        let user = |login: &str, principals: &[&str]| {
            let principals: Vec<_> = principals.iter().map(|&it| it.to_owned()).collect();
            let user = authorizer.certified(login, &principals);
            user.map(|user| user.name.clone())
        };
        let annas = "user-anna-linux-0";
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(user(annas, &["anna@example.org"]), name("anna"));
        assert_eq!(user(annas, &["team"]), name("otto"));
        assert_eq!(user(annas, &["team", "anna@example.org"]), name("anna"));
        assert_eq!(
            user("user-otto-linux-0", &["anna@example.org", "team"]),
            name("otto")
        );
        assert_eq!(user(annas, &["anna"]), None, "names are not guessed");
        assert_eq!(user(annas, &["none"]), None);
        assert_eq!(user(annas, &[annas]), name("anna"));
        assert_eq!(user("mutable-user-anna-linux-0", &[annas]), name("anna"));
        assert_eq!(user("user-anna-linux-1", &[annas]), None);
        assert_eq!(user("somewhere", &["somewhere"]), None);
    }

    /// Says what it is told to, or fails.
    #[derive(Default)]
    struct Changing(Mutex<Option<Vec<AuthorizedKey>>>);

    impl Changing {
        fn set(&self, keys: Option<&[&str]>) {
            let keys = keys.map(|keys| keys.iter().map(|key| key.parse().unwrap()).collect());
            *self.0.lock().unwrap() = keys;
        }
    }

    #[async_trait]
    impl KeySource for Changing {
        async fn keys(&self, _account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError> {
            let keys = self.0.lock().unwrap().clone();
            keys.ok_or(KeySourceError::Throttled)
        }
    }

    #[tokio::test]
    async fn a_key_is_revoked_when_no_source_has_it_and_none_fails() {
        let (mine, other) = (key(), key());
        let (mine, other) = (mine.as_str(), other.as_str());
        let sources = [Arc::<Changing>::default(), Arc::default()];
        let user = sources.iter().fold(KeyUser::new("anna"), |user, source| {
            user.with_source(source.clone(), "anna")
        });
        let authorizer = KeyAuthorizer::new([user]);
        let mut grant = Grant::new("anna", "user-anna-linux-0");
        grant.key = Some(mine.to_owned());
        assert!(
            KeyAuthorizer::new([]).is_revoked(&grant).await,
            "the user is gone"
        );
        for (first, second, revoked) in [
            (Some([mine].as_slice()), Some([].as_slice()), false),
            (Some(&[]), Some(&[mine]), false),
            (Some(&[]), None, false),
            (None, Some(&[other]), false),
            (Some(&[]), Some(&[other]), true),
        ] {
            sources[0].set(first);
            sources[1].set(second);
            assert_eq!(
                authorizer.is_revoked(&grant).await,
                revoked,
                "{first:?} {second:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_certificate_is_revoked_with_its_authority() {
        let (authority, other) = (key(), key());
        let (authority, other) = (authority.as_str(), other.as_str());
        let source = Arc::<Changing>::default();
        let authorizer = KeyAuthorizer::new([KeyUser::new("anna").with_principal("anna")])
            .with_authorities(source.clone());
        let mut grant = Grant::new("anna", "user-anna-linux-0");
        grant.key = Some(key());
        let known: AuthorizedKey = authority.parse().unwrap();
        grant.authority = Some(known.fingerprint());
        for (keys, revoked) in [
            (Some([other, authority].as_slice()), false),
            (None, false),
            (Some(&[other]), true),
        ] {
            source.set(keys);
            assert_eq!(authorizer.is_revoked(&grant).await, revoked, "{keys:?}");
        }
    }

    #[tokio::test]
    async fn text_that_is_no_key_is_denied() {
        let source = Fixed::new(Reach::Local, &[]);
        let authorizer = KeyAuthorizer::new([KeyUser::new("a").with_source(source, "a")]);
        assert_eq!(user(&authorizer, "user-a-linux-0", "").await, None);
        assert_eq!(
            user(&authorizer, "user-a-linux-0", "ssh-rsa AAAA").await,
            None
        );
    }
}
