//! A machine behind NAT offers a gRPC service; the other side calls it.
//!
//! ```console
//! $ cargo run -p revdial --features axum,hyper,tower --example tonic
//! ```

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
mod generated;

use revdial::{Config, Dialer, Listener};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use self::generated::echo_client::EchoClient;
use self::generated::echo_server::{Echo, EchoServer};

/// A message with one field.
#[derive(Clone, Eq, PartialEq, prost::Message)]
pub(crate) struct Line {
    /// What is said.
    #[prost(string, tag = "1")]
    text: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let machine = tokio::spawn(machine(TcpStream::connect(address).await?));
    let (tcp, _) = listener.accept().await?;

    let dialer = Dialer::new(tcp, Config::default());
    let channel = Endpoint::from_static("http://machine")
        .connect_with_connector(dialer)
        .await?;
    let mut client = EchoClient::new(channel);
    let text = "hello".to_owned();
    let reply = client.say(Line { text }).await?.into_inner().text;
    anyhow::ensure!(reply == "you said hello", "{reply}");
    let mut out = tokio::io::stdout();
    out.write_all(format!("{reply}\n").as_bytes()).await?;
    out.flush().await?;
    drop(client);
    machine.await?
}

/// Serves until the link ends.
async fn machine(tcp: TcpStream) -> anyhow::Result<()> {
    let listener = Listener::new(tcp, Config::default());
    let closed = listener.when_closed();
    let service = Routes::new(EchoServer::new(Parrot)).into_axum_router();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move { drop(closed.await) })
        .await?;
    Ok(())
}

/// The service.
#[derive(Debug)]
struct Parrot;

#[tonic::async_trait]
impl Echo for Parrot {
    async fn say(&self, request: Request<Line>) -> Result<Response<Line>, Status> {
        let text = format!("you said {}", request.into_inner().text);
        Ok(Response::new(Line { text }))
    }
}
