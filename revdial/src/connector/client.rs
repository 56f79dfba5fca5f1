//! One attempt: from an address to a link.

use std::convert::Infallible;
use std::fmt;
use std::io;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::uri::Authority;
use http::{Request, Uri};
use tokio::net::TcpStream;

use crate::config::Config;
use crate::connector::endpoint::Endpoint;
use crate::connector::error::{ConnectError, Phase};
use crate::connector::proxy::{Proxies, Proxy, ProxyScheme, Security};
use crate::connector::tcp::{self, SocketOptions};
use crate::connector::tls::{self, TlsConfig};
use crate::connector::transport::{Io, Transport};
use crate::connector::{InvalidServer, Links, Timing, tunnel, within};
use crate::handshake::{Dialect, Upgraded, upgrade_following};
use crate::listener::Listener;

/// Dials a server, registers there, and hands over the link: the side of the machine behind NAT.
///
/// It knows a server, how to get there, and what to say. What it makes is a [`Listener`] each time:
/// [`connect`](Self::connect) tries once, [`links`](Self::links) and [`serve`](Self::serve) come back for ever.
///
/// ```no_run
/// use revdial::Connector;
/// use revdial::connector::Proxies;
/// use tokio::io::AsyncWriteExt;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = Connector::new(&"http://farm.example:8080/reverse".parse()?)?
///     .header("x-machine".parse()?, "shed-1".parse()?)
///     .proxies(Proxies::from_env()?);
/// connector
///     .serve(|mut listener| async move {
///         while let Ok(mut conn) = listener.accept().await {
///             tokio::spawn(async move { conn.write_all(b"hello from behind NAT\n").await });
///         }
///     })
///     .await;
/// # Ok(())
/// # }
/// ```
///
/// `Debug` shows the server, the proxy and the names of the headers; it shows no credentials.
#[derive(Clone)]
pub struct Connector {
    server: Endpoint,
    tls: Option<TlsConfig>,
    request: Request<()>,
    dialect: Dialect,
    proxies: Proxies,
    proxy_tls: Option<TlsConfig>,
    timing: Timing,
    socket: SocketOptions,
    config: Config,
}

impl Connector {
    /// Dials an `http://` server, unencrypted: for loopback, for networks that are private, and for tests.
    ///
    /// The registration is a `GET` of the URI's path, which asks for an upgrade to `revdial` in dialect 3,
    /// or another [`dialect`](Self::dialect).
    ///
    /// # Errors
    ///
    /// An `https://` URI, which needs [`with_tls`](Self::with_tls); one without a host, or with credentials.
    pub fn new(server: &Uri) -> Result<Self, InvalidServer> {
        if server.scheme_str() == Some("https") {
            return Err(InvalidServer::NeedsTls);
        }
        Self::build(server, "http", 80, None)
    }

    /// Dials an `https://` server, which `config` verifies. The crypto provider is the one in `config`; none is chosen
    /// here, and none installed.
    ///
    /// # Errors
    ///
    /// A URI of another scheme; one without a host, or with credentials.
    #[cfg(feature = "rustls")]
    pub fn with_tls(
        server: &Uri,
        config: std::sync::Arc<rustls::ClientConfig>,
    ) -> Result<Self, InvalidServer> {
        Self::build(server, "https", 443, Some(TlsConfig(config)))
    }

    fn build(
        server: &Uri,
        scheme: &str,
        default_port: u16,
        tls: Option<TlsConfig>,
    ) -> Result<Self, InvalidServer> {
        if server.scheme_str() != Some(scheme) {
            return Err(InvalidServer::Scheme);
        }
        let authority = server.authority().ok_or(InvalidServer::Host)?.as_str();
        if authority.contains('@') {
            return Err(InvalidServer::Credentials);
        }
        let endpoint = Endpoint::parse(authority, default_port).ok_or(InvalidServer::Host)?;
        let mut request = Request::new(());
        *request.uri_mut() = server.clone();
        let upgrade = HeaderValue::from_static("revdial");
        let host = HeaderValue::from_str(authority).map_err(|_| InvalidServer::Host)?;
        let fixed = [
            (HOST, Some(host)),
            (CONNECTION, Some(HeaderValue::from_static("Upgrade"))),
            (UPGRADE, Some(upgrade)),
            (Dialect::HEADER, Dialect::V3.header_value()),
        ];
        for (name, value) in fixed {
            request
                .headers_mut()
                .extend(value.map(|value| (name, value)));
        }
        Ok(Self {
            server: endpoint,
            tls,
            request,
            dialect: Dialect::V3,
            proxies: Proxies::none(),
            proxy_tls: None,
            timing: Timing::default(),
            socket: SocketOptions::default(),
            config: Config::default(),
        })
    }

