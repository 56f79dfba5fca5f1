//! The side that opens connections.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop;

use crate::addr::Addr;
use crate::config::Config;
use crate::conn::Conn;
use crate::error::{CloseReason, DialError};
use crate::link::Link;
use crate::session::Role;

/// Opens connections over a link that the other side made.
///
/// Clones share the link. It ends when one of them [closes](Self::close) it, the peer does, the transport fails, or
/// the last clone and the last connection are dropped; in the last case in good order.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<Endpoint>);

impl Dialer {
    /// Takes one end of a transport; the other has a [`Listener`](crate::Listener).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with its timer enabled: a task is spawned that owns the transport. It ends with
    /// the link.
    pub fn new<T>(transport: T, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self(Arc::new(Endpoint(Link::spawn(
            Role::Dialer,
            transport,
            config,
        ))))
    }

    /// Opens a connection and waits until the peer confirms it, which takes one round trip.
    ///
    /// There is no time limit; give it one with [`tokio::time::timeout`].
    ///
    /// # Cancel safety
    ///
    /// A dial that is dropped is withdrawn: the peer's side is reset, and no later dial can get its connection.
    pub async fn dial(&self) -> Result<Conn, DialError> {
        let conn = self.dial_optimistic().await?;
        poll_fn(|cx| conn.poll_opened(cx)).await?;
        Ok(conn)
    }

    /// Opens a connection without waiting for the peer: a refusal shows as a reset of the connection.
    ///
    /// # Cancel safety
    ///
    /// A dial that is dropped has opened nothing.
    pub async fn dial_optimistic(&self) -> Result<Conn, DialError> {
        coop::consume_budget().await;
        let link = &self.0.0;
        let id = link.with(|state, _| state.session.open())?;
        Ok(Conn::new(Arc::clone(link), id))
    }

    /// Measures the round trip time of the link.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves nothing behind but an answer that nobody reads.
    pub async fn ping(&self) -> Result<Duration, CloseReason> {
        self.0.0.ping().await
    }

    /// Ends the link and every connection on it, those of other clones included; the peer is told.
    ///
    /// What was written and not flushed may be lost. For an orderly end drop all handles.
    pub fn close(&self) {
        self.0.0.end(CloseReason::Local);
    }

    /// Waits for the end of the link; everybody gets the same reason.
    ///
    /// # Cancel safety
    ///
    /// Dropping it has no effect.
    pub async fn closed(&self) -> CloseReason {
        self.0.0.closed().await
    }

    /// Says whether no further dial can succeed: the link ended, or the peer is about to leave.
    pub fn is_closed(&self) -> bool {
        self.0.0.is_leaving()
    }

    /// The address of the link on this side.
    pub fn local_addr(&self) -> Addr {
        self.0.0.local_addr(None)
    }

    /// The address of the link on the other side.
    pub fn peer_addr(&self) -> Addr {
        self.0.0.peer_addr(None)
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
