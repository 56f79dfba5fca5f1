//! One end of a link for the programs in `interop/go`: it joins each connection with a TCP socket on loopback, so that the
//! program at the other end holds both ends of everything and can check them.
//!
//! ```console
//! $ interop_peer v3 listener TRANSPORT TARGET          # what is accepted goes to TARGET
//! $ interop_peer v3 listener TRANSPORT TARGET 3        # and waits three seconds until it is accepted
//! $ interop_peer v1 dialer TRANSPORT                   # prints an address; what connects there is dialled
//! ```
//!
//! `TRANSPORT` is connected to over plain TCP. The peer ends with the link. When it reads a line it closes the link, and
//! waits to be ended.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that speaks to another through its output"
)]

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, bail};
use revdial::{Config, Dialer, Listener};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (dialect, role, transport, rest) = match args.as_slice() {
        [dialect, role, transport, rest @ ..] => (*dialect, *role, *transport, rest),
        _ => bail!("usage: interop_peer v1|v3 listener|dialer TRANSPORT [TARGET [SECONDS]]"),
    };
    let transport = connect(transport.parse()?).await?;
    match (role, rest) {
        ("listener", [target, pause @ ..]) => {
            let pause = pause.first().map_or(Ok(0), |seconds| seconds.parse())?;
            let listener = match dialect {
                "v1" => Listener::v1(transport, Config::default()),
                _ => Listener::new(transport, Config::default()),
            };
            listen(listener, target.parse()?, Duration::from_secs(pause)).await
        }
        ("dialer", []) => {
            let dialer = match dialect {
                "v1" => Dialer::v1(transport, Config::default()),
                _ => Dialer::new(transport, Config::default()),
            };
            dial(dialer).await
        }
        _ => bail!("a listener has a target, a dialer none"),
    }
}

async fn listen(mut listener: Listener, target: SocketAddr, pause: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(pause).await;
    let mut told = pin!(told_to_close());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut told => {
                listener.close();
                // The goodbye is sent behind our back, and we are ended by whom we said it to.
                return pending().await;
            }
        };
        let Ok(conn) = accepted else {
            return Ok(());
        };
        tokio::spawn(async move {
            match connect(target).await {
                Ok(socket) => splice(conn, socket).await,
                // The connection is dropped, and reset by that.
                Err(error) => eprintln!("cannot connect: {error}"),
            }
        });
    }
}

async fn dial(dialer: Dialer) -> anyhow::Result<()> {
    let local = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", local.local_addr()?);
    let mut told = pin!(told_to_close());
    loop {
        let accepted = tokio::select! {
            accepted = local.accept() => accepted,
            () = &mut told => {
                dialer.close();
                return pending().await;
            }
            reason = dialer.closed() => {
                println!("closed: {reason}");
                return Ok(());
            }
        };
        let (socket, _) = accepted?;
        socket.set_nodelay(true)?;
        let dialer = dialer.clone();
        tokio::spawn(async move {
            match dialer.dial().await {
                Ok(conn) => splice(conn, socket).await,
                Err(error) => eprintln!("cannot dial: {error}"),
            }
        });
    }
}

/// A line of standard input; its end is none.
async fn told_to_close() {
    let mut line = String::new();
    let mut input = BufReader::new(tokio::io::stdin());
    if !matches!(input.read_line(&mut line).await, Ok(1..)) {
        pending::<()>().await;
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).await.context("connecting")?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Copies both ways, each until its end, which is passed on as half a close. An error ends both as a reset does.
async fn splice(conn: impl AsyncRead + AsyncWrite, socket: TcpStream) {
    let (mut from_conn, mut to_conn) = tokio::io::split(conn);
    let (mut from_socket, mut to_socket) = socket.into_split();
    let down = async {
        tokio::io::copy(&mut from_conn, &mut to_socket).await?;
        to_socket.shutdown().await
    };
    let up = async {
        tokio::io::copy(&mut from_socket, &mut to_conn).await?;
        to_conn.shutdown().await
    };
    if let Err(error) = tokio::try_join!(down, up) {
        eprintln!("a connection failed: {error}");
        // Both ends are dropped: the link's is reset by that, the socket's where it has something unread.
    }
}
