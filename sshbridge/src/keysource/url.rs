use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, ClientBuilder, StatusCode, Url};
use tokio::time::Instant;

use super::{KeySource, KeySourceError, MAX_BYTES, MAX_KEYS, Reach};
use crate::key::AuthorizedKey;

/// Keys that a server publishes per account, as `https://github.com/{account}.keys` does.
///
/// Answers are kept for five minutes, and for one minute where there were no keys. Where the server fails, the last
/// answer stands for a day, and then nobody is let in. One question per account is under way at a time, and no more than
/// one per second is asked after the first few. Redirects are not followed.
pub struct UrlKeys {
    template: String,
    client: Client,
    accounts: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Known>>>>,
    bucket: Mutex<Bucket>,
}

/// What is known of an account. Its lock is held while the server is asked: whoever comes meanwhile waits for the same
/// answer.
#[derive(Default)]
struct Known {
    answer: Option<Answer>,
    failed: Option<Instant>,
}

#[derive(Clone)]
struct Answer {
    keys: Vec<AuthorizedKey>,
    at: Instant,
}

/// A URL template that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlTemplateError {
    /// The HTTP client cannot be set up.
    #[error("no HTTP client: {0}")]
    Client(#[source] io::Error),
    /// It is no URL.
    #[error("the template is no URL")]
    Malformed,
    /// Nothing says where the account goes.
    #[error("the template has no {{account}} in it")]
    NoAccount,
    /// Keys would come over a connection that others can change.
    #[error("keys are only taken from https URLs, or from this machine itself")]
    NotHttps,
}

impl UrlKeys {
    /// Asks the URL that `template` becomes when `{account}` is replaced.
    ///
    /// # Errors
    ///
    /// [`UrlTemplateError`] where that is no HTTPS URL, nor one of this machine.
    pub fn new(template: impl Into<String>) -> Result<Self, UrlTemplateError> {
        let template = template.into();
        if !template.contains(ACCOUNT) {
            return Err(UrlTemplateError::NoAccount);
        }
        let example = template.replace(ACCOUNT, "a");
        let example: Url = example.parse().map_err(|_| UrlTemplateError::Malformed)?;
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("sshbridge/", env!("CARGO_PKG_VERSION")));
        let builder = match example.scheme() {
            "https" => with_tls(builder.https_only(true))?,
            "http" if is_loopback(&example) => with_tls(builder.no_proxy())?,
            _ => return Err(UrlTemplateError::NotHttps),
        };
        let client = builder.build();
        let client = client.map_err(|error| UrlTemplateError::Client(io::Error::other(error)))?;
        Ok(Self {
            template,
            client,
            accounts: Mutex::default(),
            bucket: Mutex::new(Bucket::new(Instant::now())),
        })
    }

    async fn keys_at(
        &self,
        account: &str,
        now: Instant,
    ) -> Result<Vec<AuthorizedKey>, KeySourceError> {
        if !is_account(account) {
            return Err(KeySourceError::AccountName);
        }
        let known = self.known(account)?;
        let mut known = known.lock().await;
        if let Some(answer) = known.current(now) {
            return Ok(answer.keys.clone());
        }
        let asked = if known.failed.is_some_and(|at| at + NEGATIVE > now) || !self.take_token(now) {
            Err(KeySourceError::Throttled)
        } else {
            let asked = self.ask(account).await;
            known.failed = asked.is_err().then_some(now);
            asked
        };
        match (asked, &known.answer) {
            (Ok(keys), _) => {
                let answer = known.answer.insert(Answer { keys, at: now });
                Ok(answer.keys.clone())
            }
            (Err(error), Some(stale)) if stale.at + STALE > now => {
                tracing::warn!(%error, "a key server failed, its last answer is used");
                Ok(stale.keys.clone())
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn ask(&self, account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError> {
        let unreachable = |error| KeySourceError::Unreachable(io::Error::other(error));
        let url = self.template.replace(ACCOUNT, account);
        let sent = self.client.get(url).send().await;
        let mut response = sent.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Vec::new()),
            status => return Err(KeySourceError::Status(status.as_u16())),
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if (body.len() + chunk.len()) as u64 > MAX_BYTES {
                return Err(KeySourceError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8_lossy(&body);
        // What we do not accept may well be in such a list: old keys, or kinds that are newer than we are.
        let keys = body.lines().filter_map(|line| line.parse().ok());
        Ok(keys.take(MAX_KEYS).collect())
    }

    fn known(&self, account: &str) -> Result<Arc<tokio::sync::Mutex<Known>>, KeySourceError> {
        let mut accounts = lock(&self.accounts);
        if let Some(known) = accounts.get(account) {
            return Ok(known.clone());
        }
        if accounts.len() >= MAX_ACCOUNTS {
            return Err(KeySourceError::Throttled);
        }
        let known = Arc::<tokio::sync::Mutex<Known>>::default();
        accounts.insert(account.to_owned(), known.clone());
        Ok(known)
    }

    fn take_token(&self, now: Instant) -> bool {
        lock(&self.bucket).take(now)
    }
}

#[async_trait]
impl KeySource for UrlKeys {
    async fn keys(&self, account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError> {
        self.keys_at(account, Instant::now()).await
    }

    fn reach(&self) -> Reach {
        Reach::Remote
    }
}

impl std::fmt::Debug for UrlKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UrlKeys")
            .field("template", &self.template)
            .finish_non_exhaustive()
    }
}

impl Known {
    /// The answer that needs no new question.
    fn current(&self, now: Instant) -> Option<&Answer> {
        self.answer.as_ref().filter(|answer| {
            let fresh = if answer.keys.is_empty() {
                NEGATIVE
            } else {
                FRESH
            };
            answer.at + fresh > now
        })
    }
}

/// One question per second, and a few more at once after a pause.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            filled: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + passed.as_secs_f64()).min(BURST);
        self.filled = self.filled.max(now);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// TLS by ring and the roots of this machine, so that nothing depends on a provider chosen for the whole process.
fn with_tls(builder: ClientBuilder) -> Result<ClientBuilder, UrlTemplateError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| UrlTemplateError::Client(io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(builder.tls_backend_preconfigured(config))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// The names that GitHub, GitLab and Forgejo have in common: nothing in them means anything in a URL.
fn is_account(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is replaced by the account.
const ACCOUNT: &str = "{account}";

/// How long a question may take: a user waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long keys stand without asking again.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// The same where there were no keys, or no answer: a key that was just added is found soon.
const NEGATIVE: Duration = Duration::from_secs(60);

/// How long the last answer stands while the server fails.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// How many questions may be asked at once after a pause.
const BURST: f64 = 5.0;

/// Accounts come from a configuration; more than this no configuration has.
const MAX_ACCOUNTS: usize = 10_000;

#[cfg(test)]
mod tests;
