//! A buildlet on a socket, and a client that shows the bytes.

use std::path::Path;
use std::time::Duration;

use buildlet::{JobSettings, Machine, Supervisor};
use buildlet_proto::server::{Auth, Server};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A machine that serves until it is dropped.
pub(crate) struct Served {
    address: std::net::SocketAddr,
    dir: TempDir,
    _serving: JoinSet<()>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A machine with other settings for its jobs.
    pub(crate) async fn start_with(settle: impl FnOnce(&mut JobSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self::start_in(dir, settle).await
    }

    /// Serves the directory `work` of `dir`.
    pub(crate) async fn start_in(dir: TempDir, settle: impl FnOnce(&mut JobSettings)) -> Self {
        let mut jobs = JobSettings::new(supervisor(), dir.path().join("jobs"));
        settle(&mut jobs);
        let machine = Machine::without_ssh(&dir.path().join("work"), jobs).unwrap();
        Self::serve(dir, machine).await
    }

    /// A machine whose clients may reach these ports.
    pub(crate) async fn start_with_ports(ports: &[u16]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let jobs = JobSettings::new(supervisor(), dir.path().join("jobs"));
        let machine = Machine::without_ssh(&dir.path().join("work"), jobs).unwrap();
        Self::serve(dir, machine.with_tcp_ports(ports.iter().copied())).await
    }

    async fn serve(dir: TempDir, machine: Machine) -> Self {
        let server = Server::new(machine, Auth::password("secret"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let server = server.clone();
                connections.spawn(async move { drop(server.serve(tcp).await) });
            }
        });
        Self {
            address,
            dir,
            _serving: serving,
        }
    }

    /// The work directory.
    pub(crate) fn work(&self) -> std::path::PathBuf {
        self.dir.path().join("work")
    }

    /// What lies around the work directory.
    pub(crate) fn outside(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asks with the password, on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, target: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: Basic {AUTHORIZATION}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat()).await
    }

    /// Sends bytes, and reads what comes to the end.
    pub(crate) async fn send(&self, request: &[u8]) -> Reply {
        let exchange = async {
            let (mut read, mut write) = self.connect().await.into_split();
            let mut bytes = Vec::new();
            // Who is refused early may not have been heard to the end.
            let (_, _) = tokio::join!(write.write_all(request), read.read_to_end(&mut bytes));
            Reply::parse(&bytes)
        };
        tokio::time::timeout(Duration::from_secs(20), exchange)
            .await
            .expect("an exchange ends")
    }

    /// Runs a shell script, and gives its output and its end.
    pub(crate) async fn sh(&self, script: &str) -> (String, Option<String>) {
        let form: String = form(&[
            ("cmd", "/bin/sh"),
            ("mode", "sys"),
            ("cmdArg", "-c"),
            ("cmdArg", script),
        ]);
        let reply = self.ask("POST", "/exec", form).await;
        (reply.text(), reply.trailer)
    }
}

/// The beginning of a request to run a shell script, for a client that does not wait.
pub(crate) fn exec_request(script: &str) -> Vec<u8> {
    let form = form(&[
        ("cmd", "/bin/sh"),
        ("mode", "sys"),
        ("cmdArg", "-c"),
        ("cmdArg", script),
    ]);
    format!(
        "POST /exec HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\n{form}",
        form.len()
    )
    .into_bytes()
}

/// The program, to watch over commands: the test's own does not.
pub(crate) fn supervisor() -> Supervisor {
    Supervisor::at(env!("CARGO_BIN_EXE_buildlet"))
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The value of `Process-State`.
    pub(crate) trailer: Option<String>,
    /// Whether the body ended as its head said it would.
    pub(crate) complete: bool,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let split = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(bytes[..split].to_vec()).unwrap();
        let raw = &bytes[split + 4..];
        let status = head[9..12].parse().unwrap();
        let mut reply = Self {
            status,
            head,
            body: raw.to_vec(),
            trailer: None,
            complete: true,
        };
        if reply.header("transfer-encoding").as_deref() == Some("chunked") {
            reply.decode_chunks(raw);
        } else if let Some(length) = reply.header("content-length") {
            reply.complete = length.parse() == Ok(raw.len());
        }
        reply
    }

    fn decode_chunks(&mut self, mut raw: &[u8]) {
        (self.body, self.complete) = (Vec::new(), false);
        while let Some(line) = raw.windows(2).position(|w| w == b"\r\n") {
            let length = std::str::from_utf8(&raw[..line]).unwrap();
            let length = usize::from_str_radix(length, 16).unwrap();
            raw = &raw[line + 2..];
            if length == 0 {
                let rest = String::from_utf8(raw.to_vec()).unwrap();
                let state = rest
                    .lines()
                    .find_map(|line| line.strip_prefix("Process-State: "));
                self.trailer = state.map(str::to_owned);
                self.complete = rest.ends_with("\r\n");
                return;
            }
            if raw.len() < length + 2 {
                return;
            }
            self.body.extend_from_slice(&raw[..length]);
            raw = &raw[length + 2..];
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then(|| value.to_owned())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A urlencoded form.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        text.bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect::<String>()
    };
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", encode(value)))
        .collect();
    pairs.join("&")
}

/// `gomote:secret`.
pub(crate) const AUTHORIZATION: &str = "Z29tb3RlOnNlY3JldA==";
