//! Dialect v2: Go's pick-up connections.
//!
//! The connection that the machine made first carries lines of JSON, and nothing else. For each dial the server announces
//! a path, the machine connects once more and asks for that path over HTTP, and with the 101 that it gets the connection is
//! the dial's: a socket of its own, with the kernel's flow control. Golang's build system has spoken it since 2019. The
//! bytes are in the repository's `docs/wire.md`.
//!
//! What Go leaves open is closed here. A path is good for one dial and one pick-up, so that a connection that comes late
//! reaches nobody else; what the peer says of a failure reaches the dial that it concerns; a server that is dead or silent
//! ends the wait.
//!
//! ```
//! use std::convert::Infallible;
//! use std::net::SocketAddr;
//!
//! use http::uri::PathAndQuery;
//! use hyper::server::conn::http1;
//! use hyper::service::service_fn;
//! use hyper_util::rt::TokioIo;
//! use revdial::v2::{PickUpHandler, PickUps, Tls};
//! use revdial::{Config, Dialer, Listener};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! // The server's web server. A real one has TLS, and routes `/revdial` to the handler and `/reverse` to a registration.
//! async fn serve(socket: TcpListener, pick_ups: PickUps) -> std::io::Result<()> {
//!     let handler = PickUpHandler::new(pick_ups, Tls::Present, |request| async {
//!         hyper::upgrade::on(request).await.map(TokioIo::new)
//!     });
//!     loop {
//!         let (stream, _) = socket.accept().await?;
//!         let handler = handler.clone();
//!         let service = service_fn(move |request| {
//!             let response = handler.answer(request);
//!             async { Ok::<_, Infallible>(response) }
//!         });
//!         tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
//!     }
//! }
//!
//! // The machine: `control` is what is left of its registration.
//! async fn machine(control: TcpStream, server: SocketAddr) -> std::io::Result<()> {
//!     let connect = move || TcpStream::connect(server);
//!     let mut listener = Listener::v2(control, connect, Config::default());
//!     let mut conn = listener.accept().await?;
//!     let mut question = String::new();
//!     conn.read_to_string(&mut question).await?;
//!     conn.write_all(format!("you said {question}").as_bytes()).await?;
//!     conn.shutdown().await
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let web = TcpListener::bind("127.0.0.1:0").await?;
//! let address = web.local_addr()?;
//! let pick_ups = PickUps::new();
//! let server = tokio::spawn(serve(web, pick_ups.clone()));
//!
//! let registration = TcpListener::bind("127.0.0.1:0").await?;
//! let control = TcpStream::connect(registration.local_addr()?).await?;
//! let machine = tokio::spawn(machine(control, address));
//!
//! // The server, where a machine has registered:
//! let (control, _) = registration.accept().await?;
//! let path = PathAndQuery::from_static("/revdial");
//! let dialer = Dialer::v2(control, &pick_ups, path, Config::default());
//! let mut conn = dialer.dial().await?;
//! conn.write_all(b"hello").await?;
//! conn.shutdown().await?;
//! let mut answer = String::new();
//! conn.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "you said hello");
//! # machine.await.expect("the task does not panic")?;
//! # server.abort();
//! # Ok(())
//! # }
//! ```
//!
//! - [`PickUps`] are the dials that wait; [`PickUp`] is one whose connection is there.
//! - [`PickUpHandler`] serves the pick-up path for any HTTP server, [`PickUps::begin_request`] is the same for those that
//!   write their answers themselves.

mod control;
pub(crate) mod dialer;
mod driver;
mod handler;
mod id;
pub(crate) mod listener;
mod message;
mod pickup;
mod switch;

use std::sync::atomic::{AtomicU32, Ordering};

use crate::frame::StreamId;

pub use self::handler::PickUpHandler;
pub use self::pickup::{PickUp, PickUps, Refusal, Tls, UnknownDialer};

/// Counts connections, from 1. Behind 2³² − 1 it begins anew: the numbers are for logs.
#[derive(Debug, Default)]
pub(crate) struct Numbers(AtomicU32);

impl Numbers {
    fn next(&self) -> StreamId {
        loop {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            if let Some(number) = StreamId::new(count.wrapping_add(1)) {
                return number;
            }
        }
    }
}
