//! Both sides of a link in one program: a server that is dialled, and a machine that it then dials.
//!
//! ```console
//! $ cargo run -p revdial --example echo
//! ```

use http::Uri;
use revdial::{Config, Conn, Connector, Dialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server: Uri = format!("http://{}/reverse", listener.local_addr()?).parse()?;

    // The machine: dials out, sends back what it hears, and comes back for ever.
    let mut machine = JoinSet::new();
    machine.spawn(Connector::new(&server)?.serve(|mut listener| async move {
        while let Ok(conn) = listener.accept().await {
            tokio::spawn(echo(conn));
        }
    }));

    // The server: takes the registration, and dials as often as it likes.
    let dialer = register(listener.accept().await?.0).await?;
    for word in ["one", "two", "three"] {
        let mut conn = dialer.dial().await?;
        conn.write_all(word.as_bytes()).await?;
        conn.shutdown().await?;
        let mut answer = String::new();
        conn.read_to_string(&mut answer).await?;
        anyhow::ensure!(answer == word, "{word} came back as {answer}");
    }
    say(&format!(
        "3 connections over 1, {:?} each way and back",
        dialer.ping().await?
    ))
    .await
}

async fn echo(conn: Conn) -> std::io::Result<()> {
    let (mut read, mut write) = conn.into_split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// A server has an HTTP library for this, and looks at what the request says.
async fn register(mut tcp: TcpStream) -> anyhow::Result<Dialer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await?);
    }
    let switching =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: revdial\r\n\r\n";
    tcp.write_all(switching).await?;
    Ok(Dialer::new(tcp, Config::default()))
}

async fn say(line: &str) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    out.write_all(format!("{line}\n").as_bytes()).await?;
    Ok(out.flush().await?)
}
