//! The only place that names the server side of russh: here its callbacks, in `client` the way back, in `login` who comes
//! in, in `config` how it is set up.

mod client;
mod config;
mod login;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use russh::keys::ssh_key::Certificate;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{ChannelId, ChannelOpenFailure, Pty, Sig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) use self::client::{ClientChannel, ConnectionControl, Opening, Rejection};
pub(super) use self::config::ProtocolConfig;
use self::login::Login;
use super::channel::Channel;
use super::connection::{Abuse, State};
use super::stream::Stream;
use super::window::{Flood, WindowAccount};
use super::{ProtocolError, ServeError};
use crate::backend::{
    ChannelEvent, ChannelRequest, Destination, ListenAddress, Originator, PtyRequest, WindowSize,
};
use crate::flow::{Inbox, Lever, Link, Transport};
use crate::registry::Registry;
use crate::signal;

/// Runs the SSH protocol on `transport` to its end.
pub(super) async fn serve<S>(
    connection: Arc<State>,
    link: Arc<Link>,
    transport: Transport<S>,
) -> Result<(), ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = connection.shared.protocol.0.clone();
    let open = Arc::new(Registry::new());
    let handler = Handler::new(connection.clone(), link.clone(), open.clone());
    let session = russh::server::run_stream(config, transport, handler).await?;
    let _ = connection.control.set(ConnectionControl {
        handle: session.handle(),
        link,
        open,
    });
    session.await?;
    Ok(())
}

/// russh's callbacks of one connection. They run inside its loop, so each of them is short or has a limit.
struct Handler {
    connection: Arc<State>,
    link: Arc<Link>,
    open: Arc<Registry<u32, Open>>,
    windows: HashMap<u32, WindowAccount>,
    lever: Lever<u32>,
    login: Login,
    /// The channels' tasks, which end with the connection.
    tasks: JoinSet<()>,
}

/// A channel that is open, or is being opened.
#[derive(Clone)]
pub(super) enum Open {
    Session(Arc<Channel>),
    Stream(Arc<Stream>),
}

impl Open {
    fn inbox(&self) -> &Inbox {
        match self {
            Self::Session(channel) => &channel.inbox,
            Self::Stream(stream) => &stream.inbox,
        }
    }

    fn gone(&self) -> &CancellationToken {
        match self {
            Self::Session(channel) => &channel.gone,
            Self::Stream(stream) => &stream.gone,
        }
    }
}

impl Handler {
    fn new(connection: Arc<State>, link: Arc<Link>, open: Arc<Registry<u32, Open>>) -> Self {
        Self {
            login: Login::new(connection.clone(), link.clone()),
            connection,
            link,
            open,
            windows: HashMap::new(),
            lever: Lever::new(),
            tasks: JoinSet::new(),
        }
    }

    async fn request(
        &self,
        id: ChannelId,
        request: ChannelRequest,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let granted = match self.open.get(id.into()) {
            Some(Open::Session(channel)) => channel.request(request, &self.connection).await,
            Some(Open::Stream(_)) | None => false,
        };
        if granted {
            session.channel_success(id)?;
        } else {
            session.channel_failure(id)?;
        }
        Ok(())
    }

    /// Keeps account of the client's window, which russh lets it exceed.
    fn receive(&mut self, id: ChannelId, bytes: usize) -> Result<Option<Open>, Failure> {
        let id = id.into();
        let Some(open) = self.open.get(id) else {
            return Ok(None);
        };
        let window = self.windows.entry(id).or_insert_with(WindowAccount::new);
        if let Err(Flood) = window.receive(bytes) {
            self.connection.abused(Abuse::Flood);
            return Err(Failure(russh::Error::Disconnect));
        }
        Ok(Some(open))
    }

    fn forget_closed(&mut self) {
        let open = &self.open;
        self.windows.retain(|id, _| open.get(*id).is_some());
        while self.tasks.try_join_next().is_some() {}
    }

    /// Registers a channel that the client opens, unless there are too many.
    async fn admit(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        open: Open,
        handle: Handle,
    ) -> Option<Opening> {
        self.forget_closed();
        if self.open.len() >= self.connection.shared.config.max_channels
            || self.connection.ending().is_cancelled()
        {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return None;
        }
        let id = channel.id().into();
        // Without its read half russh never waits for us with what it has read.
        let (_, write) = channel.split();
        let gone = open.gone().clone();
        self.open.claim(id, || open);
        let client = ClientChannel {
            write,
            handle,
            link: self.link.clone(),
            gone,
            _registration: self.open.registration(id),
        };
        Some(Opening { reply, client })
    }

    async fn cancel(&self, address: ListenAddress) -> Result<bool, Failure> {
        let cancelled = self.connection.cancel(address);
        Ok(self.link.unless_gone(cancelled).await.unwrap_or(false))
    }

    async fn open_stream(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        destination: Destination,
        handle: Handle,
    ) {
        let stream = Arc::new(Stream::new(&self.link));
        let open = Open::Stream(stream.clone());
        if let Some(opening) = self.admit(channel, reply, open, handle).await {
            let connection = self.connection.clone();
            self.tasks.spawn(async move {
                Box::pin(stream.serve(opening, destination, connection)).await;
            });
        }
    }
}

