//! The side behind NAT: dials out, and connects what comes back.

use anyhow::Context;
use http::{Uri, header};
use revdial::connector::{Proxies, Step, Timing};
use revdial::{Conn, Connector, Listener};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::{args, copy, http as registration, server, tls};

/// Serves one link after the other, for ever.
pub(crate) async fn run(args: args::Client) -> anyhow::Result<()> {
    let mut links = connector(&args, Timing::default())?.links();
    loop {
        match links.step().await {
            Step::Linked(listener) => {
                info!(server = args.server, "connected");
                serve(listener, args.to.clone()).await;
            }
            Step::Failed { error, retry_in } => {
                let error = anyhow::Error::from(error);
                warn!(?retry_in, "{error:#}");
            }
            Step::Ended { reason, retry_in } => warn!(?retry_in, "{reason}"),
            step => debug!(?step, "a step that has no name"),
        }
    }
}

pub(crate) fn connector(args: &args::Client, timing: Timing) -> anyhow::Result<Connector> {
    let scheme = if args.tls { "https" } else { "http" };
    let uri: Uri = format!("{scheme}://{}{}", args.server, registration::PATH)
        .parse()
        .with_context(|| format!("{:?} is not HOST:PORT", args.server))?;
    let connector = if args.tls {
        Connector::with_tls(&uri, tls::client_config(args.pin)?)?
            .proxy_tls(tls::client_config(None)?)
    } else {
        Connector::new(&uri)?
    };
    let mut connector = connector
        .dialect(args.dialect.of_revdial())
        .proxies(Proxies::from_env()?)
        .timing(timing)
        .config(server::link_config());
    if let Some(token) = registration::read_token(args.token_file.as_deref())? {
        connector = connector.header(header::AUTHORIZATION, token);
    }
    Ok(connector)
}

/// Connects what the server opens, until the link ends.
pub(crate) async fn serve(mut listener: Listener, to: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(conn) => { connections.spawn(connect(conn, to.clone())); }
                Err(_) => return,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(conn: Conn, to: String) {
    match TcpStream::connect(&to).await {
        Ok(tcp) => {
            if let Err(error) = copy::join(tcp, conn).await {
                debug!("a connection broke: {error}");
            }
        }
        Err(error) => {
            warn!(to, "cannot connect: {error}");
            conn.reset(UNREACHABLE);
        }
    }
}

/// What the server sees where there is nothing behind us.
const UNREACHABLE: u32 = 1;
