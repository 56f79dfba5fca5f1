//! The tunnel against itself, on loopback.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use revdial::connector::Timing;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::args::{self, Dialect};
use crate::client;
use crate::server::Server;

/// Moves data both ways, with and without TLS; stops the server, and waits for the client to come back.
pub(crate) async fn run() -> anyhow::Result<()> {
    for (dialect, tls) in [
        (Dialect::V2, false),
        (Dialect::V2, true),
        (Dialect::V3, false),
        (Dialect::V3, true),
    ] {
        let checking = timeout(LIMIT, check(dialect, tls));
        checking.await.context("it hangs")??;
        let mut out = tokio::io::stdout();
        let line = format!(
            "{dialect:?}, tls {tls}: data, half close, broken connections and a new start are as they should be\n"
        );
        out.write_all(line.as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

async fn check(dialect: Dialect, tls: bool) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let echo = TcpListener::bind(ANY).await?;
    let to = echo.local_addr()?;
    let echoing = tasks.spawn(serve_echo(echo));

    let first = Server::bind(&server(ANY, ANY, dialect, tls)).await?;
    let (clients, entry) = first.addresses()?;
    let pin = first.pin();
    let serving = tasks.spawn(first.serve());
    let client = args::Client {
        server: clients.to_string(),
        to: String::new(),
        tls,
        pin,
        token_file: None,
        dialect,
    };
    // The certificate is another after the new start: a client that pins is told so.
    let new_start = !tls;
    let serving_client = client::connector(&client, fast())?;
    tasks.spawn(async move {
        serving_client
            .serve(|listener| client::serve(listener, to.to_string()))
            .await;
    });
    reachable(entry).await?;
    let mut transfers = JoinSet::new();
    for seed in 0..8 {
        transfers.spawn(transfer(entry, seed));
    }
    while let Some(done) = transfers.join_next().await {
        done??;
    }

    if new_start {
        serving.abort();
        while TcpListener::bind(clients).await.is_err() {
            sleep(PAUSE).await;
        }
        let again = Server::bind(&server(clients, entry, dialect, tls)).await?;
        tasks.spawn(again.serve());
        reachable(entry).await?;
        transfer(entry, 99).await?;
    }

    echoing.abort();
    if (dialect, tls) == (Dialect::V2, false) {
        // A reset is lost on this wire, which is why the help advises against it.
        return Ok(());
    }
    nothing_behind(entry).await
}

fn server(listen: SocketAddr, entry: SocketAddr, dialect: Dialect, tls: bool) -> args::Server {
    args::Server {
        listen,
        entry,
        tls,
        cert: None,
        key: None,
        token_file: None,
        dialect,
    }
}

fn fast() -> Timing {
    let mut timing = Timing::default();
    timing.outage = (PAUSE, PAUSE);
    timing
}

/// Waits until a byte comes back.
async fn reachable(entry: SocketAddr) -> anyhow::Result<()> {
    loop {
        if let Ok(mut tcp) = TcpStream::connect(entry).await {
            let asked = tcp.write_all(b"x").await.is_ok();
            if asked && tcp.read_u8().await.is_ok() {
                return Ok(());
            }
        }
        sleep(PAUSE).await;
    }
}

/// Sends more than any buffer holds, ends its side, and reads all of it back.
async fn transfer(entry: SocketAddr, seed: usize) -> anyhow::Result<()> {
    let sent: Vec<u8> = (0..LENGTH + seed)
        .map(|i| (i * 31 + seed + i / 251).to_le_bytes()[0])
        .collect();
    let mut tcp = TcpStream::connect(entry).await?;
    let (mut read, mut write) = tcp.split();
    let sending = async {
        write.write_all(&sent).await?;
        write.shutdown().await
    };
    let mut received = Vec::new();
    tokio::try_join!(sending, read.read_to_end(&mut received))?;
    ensure!(received == sent, "what came back is not what was sent");
    Ok(())
}

/// Where nothing listens behind the tunnel a connection breaks; it does not look like an answer of no bytes.
async fn nothing_behind(entry: SocketAddr) -> anyhow::Result<()> {
    loop {
        match answer(entry).await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            // The listener may live a moment longer.
            outcome => ensure!(outcome.is_err(), "an orderly end out of nothing"),
        }
    }
}

/// What comes from the other end; a connection may break before it is known to be one here.
async fn answer(entry: SocketAddr) -> io::Result<Vec<u8>> {
    let mut tcp = TcpStream::connect(entry).await?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await?;
    Ok(answer)
}

async fn serve_echo(listener: TcpListener) {
    let mut tasks = JoinSet::new();
    while let Ok((mut tcp, _)) = listener.accept().await {
        tasks.spawn(async move {
            let (mut read, mut write) = tcp.split();
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        });
    }
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const LENGTH: usize = 3_000_000;
const PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);
