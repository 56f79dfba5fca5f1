//! The SSH side, by the client of the library.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::backend::{
    Backend, BackendChannel, BackendConn, BackendError, ChannelEvent, ChannelRequest, ChannelSource,
};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lease_is_told_to_ssh_sessions_and_closes_them() {
    in_time(async {
        let farm = ssh_farm("").await;
        let _machine = farm.machine_with("m1", "builtin").await;
        let alice = farm.client("alice", ALICE);
        let instance = alice.create("type", |_| {}).await.unwrap();
        let (_conn, mut channel) = running_session(&farm, &instance.name).await;

        let buildlet = alice.instance(&instance.name).unwrap();
        buildlet.halt().await.unwrap();
        let halted = Instant::now();
        let seen = read_out(&mut *channel.source).await;
        let sentence = "instance \"user-alice-type-0\" was destroyed\n";
        assert_eq!(seen, (String::new(), sentence.to_owned(), Some(255)));
        assert!(halted.elapsed() < Duration::from_secs(10));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_a_whole_session() {
    in_time(async {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("ssh.log");
        let farm = ssh_farm(&format!("[ssh]\naudit_log = {log:?}\n")).await;
        let _machine = farm.machine_with("m1", "builtin").await;
        let alice = farm.client("alice", ALICE);
        let instance = alice.create("type", |_| {}).await.unwrap();
        let (conn, mut channel) = session(&farm, &instance.name, "exit 42").await;
        assert_eq!(read_out(&mut *channel.source).await.2, Some(42));
        drop((conn, channel));
        let lines = loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.contains("\"close\"") {
                break text;
            }
            tokio::task::yield_now().await;
        };
        let mut events = Vec::new();
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
            let event = line["event"].as_str().unwrap().to_owned();
            assert!(event == "opened" || line["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
            match event.as_str() {
                "login" => {
                    assert_eq!(
                        (&line["user"], &line["login"]),
                        (&"alice".into(), &instance.name.as_str().into())
                    );
                    assert!(
                        line["key"].as_str().unwrap().starts_with("SHA256:"),
                        "{line}"
                    );
                }
                "resolved" => assert_eq!(line["machine"], instance.name.as_str()),
                "start" => assert_eq!(
                    (&line["command"], &line["done"]),
                    (&"exit 42".into(), &true.into())
                ),
                "exit" => assert_eq!(line["status"], 42),
                "close" => assert_eq!(line["connection"], 0),
                _ => {}
            }
            events.push(event);
        }
        let want = [
            "opened", "login", "resolved", "session", "start", "exit", "close",
        ];
        assert_eq!(events, want);
    })
    .await;
}

/// A farm whose alice may log in with the keys that [`session`] makes.
pub(crate) async fn ssh_farm(more: &str) -> Farm {
    let keys = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let users = format!("key_files = [{:?}]\n", &*keys);
    let mut farm = Farm::start_with(&users, more).await;
    farm.alice_keys = Some(keys);
    farm
}

/// Runs a command in a session of alice's.
pub(crate) async fn session(
    farm: &Farm,
    login: &str,
    command: &str,
) -> (Box<dyn BackendConn>, BackendChannel) {
    let alice = Alice {
        address: farm.addresses.ssh,
        keys: farm.alice_keys.as_ref().unwrap().to_path_buf(),
        login: login.to_owned(),
        host_key: farm.addresses.ssh_host_key.clone(),
    };
    let conn = SshBackend::new(Arc::new(alice)).connect().await.unwrap();
    let channel = conn.open_session().await.unwrap();
    let command = ChannelRequest::Exec(command.to_owned().into());
    channel.control.request(command).await.unwrap();
    (conn, channel)
}

/// A session of alice's with a command that says that it runs, and goes on.
pub(crate) async fn running_session(
    farm: &Farm,
    login: &str,
) -> (Box<dyn BackendConn>, BackendChannel) {
    let (conn, mut channel) = session(farm, login, "echo running; sleep 600").await;
    let running = ChannelEvent::Data("running\n".into());
    assert_eq!(channel.source.next().await, Some(running));
    (conn, channel)
}

/// Standard output, standard error and the exit status.
pub(crate) async fn read_out(source: &mut dyn ChannelSource) -> (String, String, Option<u32>) {
    let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(event) = source.next().await {
        match event {
            ChannelEvent::Data(data) => out.extend_from_slice(&data),
            ChannelEvent::Stderr(data) => err.extend_from_slice(&data),
            ChannelEvent::ExitStatus(code) => status = Some(code),
            ChannelEvent::Eof | ChannelEvent::ExitSignal { .. } | _ => {}
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err), status)
}

/// Logs in to the gateway, each time with a new key that is added to hers.
struct Alice {
    address: SocketAddr,
    keys: PathBuf,
    login: String,
    host_key: String,
}

#[async_trait]
impl SshDialer for Alice {
    async fn dial(&self, authorized_key: &str) -> Result<SshTarget, BackendError> {
        let mut keys = std::fs::File::options()
            .append(true)
            .open(&self.keys)
            .unwrap();
        writeln!(keys, "{authorized_key}").unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        Ok(SshTarget::new(stream, &self.login).with_host_key(&self.host_key))
    }
}
