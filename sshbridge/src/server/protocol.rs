//! The only place that names the server side of russh.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use russh::keys::ssh_key::Algorithm;
use russh::server::{
    Auth, ChannelOpenHandle, Handle, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{
    ChannelId, ChannelOpenFailure, ChannelWriteHalf, Disconnect, MethodKind, MethodSet, Preferred,
    Pty, Sig, SshId, cipher, kex, mac,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::channel::Channel;
use super::connection::{Abuse, State};
use super::{ProtocolError, ServeError, ServerConfig};
use crate::auth::{AuthRequest, Grant};
use crate::backend::{ChannelEvent, ChannelRequest, PtyRequest, WindowSize};
use crate::flow::{Gone, Lever, Link, Transport, WINDOW};
use crate::key::AuthorizedKey;
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
    let handler = Handler::new(connection.clone(), link);
    let session = russh::server::run_stream(config, transport, handler).await?;
    let _ = connection.control.set(ConnectionControl(session.handle()));
    session.await?;
    Ok(())
}

/// russh's form of a [`ServerConfig`].
pub(super) struct ProtocolConfig(Arc<russh::server::Config>);

impl From<&ServerConfig> for ProtocolConfig {
    fn from(config: &ServerConfig) -> Self {
        let mut methods = MethodSet::empty();
        methods.push(MethodKind::PublicKey);
        Self(Arc::new(russh::server::Config {
            server_id: SshId::Standard(Cow::Borrowed(concat!(
                "SSH-2.0-sshbridge_",
                env!("CARGO_PKG_VERSION")
            ))),
            methods,
            auth_rejection_time: config.rejection_time,
            auth_rejection_time_initial: Some(std::time::Duration::ZERO),
            keys: vec![config.host_keys.private_key().clone()],
            window_size: WINDOW,
            preferred: preferred(),
            // One more for the `none` with which clients ask for the methods.
            max_auth_attempts: config.max_offers.saturating_add(1),
            inactivity_timeout: None,
            keepalive_interval: config.keepalive,
            keepalive_max: 3,
            ..russh::server::Config::default()
        }))
    }
}

/// The algorithms without the findings of ssh-audit: no group exchange, no encrypt-and-MAC, no compression. AES comes
/// first, which the hardware does; the client's order decides.
fn preferred() -> Preferred {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ];
    const CIPHERS: &[cipher::Name] = &[
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_256_CTR,
        cipher::AES_128_CTR,
    ];
    const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
    Preferred {
        kex: Cow::Borrowed(KEX),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        ..Preferred::DEFAULT
    }
}

/// A hold on a whole connection.
pub(super) struct ConnectionControl(Handle);

impl ConnectionControl {
    /// Asks the client to leave.
    pub(super) async fn disconnect(&self, message: &str) {
        let _ = self
            .0
            .disconnect(Disconnect::ByApplication, message.to_owned(), String::new())
            .await;
    }
}

/// A channel that a client waits to see accepted. Dropping it rejects the channel.
pub(super) struct Opening {
    reply: ChannelOpenHandle,
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
}

impl Opening {
    pub(super) async fn accept(self, link: &Arc<Link>, gone: &CancellationToken) -> ClientChannel {
        self.reply.accept().await;
        ClientChannel {
            write: self.write,
            handle: self.handle,
            link: link.clone(),
            gone: gone.clone(),
        }
    }
}

/// The direction to a client on one channel.
///
/// A call waits as long as the client grants no window, also when the channel is closed meanwhile: whoever calls also
/// waits for the channel's end.
pub(super) struct ClientChannel {
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    link: Arc<Link>,
    gone: CancellationToken,
}

