//! Channels of russh as they are found: `Channel::into_stream` at both ends, and nothing around it.

use std::io;
use std::sync::Arc;

use conn_conformance::{BoxFuture, Cap, Caps, End, MakeMux, Mux, Side, Target, Wire};
use russh::keys::ssh_key::{Algorithm, PrivateKey};
use russh::server::{Auth, ChannelOpenHandle, Msg, Session};
use russh::{Channel, ChannelStream, client, keys, server};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// Session channels of one SSH connection.
pub(crate) fn channel() -> Target {
    let caps = Caps::of(&[
        Cap::CutVisible,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::Layered,
        Cap::PeerGone,
    ]);
    Target::mux("russh-channel", Russh, caps.bounded(BOUND))
}

struct Russh;

impl MakeMux for Russh {
    fn side(&self, wire: Wire, side: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async move {
            Ok(match side {
                Side::Client => Box::new(Connected::new(wire).await?) as Box<dyn Mux>,
                Side::Server => Box::new(Accepted::new(wire)?),
            })
        })
    }
}

/// The client's side. Dropping the handle ends the connection.
struct Connected(client::Handle<Trusting>);

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

impl Connected {
    async fn new(wire: Wire) -> io::Result<Self> {
        let config = Arc::new(client::Config::default());
        let connected = client::connect_stream(config, wire, Trusting).await;
        let mut handle = connected.map_err(io::Error::other)?;
        let answer = handle.authenticate_none("conformance").await;
        if answer.map_err(io::Error::other)?.success() {
            Ok(Self(handle))
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

impl Mux for Connected {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async {
            let channel = self.0.channel_open_session().await;
            Ok(end(channel.map_err(io::Error::other)?.into_stream()))
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// The server's side.
struct Accepted {
    channels: Mutex<mpsc::Receiver<ChannelStream<Msg>>>,
    _connection: JoinSet<()>,
}

struct Welcoming(mpsc::Sender<ChannelStream<Msg>>);

impl server::Handler for Welcoming {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        // A full queue refuses the channel, as a full backlog does.
        match self.0.try_reserve() {
            Ok(place) => {
                reply.accept().await;
                place.send(channel.into_stream());
            }
            Err(_) => {
                let reason = russh::ChannelOpenFailure::ResourceShortage;
                reply.reject(reason).await;
            }
        }
        Ok(())
    }
}

impl Accepted {
    fn new(wire: Wire) -> io::Result<Self> {
        let key = PrivateKey::random(&mut keys::key::safe_rng(), Algorithm::Ed25519);
        let config = Arc::new(server::Config {
            keys: vec![key.map_err(io::Error::other)?],
            inactivity_timeout: None,
            ..server::Config::default()
        });
        let (sender, channels) = mpsc::channel(QUEUE);
        let mut connection = JoinSet::new();
        connection.spawn(async move {
            if let Ok(session) = server::run_stream(config, wire, Welcoming(sender)).await {
                // What failed shows in the channels.
                let _ = session.await;
            }
        });
        Ok(Self {
            channels: Mutex::new(channels),
            _connection: connection,
        })
    }
}

impl Mux for Accepted {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async { Ok(self.channels.lock().await.recv().await.map(end)) })
    }
}

fn end(stream: impl conn_conformance::Io) -> End {
    End::new(stream)
}

/// Channels that wait to be accepted.
const QUEUE: usize = 512;

/// The unread bytes of one direction: russh's window of 2 MiB, the hundred messages of its queues, and what waits for the
/// transport.
const BOUND: usize = 8 << 20;
