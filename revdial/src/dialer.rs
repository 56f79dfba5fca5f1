//! The side that opens connections.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop;

use crate::addr::Addr;
use crate::config::Config;
use crate::conn::Conn;
use crate::error::{CloseReason, DialError, PingError};
use crate::link::{Link, now};
use crate::machine::Machine;
use crate::session::Role;
use crate::v2::PickUps;
use crate::v2::dialer::PickUpDialer;

/// Opens connections over a link that the other side made.
///
/// Clones share the link. It ends when one of them [closes](Self::close) it, the peer does, the transport fails, or
/// the last clone and the last connection are dropped; in the last case in good order.
#[derive(Clone, Debug)]
pub struct Dialer(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// Connections over one link.
    Link(Arc<Endpoint>),
    /// Connections that the peer makes when it is asked.
    PickUp(Arc<PickUpDialer>),
}

impl Dialer {
    /// Takes one end of a transport; the other has a [`Listener`](crate::Listener). They speak dialect v3.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with its timer enabled: a task is spawned that owns the transport. It ends with
    /// the link.
    pub fn new<T>(transport: T, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let session = Machine::v3(Role::Dialer, config.clone(), now(), rand::random());
        let link = Link::spawn(session, transport, &config);
        Self(Kind::Link(Arc::new(Endpoint(link))))
    }

    /// Like [`new`](Self::new), in the dialect that Go spoke from 2015 to 2019: the other end is a
    /// [`Listener::v1`](crate::Listener::v1) or a Go program.
    ///
    /// The wire promises less than v3, see [`v1`](crate::v1): a dial succeeds at once and cannot be refused visibly, a
    /// peer cannot tell a reset from an end, there are no pings, and a connection that is not read holds up all others
    /// for up to [`Config::v1_stall_timeout`]. A Go listener stops reading the transport, for all connections, while
    /// eight dials wait for its `Accept`.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn v1<T>(transport: T, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let session = Machine::v1(Role::Dialer, config.clone());
        let link = Link::spawn(session, transport, &config);
        Self(Kind::Link(Arc::new(Endpoint(link))))
    }

    /// Takes one end of a control connection of dialect v2; the other has [`Listener::v2`](crate::Listener::v2), or Go's.
    ///
    /// Each dial has the peer make a connection of its own to `conn_path`, where the server that this program runs gives it
    /// to `pick_ups`: see [`v2`](crate::v2). Connections live on when the control connection ends.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with its timer enabled: a task is spawned that owns the control connection. And
    /// panics where `conn_path` has more than 512 bytes: the peer drops lines of more than 4096, and escapes count.
    pub fn v2<T>(control: T, pick_ups: &PickUps, conn_path: PathAndQuery, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        assert!(conn_path.as_str().len() <= 512, "the path is too long");
        let dialer = PickUpDialer::spawn(Box::pin(control), pick_ups, conn_path, &config);
        Self(Kind::PickUp(Arc::new(dialer)))
    }

    /// Opens a connection and waits until the peer confirms it, which takes one round trip. On a v1 link nothing is
    /// confirmed, and this is [`dial_optimistic`](Self::dial_optimistic); with v2 the peer connects, and confirms by that.
    ///
    /// There is no time limit but [`Config::dial_timeout`] of v2; give it one with [`tokio::time::timeout`].
    ///
    /// # Cancel safety
    ///
    /// A dial that is dropped is withdrawn: the peer's side is reset, and no later dial can get its connection.
    pub async fn dial(&self) -> Result<Conn, DialError> {
        let conn = self.dial_optimistic().await?;
        poll_fn(|cx| conn.poll_opened(cx)).await?;
        Ok(conn)
    }

    /// Opens a connection without waiting for the peer: a refusal shows as a reset of the connection, on a v1 link as
    /// its end. With v2 there is nothing to write to before the peer has connected, and this is [`dial`](Self::dial).
    ///
    /// # Cancel safety
    ///
    /// A dial that is dropped has opened nothing.
    pub async fn dial_optimistic(&self) -> Result<Conn, DialError> {
        match &self.0 {
            Kind::Link(endpoint) => {
                coop::consume_budget().await;
                let id = endpoint.0.with(|state, _| state.session.open())?;
                Ok(Conn::new(Arc::clone(&endpoint.0), id))
            }
            Kind::PickUp(dialer) => dialer.dial().await,
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

    /// Ends the link and every connection on it, those of other clones included; the peer is told.
    ///
    /// What was written and not flushed may be lost. For an orderly end drop all handles. With v2 the connections live on.
    pub fn close(&self) {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.end(CloseReason::Local),
            Kind::PickUp(dialer) => dialer.shared().end(CloseReason::Local),
        }
    }

    /// Ends the link as if this program had been killed: the peer is not told, and sees a transport that was cut. It is for one
    /// who means to be back, where a goodbye would be understood as an end.
    pub fn abort(&self) {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.end(CloseReason::Aborted),
            Kind::PickUp(dialer) => dialer.shared().end(CloseReason::Aborted),
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
            Kind::PickUp(dialer) => dialer.shared().closed().await,
        }
    }

    /// Says whether no further dial can succeed: the link ended, or the peer is about to leave.
    pub fn is_closed(&self) -> bool {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.is_leaving(),
            Kind::PickUp(dialer) => dialer.shared().ended().is_some(),
        }
    }

    /// The address of the link on this side.
    pub fn local_addr(&self) -> Addr {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.local_addr(None),
            Kind::PickUp(dialer) => dialer.shared().local_addr(),
        }
    }

    /// The address of the link on the other side.
    pub fn peer_addr(&self) -> Addr {
        match &self.0 {
            Kind::Link(endpoint) => endpoint.0.peer_addr(None),
            Kind::PickUp(dialer) => dialer.shared().peer_addr(),
        }
    }
}

/// The claim of the endpoint on its link; dropped with the last handle.
#[derive(Debug)]
pub(crate) struct Endpoint(pub(crate) Arc<Link>);

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.release_endpoint();
    }
}
