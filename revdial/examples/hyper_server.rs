//! A machine behind NAT runs a hyper server; the other side asks it with hyper-util's client.
//!
//! ```console
//! $ cargo run -p revdial --features hyper,tower --example hyper_server
//! ```

use std::convert::Infallible;

use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use revdial::{Config, Dialer, Listener};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let machine = tokio::spawn(machine(TcpStream::connect(address).await?));
    let (tcp, _) = listener.accept().await?;

    // These two lines are all that is special about this client.
    let dialer = Dialer::new(tcp, Config::default());
    let client = Client::builder(TokioExecutor::new()).build::<_, String>(dialer);
    for path in ["/one", "/two"] {
        let uri: Uri = format!("http://machine{path}").parse()?;
        let reply = client.get(uri).await?.into_body().collect().await?;
        let reply = String::from_utf8(reply.to_bytes().into())?;
        anyhow::ensure!(reply == format!("you asked for {path}\n"), "{reply}");
        let mut out = tokio::io::stdout();
        out.write_all(reply.as_bytes()).await?;
        out.flush().await?;
    }
    // The last handle is gone with the client, and the link ends in good order.
    drop(client);
    machine.await?;
    Ok(())
}

/// Serves what the other side opens, until it leaves.
async fn machine(tcp: TcpStream) {
    let mut listener = Listener::new(tcp, Config::default());
    while let Ok(conn) = listener.accept().await {
        let serving = http1::Builder::new().serve_connection(conn, service_fn(answer));
        tokio::spawn(serving);
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let path = request.uri().path();
    Ok(Response::new(format!("you asked for {path}\n")))
}
