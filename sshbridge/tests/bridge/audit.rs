use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use russh::ChannelMsg;
use russh::keys::{HashAlg, PrivateKey};
use sshbridge::audit::{AuditEvent, AuditKind, AuditSink, CloseReason};
use sshbridge::auth::{AuthRequest, Authorizer, Denied, Grant, Machine, Refusal};
use sshbridge::server::{Server, ServerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Anybody, FakeBackend, Resolves, Trusting, config, connect, new_key, pipe, read_out, try_key,
    within,
};

/// Keeps what it is told.
#[derive(Debug, Default)]
struct Kept {
    events: Mutex<Vec<AuditEvent>>,
    closed: Notify,
}

impl AuditSink for Kept {
    fn record(&self, event: &AuditEvent) {
        self.events.lock().unwrap().push(event.clone());
        if matches!(event.kind, AuditKind::Closed { .. }) {
            self.closed.notify_one();
        }
    }
}

impl Kept {
    /// What happened, once the connection is closed.
    async fn all(&self) -> Vec<AuditKind> {
        self.closed.notified().await;
        let events = self.events.lock().unwrap();
        assert!(events.iter().all(|event| event.connection == 0));
        events.iter().map(|event| event.kind.clone()).collect()
    }
}

fn audited() -> (ServerConfig, Arc<Kept>) {
    let (mut config, kept) = (config(), Arc::new(Kept::default()));
    config.audit = Some(kept.clone());
    (config, kept)
}

fn credential(key: &PrivateKey) -> String {
    let fingerprint = key.public_key().fingerprint(HashAlg::Sha256);
    format!("Credential {{ fingerprint: \"{fingerprint}\", certificate: None }}")
}

/// Lets in whoever comes with any key but one.
struct AllBut(String);

#[async_trait]
impl Authorizer for AllBut {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        if request.key == self.0 {
            return Err(Denied);
        }
        Ok(Grant::new("anna", &request.login))
    }
}

#[tokio::test]
async fn a_whole_session_is_told_in_its_order() {
    within(async {
        let (config, kept) = audited();
        let (wrong, right) = (new_key(), new_key());
        let wrong_line = wrong.public_key().to_openssh().unwrap();
        let machine = Machine::new("m-1", Arc::new(FakeBackend));
        let server = Server::new(
            config,
            Arc::new(AllBut(wrong_line)),
            Arc::new(Resolves(Ok(machine))),
        );
        let mut client = connect(&server).await;
        assert!(!try_key(&mut client, "login", &wrong).await);
        assert!(try_key(&mut client, "login", &right).await);
        let mut channel = client.channel_open_session().await.unwrap();
        channel.set_env(true, "LANG", "secret").await.unwrap();
        channel.exec(true, "exit 3").await.unwrap();
        assert_eq!(read_out(&mut channel).await.status, Some(3));
        let refused = client.channel_open_direct_tcpip("host", 80, "", 0).await;
        assert!(refused.is_err());
        let bye = russh::Disconnect::ByApplication;
        client.disconnect(bye, "", "").await.unwrap();

        let events = kept.all().await;
        let told: Vec<_> = events.iter().map(|event| format!("{event:?}")).collect();
        let (wrong, right) = (credential(&wrong), credential(&right));
        let want = [
            format!("Refused {{ login: \"login\", credential: {wrong}, proof: None }}"),
            format!("LoggedIn {{ login: \"login\", user: \"anna\", credential: {right} }}"),
            "Resolved { machine: \"m-1\" }".to_owned(),
            "SessionOpened { channel: 2 }".to_owned(),
            "Started { channel: 2, program: Command(\"exit 3\"), terminal: false, outcome: Done }"
                .to_owned(),
            "Exited { channel: 2, exit: Status(3) }".to_owned(),
            "Forwarded { direction: Direct, address: \"host:80\", outcome: Refused }".to_owned(),
        ];
        assert_eq!(told[..want.len()], want);
        match &events[want.len()..] {
            [
                AuditKind::Closed {
                    reason: CloseReason::Left,
                    received: 500..,
                    sent: 500..,
                    ..
                },
            ] => {}
            other => panic!("{other:?}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_login_without_a_machine_is_told_with_its_sentence() {
    within(async {
        let (config, kept) = audited();
        let refusal = Err(Refusal::new("there is none"));
        let server = Server::new(config, Arc::new(Anybody), Arc::new(Resolves(refusal)));
        let mut client = connect(&server).await;
        assert!(try_key(&mut client, "login", &new_key()).await);
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "true").await.unwrap();
        read_out(&mut channel).await;
        drop((client, channel));
        let reason = "there is none".to_owned();
        let events = kept.all().await;
        assert!(
            events.contains(&AuditKind::Unresolved { reason }),
            "{events:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn every_end_has_its_reason() {
    within(async {
        let (config, kept) = audited();
        let machine = Machine::new("m-1", Arc::new(FakeBackend));
        let tenure = machine.tenure.clone();
        let server = Server::new(config, Arc::new(Anybody), Arc::new(Resolves(Ok(machine))));

        // Nobody serves it any more.
        let (stream, served) = pipe(&server, 4 << 10);
        let connected = russh::client::connect_stream(Arc::default(), stream, Trusting);
        let client = connected.await.unwrap();
        served.abort();
        kept.closed.notified().await;
        drop(client);

        // Its user's time is over.
        let mut client = connect(&server).await;
        assert!(try_key(&mut client, "login", &new_key()).await);
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "deaf").await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
        tenure.end("over");
        read_out(&mut channel).await;
        kept.closed.notified().await;

        // The client speaks something else.
        let (mut stream, _served) = pipe(&server, 4 << 10);
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n")
            .await
            .unwrap();
        drop(stream);
        kept.closed.notified().await;

        let events = kept.events.lock().unwrap();
        let reasons: Vec<_> = events
            .iter()
            .filter_map(|event| match &event.kind {
                AuditKind::Closed { reason, .. } => Some((event.connection, reason.clone())),
                _ => None,
            })
            .collect();
        assert_eq!(reasons[0], (0, CloseReason::Dropped));
        assert_eq!(reasons[1], (1, CloseReason::Ended("over".into())));
        assert!(
            matches!(&reasons[2], (2, CloseReason::Failed(_))),
            "{reasons:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_before_the_login_is_told_as_one() {
    within(async {
        let (config, kept) = audited();
        let machine = Machine::new("m-1", Arc::new(FakeBackend));
        let server = Server::new(config, Arc::new(Anybody), Arc::new(Resolves(Ok(machine))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.read_u8().await.unwrap();
            shutdown.cancel();
        };
        tokio::join!(server.serve(listener, shutdown.clone()), client);
        let [AuditKind::Closed { reason: told, .. }] = &kept.all().await[..] else {
            panic!("more than its end");
        };
        assert_eq!(*told, CloseReason::Shutdown);
    })
    .await;
}