impl ClientChannel {
    pub(super) async fn data(&self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let piece = self.link.reserve(piece, &self.gone).await?;
            self.write.data_bytes(piece).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    pub(super) async fn stderr(&self, mut data: Bytes) -> Result<(), Gone> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let piece = self.link.reserve(piece, &self.gone).await?;
            let sent = self.write.extended_data_bytes(EXTENDED_STDERR, piece);
            sent.await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    pub(super) async fn eof(&self) -> Result<(), Gone> {
        self.write.eof().await.map_err(|_| Gone)
    }

    pub(super) async fn exit_status(&self, status: u32) -> Result<(), Gone> {
        self.write.exit_status(status).await.map_err(|_| Gone)
    }

    pub(super) async fn exit_signal(
        &self,
        name: String,
        core_dumped: bool,
        message: String,
    ) -> Result<(), Gone> {
        self.handle
            .exit_signal_request(
                self.write.id(),
                signal::from_name(name),
                core_dumped,
                message,
                String::new(),
            )
            .await
            .map_err(|()| Gone)
    }

    pub(super) async fn close(&self) -> Result<(), Gone> {
        self.write.close().await.map_err(|_| Gone)
    }
}

/// russh's callbacks of one connection. They run inside its loop, so each of them is short or has a limit.
struct Handler {
    connection: Arc<State>,
    link: Arc<Link>,
    channels: HashMap<ChannelId, Open>,
    lever: Lever<ChannelId>,
    offers: usize,
    rejections: usize,
    /// The channels' tasks, which end with the connection.
    tasks: JoinSet<()>,
}

/// A channel and the window that the client has on it.
struct Open {
    channel: Arc<Channel>,
    window: u32,
    granted: Option<u32>,
    exceeded: usize,
}

impl Open {
    /// Counts what came; returns by how much the client has exceeded its windows so far.
    fn receive(&mut self, bytes: usize) -> usize {
        let window = self.window as usize;
        self.exceeded += bytes.saturating_sub(window);
        let left = u32::try_from(window.saturating_sub(bytes)).unwrap_or(0);
        self.window = self.granted.take().unwrap_or(left);
        self.exceeded
    }
}

impl Handler {
    fn new(connection: Arc<State>, link: Arc<Link>) -> Self {
        Self {
            connection,
            link,
            channels: HashMap::new(),
            lever: Lever::new(),
            offers: 0,
            rejections: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Asks the authorizer for a key that was offered or proven as `user`.
    async fn authorize(
        &self,
        user: &str,
        key: &russh::keys::PublicKey,
        algorithm: &Algorithm,
    ) -> Option<Grant> {
        // A signature of `ssh-rsa` is over SHA-1.
        if matches!(algorithm, Algorithm::Rsa { hash: None }) {
            return None;
        }
        let key = AuthorizedKey::from_public(key).ok()?.line()?;
        let request = AuthRequest::new(user, key, self.connection.peer);
        let answer = self.connection.shared.authorizer.authorize(&request);
        self.link.unless_gone(answer).await?.ok()
    }

    async fn request(
        &self,
        id: ChannelId,
        request: ChannelRequest,
        session: &mut Session,
    ) -> Result<(), Failure> {
        let config = &self.connection.shared.config;
        let granted = match self.channels.get(&id) {
            Some(open) => open.channel.request(request, config).await,
            None => false,
        };
        if granted {
            session.channel_success(id)?;
        } else {
            session.channel_failure(id)?;
        }
        Ok(())
    }

    /// Keeps account of the client's window, which russh lets it exceed.
    fn receive(&mut self, id: ChannelId, bytes: usize) -> Result<Option<&Channel>, Failure> {
        let Some(open) = self.channels.get_mut(&id) else {
            return Ok(None);
        };
        if open.receive(bytes) > EXCESS {
            self.connection.abused(Abuse::Flood);
            return Err(Failure(russh::Error::Disconnect));
        }
        Ok(Some(&open.channel))
    }

    fn forget_closed(&mut self) {
        self.channels
            .retain(|_, open| !open.channel.gone.is_cancelled());
        while self.tasks.try_join_next().is_some() {}
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
        // russh counts the offers that were rejected. A granted key is offered twice: alone and with its signature.
        self.offers += 1;
        if self.offers > self.connection.shared.config.max_offers.saturating_mul(2) {
            self.connection.abused(Abuse::TooManyAttempts);
            return Err(Failure(russh::Error::Disconnect));
        }
        match self
            .authorize(user, offer.public_key, offer.algorithm)
            .await
        {
            Some(_) => Ok(Auth::Accept),
            None => Ok(Auth::reject()),
        }
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Failure> {
        if let Some(grant) = self.authorize(user, key.public_key, key.algorithm).await {
            self.connection.log_in(grant);
            return Ok(Auth::Accept);
        }
        self.rejections += 1;
        if self.rejections > self.connection.shared.config.max_rejections {
            self.connection.abused(Abuse::TooManyAttempts);
            return Err(Failure(russh::Error::Disconnect));
        }
        Ok(Auth::reject())
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
        self.forget_closed();
        if self.channels.len() >= self.connection.shared.config.max_channels
            || self.connection.ending().is_cancelled()
        {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let id = channel.id();
        // Without its read half russh never waits for us with what it has read.
        let (_, write) = channel.split();
        let open = Open {
            channel: Arc::new(Channel::new(&self.link)),
            window: WINDOW,
            granted: None,
            exceeded: 0,
        };
        let opening = Opening {
            reply,
            write,
            handle: session.handle(),
        };
        let channel = open.channel.clone();
        self.channels.insert(id, open);
        let connection = self.connection.clone();
        self.tasks
            .spawn(async move { Box::pin(channel.serve(opening, connection)).await });
        Ok(())
    }

    fn adjust_window(&mut self, id: ChannelId, granted: u32) -> u32 {
        if let Some(open) = self.channels.get_mut(&id) {
            open.granted = Some(granted);
        }
        let inboxes = self.channels.iter();
        let inboxes = inboxes.filter(|(_, open)| !open.channel.gone.is_cancelled());
        let inboxes = inboxes.map(|(id, open)| (*id, open.channel.inbox.bytes()));
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
        if let Some(channel) = self.receive(id, data.len())? {
            channel.inbox.push_data(data);
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
        // A session has no second stream towards the machine (RFC 4254 §5.2).
        self.receive(id, data.len())?;
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Failure> {
        if let Some(open) = self.channels.get(&id) {
            open.channel.inbox.push_event(ChannelEvent::Eof);
            open.channel.inbox.close();
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        id: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Failure> {
        if let Some(open) = self.channels.remove(&id) {
            open.channel.gone.cancel();
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

/// Standard error, the one kind of extended data there is (RFC 4254 §5.2).
const EXTENDED_STDERR: u32 = 1;

/// The size of the pieces that data is handed over in, that of a packet.
const PIECE: usize = 32 << 10;

/// How far a client may exceed its windows before it is cut off: an eighth of one, as OpenSSH tolerates.
const EXCESS: usize = WINDOW as usize / 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{self, Budget};

    fn open() -> Open {
        let (near, _far) = tokio::io::duplex(16);
        let (link, _transport, _drain) = flow::layer(near, Budget::PerChannel);
        Open {
            channel: Arc::new(Channel::new(&link)),
            window: WINDOW,
            granted: None,
            exceeded: 0,
        }
    }

    #[tokio::test]
    async fn a_window_that_is_used_and_granted_again_is_not_exceeded() {
        let mut open = open();
        for _ in 0..1000 {
            let half = WINDOW as usize / 2 + 1;
            assert_eq!(open.receive(half), 0);
            // russh grants before it passes the data on that made it do so.
            open.granted = Some(WINDOW);
            assert_eq!(open.receive(10), 0);
            assert_eq!(open.window, WINDOW);
        }
    }

    #[tokio::test]
    async fn what_exceeds_the_windows_adds_up() {
        let mut open = open();
        assert_eq!(open.receive(WINDOW as usize), 0);
        assert_eq!(open.receive(100), 100);
        open.granted = Some(2);
        assert_eq!(open.receive(0), 100);
        assert_eq!(open.receive(5), 103);
        let packets = (0..).take_while(|_| open.receive(PIECE) <= EXCESS).count();
        assert_eq!(packets, EXCESS / PIECE - 1);
    }
}
