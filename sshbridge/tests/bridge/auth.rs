use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sshbridge::auth::{AuthRequest, Authorizer, Denied, Grant, Machine};
use sshbridge::server::{ServeError, Server};

use crate::support::{FakeBackend, Resolves, config, connect, new_key, pipe, try_key, within};

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
        assert!(!matches!(answer, Ok(russh::client::AuthResult::Success)));
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
            let russh::client::AuthResult::Failure {
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
