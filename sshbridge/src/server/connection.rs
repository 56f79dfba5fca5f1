mod ending;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) use self::ending::End;
use super::events::Closing;
use super::listening::Listening;
use super::permit::{Permitted, permit};
use super::protocol::{self, Rejection};
use super::sources::Offence;
use super::startups::Startup;
use super::{ServeError, Shared, stream};
use crate::audit::{AuditKind, Credential, Direction, Outcome, Proof};
use crate::auth::{Forwarding, Grant, Machine, Permission, Refusal};
use crate::backend::{
    BackendChannel, BackendConn, BackendError, BackendStream, ChannelRequest, Destination,
    ListenAddress, Origin,
};
use crate::flow::{self, Budget, Link};

/// One client, from its first byte to its last.
pub(super) struct Connection {
    state: Arc<State>,
    startup: Option<Startup>,
}

/// What the parts of a connection know together.
pub(super) struct State {
    /// What the audit calls the connection.
    pub(super) number: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Option<SocketAddr>,
    grant: OnceLock<Grant>,
    machine: OnceCell<Result<Machine, Refusal>>,
    conn: OnceCell<Box<dyn BackendConn>>,
    connected: CancellationToken,
    listening: Listening,
    agent_forwarded: AtomicBool,
    authenticated: CancellationToken,
    rejected: AtomicBool,
    resolved: CancellationToken,
    ending: CancellationToken,
    end: OnceLock<End>,
    abuse: OnceLock<Abuse>,
    pub(super) control: OnceLock<protocol::ConnectionControl>,
    channels: watch::Sender<usize>,
}

/// What a connection did wrong before it logged in, once it has ended.
pub(super) struct OffenceOf(Arc<State>);

impl OffenceOf {
    pub(super) fn of(self, ended: &Result<(), ServeError>) -> Option<Offence> {
        let state = self.0;
        if state.authenticated.is_cancelled() {
            None
        } else if matches!(ended, Err(ServeError::LoginTimeout)) {
            Some(Offence::Idle)
        } else if state.rejected.load(Ordering::Acquire) {
            Some(Offence::Rejected)
        } else {
            Some(Offence::NoLogin)
        }
    }
}

/// What a client is cut off for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Abuse {
    /// It sends more than its windows allow.
    Flood,
    /// It tries too many keys.
    TooManyAttempts,
}

/// A session's channel on a machine.
pub(super) struct Opened {
    pub(super) machine: Machine,
    pub(super) channel: BackendChannel,
}

