use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use russh::client::AuthResult;
use russh::keys::ssh_key::certificate;
use russh::keys::{Certificate, PrivateKey};
use sshbridge::auth::{AuthRequest, Authorizer, Denied, Grant, Machine};
use sshbridge::authorize::{KeyAuthorizer, KeyUser};
use sshbridge::key::AuthorizedKey;
use sshbridge::keysource::{KeySource, KeySourceError};
use sshbridge::server::{ServeError, Server};

use crate::support::{
    FakeBackend, Resolves, config, connect, new_key, pipe, read_out, try_key, within,
};

/// Lets one key in, and counts how often it was asked.
struct OneKey {
    line: String,
    asked: AtomicUsize,
}

#[async_trait]
impl Authorizer for OneKey {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if request.key == self.line {
            Ok(Grant::new("one", &request.login))
        } else {
            Err(Denied)
        }
    }
}

fn one_key(line: String) -> (Server, Arc<OneKey>) {
    let authorizer = Arc::new(OneKey {
        line,
        asked: AtomicUsize::new(0),
    });
    let machine = Machine::new("fake", Arc::new(FakeBackend));
    let mut config = config();
    config.max_offers = 3;
    let server = Server::new(config, authorizer.clone(), Arc::new(Resolves(Ok(machine))));
    (server, authorizer)
}

#[tokio::test]
async fn only_the_right_key_gets_in() {
    within(async {
        let key = new_key();
        let (server, _) = one_key(key.public_key().to_openssh().unwrap());
        let mut client = connect(&server).await;
        assert!(!try_key(&mut client, "user", &new_key()).await);
        assert!(client.channel_open_session().await.is_err());
        let mut client = connect(&server).await;
        assert!(!try_key(&mut client, "user", &new_key()).await);
        assert!(try_key(&mut client, "user", &key).await);
    })
    .await;
}

