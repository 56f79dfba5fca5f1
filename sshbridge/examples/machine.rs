//! The SSH server that is built into a machine, on a port, for the holder of one key.
//!
//! ```text
//! cargo run --features machine --example machine -- 127.0.0.1:2222 ~/.ssh/id_ed25519.pub .
//! ```
//!
//! It prints its host key, and then serves until it is ended.

use std::io::Write as _;

use sshbridge::hostkey::HostKeys;
use sshbridge::machine::{LocalSettings, MachineServer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, key, work_dir] = arguments.as_slice() else {
        return Err("usage: machine LISTEN PUBLIC_KEY_FILE WORK_DIR".into());
    };
    let key = std::fs::read_to_string(key)?;
    let server = MachineServer::new(HostKeys::ephemeral(), LocalSettings::new(work_dir));
    let listener = TcpListener::bind(listen).await?;
    writeln!(std::io::stdout(), "{}", server.host_key_line())?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        let (server, key) = (server.clone(), key.clone());
        connections.spawn(async move {
            // How a connection ended is its client's to tell.
            let _ = server.serve(stream, key.trim()).await;
        });
    }
}
