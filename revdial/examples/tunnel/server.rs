//! The side that is reached: clients register here, and connections enter the tunnel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, StatusCode};
use revdial::connector::SocketOptions;
use revdial::handshake::Dialect;
use revdial::v2::{PickUps, Tls};
use revdial::{Config, Dialer, PingError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::{args, copy, http as registration, tls};

/// Both of its ports.
pub(crate) struct Server {
    clients: TcpListener,
    entry: TcpListener,
    registrar: Arc<Registrar>,
}

/// Who may register, and who has.
struct Registrar {
    acceptor: Option<TlsAcceptor>,
    pin: Option<tls::Pin>,
    token: Option<HeaderValue>,
    dialect: args::Dialect,
    client: watch::Sender<Option<Dialer>>,
    /// Connections of v2 that are on their way.
    pick_ups: PickUps,
}

impl Server {
    pub(crate) async fn bind(args: &args::Server) -> anyhow::Result<Self> {
        let files = args.cert.as_deref().zip(args.key.as_deref());
        let (acceptor, pin) = match args.tls {
            true => tls::acceptor(files).map(|(acceptor, pin)| (Some(acceptor), Some(pin)))?,
            false => (None, None),
        };
        Ok(Self {
            clients: bind(args.listen).await?,
            entry: bind(args.entry).await?,
            registrar: Arc::new(Registrar {
                acceptor,
                pin,
                token: registration::read_token(args.token_file.as_deref())?,
                dialect: args.dialect,
                client: watch::Sender::new(None),
                pick_ups: PickUps::new(),
            }),
        })
    }

    /// Where it listens: for clients, and for connections.
    pub(crate) fn addresses(&self) -> anyhow::Result<(SocketAddr, SocketAddr)> {
        Ok((self.clients.local_addr()?, self.entry.local_addr()?))
    }

    /// What a client needs to know of its certificate.
    pub(crate) fn pin(&self) -> Option<tls::Pin> {
        self.registrar.pin
    }

    /// Serves for ever.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let (clients, entry) = self.addresses()?;
        let mut greeting = format!("clients {clients}\nentry {entry}\n");
        if let Some(pin) = self.pin() {
            greeting.push_str(&format!("pin {pin}\n"));
        }
        let mut out = tokio::io::stdout();
        out.write_all(greeting.as_bytes()).await?;
        out.flush().await?;
        self.serve().await;
        Ok(())
    }

    /// Serves for ever, without a word.
    pub(crate) async fn serve(self) {
        let client = self.registrar.client.subscribe();
        tokio::join!(
            accept_clients(self.clients, self.registrar),
            accept_entries(self.entry, client)
        );
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("listening on {address}"))
}

async fn accept_clients(listener: TcpListener, registrar: Arc<Registrar>) {
    loop {
        let (tcp, peer) = accept(&listener).await;
        let registrar = registrar.clone();
        tokio::spawn(async move {
            match timeout(REGISTRATION, registrar.register(tcp)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%peer, "a client was not registered: {error:#}"),
                Err(_) => warn!(%peer, "a client took too long to register"),
            }
        });
    }
}

/// Leads each connection to the client that is there.
async fn accept_entries(listener: TcpListener, client: watch::Receiver<Option<Dialer>>) {
    loop {
        let (tcp, peer) = accept(&listener).await;
        let dialer = client.borrow().clone();
        let Some(dialer) = dialer else {
            warn!(%peer, "no client is connected; a connection is closed");
            continue;
        };
        tokio::spawn(async move {
            // The first data need not wait for the answer: a client that cannot connect resets.
            match dialer.dial_optimistic().await {
                Ok(conn) => {
                    if let Err(error) = copy::join(tcp, conn).await {
                        debug!(%peer, "a connection broke: {error}");
                    }
                }
                Err(error) => warn!(%peer, "a connection is closed: {error}"),
            }
        });
    }
}

impl Registrar {
    async fn register(&self, tcp: TcpStream) -> anyhow::Result<()> {
        SocketOptions::default().apply(&tcp)?;
        match &self.acceptor {
            None => self.admit(tcp).await,
            Some(acceptor) => self.admit(acceptor.accept(tcp).await.context("TLS")?).await,
        }
    }

    async fn admit<T>(&self, mut transport: T) -> anyhow::Result<()>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let request = registration::read_request(&mut transport).await?;
        if request.uri().path() == registration::PICK_UP_PATH {
            return self.pick_up(transport, &request).await;
        }
        if let Some((status, why)) = self.objection(&request).await {
            warn!(%status, "a client was refused: {why}");
            return registration::refuse(&mut transport, status, why).await;
        }
        registration::switch(&mut transport).await?;
        let dialer = match self.dialect {
            args::Dialect::V2 => {
                let path = PathAndQuery::from_static(registration::PICK_UP_PATH);
                Dialer::v2(transport, &self.pick_ups, path, link_config())
            }
            args::Dialect::V3 => {
                let mut config = link_config();
                config.heed_window(request.headers());
                Dialer::new(transport, config)
            }
        };
        info!("a client is connected");
        if let Some(dead) = self.client.send_replace(Some(dialer)) {
            dead.close();
        }
        Ok(())
    }

    /// Takes a connection that the client brings. The id in its path is the proof that it is the client's.
    async fn pick_up<T>(&self, mut transport: T, request: &Request<()>) -> anyhow::Result<()>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // Without --tls the user has said that nobody listens.
        match self.pick_ups.begin_request(request, Tls::Present) {
            Ok(pick_up) => {
                registration::switch(&mut transport).await?;
                pick_up.complete(transport);
                Ok(())
            }
            Err(refusal) => {
                let why = refusal.to_string();
                registration::refuse(&mut transport, refusal.response().status(), &why).await
            }
        }
    }

    /// What speaks against a client. One that answers is not thrown out by another: they would take turns for ever.
    async fn objection(&self, request: &Request<()>) -> Option<(StatusCode, &'static str)> {
        if request.method() != Method::GET || request.uri().path() != registration::PATH {
            return Some((StatusCode::NOT_FOUND, "clients register with GET /tunnel"));
        }
        let headers = request.headers();
        if Dialect::from_headers(headers) != Ok(self.dialect.of_revdial()) {
            let why = "this server speaks another dialect";
            return Some((StatusCode::BAD_REQUEST, why));
        }
        if let Some(token) = &self.token
            && !registration::knows(headers, token)
        {
            return Some((StatusCode::UNAUTHORIZED, "the token is missing or wrong"));
        }
        let present = self.client.borrow().clone()?;
        let lives = match timeout(ANSWER, present.ping()).await {
            Ok(Err(PingError::Unsupported)) => !present.is_closed(),
            answer => matches!(answer, Ok(Ok(_))),
        };
        lives.then_some((StatusCode::CONFLICT, "another client is connected"))
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others have to end first.
                warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Limits of a link that belongs to one user: as many connections as a program may have files, of each as much as
/// [`copy`] reads in some calls, and windows for 100 Mbit/s over 80 ms from the start.
pub(crate) fn link_config() -> Config {
    let mut config = Config::default();
    config.send_buffer = 256 * 1024;
    config.initial_stream_window = 1024 * 1024;
    config.max_inbound_streams = 1024;
    config.max_outbound_streams = 1024;
    config
}

const REGISTRATION: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
