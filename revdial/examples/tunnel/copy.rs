//! Bytes both ways between a socket and a connection of the link.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use revdial::{Conn, ReadHalf, WriteHalf};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp;

/// Copies both ways until both have ended.
///
/// The end of one direction is passed on while the other goes on. An error in either ends both, with a reset on both
/// sides: half a transfer never looks like a whole one.
pub(crate) async fn join(mut tcp: TcpStream, conn: Conn) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let (from_tcp, into_tcp) = tcp.split();
    // Dropping them before their end resets the connection.
    let (from_conn, into_conn) = conn.into_split();
    let outcome = tokio::try_join!(inwards(from_tcp, into_conn), outwards(from_conn, into_tcp));
    if outcome.is_err() {
        // Closing now resets.
        SockRef::from(&tcp).set_linger(Some(Duration::ZERO))?;
    }
    outcome.map(drop)
}

/// From the socket into the link.
async fn inwards(mut from: tcp::ReadHalf<'_>, mut into: WriteHalf) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut size = READ_MIN;
    loop {
        let count = poll_fn(|cx| {
            buffer.reserve(size);
            let read = pin!(from.read_buf(&mut buffer)).poll(cx);
            if read.is_pending() {
                // Who waits holds no buffer.
                buffer = BytesMut::new();
            }
            read
        })
        .await?;
        if count == 0 {
            return into.shutdown().await;
        }
        into.write_all(&buffer).await?;
        size = next_size(size, count);
        buffer.clear();
    }
}

/// Reads grow while they are full, so that a keystroke costs little and bulk few system calls.
fn next_size(size: usize, count: usize) -> usize {
    if count >= size {
        (size * 4).min(READ_MAX)
    } else if count < size / 8 {
        (size / 4).max(READ_MIN)
    } else {
        size
    }
}

/// From the link into the socket.
async fn outwards(mut from: ReadHalf, mut into: tcp::WriteHalf<'_>) -> io::Result<()> {
    let mut batch = Batch::default();
    loop {
        batch.fill(&mut from).await?;
        while !batch.chunks.is_empty() {
            let count = {
                let mut slices = [IoSlice::new(&[]); CHUNKS_MAX];
                let slices = batch.slices(&mut slices);
                into.write_vectored(slices).await?
            };
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            batch.advance(count);
        }
        if batch.ended {
            return into.shutdown().await;
        }
    }
}

/// Chunks that go out with one system call.
#[derive(Debug, Default)]
struct Batch {
    chunks: VecDeque<Bytes>,
    ended: bool,
}

impl Batch {
    /// Waits for a chunk, and takes those that are there with it.
    async fn fill(&mut self, from: &mut ReadHalf) -> io::Result<()> {
        let mut room = BATCH_MAX;
        poll_fn(|cx| {
            while self.chunks.len() < CHUNKS_MAX && room > 0 {
                match pin!(from.read_chunk(room)).poll(cx) {
                    Poll::Ready(Ok(chunk)) if chunk.is_empty() => {
                        self.ended = true;
                        break;
                    }
                    Poll::Ready(Ok(chunk)) => {
                        room -= chunk.len();
                        self.chunks.push_back(chunk);
                    }
                    // What came before the error goes out first; the next call meets it again.
                    Poll::Ready(Err(error)) if self.chunks.is_empty() => {
                        return Poll::Ready(Err(error.into()));
                    }
                    Poll::Ready(Err(_)) => break,
                    Poll::Pending if self.chunks.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    fn slices<'a, 'b>(&'a self, slices: &'b mut [IoSlice<'a>; CHUNKS_MAX]) -> &'b [IoSlice<'a>] {
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
        }
        &slices[..self.chunks.len()]
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if count < chunk.len() {
                chunk.advance(count);
                return;
            }
            count -= chunk.len();
            self.chunks.pop_front();
        }
    }
}

/// Bytes of the first read from a socket.
const READ_MIN: usize = 4 * 1024;
/// Bytes of a read while there is plenty.
const READ_MAX: usize = 64 * 1024;
/// Bytes that wait for a socket, beside those in the link's window.
const BATCH_MAX: usize = 256 * 1024;
/// Chunks of one system call.
const CHUNKS_MAX: usize = 16;
