use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::startups::Startup;
use super::{ServeError, Shared, protocol};
use crate::auth::{Grant, Machine, Refusal};
use crate::backend::{BackendChannel, BackendConn, BackendError};
use crate::flow::{self, Budget, Link};

/// One client, from its first byte to its last.
pub(super) struct Connection {
    state: Arc<State>,
    startup: Option<Startup>,
}

/// What the parts of a connection know together.
pub(super) struct State {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Option<SocketAddr>,
    grant: OnceLock<Grant>,
    machine: OnceCell<Result<Machine, Refusal>>,
    authenticated: CancellationToken,
    resolved: CancellationToken,
    ending: CancellationToken,
    end: OnceLock<End>,
    abuse: OnceLock<Abuse>,
    pub(super) control: OnceLock<protocol::ConnectionControl>,
    channels: watch::Sender<usize>,
}

/// Why we end a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// The right to the machine has ended.
    Ended,
    /// The server ends.
    Shutdown,
}

/// What a client is cut off for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Abuse {
    /// It sends more than its windows allow.
    Flood,
    /// It tries too many keys.
    TooManyAttempts,
}

/// A channel on a machine, with all that must live as long.
pub(super) struct Opened {
    pub(super) machine: Machine,
    pub(super) channel: BackendChannel,
    pub(super) conn: Box<dyn BackendConn>,
}

/// Counts a channel as open.
pub(super) struct OpenChannel(Arc<State>);

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, peer: Option<SocketAddr>) -> Self {
        Self {
            state: Arc::new(State {
                shared,
                peer,
                grant: OnceLock::new(),
                machine: OnceCell::new(),
                authenticated: CancellationToken::new(),
                resolved: CancellationToken::new(),
                ending: CancellationToken::new(),
                end: OnceLock::new(),
                abuse: OnceLock::new(),
                control: OnceLock::new(),
                channels: watch::Sender::new(0),
            }),
            startup: None,
        }
    }

    /// Keeps `startup` until the client has logged in.
    pub(super) fn holding(mut self, startup: Startup) -> Self {
        self.startup = Some(startup);
        self
    }

    pub(super) async fn run<S>(
        mut self,
        stream: S,
        shutdown: CancellationToken,
    ) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (link, transport, drain) = flow::layer(stream, Budget::PerChannel);
        let state = self.state.clone();
        let work = async {
            let (session, drained) = tokio::join!(
                protocol::serve(state.clone(), link.clone(), transport),
                drain.run()
            );
            state.outcome(session, drained)
        };
        tokio::pin!(work);
        let supervised = tokio::select! {
            result = &mut work => return result,
            result = self.supervise(&shutdown) => result,
            () = link.watch_stalls() => Ok(()),
        };
        // Nothing of the connection is left behind: the session ends as soon as it can read nothing more.
        link.kill();
        let _ = work.await;
        supervised
    }

    /// Returns when the connection has to be cut.
    async fn supervise(&mut self, shutdown: &CancellationToken) -> Result<(), ServeError> {
        tokio::select! {
            () = self.state.authenticated.cancelled() => {}
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(self.state.shared.config.login_grace) => {
                return Err(ServeError::LoginTimeout);
            }
        }
        self.startup = None;
        let end = tokio::select! {
            () = shutdown.cancelled() => End::Shutdown,
            () = self.state.right_ended() => End::Ended,
        };
        self.state.finish(end).await;
        Ok(())
    }
}

impl State {
    /// Resolves the machine, once per connection, and opens a channel on a connection of its own.
    pub(super) async fn open(&self) -> Result<Opened, Refusal> {
        let opened = async {
            let machine = self.machine().await?;
            let unavailable = |error: BackendError| {
                tracing::debug!(machine = machine.id, %error, "opening a session");
                Refusal::new(format!("{}: {error}", machine.id))
            };
            let conn = machine.backend.connect().await.map_err(unavailable)?;
            let channel = conn.open_session().await.map_err(unavailable)?;
            Ok(Opened {
                machine,
                channel,
                conn,
            })
        };
        match tokio::time::timeout(self.shared.config.connect_timeout, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(Refusal::new(BackendError::TimedOut.to_string())),
        }
    }

