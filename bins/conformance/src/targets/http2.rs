//! One request and its response as a stream, by h2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use conn_conformance::{Cap, Caps, Pair, Target, Wire, over};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;

use super::plain::end;

/// A POST whose body goes one way and whose answer's body goes the other.
pub(crate) fn h2() -> Target {
    let caps = Caps::of(&[
        Cap::CutVisible,
        Cap::Deadlines,
        Cap::HalfClose,
        Cap::InMemory,
        Cap::Layered,
        Cap::PeerGone,
        Cap::ResetVisible,
    ]);
    Target::pairs("h2", over(pair), caps.bounded(1 << 20))
}

async fn pair(a: Wire, b: Wire) -> io::Result<Pair> {
    let (client, server) = tokio::join!(h2::client::handshake(a), h2::server::handshake(b));
    let (mut requests, connection) = client.map_err(io::Error::other)?;
    let mut server = server.map_err(io::Error::other)?;
    let mut drivers = JoinSet::new();
    // Each ends with its connection; what failed shows in the stream.
    drivers.spawn(async move {
        let _ = connection.await;
    });
    let request = http::Request::post("http://localhost/")
        .body(())
        .map_err(io::Error::other)?;
    let (response, to_b) = requests
        .send_request(request, false)
        .map_err(io::Error::other)?;
    let accepted = server
        .accept()
        .await
        .ok_or(io::ErrorKind::ConnectionAborted)?;
    let (request, mut respond) = accepted.map_err(io::Error::other)?;
    let to_a = respond
        .send_response(http::Response::new(()), false)
        .map_err(io::Error::other)?;
    drivers.spawn(async move { while let Some(Ok(_)) = server.accept().await {} });
    let a = Http2::new(to_b, Incoming::Awaited(response));
    let b = Http2::new(to_a, Incoming::Body(request.into_body()));
    Ok(Pair::of(end(a, None, None), end(b, None, None)).keep((drivers, requests)))
}

enum Incoming {
    Awaited(ResponseFuture),
    Body(RecvStream),
}

struct Http2 {
    outgoing: SendStream<Bytes>,
    incoming: Incoming,
    unread: Bytes,
    finished: bool,
}

impl Http2 {
    fn new(outgoing: SendStream<Bytes>, incoming: Incoming) -> Self {
        Self {
            outgoing,
            incoming,
            unread: Bytes::new(),
            finished: false,
        }
    }

    /// Waits for data; empty at the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if let Incoming::Awaited(response) = &mut self.incoming {
            let response = ready!(Pin::new(response).poll(cx)).map_err(error)?;
            self.incoming = Incoming::Body(response.into_body());
        }
        let Incoming::Body(body) = &mut self.incoming else {
            return Poll::Pending;
        };
        match ready!(body.poll_data(cx)) {
            None => Poll::Ready(Ok(Bytes::new())),
            Some(data) => {
                let data = data.map_err(error)?;
                let released = body.flow_control().release_capacity(data.len());
                released.map_err(error)?;
                Poll::Ready(Ok(data))
            }
        }
    }
}

fn error(error: h2::Error) -> io::Error {
    if error.is_reset() {
        return io::Error::new(io::ErrorKind::ConnectionReset, error);
    }
    io::Error::other(error)
}

impl AsyncRead for Http2 {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.unread.is_empty() {
            self.unread = ready!(self.poll_data(cx))?;
        }
        let n = buf.remaining().min(self.unread.len());
        buf.put_slice(&self.unread[..n]);
        self.unread.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2 {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.outgoing.reserve_capacity(buf.len());
        // `poll_capacity` tells of news only: capacity that is left over is none.
        while self.outgoing.capacity() == 0 {
            match ready!(self.outgoing.poll_capacity(cx)) {
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Some(granted) => drop(granted.map_err(error)?),
            }
        }
        let n = self.outgoing.capacity().min(buf.len());
        let data = Bytes::copy_from_slice(&buf[..n]);
        self.outgoing.send_data(data, false).map_err(error)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.finished = true;
            let ended = self.outgoing.send_data(Bytes::new(), true);
            ended.map_err(error)?;
        }
        Poll::Ready(Ok(()))
    }
}
