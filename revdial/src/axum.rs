//! `Listener` for `axum::serve`.

use std::future::pending;
use std::io;

use crate::addr::Addr;
use crate::conn::Conn;
use crate::listener::Listener;

/// Serves an axum application to the other side of the link.
///
/// The trait has no word for the end of a listener: when the link has ended no further connection comes, and
/// `axum::serve` waits for ever. Give it [`Listener::when_closed`] as its graceful shutdown:
///
/// ```
/// # async fn run(listener: revdial::Listener, app: axum::Router) -> std::io::Result<()> {
/// let closed = listener.when_closed();
/// axum::serve(listener, app)
///     .with_graceful_shutdown(async move { drop(closed.await) })
///     .await
/// # }
/// ```
impl axum::serve::Listener for Listener {
    type Io = Conn;
    type Addr = Addr;

    async fn accept(&mut self) -> (Conn, Addr) {
        match Self::accept(self).await {
            Ok(conn) => {
                let addr = conn.peer_addr();
                (conn, addr)
            }
            Err(_) => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Addr> {
        Ok(Self::local_addr(self))
    }
}