/// Counts a channel as open.
pub(super) struct OpenChannel(Arc<State>);

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, peer: Option<SocketAddr>) -> Self {
        Self {
            state: Arc::new(State {
                number: shared.connections.fetch_add(1, Ordering::Relaxed),
                shared,
                peer,
                grant: OnceLock::new(),
                machine: OnceCell::new(),
                conn: OnceCell::new(),
                connected: CancellationToken::new(),
                listening: Listening::new(),
                agent_forwarded: AtomicBool::new(false),
                authenticated: CancellationToken::new(),
                rejected: AtomicBool::new(false),
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

    /// Tells, after the end, what the connection did wrong.
    pub(super) fn offence(&self) -> OffenceOf {
        OffenceOf(self.state.clone())
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
        let closing = Closing::new(state.clone(), link.clone());
        let work = async {
            let (session, drained) = tokio::join!(
                protocol::serve(state.clone(), link.clone(), transport),
                drain.run()
            );
            state.outcome(session, drained)
        };
        tokio::pin!(work);
        let supervised = tokio::select! {
            result = &mut work => {
                closing.closed(&result);
                return result;
            }
            result = self.supervise(&shutdown) => result,
            () = state.take_incoming() => Ok(()),
            () = link.watch_stalls() => Ok(()),
        };
        // Nothing of the connection is left behind: the session ends as soon as it can read nothing more.
        link.kill();
        let _ = work.await;
        closing.closed(&supervised);
        supervised
    }

    /// Returns when the connection has to be cut.
    async fn supervise(&mut self, shutdown: &CancellationToken) -> Result<(), ServeError> {
        tokio::select! {
            () = self.state.authenticated.cancelled() => {}
            () = shutdown.cancelled() => {
                let _ = self.state.end.set(End::Shutdown);
                return Ok(());
            }
            () = tokio::time::sleep(self.state.shared.config.login_grace) => {
                return Err(ServeError::LoginTimeout);
            }
        }
        self.startup = None;
        let end = tokio::select! {
            () = shutdown.cancelled() => End::Shutdown,
            why = self.state.right_ended() => End::Ended(why),
        };
        self.state.finish(end).await;
        Ok(())
    }
}

impl State {
    /// Opens a session on the machine.
    pub(super) async fn open(&self) -> Result<Opened, Refusal> {
        let opened = async {
            let (machine, conn) = self.conn().await?;
            let channel = conn.open_session().await;
            let channel = channel.map_err(|error| unavailable(machine, &error))?;
            Ok(Opened {
                machine: machine.clone(),
                channel,
            })
        };
        match tokio::time::timeout(self.shared.config.connect_timeout, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(Refusal::new(BackendError::TimedOut.to_string())),
        }
    }

    /// Lets the machine connect to where the client wants to.
    pub(super) async fn open_stream(
        &self,
        destination: &Destination,
    ) -> Result<BackendStream, Rejection> {
        let (direction, opened) = self.jump_or_forward(destination).await;
        let outcome = Outcome::done_if(opened.is_ok());
        self.tell_stream(direction, destination, outcome);
        opened
    }

    async fn jump_or_forward(
        &self,
        destination: &Destination,
    ) -> (Direction, Result<BackendStream, Rejection>) {
        let limit = self.shared.config.connect_timeout;
        match tokio::time::timeout(limit, self.jump(destination)).await {
            Ok(None) => (Direction::Direct, self.forward(destination).await),
            Ok(Some(jumped)) => {
                let jumped = jumped.map_err(|refusal| Rejection::Prohibited(refusal.message));
                (Direction::Jump, jumped)
            }
            Err(_) => {
                let late = Rejection::Failed(BackendError::TimedOut.to_string());
                (Direction::Jump, Err(late))
            }
        }
    }

    /// Leads the user to a machine's own SSH server, where the destination is one.
    async fn jump(&self, destination: &Destination) -> Option<Result<BackendStream, Refusal>> {
        let grant = self.grant.get().filter(|grant| grant.is_unrestricted())?;
        let Destination::Tcp { host, port, .. } = destination else {
            return None;
        };
        let jump = self.shared.resolver.jump(grant, host, *port).await?;
        Some(jump.map(stream::jumped))
    }

    async fn forward(&self, destination: &Destination) -> Result<BackendStream, Rejection> {
        let forwarding = self.forwarding();
        let permission = match destination {
            Destination::Tcp { .. } => forwarding.direct,
            Destination::Unix { .. } => forwarding.unix,
        };
        if permission == Permission::Refused {
            let reason = "your access does not include forwarding".to_owned();
            return Err(Rejection::Prohibited(reason));
        }
        let opened = async {
            let conn = self.conn().await;
            let (_, conn) = conn.map_err(|refusal| Rejection::Prohibited(refusal.message))?;
            let stream = conn.open_stream(destination).await;
            stream.map_err(|error| Rejection::Failed(error.to_string()))
        };
        match tokio::time::timeout(self.shared.config.connect_timeout, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(Rejection::Failed(BackendError::TimedOut.to_string())),
        }
    }

    /// Lets the machine listen for the client. The real port, where it does.
    pub(super) async fn listen(&self, mut address: ListenAddress) -> Option<u16> {
        let listening = self.try_listen(&mut address).await;
        let outcome = Outcome::done_if(listening.is_some());
        self.tell(|| AuditKind::Listening { address, outcome });
        listening
    }

    /// Puts the real port into `address`.
    async fn try_listen(&self, address: &mut ListenAddress) -> Option<u16> {
        let forwarding = self.forwarding();
        let permission = match &*address {
            ListenAddress::Tcp { .. } => forwarding.remote,
            ListenAddress::Unix { .. } => forwarding.unix,
        };
        if permission == Permission::Refused || self.ending.is_cancelled() {
            return None;
        }
        let asked = self.listening.ask(self.shared.config.max_forwards)?;
        let listened = async {
            let (machine, conn) = self.conn().await.ok()?;
            match conn.listen(address).await {
                Ok(port) => Some(port),
                Err(error) => {
                    tracing::debug!(machine = machine.id, %error, "listening for a user");
                    None
                }
            }
        };
        let limit = self.shared.config.request_timeout;
        let real = tokio::time::timeout(limit, listened).await.ok().flatten()?;
        if let ListenAddress::Tcp { port, .. } = address {
            *port = real;
        }
        asked.granted(address.clone());
        Some(real)
    }

    /// Ends what [`Self::listen`] began. Whether there was something to end.
    pub(super) async fn cancel(&self, address: ListenAddress) -> bool {
        let Some(conn) = self.conn.get() else {
            return false;
        };
        if !self.listening.remove(&address) {
            return false;
        }
        let limit = self.shared.config.request_timeout;
        matches!(
            tokio::time::timeout(limit, conn.cancel(&address)).await,
            Ok(Ok(()))
        )
    }

    /// Takes the streams that the machine opens, as many at a time as the client answers. Returns when the connection has
    /// to be cut.
    pub(super) async fn take_incoming(self: &Arc<Self>) {
        self.connected.cancelled().await;
        let Some(mut source) = self.conn.get().and_then(|conn| conn.incoming()) else {
            return std::future::pending().await;
        };
        let places = Arc::new(Semaphore::new(self.shared.config.max_pending));
        let mut streams = JoinSet::new();
        loop {
            let next = async {
                let place = places.clone().acquire_owned().await;
                (place, source.next().await)
            };
            tokio::select! {
                (place, incoming) = next => match (place, incoming) {
                    (Ok(place), Some(incoming)) => {
                        let state = self.clone();
                        streams.spawn(stream::serve_incoming(incoming, state, place));
                    }
                    _ => break,
                },
                Some(_) = streams.join_next() => {}
            }
        }
        self.finish(End::Lost).await;
    }

    /// What a stream of the machine is to be called towards the client, where that asked for it and has room for it.
    pub(super) async fn wanted(&self, origin: Origin) -> Option<Origin> {
        let wanted = match origin {
            Origin::Agent => {
                let asked = self.agent_forwarded.load(Ordering::Acquire);
                asked.then_some(Origin::Agent)
            }
            Origin::Listener {
                address,
                originator,
            } => self
                .listening
                .find(&address)
                .await
                .map(|address| Origin::Listener {
                    address,
                    originator,
                }),
        };
        let control = self.control.get();
        let room = control.is_some_and(|it| it.channels() < self.shared.config.max_channels);
        if wanted.is_none() || !room {
            tracing::debug!(room, "refused a stream that the machine opened");
        }
        wanted.filter(|_| room && !self.ending.is_cancelled())
    }

    /// What the user may have forwarded.
    pub(super) fn forwarding(&self) -> Forwarding {
        self.grant
            .get()
            .map(|grant| grant.forwarding)
            .unwrap_or_default()
    }

    /// The request as the user may make it.
    pub(super) fn permit(&self, request: ChannelRequest) -> Option<Permitted> {
        permit(self.grant.get()?, request)
    }

    /// From here on the machine may ask the user's agent.
    pub(super) fn agent_forwarded(&self) {
        self.agent_forwarded.store(true, Ordering::Release);
    }

    /// Connects to the machine, once per connection unless that fails.
    async fn conn(&self) -> Result<(&Machine, &dyn BackendConn), Refusal> {
        let machine = self.machine().await?;
        let conn = self
            .conn
            .get_or_try_init(|| machine.backend.connect())
            .await;
        let conn = conn.map_err(|error| unavailable(machine, &error))?;
        self.connected.cancel();
        Ok((machine, &**conn))
    }

    pub(super) fn log_in(&self, grant: Grant, credential: Credential) {
        tracing::info!("a user logged in");
        self.tell(|| AuditKind::LoggedIn {
            login: grant.login.clone(),
            user: grant.user.clone(),
            credential,
        });
        tracing::debug!(user = grant.user, login = grant.login, peer = ?self.peer, "logged in");
        // russh ends authentication at the first success, so there is no second grant.
        let _ = self.grant.set(grant);
    }

    /// A key was offered or proven that is not granted.
    pub(super) fn rejected(&self, login: &str, credential: Credential, proof: Proof) {
        let login = login.to_owned();
        self.tell(|| AuditKind::Refused {
            login,
            credential,
            proof,
        });
        self.rejected.store(true, Ordering::Release);
    }

    pub(super) fn authenticated(&self) {
        self.authenticated.cancel();
    }

    /// Remembers why the connection is cut, for its result.
    pub(super) fn abused(&self, abuse: Abuse) {
        let _ = self.abuse.set(abuse);
    }

    pub(super) fn count_channel(self: &Arc<Self>) -> OpenChannel {
        self.channels.send_modify(|count| *count += 1);
        OpenChannel(self.clone())
    }

    /// Resolves the machine, once per connection.
    async fn machine(&self) -> Result<&Machine, Refusal> {
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
                self.tell(|| match &resolved {
                    Ok(machine) => AuditKind::Resolved {
                        machine: machine.id.clone(),
                    },
                    Err(refusal) => AuditKind::Unresolved {
                        reason: refusal.message.clone(),
                    },
                });
                resolved
            })
            .await;
        self.resolved.cancel();
        resolved.as_ref().map_err(Refusal::clone)
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

/// What the user reads where a machine does not do what it is for.
fn unavailable(machine: &Machine, error: &BackendError) -> Refusal {
    tracing::debug!(machine = machine.id, %error, "the machine is not available");
    Refusal::new(format!("{}: {error}", machine.id))
}
