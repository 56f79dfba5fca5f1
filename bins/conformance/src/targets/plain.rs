//! What the operating system and tokio offer. [`Deadlined`] gives all of them the deadlines and the close that Go's
//! connections have, so that nettest's cases apply.

use std::io;
use std::net::Ipv4Addr;

use conn_conformance::{Cap, Caps, Deadlined, End, Io, Pair, Target};
use tokio::net::{TcpListener, TcpStream, UnixStream};

const BASE: Caps = Caps::of(&[
    Cap::CloseHandle,
    Cap::Deadlines,
    Cap::HalfClose,
    Cap::PeerGone,
]);

/// tokio's in-memory pipe.
pub(crate) fn duplex() -> Target {
    let make = || async {
        let (a, b) = tokio::io::duplex(DUPLEX);
        Ok(Pair::of(end(a, None, None), end(b, None, None)))
    };
    Target::pairs("duplex", make, BASE.with(Cap::InMemory).bounded(DUPLEX))
}

/// TCP over the loopback interface.
pub(crate) fn tcp() -> Target {
    let make = || async {
        let (a, b) = tcp_streams().await?;
        Ok(Pair::of(tcp_end(a)?, tcp_end(b)?))
    };
    Target::pairs("tcp", make, BASE.with(Cap::Addresses).with(Cap::Vectored))
}

/// A pair of Unix sockets.
pub(crate) fn unix() -> Target {
    let make = || async {
        let (a, b) = UnixStream::pair()?;
        Ok(Pair::of(end(a, None, None), end(b, None, None)))
    };
    Target::pairs("unix", make, BASE.with(Cap::Vectored))
}

pub(super) async fn tcp_streams() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (a, b) = tokio::try_join!(
        TcpStream::connect(listener.local_addr()?),
        listener.accept()
    )?;
    a.set_nodelay(true)?;
    b.0.set_nodelay(true)?;
    Ok((a, b.0))
}

fn tcp_end(stream: TcpStream) -> io::Result<End> {
    let local = stream.local_addr()?.to_string();
    let peer = stream.peer_addr()?.to_string();
    Ok(end(stream, Some(local), Some(peer)))
}

/// A stream with deadlines and close.
pub(crate) fn end(stream: impl Io, local: Option<String>, peer: Option<String>) -> End {
    let stream = Deadlined::with_addresses(stream, local, peer);
    let control = stream.control();
    End::with_control(stream, control)
}

/// The capacity of the in-memory pipe: less than most cases send.
const DUPLEX: usize = 64 * 1024;
