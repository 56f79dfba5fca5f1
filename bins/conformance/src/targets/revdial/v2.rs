//! The second dialect: a control connection, and one further connection for each stream.

use std::io;
use std::sync::Mutex;

use conn_conformance::{BoxFuture, Cap, Caps, MakeMux, Mux, MuxPair, Side, Target, Wire};
use http::Request;
use http::uri::PathAndQuery;
use revdial::v2::{PickUps, Tls};
use revdial::{Config, Dialer, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::layered::{Trust, trust};
use super::{AcceptingSide, DialingSide, PIPE, STREAMS};

/// Connections picked up over TLS, each over a byte pipe of its own, as is the control connection.
pub(crate) fn v2() -> Target {
    let trust = trust().map_err(|error| error.to_string());
    let caps = Caps::of(&[
        Cap::Addresses,
        Cap::CloseHandle,
        Cap::Deadlines,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::PeerGone,
        Cap::ResetHandle,
        Cap::ResetVisible,
    ]);
    let caps = caps.bounded(BOUND).max_streams(STREAMS);
    Target::mux("revdial-v2", PickedUp(trust), caps)
}

struct PickedUp(Result<Trust, String>);

impl MakeMux for PickedUp {
    fn side(&self, _: Wire, _: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn make(&self) -> BoxFuture<'_, io::Result<MuxPair>> {
        Box::pin(async {
            let trust = self.0.clone().map_err(io::Error::other)?;
            let pick_ups = PickUps::new();
            let (ours, theirs) = connected(trust.clone()).await?;
            let mut config = Config::default();
            config.max_inbound_streams = STREAMS;
            let path = PathAndQuery::from_static("/revdial");
            let dialer = Dialer::v2(ours, &pick_ups, path, config.clone());
            let connect = move || {
                let (trust, pick_ups) = (trust.clone(), pick_ups.clone());
                async move {
                    let (ours, theirs) = connected(trust).await?;
                    // It ends with its one answer, or with the pipe.
                    tokio::spawn(answer(ours, pick_ups));
                    Ok(theirs)
                }
            };
            let listening = AcceptingSide {
                listener: Mutex::new(Listener::v2(theirs, connect, config)),
                turn: tokio::sync::Mutex::default(),
            };
            Ok(MuxPair::new(
                Box::new(DialingSide(dialer)),
                Box::new(listening),
            ))
        })
    }
}

/// A TLS connection over a byte pipe: the server's end, and the machine's.
async fn connected(trust: Trust) -> io::Result<(Wire, Wire)> {
    let (a, b) = tokio::io::duplex(PIPE);
    tokio::try_join!(
        trust.clone().handshake(Box::new(a), Side::Server),
        trust.handshake(Box::new(b), Side::Client)
    )
}

/// An HTTP server of one request.
async fn answer(mut wire: Wire, pick_ups: PickUps) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(wire.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let request = Request::get(path).body(()).map_err(io::Error::other)?;
    match pick_ups.begin_request(&request, Tls::Present) {
        Ok(pick_up) => {
            wire.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                .await?;
            wire.flush().await?;
            pick_up.complete(wire);
        }
        Err(refusal) => {
            let text = format!("{refusal}\n");
            let length = text.len();
            let answer =
                format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n{text}");
            wire.write_all(answer.as_bytes()).await?;
            wire.shutdown().await?;
        }
    }
    Ok(())
}

/// The unread bytes of one direction: what the pipe holds, and what TLS buffers at both of its ends.
const BOUND: usize = 512 * 1024;
