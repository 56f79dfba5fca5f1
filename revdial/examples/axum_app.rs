//! A machine behind NAT runs an axum application.
//!
//! ```console
//! $ cargo run -p revdial --features axum --example axum_app
//! ```

use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use revdial::{Config, Dialer, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let machine = tokio::spawn(machine(TcpStream::connect(address).await?));
    let (tcp, _) = listener.accept().await?;

    let dialer = Dialer::new(tcp, Config::default());
    let mut conn = dialer.dial().await?;
    conn.write_all(b"GET /hello/world HTTP/1.1\r\nHost: machine\r\nConnection: close\r\n\r\n")
        .await?;
    let mut reply = String::new();
    conn.read_to_string(&mut reply).await?;
    anyhow::ensure!(reply.ends_with("\r\n\r\nhello, world"), "{reply}");
    let mut out = tokio::io::stdout();
    out.write_all(format!("{reply}\n").as_bytes()).await?;
    out.flush().await?;
    drop((conn, dialer));
    machine.await?
}

/// Serves until the link ends.
async fn machine(tcp: TcpStream) -> anyhow::Result<()> {
    let hello = async |Path(name): Path<String>| format!("hello, {name}");
    let app = Router::new().route("/hello/{name}", get(hello));

    let listener = Listener::new(tcp, Config::default());
    let closed = listener.when_closed();
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { drop(closed.await) })
        .await?;
    Ok(())
}
