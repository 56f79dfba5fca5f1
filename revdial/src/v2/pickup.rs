//! Dials that wait for their connection, and the HTTP request that brings it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::direct::BoxTransport;
use crate::error::DialError;
use crate::v2::id::PickUpId;

/// The dials of any number of v2 dialers that wait for their connection.
///
/// Clones share them: one goes to each [`Dialer::v2`](crate::Dialer::v2), one to whatever serves the pick-up path, such
/// as a [`PickUpHandler`](super::PickUpHandler).
#[derive(Clone, Default)]
pub struct PickUps(Arc<Mutex<HashMap<PickUpId, Waiting>>>);

/// A dial that waits.
struct Waiting {
    outcome: oneshot::Sender<Outcome>,
    until: Instant,
}

/// What becomes of a dial.
pub(crate) type Outcome = Result<PickedUp, DialError>;

/// A connection of the peer's that is ours, or about to be.
pub(crate) struct PickedUp {
    pub(crate) transport: HandingOver,
    pub(crate) addrs: Addrs,
}

/// Waits until the HTTP server lets go of the connection.
pub(crate) type HandingOver = Pin<Box<dyn Future<Output = io::Result<BoxTransport>> + Send>>;

/// The addresses of a connection, where they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Addrs {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
}

impl PickUps {
    /// Makes a registry without dials.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the pick-up for the dial with this id, the value of the query parameter `revdial.dialer`.
    ///
    /// An id is good for one pick-up, which from here on succeeds or fails the dial. One that nobody waits for any more is
    /// unknown like one that never was.
    pub fn begin(&self, id: &str) -> Result<PickUp, UnknownDialer> {
        let id = PickUpId::parse(id).ok_or(UnknownDialer)?;
        self.begin_id(id)
    }

    /// Begins the pick-up that an HTTP request asks for, or says what is wrong with it.
    ///
    /// Of the path only the query counts: where the request goes is the server's matter. The server has to answer with
    /// [`PickUp::response`] or [`Refusal::response`].
    pub fn begin_request<B>(&self, request: &Request<B>, tls: Tls) -> Result<PickUp, Refusal> {
        if tls == Tls::Missing {
            return Err(Refusal::RequiresTls);
        }
        if request.method() != Method::GET {
            return Err(Refusal::RequiresGet);
        }
        let query = request.uri().query().unwrap_or_default();
        let id = PickUpId::from_query(query).ok_or(UnknownDialer)?;
        Ok(self.begin_id(id)?)
    }

    /// Gives the dial with this id its connection, after a 101 was written to it and flushed.
    pub fn complete<T>(&self, id: &str, transport: T) -> Result<(), UnknownDialer>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.begin(id)?.complete(transport);
        Ok(())
    }

    /// Takes note of a dial.
    pub(crate) fn expect(&self, id: PickUpId, until: Instant) -> oneshot::Receiver<Outcome> {
        let (outcome, receiver) = oneshot::channel();
        self.lock().insert(id, Waiting { outcome, until });
        receiver
    }

    /// Fails a dial.
    pub(crate) fn fail(&self, id: PickUpId, error: DialError) {
        let waiting = self.lock().remove(&id);
        if let Some(waiting) = waiting {
            // A dial that was dropped does not want to know.
            let _ = waiting.outcome.send(Err(error));
        }
    }

    /// Forgets a dial that waits no more.
    pub(crate) fn forget(&self, id: PickUpId) {
        let waiting = self.lock().remove(&id);
        drop(waiting);
    }

    fn begin_id(&self, id: PickUpId) -> Result<PickUp, UnknownDialer> {
        let waiting = self.lock().remove(&id).ok_or(UnknownDialer)?;
        if waiting.outcome.is_closed() || waiting.until <= Instant::now() {
            return Err(UnknownDialer);
        }
        Ok(PickUp {
            outcome: waiting.outcome,
            addrs: Addrs::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PickUpId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ids are secrets.
impl fmt::Debug for PickUps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickUps")
            .field("waiting", &self.lock().len())
            .finish()
    }
}

/// A pick-up that has begun. Dropping it fails the dial.
#[must_use = "dropping it fails the dial"]
pub struct PickUp {
    outcome: oneshot::Sender<Outcome>,
    addrs: Addrs,
}

impl PickUp {
    /// The answer to the request: 101.
    ///
    /// It has to be flushed before anything else is written, so that over TLS it is a record of its own: Go's listeners
    /// throw away what shares a read with it.
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        response
    }

    /// Names the connection's address on this side; without it that of the control connection is shown.
    pub fn set_local_addr(&mut self, addr: SocketAddr) {
        self.addrs.local = Some(addr);
    }

    /// Names the connection's address on the other side; without it that of the control connection is shown.
    pub fn set_peer_addr(&mut self, addr: SocketAddr) {
        self.addrs.peer = Some(addr);
    }

    /// Gives the dial its connection. If it waits no more the connection is dropped.
    ///
    /// Reading and writing must keep wakers of their own, as sockets and TLS do.
    pub fn complete<T>(self, transport: T)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        self.complete_after(async { Ok(transport) });
    }

    /// Gives the dial what will become its connection, such as the upgrade of an HTTP server, which comes about when its
    /// answer is written. The dial drives it; if it waits no more it is dropped.
    pub fn complete_after<T, F>(self, upgrade: F)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
        F: Future<Output = io::Result<T>> + Send + 'static,
    {
        let transport = Box::pin(async {
            let transport: BoxTransport = Box::pin(upgrade.await?);
            Ok(transport)
        });
        let addrs = self.addrs;
        let picked_up = PickedUp { transport, addrs };
        // A dial that was dropped lets the connection go.
        let _ = self.outcome.send(Ok(picked_up));
    }
}

impl fmt::Debug for PickUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickUp")
            .field("addrs", &self.addrs)
            .finish_non_exhaustive()
    }
}

/// No dial waits for this connection: it was picked up, given up, or there never was one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown dialer")]
#[non_exhaustive]
pub struct UnknownDialer;

/// Says whether the connection of a request is encrypted.
///
/// The id in its path is a secret, and without TLS nobody can tell a cut from an end: Go's handler insists on it. A server
/// behind a proxy that ends TLS says [`Present`](Self::Present).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is no third possibility")]
pub enum Tls {
    /// Every pick-up is refused with 500.
    Missing,
    /// Pick-ups are served.
    Present,
}

/// What is wrong with a pick-up request. The texts and codes are those of Go's handler.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The connection is not encrypted: 500.
    #[error("handler requires TLS")]
    RequiresTls,
    /// Another method: 405.
    #[error("expected GET request to revdial conn handler")]
    RequiresGet,
    /// No dial waits for this connection: 400.
    #[error(transparent)]
    UnknownDialer(#[from] UnknownDialer),
}

impl Refusal {
    /// The answer to the request.
    pub fn response(self) -> Response<String> {
        let mut response = Response::new(format!("{self}\n"));
        *response.status_mut() = match self {
            Self::RequiresTls => StatusCode::INTERNAL_SERVER_ERROR,
            Self::RequiresGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnknownDialer(_) => StatusCode::BAD_REQUEST,
        };
        let headers = response.headers_mut();
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(CONTENT_TYPE, text);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self == Self::RequiresGet {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }
}

/// The name of what is spoken after the upgrade, for proxies on the way.
pub(crate) const PROTOCOL: &str = "revdial";
