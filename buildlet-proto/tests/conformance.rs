//! What `conn-conformance` asks of a connection, one test for each of its cases, of a stream that was taken over from HTTP.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use buildlet_proto::hijack::{Hijack, HijackedStream, Limits, serve_connection, service};
use conn_conformance::{Cap, Caps, CountingAllocator, Pair, Wire, over, suite};
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The cases about memory count with it.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

suite!(
    hijacked,
    over(pair),
    Caps::of(&[Cap::HalfClose, Cap::InMemory, Cap::Layered, Cap::PeerGone]).bounded(64 * 1024)
);

/// The client's transport behind the head of a 101, and the stream that the server's handler was given.
async fn pair(mut client: Wire, server: Wire) -> io::Result<Pair> {
    let (sender, taken_over) = oneshot::channel();
    let mut serving = JoinSet::new();
    serving.spawn(serve(server, sender));
    let request = "POST /stream HTTP/1.1\r\nHost: machine\r\nContent-Length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let (stream, done) = taken_over.await.map_err(io::Error::other)?;
    Ok(Pair::new(client, stream).keep((serving, done)))
}

/// The stream, and what lets the server's future end when it is dropped.
type TakenOver = (HijackedStream, oneshot::Sender<()>);

async fn serve(transport: Wire, sender: oneshot::Sender<TakenOver>) {
    let sender = Arc::new(Mutex::new(Some(sender)));
    let answer = service(move |request| {
        let sender = sender.clone();
        async move {
            let hijack: Option<&Hijack> = request.extensions().get();
            hijack
                .cloned()
                .unwrap_or_default()
                .take_over(|stream| async move {
                    let (done, until_done) = oneshot::channel();
                    let sender = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
                    let _ = sender.map(|sender| sender.send((stream, done)));
                    let _ = until_done.await;
                });
            let mut response = Response::new(String::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
        }
    });
    // What failed shows in the streams.
    let _ = serve_connection(transport, answer, Limits::default()).await;
}