impl russh::server::Handler for Handler {
    type Error = Failure;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Failure> {
        Ok(self.connection.shared.config.banner.clone())
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Failure> {
        self.login.offered(user, offer).await
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Failure> {
        self.login.proven(user, key).await
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, Failure> {
        self.login.certified(user, certificate).await
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Failure> {
        self.connection.authenticated();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let served = Arc::new(Channel::new(channel.id().into(), &self.link));
        let open = Open::Session(served.clone());
        if let Some(opening) = self.admit(channel, reply, open, session.handle()).await {
            let connection = self.connection.clone();
            self.tasks
                .spawn(async move { Box::pin(served.serve(opening, connection)).await });
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host: &str,
        port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let destination = Destination::Tcp {
            host: host.to_owned(),
            port,
            originator: Originator {
                address: originator_address.to_owned(),
                port: originator_port,
            },
        };
        self.open_stream(channel, reply, destination, session.handle())
            .await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: russh::Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let path = path.to_owned();
        self.open_stream(channel, reply, Destination::Unix { path }, session.handle())
            .await;
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _max_packet_size: u32,
        _window_size: u32,
        _session: &mut Session,
    ) -> Result<(), Failure> {
        self.open.arrive_stream(id.into(), &self.link);
        Ok(())
    }

    async fn tcpip_forward(
        &mut self,
        host: &str,
        port: &mut u32,
        _session: &mut Session,
    ) -> Result<bool, Failure> {
        let Some(address) = tcp(host, *port) else {
            return Ok(false);
        };
        let listening = self.connection.listen(address);
        let listening = self.link.unless_gone(listening).await.flatten();
        if let Some(real) = listening {
            *port = real.into();
        }
        Ok(listening.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        host: &str,
        port: u32,
        _session: &mut Session,
    ) -> Result<bool, Failure> {
        match tcp(host, port) {
            Some(address) => self.cancel(address).await,
            None => Ok(false),
        }
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut Session,
    ) -> Result<bool, Failure> {
        let path = path.to_owned();
        let listening = self.connection.listen(ListenAddress::Unix { path });
        let listening = self.link.unless_gone(listening).await.flatten();
        Ok(listening.is_some())
    }

    async fn cancel_streamlocal_forward(
        &mut self,
        path: &str,
        _session: &mut Session,
    ) -> Result<bool, Failure> {
        let path = path.to_owned();
        self.cancel(ListenAddress::Unix { path }).await
    }

    async fn agent_request(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<bool, Failure> {
        let Some(Open::Session(channel)) = self.open.get(id.into()) else {
            return Ok(false);
        };
        Ok(channel.forward_agent(&self.connection).await)
    }

    fn adjust_window(&mut self, id: ChannelId, granted: u32) -> u32 {
        let id = id.into();
        let window = self.windows.entry(id).or_insert_with(WindowAccount::new);
        window.grant(granted);
        let open = self.open.all();
        let inboxes = open.iter().filter(|(_, open)| !open.gone().is_cancelled());
        let inboxes = inboxes.map(|(id, open)| (*id, open.inbox().bytes()));
        let decision = self.lever.decide(id, granted, inboxes);
        if decision.throttle {
            self.link.throttle();
        }
        decision.target
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Failure> {
        if let Some(open) = self.receive(id, data.len())? {
            open.inbox().push_data(data);
        }
        Ok(())
    }

    async fn extended_data(
        &mut self,
        id: ChannelId,
        _code: u32,
        data: &[u8],
        _session: &mut Session,
    ) -> Result<(), Failure> {
        // There is no second stream towards the machine (RFC 4254 §5.2).
        self.receive(id, data.len())?;
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Failure> {
        if let Some(open) = self.open.get(id.into()) {
            open.inbox().push_event(ChannelEvent::Eof);
            open.inbox().close();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Failure> {
        if let Some(open) = self.open.close(id.into()) {
            open.inbox().close();
            open.gone().cancel();
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width_pixels: u32,
        height_pixels: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Failure> {
        let size = WindowSize {
            columns,
            rows,
            width_pixels,
            height_pixels,
        };
        let mut pty = PtyRequest::new(term, size);
        // russh leaves an end mark where it does not know a mode.
        let known = modes.iter().filter(|(mode, _)| *mode != Pty::TTY_OP_END);
        pty.modes = known.map(|(mode, value)| (*mode as u8, *value)).collect();
        self.request(id, ChannelRequest::Pty(pty), session).await
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single_connection: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Failure> {
        session.channel_failure(id)?;
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.request(id, ChannelRequest::Env { name, value }, session)
            .await
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Failure> {
        self.request(id, ChannelRequest::Shell, session).await
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Failure> {
        let command = Bytes::copy_from_slice(command);
        self.request(id, ChannelRequest::Exec(command), session)
            .await
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let name = name.to_owned();
        self.request(id, ChannelRequest::Subsystem(name), session)
            .await
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width_pixels: u32,
        height_pixels: u32,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let size = WindowSize {
            columns,
            rows,
            width_pixels,
            height_pixels,
        };
        self.request(id, ChannelRequest::WindowChange(size), session)
            .await
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        session: &mut Session,
    ) -> Result<(), Failure> {
        self.request(id, ChannelRequest::Signal(signal::name(signal)), session)
            .await
    }
}

/// What ends russh's loop.
#[derive(Debug)]
pub(super) struct Failure(russh::Error);

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self(error)
    }
}

impl From<Failure> for ServeError {
    fn from(Failure(error): Failure) -> Self {
        if let russh::Error::IO(error) = error {
            Self::Transport(error)
        } else if matches!(error, russh::Error::HUP | russh::Error::Disconnect) {
            Self::Transport(std::io::ErrorKind::UnexpectedEof.into())
        } else if matches!(error, russh::Error::KeepaliveTimeout) {
            Self::Silent
        } else {
            Self::Protocol(ProtocolError(Box::new(error)))
        }
    }
}

/// Where a client wants a port to be listened on.
fn tcp(host: &str, port: u32) -> Option<ListenAddress> {
    Some(ListenAddress::Tcp {
        host: host.to_owned(),
        port: u16::try_from(port).ok()?,
    })
}
