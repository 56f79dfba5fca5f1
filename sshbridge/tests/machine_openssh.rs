//! The machine's SSH servers, driven by the OpenSSH client. Skipped, loudly, where that is not installed.

#![cfg(all(feature = "machine", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sshbridge::backend::{
    Backend as _, BackendChannel, ChannelEvent, ChannelRequest, PtyRequest, WindowSize,
};
use sshbridge::hostkey::HostKeys;
use sshbridge::machine::{LocalBackend, LocalSettings, MachineServer, Sshd};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_both_streams_and_its_status() {
    within(async {
        let Some(bench) = Bench::of_machine().await else {
            return;
        };
        let output = bench.ssh(&["echo out; echo err >&2; exit 42"]).await;
        assert_eq!(output.status.code(), Some(42), "{output:?}");
        assert_eq!(output.stdout, b"out\n");
        assert_eq!(output.stderr, b"err\n");
        let output = bench.ssh(&["kill -KILL $$"]).await;
        assert_eq!(output.status.code(), Some(255), "{output:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_follows_the_size_of_the_client_s() {
    within(async {
        let Some(bench) = Bench::of_machine().await else {
            return;
        };
        // The client has a terminal of ours, so the test is on both of its sides.
        let backend = LocalBackend::new(settings());
        let conn = backend.connect().await.unwrap();
        let mut client = conn.open_session().await.unwrap();
        let size = |columns, rows| WindowSize {
            columns,
            rows,
            ..WindowSize::default()
        };
        let request = ChannelRequest::Pty(PtyRequest::new("xterm", size(100, 30)));
        client.control.request(request).await.unwrap();
        let line = bench.line("-tt", "'stty size; read x; stty size; tty; exit 3'");
        client
            .control
            .request(ChannelRequest::Exec(line.into()))
            .await
            .unwrap();
        until(&mut client, "30 100").await;
        client
            .control
            .request(ChannelRequest::WindowChange(size(132, 50)))
            .await
            .unwrap();
        // The client tells the size in its own time; asking again is harmless.
        client.sink.data(Bytes::from_static(b"\r")).await.unwrap();
        let text = until(&mut client, "closed.").await;
        assert!(text.contains("50 132") && text.contains("/dev/"), "{text}");
        loop {
            match client.source.next().await {
                Some(ChannelEvent::ExitStatus(status)) => break assert_eq!(status, 3),
                Some(_) => {}
                None => panic!("no exit status"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_go_up_and_down_unchanged() {
    within(async {
        let Some(bench) = Bench::of_machine().await else {
            return;
        };
        let file = bench.dir.path().join("random");
        let make = format!("head -c {BULK} /dev/urandom > {}", file.display());
        assert!(shell(&make).await.status.success());
        let expected = shell(&format!("sha256sum < {}", file.display()))
            .await
            .stdout;
        let start = Instant::now();
        let up = format!("{} < {}", bench.line("-T", "sha256sum"), file.display());
        assert_eq!(shell(&up).await.stdout, expected);
        let up = start.elapsed();
        let start = Instant::now();
        let remote = format!("cat {}", file.display());
        let down = format!("{} | sha256sum", bench.line("-T", &format!("'{remote}'")));
        assert_eq!(shell(&down).await.stdout, expected);
        eprintln!("{BULK} bytes: up {up:.1?}, down {:.1?}", start.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_and_sftp_copy_both_ways() {
    within(async {
        let Some(bench) = Bench::of_machine().await else {
            return;
        };
        let dir = bench.dir.path().display();
        let options = bench.options().join(" ");
        let make = format!("head -c 9000001 /dev/urandom > {dir}/file");
        assert!(shell(&make).await.status.success());
        for copy in [
            format!("scp -q {options} {dir}/file m@machine:{dir}/up"),
            format!("scp -q {options} m@machine:{dir}/file {dir}/down"),
            format!("scp -q -O {options} {dir}/file m@machine:{dir}/old-up"),
            format!("scp -q -O {options} m@machine:{dir}/file {dir}/old-down"),
            format!("echo put {dir}/file {dir}/put | sftp -q -b - {options} m@machine"),
            format!("echo get {dir}/file {dir}/got | sftp -q -b - {options} m@machine"),
        ] {
            assert!(shell(&copy).await.status.success(), "{copy}");
        }
        for copy in ["up", "down", "old-up", "old-down", "put", "got"] {
            let same = shell(&format!("cmp {dir}/file {dir}/{copy}")).await;
            assert!(same.status.success(), "{copy}: {same:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_nobody_reads_does_not_stop_a_command_from_ending() {
    within(async {
        let Some(bench) = Bench::of_machine().await else {
            return;
        };
        let line = format!("{} < /dev/zero", bench.line("-T", "'exit 42'"));
        assert_eq!(shell(&line).await.status.code(), Some(42));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_ends_what_it_ran() {
    within(async {
        let Some(bench) = Bench::of_machine().await else {
            return;
        };
        for terminal in ["-T", "-tt"] {
            let mut client = bench
                .client(&[
                    terminal,
                    "-n",
                    "m@machine",
                    "echo $$; trap '' HUP; sleep 60; sleep 60",
                ])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            let stdout = client.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).await.unwrap();
            let id: u32 = line.trim().parse().unwrap();
            assert!(lives(id));
            client.kill().await.unwrap();
            while lives(id) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_hangs_up_what_sshd_ran() {
    within(async {
        for terminal in ["-T", "-tt"] {
            let Some(bench) = Bench::of_sshd().await else {
                return;
            };
            let login = format!("{}@machine", bench.user);
            let mut client = bench
                .client(&[terminal, "-n", &login, "echo $$; sleep 60; sleep 60"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            let stdout = client.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).await.unwrap();
            let id: u32 = line.trim().parse().unwrap();
            client.kill().await.unwrap();
            while lives(id) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_refused() {
    within(async {
        let Some(mut bench) = Bench::of_machine().await else {
            return;
        };
        bench.key = keygen(bench.dir.path(), "other").await;
        let output = bench.ssh(&["true"]).await;
        assert_eq!(output.status.code(), Some(255), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("Permission denied (publickey)"), "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_is_an_error_before_anything_is_sent() {
    within(async {
        let server = MachineServer::new(HostKeys::ephemeral(), settings());
        for key in ["", "ssh-ed25519", "restrict ssh-ed25519 AAAA", "x\ny"] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            server.serve(ours, key).await.unwrap_err();
            let mut sent = Vec::new();
            theirs.read_to_end(&mut sent).await.unwrap();
            assert_eq!(sent, b"");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_s_own_sshd_serves_one_connection() {
    within(async {
        let Some(bench) = Bench::of_sshd().await else {
            return;
        };
        let output = bench.ssh(&["echo out; echo err >&2; exit 42"]).await;
        assert_eq!(output.status.code(), Some(42), "{output:?}");
        assert_eq!(output.stdout, b"out\n");
        assert_eq!(output.stderr, b"err\n");
        bench.finished().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_s_own_sshd_admits_no_other_key() {
    within(async {
        let Some(mut bench) = Bench::of_sshd().await else {
            return;
        };
        bench.key = keygen(bench.dir.path(), "other").await;
        let output = bench.ssh(&["true"]).await;
        assert_eq!(output.status.code(), Some(255), "{output:?}");
        bench.finished().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sshd_whose_stream_is_dropped_ends() {
    within(async {
        let Some(sshd) = sshd() else { return };
        let mut conn = sshd.connect(&user().await, KEY).await.unwrap();
        let mut greeting = [0; 8];
        conn.stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"SSH-2.0-");
        let running = sshds();
        assert!(!running.is_empty());
        drop(conn);
        while sshds().iter().any(|id| running.contains(id)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_sshd_that_cannot_start_says_why() {
    within(async {
        let user = user().await;
        let kind = |error: std::io::Error| error.kind();
        let sshd = Sshd::new("/no/such/sshd");
        assert_eq!(
            kind(sshd.connect(&user, KEY).await.unwrap_err()),
            std::io::ErrorKind::NotFound
        );
        let invalid = std::io::ErrorKind::InvalidInput;
        assert_eq!(
            kind(Sshd::new("sshd").connect(&user, KEY).await.unwrap_err()),
            invalid
        );
        for name in [
            "",
            "a b",
            "*",
            "-x",
            "a\nPermitRootLogin yes",
            "a@b",
            "!root",
        ] {
            assert_eq!(
                kind(sshd.connect(name, KEY).await.unwrap_err()),
                invalid,
                "{name:?}"
            );
        }
        for key in ["", "ssh-ed25519 x", "command=\"x\" ssh-ed25519 AAAA"] {
            assert_eq!(
                kind(sshd.connect(&user, key).await.unwrap_err()),
                invalid,
                "{key:?}"
            );
        }
        let refusal = Sshd::new("/bin/false")
            .connect(&user, KEY)
            .await
            .unwrap_err();
        assert!(
            refusal.to_string().starts_with("sshd does not start"),
            "{refusal}"
        );
    })
    .await;
}

/// A client and a server that it reaches.
struct Bench {
    dir: TempDir,
    key: PathBuf,
    port: u16,
    user: String,
    server: JoinSet<()>,
}

impl Bench {
    /// A [`MachineServer`] on a port.
    async fn of_machine() -> Option<Self> {
        let (mut bench, listener, public) = Self::new().await?;
        let server = Arc::new(MachineServer::new(HostKeys::ephemeral(), settings()));
        bench.trust(&server.host_key_line());
        bench.server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (server, public) = (Arc::clone(&server), public.clone());
                connections.spawn(async move {
                    // How a connection ended is what the client is asked for.
                    let _ = server.serve(stream, &public).await;
                });
            }
        });
        Some(bench)
    }

    /// An [`Sshd`] on a port, for one connection.
    async fn of_sshd() -> Option<Self> {
        let sshd = sshd()?;
        let (mut bench, listener, public) = Self::new().await?;
        bench.user = user().await;
        let mut conn = sshd.connect(&bench.user, &public).await.unwrap();
        bench.trust(&conn.host_key_line);
        bench.server.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut conn.stream).await;
        });
        Some(bench)
    }

    async fn new() -> Option<(Self, TcpListener, String)> {
        if !Path::new(SSH).exists() {
            eprintln!("SKIP: {SSH} is not installed, nothing was tested");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let key = keygen(dir.path(), "key").await;
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bench = Self {
            dir,
            key,
            port,
            user: "m".to_owned(),
            server: JoinSet::new(),
        };
        Some((bench, listener, public))
    }

    /// Waits for the end of a server that serves one connection.
    async fn finished(mut self) {
        while self.server.join_next().await.is_some() {}
    }

    fn trust(&self, host_key: &str) {
        std::fs::write(
            self.dir.path().join("known_hosts"),
            format!("machine {host_key}\n"),
        )
        .unwrap();
    }

    async fn ssh(&self, command: &[&str]) -> Output {
        let user = format!("{}@machine", self.user);
        let arguments: Vec<_> = ["-T", "-n", &user]
            .into_iter()
            .chain(command.iter().copied())
            .collect();
        self.client(&arguments).output().await.unwrap()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SSH);
        command
            .args(self.options())
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// A line for a shell.
    fn line(&self, terminal: &str, command: &str) -> String {
        format!(
            "{SSH} {} {terminal} {}@machine {command}",
            self.options().join(" "),
            self.user
        )
    }

    fn options(&self) -> Vec<String> {
        let known_hosts = self.dir.path().join("known_hosts");
        let options = [
            "HostName=127.0.0.1".to_owned(),
            "HostKeyAlias=machine".to_owned(),
            format!("Port={}", self.port),
            format!("IdentityFile={}", self.key.display()),
            format!("UserKnownHostsFile={}", known_hosts.display()),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "BatchMode=yes".to_owned(),
        ];
        let head = ["-F".to_owned(), "/dev/null".to_owned()];
        let options = options
            .into_iter()
            .flat_map(|option| ["-o".to_owned(), option]);
        head.into_iter().chain(options).collect()
    }
}

async fn keygen(dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    let mut command = Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f"])
        .arg(&path);
    assert!(command.status().await.unwrap().success());
    path
}

async fn shell(line: &str) -> Output {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg(line)
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    command.output().await.unwrap()
}

/// Reads what a client writes until `text` was in it.
async fn until(client: &mut BackendChannel, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        match client.source.next().await {
            Some(ChannelEvent::Data(data)) => seen.push_str(&String::from_utf8_lossy(&data)),
            other => panic!("{other:?} after {seen:?}"),
        }
    }
    seen
}

fn settings() -> LocalSettings {
    let mut settings = LocalSettings::new("/");
    settings.shell = Some("/bin/sh".into());
    settings.grace = Duration::from_millis(200);
    settings
}

fn sshd() -> Option<Sshd> {
    if Path::new(SSHD).exists() {
        return Some(Sshd::new(SSHD));
    }
    eprintln!("SKIP: {SSHD} is not installed, nothing was tested");
    None
}

async fn user() -> String {
    let output = Command::new("id").arg("-un").output().await.unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether a process runs; one that waits to be reaped does not.
fn lives(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat"))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(") ")
                .map(|(_, rest)| !rest.starts_with(['Z', 'X']))
        })
        .unwrap_or(false)
}

/// The children of this program that are an sshd.
fn sshds() -> Vec<u32> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|ids| {
            ids.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<_>>()
        })
        .filter(|id| {
            std::fs::read_to_string(format!("/proc/{id}/comm"))
                .is_ok_and(|name| name.contains("sshd"))
        })
        .collect()
}

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), test)
        .await
        .expect("the test ends in time")
}

const SSH: &str = "/usr/bin/ssh";
const SSHD: &str = "/usr/sbin/sshd";
const BULK: usize = 64 << 20;
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
