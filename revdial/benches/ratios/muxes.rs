//! The multiplexers under one trait, and pairs of connected streams.

use std::future::{Future, poll_fn};
use std::task::Poll;

use futures_util::StreamExt as _;
use revdial::{Config, Conn, Dialer, Listener};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

/// What a multiplexer runs over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for T {}

/// A multiplexer.
pub(crate) trait Mux: 'static {
    type Stream: Transport;
    type Opener: Clone + Send + 'static;
    type Acceptor: Send + 'static;
    /// What a stream needs from whoever only writes to it.
    const WRITERS: Writers = Writers::Write;

    /// Starts both ends.
    fn start(client: impl Transport, server: impl Transport) -> (Self::Opener, Self::Acceptor);

    /// Opens a stream, without waiting for the peer's word.
    fn open(opener: &Self::Opener) -> impl Future<Output = Self::Stream> + Send;

    /// Takes a stream; `None` when the link has ended.
    fn accept(acceptor: &mut Self::Acceptor) -> impl Future<Output = Option<Self::Stream>> + Send;
}

/// What keeps a stream going that is only written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Writers {
    /// The writes.
    Write,
    /// A parked read besides: `tokio-yamux` sees credit only when somebody reads (nervosnetwork/tentacle#455).
    ReadToo,
}

/// Connects `count` streams of one link; each has carried a byte both ways, as some open and confirm with their first
/// data only.
pub(crate) async fn connect<M: Mux>(
    opener: &M::Opener,
    acceptor: &mut M::Acceptor,
    count: usize,
) -> Vec<(M::Stream, M::Stream)> {
    let mut pairs = Vec::with_capacity(count);
    connect_into::<M>(&mut pairs, opener, acceptor, count).await;
    pairs
}

/// Like [`connect`], with a list that may have the room already.
pub(crate) async fn connect_into<M: Mux>(
    pairs: &mut Vec<(M::Stream, M::Stream)>,
    opener: &M::Opener,
    acceptor: &mut M::Acceptor,
    count: usize,
) {
    for _ in 0..count {
        let mut ours = M::open(opener).await;
        ours.write_all(b"x").await.unwrap();
        ours.flush().await.unwrap();
        let mut theirs = M::accept(acceptor).await.unwrap();
        theirs.read_exact(&mut [0]).await.unwrap();
        theirs.write_all(b"x").await.unwrap();
        theirs.flush().await.unwrap();
        ours.read_exact(&mut [0]).await.unwrap();
        pairs.push((ours, theirs));
    }
}

/// Two connected sockets on loopback, without Nagle's algorithm.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(addr), listener.accept());
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap().0);
    ours.set_nodelay(true).unwrap();
    theirs.set_nodelay(true).unwrap();
    (ours, theirs)
}

/// This crate.
#[derive(Debug)]
pub(crate) enum Revdial {}

impl Mux for Revdial {
    type Stream = Conn;
    type Opener = Dialer;
    type Acceptor = Listener;

    fn start(client: impl Transport, server: impl Transport) -> (Dialer, Listener) {
        let mut config = Config::default();
        config.max_inbound_streams = MANY;
        config.max_outbound_streams = MANY;
        let dialer = Dialer::new(client, config.clone());
        (dialer, Listener::new(server, config))
    }

    async fn open(opener: &Dialer) -> Conn {
        opener.dial_optimistic().await.unwrap()
    }

    async fn accept(acceptor: &mut Listener) -> Option<Conn> {
        acceptor.accept().await.ok()
    }
}

/// The `yamux` crate, which moves nothing unless somebody polls the connection: a task does.
#[derive(Debug)]
pub(crate) enum Yamux {}

impl Mux for Yamux {
    type Stream = Compat<yamux::Stream>;
    type Opener = mpsc::Sender<oneshot::Sender<yamux::Stream>>;
    type Acceptor = mpsc::Receiver<yamux::Stream>;

    fn start(client: impl Transport, server: impl Transport) -> (Self::Opener, Self::Acceptor) {
        let (opener, mut wanted) = mpsc::channel::<oneshot::Sender<yamux::Stream>>(64);
        let (accepted, acceptor) = mpsc::channel(64);
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MANY);
        let mut client =
            yamux::Connection::new(client.compat(), config.clone(), yamux::Mode::Client);
        let mut server = yamux::Connection::new(server.compat(), config, yamux::Mode::Server);
        tokio::spawn(poll_fn(move |cx| {
            while let Poll::Ready(wanted) = wanted.poll_recv(cx) {
                let Some(answer) = wanted else {
                    return Poll::Ready(());
                };
                let Poll::Ready(stream) = client.poll_new_outbound(cx) else {
                    unreachable!("fewer are opened than the backlog of 256 holds");
                };
                let _ = answer.send(stream.unwrap());
            }
            client.poll_next_inbound(cx).map(drop)
        }));
        tokio::spawn(async move {
            while let Some(Ok(stream)) = poll_fn(|cx| server.poll_next_inbound(cx)).await {
                // As many wait as fit the channel: the rest is taken before anything blocks.
                let _ = accepted.try_send(stream);
            }
        });
        (opener, acceptor)
    }

    async fn open(opener: &Self::Opener) -> Self::Stream {
        let (answer, stream) = oneshot::channel();
        opener.send(answer).await.unwrap();
        stream.await.unwrap().compat()
    }

    async fn accept(acceptor: &mut Self::Acceptor) -> Option<Self::Stream> {
        Some(acceptor.recv().await?.compat())
    }
}

/// The `tokio-yamux` crate.
#[derive(Debug)]
pub(crate) enum TokioYamux {}

impl Mux for TokioYamux {
    type Stream = tokio_yamux::StreamHandle;
    type Opener = tokio_yamux::Control;
    type Acceptor = mpsc::Receiver<tokio_yamux::StreamHandle>;
    const WRITERS: Writers = Writers::ReadToo;

    fn start(client: impl Transport, server: impl Transport) -> (Self::Opener, Self::Acceptor) {
        let config = tokio_yamux::Config::default();
        let mut client = tokio_yamux::Session::new_client(client, config);
        let mut server = tokio_yamux::Session::new_server(server, config);
        let opener = client.control();
        let (accepted, acceptor) = mpsc::channel(64);
        tokio::spawn(async move { while let Some(Ok(_)) = client.next().await {} });
        tokio::spawn(async move {
            while let Some(Ok(stream)) = server.next().await {
                let _ = accepted.try_send(stream);
            }
        });
        (opener, acceptor)
    }

    async fn open(opener: &Self::Opener) -> Self::Stream {
        opener.clone().open_stream().await.unwrap()
    }

    async fn accept(acceptor: &mut Self::Acceptor) -> Option<Self::Stream> {
        acceptor.recv().await
    }
}

/// Streams that a link may have: more than any measurement opens.
const MANY: usize = 4096;