    pub(super) fn log_in(&self, grant: Grant) {
        tracing::info!("a user logged in");
        tracing::debug!(user = grant.user, login = grant.login, peer = ?self.peer, "logged in");
        // russh ends authentication at the first success, so there is no second grant.
        let _ = self.grant.set(grant);
    }

    pub(super) fn authenticated(&self) {
        self.authenticated.cancel();
    }

    /// Remembers why the connection is cut, for its result.
    pub(super) fn abused(&self, abuse: Abuse) {
        let _ = self.abuse.set(abuse);
    }

    /// Cancelled when the client is to be told why its connection ends.
    pub(super) fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// What users are told at the end.
    pub(super) fn farewell(&self) -> String {
        let machine = match self.machine.get() {
            Some(Ok(machine)) => machine.id.as_str(),
            Some(Err(_)) | None => "the machine",
        };
        match self.end.get() {
            Some(End::Shutdown) => "the gateway is shutting down".to_owned(),
            Some(End::Ended) | None => format!("your right to use {machine} has ended"),
        }
    }

    pub(super) fn count_channel(self: &Arc<Self>) -> OpenChannel {
        self.channels.send_modify(|count| *count += 1);
        OpenChannel(self.clone())
    }

    async fn machine(&self) -> Result<Machine, Refusal> {
        let resolved = self
            .machine
            .get_or_init(|| async {
                let resolved = match self.grant.get() {
                    Some(grant) => self.shared.resolver.resolve(grant).await,
                    // Not reached: channels come after authentication.
                    None => Err(Refusal::new("not logged in")),
                };
                if let Ok(machine) = &resolved {
                    tracing::debug!(machine = machine.id, "resolved");
                }
                resolved
            })
            .await;
        self.resolved.cancel();
        resolved.clone()
    }

    /// Waits for the end of the user's right to be here.
    async fn right_ended(&self) {
        let expired = async {
            match self.grant.get().and_then(|grant| grant.not_after) {
                Some(end) => tokio::time::sleep_until(Instant::from_std(end)).await,
                None => std::future::pending().await,
            }
        };
        let ended = async {
            self.resolved.cancelled().await;
            match self.machine.get() {
                Some(Ok(machine)) => machine.ended.cancelled().await,
                Some(Err(_)) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => {}
            () = ended => {}
        }
    }

    /// Lets the channels say farewell, then asks the client to leave.
    async fn finish(&self, end: End) {
        let _ = self.end.set(end);
        self.ending.cancel();
        let grace = self.shared.config.shutdown_grace;
        let mut channels = self.channels.subscribe();
        let _ = tokio::time::timeout(grace, channels.wait_for(|open| *open == 0)).await;
        if let Some(control) = self.control.get() {
            let farewell = self.farewell();
            let _ = tokio::time::timeout(DISCONNECT, control.disconnect(&farewell)).await;
        }
        // The session ends when the client closes, which ends the connection before this does.
        tokio::time::sleep(DISCONNECT).await;
    }

    fn outcome(
        &self,
        session: Result<(), ServeError>,
        drained: std::io::Result<()>,
    ) -> Result<(), ServeError> {
        match self.abuse.get() {
            Some(Abuse::Flood) => return Err(ServeError::Flood),
            Some(Abuse::TooManyAttempts) => return Err(ServeError::TooManyAttempts),
            None => {}
        }
        session?;
        drained.map_err(ServeError::Transport)
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        self.0.channels.send_modify(|count| *count -= 1);
    }
}

impl Link {
    /// Runs `work`, unless the connection ends before.
    pub(super) async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            result = work => Some(result),
            () = self.gone().cancelled() => None,
        }
    }
}

/// How long the client may take to be told to disconnect, and then to do it.
const DISCONNECT: Duration = Duration::from_secs(1);
