//! What is left behind by other ways than jobs, and what a wipe does to it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use buildlet_proto::api::SshRequest;
use buildlet_proto::client::{Client, Connect};
use buildlet_proto::jobs::JobRequest;
use buildlet_proto::{Buildlet, ErrorStatus, RelPath};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

use super::files::wait_for;
use super::jobs::processes;
use super::programs::listening;
use super::support::Served;

/// A buildlet in a process of its own, and a key that its SSH server admits.
struct Alone {
    child: tokio::process::Child,
    client: Client<At>,
    port: u16,
    dir: std::path::PathBuf,
    _bridge: AbortOnDropHandle<()>,
}

#[derive(Clone, Copy)]
struct At(SocketAddr);

impl Connect for At {
    type Stream = TcpStream;

    fn connect(&self) -> impl Future<Output = std::io::Result<TcpStream>> + Send {
        TcpStream::connect(self.0)
    }
}

impl Alone {
    async fn start(dir: &Path) -> Self {
        let key = dir.join("id");
        if !key.exists() {
            let mut keygen = Command::new("ssh-keygen");
            keygen
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(&key);
            assert!(keygen.status().await.unwrap().success());
        }
        let public = std::fs::read_to_string(dir.join("id.pub")).unwrap();
        let (child, address) = listening(dir, |_| {}).await;
        let client = Client::new(At(address.parse().unwrap())).with_password("secret");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bridge = tokio::spawn(bridge(listener, client.clone(), public));
        Self {
            child,
            client,
            port,
            dir: dir.to_owned(),
            _bridge: AbortOnDropHandle::new(bridge),
        }
    }

    fn ssh(&self, script: &str) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-F",
            "/dev/null",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "BatchMode=yes",
        ])
        .args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-p",
        ])
        .arg(self.port.to_string())
        .arg("-i")
        .arg(self.dir.join("id"))
        .args(["user@127.0.0.1", script])
        .stdin(Stdio::null())
        .kill_on_drop(true);
        ssh
    }

    async fn leave(&self, script: &str) {
        let left = self.ssh(script).status();
        let left = tokio::time::timeout(Duration::from_secs(20), left).await;
        assert!(left.unwrap().unwrap().success());
    }

    async fn wipe(&self) {
        let wiped = self.client.remove_all(vec![RelPath::ROOT]);
        let wiped = tokio::time::timeout(Duration::from_secs(20), wiped).await;
        wiped.unwrap().unwrap();
    }
}

/// Serves the machine's SSH server on a port.
async fn bridge(listener: TcpListener, client: Client<At>, key: String) {
    loop {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let ssh = SshRequest::new("user", key.trim().to_owned());
        let mut machine = client.connect_ssh(ssh).await.unwrap().stream;
        tokio::spawn(async move { drop(copy_bidirectional(&mut tcp, &mut machine).await) });
    }
}

/// Starts a process in the background by way of `how`, and goes on once it runs there. `N` tells it from those of other
/// tests.
fn background(how: &str, n: u32) -> String {
    format!(
        "({how} /bin/sh -c 'echo >up.{n}; exec sleep {n}' </dev/null >/dev/null 2>&1 &); \
         until test -e up.{n}; do sleep 0.01; done; "
    )
}

fn alive(sleeps: &[&str]) -> usize {
    sleeps.iter().map(|sleep| processes(sleep)).sum()
}

#[tokio::test]
async fn what_an_ssh_session_leaves_behind_lives_to_the_wipe_and_not_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Alone::start(dir.path()).await;
    // In the background, as a daemon, and as one that hides its environment.
    let script = [
        background("", 9401),
        background("setsid", 9402),
        background("env -i setsid", 9403),
    ];
    machine.leave(&script.concat()).await;
    let left = ["sleep 9401", "sleep 9402", "sleep 9403"];
    wait_for("they live", || alive(&left) == 3).await;
    machine.wipe().await;
    assert_eq!(alive(&left), 0);
}

#[tokio::test]
async fn a_wipe_ends_the_sessions_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Alone::start(dir.path()).await;
    let mut ssh = machine.ssh("trap '' HUP TERM; sleep 9411").spawn().unwrap();
    wait_for("the session runs", || alive(&["sleep 9411"]) == 1).await;
    machine.wipe().await;
    assert_eq!(alive(&["sleep 9411"]), 0);
    let ended = tokio::time::timeout(Duration::from_secs(20), ssh.wait()).await;
    assert!(!ended.unwrap().unwrap().success());
    // The next user's are served.
    machine.leave("true").await;
}

#[tokio::test]
async fn a_daemon_whose_supervisor_was_killed_does_not_survive_the_wipe() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Alone::start(dir.path()).await;
    let script = background("setsid", 9421) + "kill -9 $PPID";
    let job = JobRequest::shell(script);
    machine.client.start_job(job, None).await.unwrap();
    wait_for("it runs", || alive(&["sleep 9421"]) == 1).await;
    machine.wipe().await;
    assert_eq!(alive(&["sleep 9421"]), 0);
}

#[tokio::test]
async fn the_next_buildlet_kills_what_a_killed_one_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Alone::start(dir.path()).await;
    machine.leave(&background("setsid", 9431)).await;
    machine.child.kill().await.unwrap();
    wait_for("it lives", || alive(&["sleep 9431"]) == 1).await;
    let _next = Alone::start(dir.path()).await;
    assert_eq!(alive(&["sleep 9431"]), 0);
}

#[tokio::test]
async fn a_buildlet_that_ends_leaves_nothing_of_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let mut machine = Alone::start(dir.path()).await;
    machine.leave(&background("env -i setsid", 9441)).await;
    wait_for("it lives", || alive(&["sleep 9441"]) == 1).await;
    let pid = i32::try_from(machine.child.id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), machine.child.wait()).await;
    assert!(ended.unwrap().unwrap().success());
    assert_eq!(alive(&["sleep 9441"]), 0);
}

#[tokio::test]
async fn an_upload_that_outlives_a_wipe_is_refused_and_leaves_nothing() {
    let served = Served::start().await;
    let address = served.address();
    let client = Client::new(move || TcpStream::connect(address)).with_password("secret");
    served.ask("PUT", "/write?path=d/f&mode=420", "hello").await;
    let mut archive = Vec::new();
    let mut reader = client.read_tgz(RelPath::ROOT).await.unwrap();
    tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut archive)
        .await
        .unwrap();
    let (mut sender, receiver) = tokio::io::duplex(64);
    let (first, second) = archive.split_at(archive.len() - 8);
    let upload = client.write_tgz(RelPath::ROOT, Box::pin(receiver));
    let wipe = async {
        tokio::io::AsyncWriteExt::write_all(&mut sender, first)
            .await
            .unwrap();
        let begun = || {
            let names = std::fs::read_dir(served.work()).unwrap();
            names.count() == 2
        };
        wait_for("it is being unpacked", begun).await;
        client.remove_all(vec![RelPath::ROOT]).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut sender, second)
            .await
            .unwrap();
        drop(sender);
    };
    let (uploaded, ()) = tokio::join!(upload, wipe);
    let error = uploaded.unwrap_err();
    assert_eq!(error.status(), ErrorStatus::CONFLICT, "{error}");
    let left = std::fs::read_dir(served.work()).unwrap().count();
    assert_eq!(left, 0);
}