#[tokio::test]
async fn keys_are_offered_a_limited_number_of_times() {
    within(async {
        let (server, authorizer) = one_key("nobody's".to_owned());
        let mut client = connect(&server).await;
        for _ in 0..10 {
            assert!(!try_key(&mut client, "user", &new_key()).await);
        }
        assert!(client.is_closed());
        assert!(authorizer.asked.load(Ordering::Relaxed) <= 4);
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_offered_is_not_logged_in() {
    within(async {
        // The client offers the public half of a key whose private half it does not have.
        struct Stolen;
        impl russh::Signer for Stolen {
            type Error = russh::AgentAuthError;
            async fn auth_sign(
                &mut self,
                _key: &russh::keys::agent::AgentIdentity,
                _hash: Option<russh::keys::HashAlg>,
                mut data: Vec<u8>,
            ) -> Result<Vec<u8>, russh::AgentAuthError> {
                // A signature of the right form that is none.
                data.extend_from_slice(&83_u32.to_be_bytes());
                data.extend_from_slice(&11_u32.to_be_bytes());
                data.extend_from_slice(b"ssh-ed25519");
                data.extend_from_slice(&64_u32.to_be_bytes());
                data.extend_from_slice(&[7; 64]);
                Ok(data)
            }
        }
        let key = new_key().public_key().clone();
        let (server, authorizer) = one_key(key.to_openssh().unwrap());
        let mut client = connect(&server).await;
        let answer = client
            .authenticate_publickey_with("user", key, None, &mut Stolen)
            .await;
        assert!(!matches!(answer, Ok(AuthResult::Success)));
        assert!(authorizer.asked.load(Ordering::Relaxed) >= 1);
        assert!(client.channel_open_session().await.is_err());
    })
    .await;
}

#[tokio::test]
async fn other_methods_are_not_offered() {
    within(async {
        let (server, _) = one_key(String::new());
        let mut client = connect(&server).await;
        for answer in [
            client.authenticate_none("user").await.unwrap(),
            client
                .authenticate_password("user", "secret")
                .await
                .unwrap(),
        ] {
            let AuthResult::Failure {
                remaining_methods, ..
            } = answer
            else {
                panic!("logged in");
            };
            assert_eq!(&*remaining_methods, &[russh::MethodKind::PublicKey]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_log_in_is_cut_off() {
    within(async {
        let mut config = config();
        config.login_grace = Duration::from_millis(50);
        let server =
            crate::support::server_with(config, Machine::new("fake", Arc::new(FakeBackend)));
        let (stream, served) = pipe(&server, 1024);
        assert!(matches!(
            served.await.unwrap(),
            Err(ServeError::LoginTimeout)
        ));
        drop(stream);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_speaks_no_ssh_ends_its_own_connection_only() {
    within(async {
        let (server, _) = one_key(String::new());
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"SSH-2.0-x\r\n\xff\xff\xff\xff",
        ] {
            let (mut stream, served) = pipe(&server, 1024);
            tokio::io::AsyncWriteExt::write_all(&mut stream, garbage)
                .await
                .unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut stream)
                .await
                .unwrap();
            assert!(served.await.unwrap().is_err());
        }
    })
    .await;
}

/// A gateway whose users are certified, and their authority.
fn certified() -> (Server, PrivateKey) {
    struct Authorities(AuthorizedKey);
    #[async_trait]
    impl KeySource for Authorities {
        async fn keys(&self, _account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError> {
            Ok(vec![self.0.clone()])
        }
    }
    let authority = PrivateKey::clone(&new_key());
    let line = authority.public_key().to_openssh().unwrap();
    let authorizer = KeyAuthorizer::new([KeyUser::new("anna").with_principal("anna@here")])
        .with_authorities(Arc::new(Authorities(line.parse().unwrap())));
    let machine = Machine::new("fake", Arc::new(FakeBackend));
    let mut config = config();
    config.max_offers = 10;
    let server = Server::new(
        config,
        Arc::new(authorizer),
        Arc::new(Resolves(Ok(machine))),
    );
    (server, authority)
}

/// What `authority` says of `key`: it is `principal`'s, with this critical option.
fn certify(
    authority: &PrivateKey,
    key: &PrivateKey,
    principal: &str,
    critical: Option<(&str, &str)>,
) -> Certificate {
    let key = key.public_key().key_data().clone();
    let mut builder = certificate::Builder::new(vec![7; 16], key, 0, u64::MAX).unwrap();
    builder.valid_principal(principal).unwrap();
    if let Some((name, value)) = critical {
        builder.critical_option(name, value).unwrap();
    }
    builder.sign(authority).unwrap()
}

#[tokio::test]
async fn a_certificate_of_a_configured_authority_logs_in() {
    within(async {
        let (server, authority) = certified();
        let key = new_key();
        let log_in = async |certificate: Certificate, key: Arc<PrivateKey>| {
            let mut client = connect(&server).await;
            let answer = client.authenticate_openssh_cert("anything", key, certificate);
            let is_in = matches!(answer.await, Ok(AuthResult::Success));
            (client, is_in)
        };
        let anna = certify(&authority, &key, "anna@here", None);
        assert!(log_in(anna.clone(), key.clone()).await.1);
        // Somebody else's principal, authority or key, and an option that nobody enforces.
        let otto = certify(&authority, &key, "otto@here", None);
        assert!(!log_in(otto, key.clone()).await.1);
        let other = certify(&new_key(), &key, "anna@here", None);
        assert!(!log_in(other, key.clone()).await.1);
        assert!(!log_in(anna, new_key()).await.1);
        let unknown = certify(&authority, &key, "anna@here", Some(("verify-required", "")));
        assert!(!log_in(unknown, key.clone()).await.1);
        let mut client = connect(&server).await;
        assert!(
            !try_key(&mut client, "anything", &key).await,
            "it has no certificate"
        );
    })
    .await;
}

#[tokio::test]
async fn a_certificate_forces_its_command_and_refuses_a_terminal() {
    within(async {
        let (server, authority) = certified();
        let key = new_key();
        let forced = Some(("force-command", "log"));
        let certificate = certify(&authority, &key, "anna@here", forced);
        let mut client = connect(&server).await;
        let answer = client.authenticate_openssh_cert("anything", key, certificate);
        assert!(matches!(answer.await, Ok(AuthResult::Success)));
        let mut channel = client.channel_open_session().await.unwrap();
        channel
            .request_pty(true, "xterm", 80, 24, 0, 0, &[])
            .await
            .unwrap();
        channel.exec(true, "exit 1").await.unwrap();
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.order.first(), Some(&"failure"), "no terminal");
        assert_eq!(seen.status, Some(0));
        let told = String::from_utf8(seen.stdout).unwrap();
        assert_eq!(told, "SSH_ORIGINAL_COMMAND=exit 1\n");
        let unused = client.channel_open_direct_tcpip("localhost", 1, "", 0);
        assert!(unused.await.is_err(), "nor forwarding");
    })
    .await;
}

#[tokio::test]
async fn keys_that_are_proven_in_vain_count_as_offers_where_certificates_are_taken() {
    within(async {
        let (server, authority) = certified();
        let key = new_key();
        let certificate = certify(&authority, &key, "anna@here", None);
        let mut client = connect(&server).await;
        for _ in 0..8 {
            assert!(!try_key(&mut client, "anything", &new_key()).await);
        }
        let answer = client.authenticate_openssh_cert("anything", key, certificate);
        assert!(matches!(answer.await, Ok(AuthResult::Success)));
        let mut client = connect(&server).await;
        for _ in 0..20 {
            assert!(!try_key(&mut client, "anything", &new_key()).await);
        }
        assert!(client.is_closed());
    })
    .await;
}
