use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use russh::ChannelOpenFailure;
use sshbridge::auth::Permission;
use sshbridge::auth::{AuthRequest, Authorizer, Denied, Grant, Machine, MachineResolver, Refusal};
use sshbridge::backend::{
    Backend, BackendChannel, BackendConn, BackendError, BackendStream, Incoming, IncomingSource,
    ListenAddress, Origin, Originator, PendingStream,
};
use tokio::sync::mpsc;

use crate::support::{Bench, echo, within};

#[tokio::test]
async fn what_a_grant_does_not_include_is_refused() {
    within(async {
        let (port, _echo) = echo().await;
        let bench = Bench::direct_with(
            |_| {},
            |grant| {
                grant.forwarding.agent = Permission::Refused;
                grant.forwarding.direct = Permission::Refused;
                grant.forwarding.remote = Permission::Refused;
                grant.forwarding.unix = Permission::Refused;
            },
        );
        let client = bench.client().await;
        assert!(matches!(
            client.to_port(port).await,
            Err(russh::Error::ChannelOpenFailure(
                ChannelOpenFailure::AdministrativelyProhibited
            ))
        ));
        assert!(
            client
                .handle
                .channel_open_direct_streamlocal("s")
                .await
                .is_err()
        );
        assert!(client.handle.tcpip_forward("", 0).await.is_err());
        assert!(client.handle.streamlocal_forward("s").await.is_err());
        let mut channel = client.handle.channel_open_session().await.unwrap();
        channel.agent_forward(true).await.unwrap();
        assert!(matches!(
            channel.wait().await,
            Some(russh::ChannelMsg::Failure)
        ));
        assert_eq!(client.run("echo alive").await, "alive\n");
    })
    .await;
}

#[tokio::test]
async fn channels_and_forwards_are_limited_and_make_room() {
    within(async {
        let (port, _echo) = echo().await;
        let bench = Bench::direct_with(
            |config| {
                config.max_channels = 3;
                config.max_forwards = 2;
            },
            |_| {},
        );
        let client = bench.client().await;
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(client.to_port(port).await.unwrap());
        }
        assert!(matches!(
            client.to_port(port).await,
            Err(russh::Error::ChannelOpenFailure(
                ChannelOpenFailure::ResourceShortage
            ))
        ));
        open.pop().unwrap().close().await.unwrap();
        while client.to_port(port).await.is_err() {
            tokio::task::yield_now().await;
        }
        let first = client.handle.tcpip_forward("", 0).await.unwrap();
        client.handle.streamlocal_forward("s").await.unwrap();
        assert!(client.handle.tcpip_forward("", 0).await.is_err());
        client.handle.cancel_tcpip_forward("", first).await.unwrap();
        assert!(client.handle.tcpip_forward("", 0).await.is_ok());
    })
    .await;
}

/// A machine that opens streams that nobody asked for, and tells which of them were taken.
struct Pushy {
    opened: Mutex<Option<mpsc::Receiver<Incoming>>>,
}

#[async_trait]
impl Backend for Pushy {
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError> {
        Ok(Box::new(PushyConn(Mutex::new(
            self.opened.lock().unwrap().take(),
        ))))
    }
}

struct PushyConn(Mutex<Option<mpsc::Receiver<Incoming>>>);

#[async_trait]
impl BackendConn for PushyConn {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        Err(BackendError::Refused)
    }

    async fn listen(&self, _address: &ListenAddress) -> Result<u16, BackendError> {
        Ok(1000)
    }

    fn incoming(&self) -> Option<Box<dyn IncomingSource>> {
        Some(Box::new(Opened(self.0.lock().unwrap().take()?)))
    }
}

struct Opened(mpsc::Receiver<Incoming>);

#[async_trait]
impl IncomingSource for Opened {
    async fn next(&mut self) -> Option<Incoming> {
        self.0.recv().await
    }
}

/// Tells what became of it.
struct Telling(
    Option<(
        &'static str,
        mpsc::UnboundedSender<(&'static str, &'static str)>,
    )>,
);

#[async_trait]
impl PendingStream for Telling {
    async fn accept(mut self: Box<Self>) -> Result<BackendStream, BackendError> {
        let (name, tell) = self.0.take().unwrap();
        let _ = tell.send((name, "taken"));
        Err(BackendError::Closed)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some((name, tell)) = self.0.take() {
            let _ = tell.send((name, "refused"));
        }
    }
}

struct Anybody;

#[async_trait]
impl Authorizer for Anybody {
    async fn authorize(&self, _request: &AuthRequest) -> Result<Grant, Denied> {
        Ok(Grant::new("anybody", "machine"))
    }
}

struct Leads(Machine);

#[async_trait]
impl MachineResolver for Leads {
    async fn resolve(&self, _grant: &Grant) -> Result<Machine, Refusal> {
        Ok(self.0.clone())
    }
}

#[expect(clippy::disallowed_methods, reason = "a drop cannot wait for room")]
#[tokio::test]
async fn what_a_machine_opens_unasked_is_refused() {
    within(async {
        let (push, opened) = mpsc::channel(8);
        let (tell, mut told) = mpsc::unbounded_channel();
        let backend = Pushy {
            opened: Mutex::new(Some(opened)),
        };
        let mut bench = Bench::direct();
        bench.server = sshbridge::server::Server::new(
            sshbridge::server::ServerConfig::new(sshbridge::hostkey::HostKeys::ephemeral()),
            Arc::new(Anybody),
            Arc::new(Leads(Machine::new("pushy", Arc::new(backend)))),
        );
        let mut client = bench.client().await;
        client.handle.tcpip_forward("here", 0).await.unwrap();
        let listener = |port| Origin::Listener {
            address: ListenAddress::Tcp {
                host: "here".to_owned(),
                port,
            },
            originator: Originator::default(),
        };
        for (name, origin) in [
            ("an agent", Origin::Agent),
            ("another port", listener(1001)),
            ("what was asked for", listener(1000)),
        ] {
            let pending = Box::new(Telling(Some((name, tell.clone()))));
            push.send(Incoming { origin, pending }).await.unwrap();
        }
        let mut fates = [(); 3].map(|()| ("", ""));
        for fate in &mut fates {
            *fate = told.recv().await.unwrap();
        }
        fates.sort_unstable();
        assert_eq!(
            fates,
            [
                ("an agent", "refused"),
                ("another port", "refused"),
                ("what was asked for", "taken")
            ]
        );
        assert_eq!(client.streams.recv().await.unwrap().name, "here:1000");
    })
    .await;
}