    /// Speaks another dialect than v3, for a server of Go's: the registration asks for it, and the listeners speak it. With
    /// [`V2`](Dialect::V2) each pick-up is a further connection, made like the first.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        let headers = self.request.headers_mut();
        headers.remove(Dialect::HEADER);
        let value = dialect.header_value();
        headers.extend(value.map(|value| (Dialect::HEADER, value)));
        self.dialect = dialect;
        self
    }

    /// Adds a header to the registration, in place of one with the same name. Mark a secret as
    /// [sensitive](HeaderValue::set_sensitive).
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.request.headers_mut().insert(name, value);
        self
    }

    /// Goes through these proxies; none without this call. [`Proxies::from_env`] takes those of the environment.
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Verifies `https://` proxies with `config`.
    #[cfg(feature = "rustls")]
    pub fn proxy_tls(mut self, config: std::sync::Arc<rustls::ClientConfig>) -> Self {
        self.proxy_tls = Some(TlsConfig(config));
        self
    }

    /// Sets the time limits, and the waits between attempts.
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sets the options of the socket.
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.socket = options;
        self
    }

    /// Sets the limits of the links; their addresses are filled in.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The server, with its port.
    pub fn server(&self) -> &Authority {
        self.server.authority()
    }

    /// Makes one link after the other, for ever.
    pub fn links(self) -> Links {
        let timing = self.timing.clone();
        Links::new(self, &timing)
    }

    /// Runs `service` with one link after the other, for ever.
    ///
    /// A service returns when its link has ended, which [`Listener::accept`] tells; only then the next link is made. A
    /// service that returns before drops its listener, which ends the link in good order as soon as its connections are
    /// done.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the service, and with it its listener.
    pub async fn serve<S, F>(self, mut service: S) -> Infallible
    where
        S: FnMut(Listener) -> F,
        F: Future<Output = ()>,
    {
        let mut links = self.links();
        loop {
            let listener = links.next().await;
            service(listener).await;
        }
    }

    /// Dials and registers, once.
    ///
    /// # Cancel safety
    ///
    /// Dropping it closes what was opened.
    pub async fn connect(&self) -> Result<Listener, ConnectError> {
        let transport = self.dial().await?;
        let config = Config {
            local_addr: transport.local_addr(),
            peer_addr: transport.peer_addr(),
            ..self.config.clone()
        };
        let mut request = self.request.clone();
        if self.dialect == Dialect::V3 {
            config.announce_window(request.headers_mut());
        }
        let registering = upgrade_following(transport, &request);
        let (link, _) = within(Phase::Register, self.timing.register, registering).await??;
        Ok(match self.dialect {
            Dialect::V1 => Listener::v1(link, config),
            Dialect::V2 => {
                let connector = self.clone();
                let connect = move || {
                    let connector = connector.clone();
                    async move { connector.dial().await.map_err(io::Error::other) }
                };
                Listener::v2(link, connect, config)
            }
            Dialect::V3 => Listener::new(link, config),
        })
    }

    /// Dials without registering: TCP, the proxy, TLS.
    ///
    /// # Cancel safety
    ///
    /// Dropping it closes what was opened.
    pub async fn dial(&self) -> Result<Transport, ConnectError> {
        let security = match self.tls {
            Some(_) => Security::Tls,
            None => Security::Plain,
        };
        let proxy = self.proxies.proxy_for(security, &self.server);
        let first = proxy.map_or(&self.server, Proxy::endpoint);
        let tcp = tcp::connect(first, &self.timing, &self.socket).await?;
        let (local_addr, peer_addr) = (tcp.local_addr().ok(), tcp.peer_addr().ok());
        let mut io: Box<dyn Io> = match proxy {
            Some(proxy) => {
                let tunnel = self.tunnel(tcp, proxy);
                within(Phase::Proxy, self.timing.proxy, tunnel).await??
            }
            None => Box::new(tcp),
        };
        if let Some(config) = &self.tls {
            let handshake = handshake(config, &self.server, io);
            io = within(Phase::Tls, self.timing.tls, handshake).await??;
        }
        Ok(Transport::new(io, local_addr, peer_addr))
    }

    /// Gets a tunnel from a proxy that is connected.
    async fn tunnel(&self, tcp: TcpStream, proxy: &Proxy) -> Result<Box<dyn Io>, ConnectError> {
        let mut io: Box<dyn Io> = Box::new(tcp);
        if proxy.scheme() == ProxyScheme::Https {
            let config = self.proxy_tls.as_ref();
            let config = config.ok_or(ConnectError::ProxyNeedsTls)?;
            io = handshake(config, proxy.endpoint(), io).await?;
        }
        let opening = tunnel::open(&mut io, &self.server, proxy.authorization());
        let leftover: Bytes = opening.await.map_err(|source| ConnectError::Proxy {
            proxy: proxy.endpoint().authority().clone(),
            server: self.server.authority().clone(),
            source,
        })?;
        if leftover.is_empty() {
            return Ok(io);
        }
        Ok(Box::new(Upgraded::new(leftover, io)))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.request.headers().keys().collect();
        f.debug_struct("Connector")
            .field("server", self.server.authority())
            .field("tls", &self.tls.is_some())
            .field("path", &self.request.uri().path())
            .field("headers", &headers)
            .field("proxies", &self.proxies)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

async fn handshake(
    config: &TlsConfig,
    server: &Endpoint,
    io: Box<dyn Io>,
) -> Result<Box<dyn Io>, ConnectError> {
    tls::connect(config, server.host(), io)
        .await
        .map_err(|source| ConnectError::Tls {
            server: server.authority().clone(),
            source,
        })
}
