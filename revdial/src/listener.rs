//! The side that takes connections.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::addr::Addr;
use crate::config::Config;
use crate::conn::Conn;
use crate::dialer::Endpoint;
use crate::error::CloseReason;
use crate::link::Link;
use crate::session::Role;

/// Takes the connections that the other side opens over a link that this side made.
///
/// A connection is confirmed to the peer when it arrives, as a TCP listener does, and waits for [`accept`](Self::accept);
/// what waits counts against [`Config::max_inbound_streams`](crate::Config::max_inbound_streams).
///
/// The link ends when it is [closed](Self::close), the peer leaves, the transport fails, or the listener and the last
/// connection are dropped. Once the listener is dropped new connections are refused; those that live go on.
#[derive(Debug)]
pub struct Listener(Endpoint);

impl Listener {
    /// Takes one end of a transport; the other has a [`Dialer`](crate::Dialer).
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with its timer enabled: a task is spawned that owns the transport. It ends with
    /// the link.
    pub fn new<T>(transport: T, config: Config) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self(Endpoint(Link::spawn(Role::Listener, transport, config)))
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
        let link = &self.0.0;
        let accepted = link.with(|state, wakes| state.poll_accept(cx, wakes));
        accepted.map_ok(|id| Conn::new(Arc::clone(link), id))
    }

    /// Measures the round trip time of the link.
    ///
    /// # Cancel safety
    ///
    /// Dropping it leaves nothing behind but an answer that nobody reads.
    pub async fn ping(&self) -> Result<Duration, CloseReason> {
        self.0.0.ping().await
    }

    /// Ends the link and every connection on it; the peer is told.
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

    /// Says whether the link ended, or the peer is about to leave.
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
