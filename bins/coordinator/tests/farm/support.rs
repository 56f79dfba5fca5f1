//! A coordinator, its machines and its users, for one test.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use buildlet_proto::client::Connect;
use buildlet_proto::coordinator::CoordinatorClient;
use buildlet_proto::tls;
use clap::Parser;
use coordinator::config::Config;
use coordinator::pool::{Pool, PresenceStatus};
use coordinator::reload::Reload;
use coordinator::secret::Secret;
use coordinator::server::{Addresses, Server};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// A coordinator that ends with the test.
pub(crate) struct Farm {
    pub(crate) addresses: Addresses,
    pub(crate) pool: Arc<Pool>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) shutdown: CancellationToken,
    /// None while the coordinator is away.
    pub(crate) reload: Option<Reload>,
    /// The file with alice's SSH keys.
    pub(crate) alice_keys: Option<tempfile::TempPath>,
    pub(crate) server: AbortOnDropHandle<()>,
}

impl Farm {
    pub(crate) async fn start(more: &str) -> Self {
        Self::start_with("", more).await
    }

    /// Starts with more in the table of alice, and more tables.
    pub(crate) async fn start_with(alice: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let hash = |text| Secret::presented(text).hash();
        let config = format!(
            "data_dir = {:?}\n[listen]\nhttps = '127.0.0.1:0'\nssh = '127.0.0.1:0'\n\
             [host_types.host]\nkey_hash = '{}'\nenv = {{ FARM = 'green' }}\n[builder_types.type]\nhost_type = 'host'\n\
             [users.alice]\ntoken_hash = '{}'\n{alice}[users.bob]\ntoken_hash = '{}'\n{more}",
            dir.path().join("data"),
            hash(MACHINE_KEY),
            hash(ALICE),
            hash(BOB),
        );
        let file = dir.path().join(CONFIG);
        std::fs::write(&file, config).unwrap();
        std::fs::write(dir.path().join("key"), MACHINE_KEY).unwrap();
        let shutdown = CancellationToken::new();
        let server = Server::bind(Config::load(&file).unwrap(), shutdown.clone())
            .await
            .unwrap();
        let addresses = server.addresses.clone();
        Self {
            tls: tls::client_config(Some(&addresses.pin)).unwrap(),
            pool: server.pool(),
            addresses,
            dir,
            shutdown,
            reload: Some(server.reload.clone()),
            alice_keys: None,
            server: AbortOnDropHandle::new(tokio::spawn(server.run())),
        }
    }

    /// Ends the coordinator, and starts it where it was.
    pub(crate) async fn restart(&mut self) {
        self.shutdown.cancel();
        (&mut self.server).await.unwrap();
        // It holds the store.
        self.reload = None;
        let mut config = Config::load(&self.dir.path().join(CONFIG)).unwrap();
        config.listen.https = self.addresses.https;
        self.shutdown = CancellationToken::new();
        let server = Server::bind(config, self.shutdown.clone()).await.unwrap();
        self.addresses = server.addresses.clone();
        self.pool = server.pool();
        self.reload = Some(server.reload.clone());
        self.server = AbortOnDropHandle::new(tokio::spawn(server.run()));
    }

    /// Changes the configuration and has it read again.
    pub(crate) fn reconfigure(&self, change: impl FnOnce(String) -> String) -> anyhow::Result<()> {
        let file = self.dir.path().join(CONFIG);
        let config = change(std::fs::read_to_string(&file)?);
        std::fs::write(&file, config)?;
        let reload = self.reload.as_ref().unwrap();
        reload.take(Config::load(&file)?)
    }

    /// Starts a buildlet, and waits until it is in the pool.
    pub(crate) async fn machine(&self, hostname: &str) -> Machine {
        self.machine_with(hostname, "off").await
    }

    /// The same, with an SSH server of this kind.
    pub(crate) async fn machine_with(&self, hostname: &str, ssh: &str) -> Machine {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: buildlet::Args,
        }
        let coordinator = format!("https://localhost:{}", self.addresses.https.port());
        let pin = self.addresses.pin.to_string();
        let file = |name: String| -> PathBuf { self.dir.path().join(name) };
        let (key, work_dir) = (file("key".into()), file(format!("work-{hostname}")));
        let args = [
            "buildlet",
            "--coordinator",
            &coordinator,
            "--pin",
            &pin,
            "--host-type",
            "host",
            "--hostname",
            hostname,
            "--key-file",
            key.to_str().unwrap(),
            "--workdir",
            work_dir.to_str().unwrap(),
            "--ssh",
            ssh,
        ];
        let args = Cli::parse_from(args).args;
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let supervisor = buildlet::Supervisor::at(env!("CARGO_BIN_EXE_coordinator"));
            buildlet::run(args, supervisor, std::future::pending())
                .await
                .unwrap();
        }));
        self.pool.joined(1).await;
        Machine { task }
    }

    /// gomote as alice uses it.
    pub(crate) fn gomote_command(&self) -> tokio::process::Command {
        let config = self.dir.path().join("gomote.toml");
        let text = format!(
            "server = \"https://localhost:{}\"\npin = \"{}\"\nuser = \"alice\"\ntoken = \"{ALICE}\"\n",
            self.addresses.https.port(),
            self.addresses.pin
        );
        std::fs::write(&config, text).unwrap();
        std::fs::set_permissions(&config, PermissionsExt::from_mode(0o600)).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command
            .arg("gomote")
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs gomote; gives its exit code and what it wrote.
    pub(crate) async fn gomote(&self, args: &[&str], input: &str) -> (i32, String, String) {
        let mut gomote = self.gomote_command().args(args).spawn().unwrap();
        let mut stdin = gomote.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = gomote.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let exit = output.status.code().unwrap();
        (exit, text(output.stdout), text(output.stderr))
    }

    pub(crate) fn client(
        &self,
        user: &str,
        token: &str,
    ) -> CoordinatorClient<impl Connect + use<>> {
        let (address, tls) = (self.addresses.https, self.tls.clone());
        CoordinatorClient::new(
            move || connect(address, tls.clone()),
            &"localhost".parse().unwrap(),
            user,
            token,
        )
    }

    pub(crate) async fn connect(&self) -> io::Result<tls::TlsStream<TcpStream>> {
        connect(self.addresses.https, self.tls.clone()).await
    }

    /// Sends a request as it is, and reads until the server has nothing more to say.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await.unwrap();
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        String::from_utf8(reply).unwrap()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A buildlet that ends with the test.
pub(crate) struct Machine {
    pub(crate) task: AbortOnDropHandle<()>,
}

impl Machine {
    /// Ends the buildlet as if it were killed, and waits until the coordinator has noticed.
    pub(crate) async fn kill(self, pool: &Pool) {
        self.task.abort();
        let _ = self.task.await;
        while pool
            .snapshot()
            .machines
            .iter()
            .any(|machine| matches!(machine.presence, PresenceStatus::Linked(_)))
        {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<tls::TlsStream<TcpStream>> {
    tls::connect(TcpStream::connect(address).await?, "localhost", config).await
}

pub(crate) const CONFIG: &str = "farm.toml";
pub(crate) const ALICE: &str = "alice-token";
pub(crate) const BOB: &str = "bob-token";
pub(crate) const MACHINE_KEY: &str = "machine-key";
