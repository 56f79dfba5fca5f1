//! The side that takes connections.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::addr::Addr;
use crate::config::Config;
use crate::conn::Conn;
use crate::dialer::Endpoint;
use crate::error::{CloseReason, PingError};
use crate::link::{Link, now};
use crate::machine::Machine;
use crate::session::Role;
use crate::v2::listener::{PickUpListener, connect_with};

/// Takes the connections that the other side opens over a link that this side made.
///
/// A connection is confirmed to the peer when it arrives, as a TCP listener does, and waits for [`accept`](Self::accept);
/// what waits counts against [`Config::max_inbound_streams`](crate::Config::max_inbound_streams).
///
/// The link ends when it is [closed](Self::close), the peer leaves, the transport fails, or the listener and the last
/// connection are dropped. Once the listener is dropped new connections are refused; those that live go on.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    /// Connections over one link.
    Link(Endpoint),
    /// Connections that this side makes when it is asked.
    PickUp(PickUpListener),
}

/// Resolves at the end of a link.
type Ended = Pin<Box<dyn Future<Output = CloseReason> + Send>>;

impl Listener {
    /// Takes one end of a transport; the other has a [`Dialer`](crate::Dialer). They speak dialect v3.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with its timer enabled: a task is spawned that owns the transport. It ends with
    /// the link.
    pub fn new<T>(transport: T, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let session = Machine::v3(Role::Listener, config.clone(), now(), rand::random());
        let link = Link::spawn(session, transport, &config);
        Self(Kind::Link(Endpoint(link)))
    }

    /// Like [`new`](Self::new), in the dialect that Go spoke from 2015 to 2019: the other end is a
    /// [`Dialer::v1`](crate::Dialer::v1) or a Go program.
    ///
    /// The wire promises less than v3, see [`v1`](crate::v1): a connection that is one too many, or comes when the
    /// listener is dropped, ends for the peer as if it had been served; a peer cannot tell a reset from an end; there
    /// are no pings; and a connection that is not read, or not accepted, holds up all others for up to
    /// [`Config::v1_stall_timeout`].
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn v1<T>(transport: T, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let session = Machine::v1(Role::Listener, config.clone());
        let link = Link::spawn(session, transport, &config);
        Self(Kind::Link(Endpoint(link)))
    }

    /// Takes one end of a control connection of dialect v2; the other has [`Dialer::v2`](crate::Dialer::v2), or Go's.
    ///
    /// For each connection that the peer announces, `connect` makes one to the server of the control connection, as that
    /// was made: with the same TLS, through the same proxies. It is picked up there, and waits for
    /// [`accept`](Self::accept); see [`v2`](crate::v2). At most
    /// [`Config::max_inbound_streams`](crate::Config::max_inbound_streams) are open, wait, or are being made.
    ///
    /// Connections live on when the control connection ends, which is when the listener is dropped or
    /// [closed](Self::close), the peer closes it, or is silent for 90 s; those that are being made are given up.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with its timer enabled: a task is spawned that owns the control connection.
    pub fn v2<T, C, F, S>(control: T, connect: C, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let connect = connect_with(connect);
        let listener = PickUpListener::spawn(Box::pin(control), connect, &config);
        Self(Kind::PickUp(listener))
    }

    /// Waits for the next connection, or the reason why there is none any more.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped has taken no connection.
    pub async fn accept(&mut self) -> Result<Conn, CloseReason> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Like [`accept`](Self::accept), for a task of one's own.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "one waiter at a time: the waker of a second would be lost"
    )]
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Conn, CloseReason>> {
        match &self.0 {
            Kind::Link(Endpoint(link)) => {
                let accepted = link.with(|state, wakes| state.poll_accept(cx, wakes));
                accepted.map_ok(|id| Conn::new(Arc::clone(link), id))
            }
            Kind::PickUp(listener) => listener.poll_accept(cx),
        }
    }

    /// Measures the round trip time of the link; [`PingError::Unsupported`] on v1 and v2 links.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves nothing behind but an answer that nobody reads.
    pub async fn ping(&self) -> Result<Duration, PingError> {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.ping().await,
            Kind::PickUp(_) => Err(PingError::Unsupported),
        }
    }

    /// Ends the link and every connection on it; the peer is told.
    ///
    /// What was written and not flushed may be lost. For an orderly end drop all handles. With v2 the connections live on.
    pub fn close(&self) {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.end(CloseReason::Local),
            Kind::PickUp(listener) => listener.shared().end(CloseReason::Local),
        }
    }

    /// Waits for the end of the link; everybody gets the same reason. The peer is told after that, in the background: a
    /// program that ends at once takes the news with it, and the peer sees a broken transport.
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    pub async fn closed(&self) -> CloseReason {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.closed().await,
            Kind::PickUp(listener) => listener.shared().closed().await,
        }
    }

    /// Like [`closed`](Self::closed), for whoever gives the listener away. It does not keep the link open.
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    pub fn when_closed(&self) -> impl Future<Output = CloseReason> + Send + use<> {
        match &self.0 {
            Kind::Link(endpoint) => {
                let link = Arc::clone(&endpoint.0);
                Box::pin(async move { link.closed().await }) as Ended
            }
            Kind::PickUp(listener) => Box::pin(listener.when_closed()),
        }
    }

    /// Says whether the link ended, or the peer is about to leave.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.is_leaving(),
            Kind::PickUp(listener) => listener.shared().ended().is_some(),
        }
    }

    /// The address of the link on this side.
    pub fn local_addr(&self) -> Addr {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.local_addr(None),
            Kind::PickUp(listener) => listener.shared().local_addr(),
        }
    }

    /// The address of the link on the other side.
    pub fn peer_addr(&self) -> Addr {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.peer_addr(None),
            Kind::PickUp(listener) => listener.shared().peer_addr(),
        }
    }
}
