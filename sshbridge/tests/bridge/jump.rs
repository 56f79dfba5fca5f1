use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use russh::ChannelMsg;
use russh::client::Handle;
use sshbridge::auth::{
    AuthRequest, Authorizer, Denied, Grant, Jump, Machine, MachineResolver, Permission, Refusal,
    Tenure,
};
use sshbridge::server::Server;
use tokio::io::AsyncWriteExt;

use crate::support::{FakeBackend, Trusting, config, connect, new_key, try_key, within};

/// Calls one machine `target`, whose SSH server says what key it was told to admit and echoes.
#[derive(Default)]
struct Jumps {
    tenure: Tenure,
    asked: Mutex<Vec<(String, u16)>>,
}

#[async_trait]
impl MachineResolver for Jumps {
    async fn resolve(&self, _grant: &Grant) -> Result<Machine, Refusal> {
        Ok(Machine::new("fake", Arc::new(FakeBackend)))
    }

    async fn jump(&self, grant: &Grant, host: &str, port: u16) -> Option<Result<Jump, Refusal>> {
        self.asked.lock().unwrap().push((host.to_owned(), port));
        match host {
            "target" => {}
            "foreign" => return Some(Err(Refusal::new("it is not yours"))),
            _ => return None,
        }
        let (ours, mut theirs) = tokio::io::duplex(64);
        let key = grant.key.clone().unwrap();
        tokio::spawn(async move {
            let _ = theirs.write_all(format!("{key}\n").as_bytes()).await;
            let (mut read, mut write) = tokio::io::split(theirs);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        let mut jump = Jump::new(ours);
        jump.tenure = self.tenure.clone();
        Some(Ok(jump))
    }
}

/// Lets everybody in, perhaps for one command.
struct For(Option<&'static str>, Permission);

#[async_trait]
impl Authorizer for For {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        let mut grant = Grant::new("anybody", &request.login);
        grant.command = self.0.map(str::to_owned);
        grant.terminal = self.1;
        Ok(grant)
    }
}

async fn logged_in(authorizer: For, jumps: &Arc<Jumps>) -> (Handle<Trusting>, String) {
    let server = Server::new(config(), Arc::new(authorizer), jumps.clone());
    let (mut client, key) = (connect(&server).await, new_key());
    assert!(try_key(&mut client, "login", &key).await);
    (client, key.public_key().to_openssh().unwrap())
}

const ANYTHING: For = For(None, Permission::Allowed);

#[tokio::test]
async fn a_jump_carries_bytes_to_the_end_and_names_the_proven_key() {
    within(async {
        let jumps = Arc::new(Jumps::default());
        let (client, key) = logged_in(ANYTHING, &jumps).await;
        let jump = client.channel_open_direct_tcpip("target", 22, "", 0);
        let mut channel = jump.await.unwrap();
        channel.data_bytes("SSH-2.0-x\r\n").await.unwrap();
        channel.eof().await.unwrap();
        let (mut seen, mut ended) = (Vec::new(), false);
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => seen.extend_from_slice(&data),
                ChannelMsg::Eof => ended = true,
                _ => {}
            }
        }
        let seen = String::from_utf8(seen).unwrap();
        assert_eq!(seen, format!("{key}\nSSH-2.0-x\r\n"));
        assert!(ended);
        assert_eq!(*jumps.asked.lock().unwrap(), [("target".to_owned(), 22)]);
    })
    .await;
}

#[tokio::test]
async fn a_jump_is_cut_when_its_time_is_over() {
    within(async {
        let jumps = Arc::new(Jumps::default());
        let (client, _) = logged_in(ANYTHING, &jumps).await;
        let jump = client.channel_open_direct_tcpip("target", 22, "", 0);
        let mut channel = jump.await.unwrap();
        assert!(matches!(
            channel.wait().await,
            Some(ChannelMsg::Data { .. })
        ));
        jumps.tenure.end("over");
        let mut ended = false;
        while let Some(message) = channel.wait().await {
            ended |= matches!(message, ChannelMsg::Eof);
        }
        assert!(!ended, "a cut looks like an end");
        // The connection may lead to other machines.
        assert!(!client.is_closed());
    })
    .await;
}

#[tokio::test]
async fn a_jump_that_is_refused_says_why() {
    within(async {
        let jumps = Arc::new(Jumps::default());
        let (client, _) = logged_in(ANYTHING, &jumps).await;
        let jump = client.channel_open_direct_tcpip("foreign", 22, "", 0);
        let error = jump.await.unwrap_err();
        assert!(
            matches!(error, russh::Error::ChannelOpenFailure(_)),
            "{error:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn who_is_restricted_does_not_jump() {
    within(async {
        for restricted in [
            For(Some("true"), Permission::Allowed),
            For(None, Permission::Refused),
        ] {
            let jumps = Arc::new(Jumps::default());
            let (client, _) = logged_in(restricted, &jumps).await;
            let jump = client.channel_open_direct_tcpip("target", 22, "", 0);
            assert!(jump.await.is_err());
            assert!(jumps.asked.lock().unwrap().is_empty());
        }
    })
    .await;
}
