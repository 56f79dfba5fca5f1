//! gomote against a coordinator that is a few lines of HTTP over TLS in the same process.

#![expect(clippy::unwrap_used, reason = "all of it is a test, helpers as well")]

mod coordinator;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clap::Parser;
use gomote::{Args, Exit, Streams};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::Command;

use coordinator::Coordinator;

#[tokio::test]
async fn create_prints_the_name_and_nothing_else() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["create", "linux"], b"").await;
    assert_eq!(done.output(), (0, "user-al-linux-0\n", ""));
    let done = gomote(&coordinator, &["create", "linux", "-o", "json"], b"").await;
    let json: serde_json::Value = serde_json::from_slice(&done.output).unwrap();
    assert_eq!(json["BuilderType"], "linux");
}

#[tokio::test]
async fn an_unknown_builder_type_is_not_found() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["create", "vax"], b"").await;
    let want = "gomote: creating vax: unknown builder type in 'builderType' parameter\n";
    assert_eq!(done.output(), (3, "", want));
}

#[tokio::test]
async fn instances_are_listed_in_three_forms() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["list"], b"").await;
    let text = String::from_utf8(done.output).unwrap();
    assert!(
        text.starts_with("user-al-linux-0\tlinux\thost-linux\texpires in 29m"),
        "{text}"
    );
    let (_, restarted) = text.split_once("\trestarted 2m").unwrap();
    assert!(
        restarted.ends_with(" ago, with an empty work directory\n"),
        "{text}"
    );
    assert!(!restarted.contains("restarted"), "{text}");
    let done = gomote(&coordinator, &["list", "-o", "name"], b"").await;
    assert_eq!(
        done.output(),
        (0, "user-al-linux-0\nuser-al-openbsd-0\n", "")
    );
    let done = gomote(&coordinator, &["list", "-o", "json"], b"").await;
    let json: serde_json::Value = serde_json::from_slice(&done.output).unwrap();
    assert_eq!(json[1]["Name"], "user-al-openbsd-0");
}

#[tokio::test]
async fn types_are_listed_in_three_forms() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["types"], b"").await;
    let line = "linux\thost-linux\t1 of 2 idle\t3 waiting\n";
    assert_eq!(done.output(), (0, line, ""));
    let done = gomote(&coordinator, &["types", "-o", "name"], b"").await;
    assert_eq!(done.output(), (0, "linux\n", ""));
    let done = gomote(&coordinator, &["types", "-o", "json"], b"").await;
    let json: serde_json::Value = serde_json::from_slice(&done.output).unwrap();
    assert_eq!(json[0]["Idle"], 1);
}

#[tokio::test]
async fn run_exits_as_the_command_does() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["run", "linux", "--", "exit", "42"], b"").await;
    assert_eq!(
        done.output(),
        (42, "cmd=exit&mode=sys&dir=&cmdArg=42&debug=false", "")
    );
    let done = gomote(&coordinator, &["run", "linux", "killed"], b"").await;
    assert_eq!(done.exit, 137);
    let done = gomote(&coordinator, &["run", "linux", "nonesuch"], b"").await;
    assert_eq!(done.exit, 127);
    assert!(
        done.errors().contains("could not be started"),
        "{}",
        done.errors()
    );
}

#[tokio::test]
async fn a_run_that_is_cut_off_is_our_failure() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["run", "linux", "cut"], b"").await;
    assert_eq!(done.exit, 255);
    assert!(
        done.errors()
            .contains("running cut on user-al-linux-0: the connection was cut"),
        "{}",
        done.errors()
    );
}

#[tokio::test]
async fn a_run_streams_and_an_interrupt_ends_it() {
    let coordinator = Coordinator::start().await;
    let args = parse(&["run", "linux", "hang"], &coordinator.config());
    let (sender, seen) = std::sync::mpsc::sync_channel::<Vec<u8>>(1);
    let (mut output, mut errors) = (Sent(sender), Vec::new());
    // The interrupt comes only once the output has: it is not held back until the command ends.
    let interrupt = async {
        tokio::task::spawn_blocking(move || assert_eq!(seen.recv().unwrap(), b"before"))
            .await
            .unwrap();
    };
    let streams = streams(b"", &mut output, &mut errors);
    let exit = within_seconds(gomote::run(args, streams, interrupt)).await;
    assert_eq!(exit, Exit::INTERRUPTED);
    within_seconds(coordinator.hung_up.notified()).await;
}

#[tokio::test]
async fn an_interrupt_before_the_id_is_known_kills_the_command() {
    let coordinator = Coordinator::start().await;
    let args = parse(&["run", "linux", "slow"], &coordinator.config());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let streams = streams(b"", &mut output, &mut errors);
    let exit = within_seconds(gomote::run(args, streams, coordinator.saw("/jobs "))).await;
    assert_eq!(exit, Exit::INTERRUPTED);
    let (path, signal) = coordinator.last();
    assert_eq!(path, "/jobs/0000000000/signal");
    assert_eq!(signal, b"signal=KILL&whole=1");
}

#[tokio::test]
async fn files_are_put_with_their_permissions() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tool");
    std::fs::write(&file, "content").unwrap();
    set_mode(&file, 0o751);
    let file = file.to_str().unwrap();
    assert_eq!(
        gomote(&coordinator, &["put", "linux", file], b"")
            .await
            .output(),
        (0, "", "")
    );
    assert_eq!(
        coordinator.last(),
        ("/write?path=tool&mode=489".to_owned(), b"content".to_vec())
    );
    gomote(
        &coordinator,
        &["put", "-mode", "600", "linux", "-", "a/b"],
        b"from a pipe",
    )
    .await;
    assert_eq!(
        coordinator.last(),
        (
            "/write?path=a%2Fb&mode=384".to_owned(),
            b"from a pipe".to_vec()
        )
    );
}

#[tokio::test]
async fn archives_are_put_and_directories_packed() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    let packed = dir.path().to_str().unwrap();
    assert_eq!(
        gomote(
            &coordinator,
            &["puttar", "--dir", "src", "linux", packed],
            b""
        )
        .await
        .output(),
        (0, "", "")
    );
    let (request, archive) = coordinator.last();
    assert_eq!(request, "/writetgz?dir=src");
    assert_eq!(archive[..2], [0x1f, 0x8b]);
    gomote(&coordinator, &["puttar", "linux", "-"], b"any bytes").await;
    assert_eq!(
        coordinator.last(),
        ("/writetgz?dir=.".to_owned(), b"any bytes".to_vec())
    );
}

#[tokio::test]
async fn an_archive_is_whole_or_not_there() {
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.tgz");
    let path = file.to_str().unwrap();
    assert_eq!(
        gomote(&coordinator, &["gettar", "-o", path, "linux"], b"")
            .await
            .output(),
        (0, "", "")
    );
    assert_eq!(std::fs::read(&file).unwrap(), b"archive");
    assert_eq!(
        gomote(&coordinator, &["gettar", "linux"], b"")
            .await
            .output(),
        (0, "archive", "")
    );

    let done = gomote(
        &coordinator,
        &["gettar", "--dir", "cut", "-o", path, "linux"],
        b"",
    )
    .await;
    assert_eq!(done.exit, 1, "{}", done.errors());
    assert_eq!(std::fs::read(&file).unwrap(), b"archive");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn an_archive_does_not_go_to_a_terminal() {
    let coordinator = Coordinator::start().await;
    let args = parse(&["gettar", "linux"], &coordinator.config());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let streams = Streams {
        input_is_terminal: false,
        output_is_terminal: true,
        ..streams(b"", &mut output, &mut errors)
    };
    let exit = within_seconds(gomote::run(args, streams, std::future::pending())).await;
    assert_eq!(exit, Exit::USAGE);
    assert!(output.is_empty() && String::from_utf8(errors).unwrap().contains("-o FILE"));
}

#[tokio::test]
async fn the_small_commands_do_what_they_say() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["ls", "-R", "linux", "bin"], b"").await;
    assert_eq!(done.output(), (0, "-rw-r--r--\tbin/x\n", ""));
    assert_eq!(
        coordinator.last().0,
        "/ls?dir=bin&recursive=true&digest=false"
    );
    assert_eq!(
        gomote(&coordinator, &["rm", "linux", "a", "b"], b"")
            .await
            .output(),
        (0, "", "")
    );
    assert_eq!(
        coordinator.last(),
        ("/removeall".to_owned(), b"path=a&path=b".to_vec())
    );
    assert_eq!(
        gomote(&coordinator, &["ping", "linux"], b"").await.output(),
        (0, "", "")
    );
    assert_eq!(
        gomote(&coordinator, &["destroy", "linux"], b"")
            .await
            .output(),
        (0, "", "")
    );
    assert_eq!(coordinator.last().0, "/halt");
}

#[tokio::test]
async fn paths_do_not_leave_the_work_directory() {
    let coordinator = Coordinator::start().await;
    for args in [
        &["rm", "linux", "../x"][..],
        &["ls", "linux", "/etc"],
        &["put", "linux", "-", "a/../../b"],
        &["gettar", "--dir", "..", "linux"],
    ] {
        let done = gomote(&coordinator, args, b"").await;
        assert_eq!(done.exit, 2, "{args:?}");
        assert!(
            done.errors().contains("work directory"),
            "{}",
            done.errors()
        );
    }
}

#[tokio::test]
async fn strangers_are_told_what_to_check() {
    let coordinator = Coordinator::start().await;
    let done = gomote(&coordinator, &["--user", "eve", "list"], b"").await;
    assert_eq!(done.exit, 4);
    assert!(
        done.errors()
            .contains("bad username or password\ngomote: check the user and the token"),
        "{}",
        done.errors()
    );
}

#[tokio::test]
async fn another_pin_is_refused_before_the_token_is_sent() {
    let coordinator = Coordinator::start().await;
    let pin = format!("sha256:{}", "0".repeat(64));
    let done = gomote(&coordinator, &["--pin", &pin, "list"], b"").await;
    assert_eq!(done.exit, 1);
    assert!(
        done.errors().contains("does not match the pin sha256:0000"),
        "{}",
        done.errors()
    );
    assert_eq!(coordinator.requests(), 0);
}

#[tokio::test]
async fn a_coordinator_that_does_not_run_is_called_so() {
    let coordinator = Coordinator::start().await;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = format!("https://localhost:{}", free.port());
    let done = gomote(
        &coordinator,
        &["--server", &server, "run", "linux", "x"],
        b"",
    )
    .await;
    assert_eq!(done.exit, 255);
    let errors = done.errors();
    assert!(
        errors.contains("cannot be reached")
            && errors.contains(&server[8..])
            && errors.contains("check --server"),
        "{errors}"
    );
}

#[tokio::test]
async fn ssh_is_shown_with_the_gateways_key() {
    let coordinator = Coordinator::start().await;
    let cache = tempfile::tempdir().unwrap();
    let output = program(&coordinator)
        .env("XDG_CACHE_HOME", cache.path())
        .args(["ssh", "-n", "linux"])
        .output()
        .await
        .unwrap();
    let known_hosts = cache.path().join("gomote/known_hosts.localhost.2022");
    let want = format!(
        "ssh -p 2022 -o StrictHostKeyChecking=yes -o 'UserKnownHostsFile=\"{}\"' user-al-linux-0@localhost\n",
        known_hosts.display()
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), want);
    assert_eq!(
        std::fs::read_to_string(known_hosts).unwrap(),
        "[localhost]:2022 ssh-ed25519 AAAA\n"
    );
}

#[tokio::test]
async fn instances_are_hosts_of_ssh() {
    let coordinator = Coordinator::start().await;
    let cache = tempfile::tempdir().unwrap();
    let config = async |args: &[&str]| {
        let output = program(&coordinator)
            .env("XDG_CACHE_HOME", cache.path())
            .arg("ssh-config")
            .args(args)
            .output();
        String::from_utf8(output.await.unwrap().stdout).unwrap()
    };
    let host = |name: &str| {
        let file = cache.path().join("gomote/known_hosts.localhost.2022");
        format!(
            "Host {name}\n  HostName localhost\n  Port 2022\n  User {name}\n  StrictHostKeyChecking yes\n  \
             UserKnownHostsFile \"{}\"\n",
            file.display()
        )
    };
    let (linux, openbsd) = (host("user-al-linux-0"), host("user-al-openbsd-0"));
    assert_eq!(config(&[]).await, format!("{linux}\n{openbsd}"));
    assert_eq!(config(&["open"]).await, openbsd);
}

#[tokio::test]
async fn the_program_becomes_ssh_and_exits_as_it_does() {
    use std::os::unix::fs::PermissionsExt;
    let coordinator = Coordinator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let fake = dir.path().join("ssh");
    std::fs::write(
        &fake,
        "#!/bin/sh\nfor arg; do last=$arg; done\necho \"$last\"\nexit 43\n",
    )
    .unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = program(&coordinator)
        .env("XDG_CACHE_HOME", dir.path())
        .env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()))
        .args(["ssh", "linux", "--", "echo hi"])
        .output()
        .await
        .unwrap();
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(43), &b"echo hi\n"[..])
    );
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let coordinator = Coordinator::start().await;
    let mut child = program(&coordinator)
        .args(["run", "linux", "endless"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_exact(&mut [0; 4]).await.unwrap();
    drop(lines);
    let status = within_seconds(child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn wrong_arguments_are_a_usage_error() {
    let coordinator = Coordinator::start().await;
    for args in [
        &["fly"][..],
        &["run", "linux"],
        &["put", "--mode", "999", "linux", "x"],
        &[],
    ] {
        let output = program(&coordinator).args(args).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

/// How a run of gomote ended.
struct Done {
    exit: u8,
    output: Vec<u8>,
    errors: Vec<u8>,
}

impl Done {
    fn output(&self) -> (u8, &str, &str) {
        (
            self.exit,
            std::str::from_utf8(&self.output).unwrap(),
            self.errors(),
        )
    }

    fn errors(&self) -> &str {
        std::str::from_utf8(&self.errors).unwrap()
    }
}

async fn gomote(coordinator: &Coordinator, args: &[&str], input: &'static [u8]) -> Done {
    let args = parse(args, &coordinator.config());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let streams = streams(input, &mut output, &mut errors);
    let exit = within_seconds(gomote::run(args, streams, std::future::pending())).await;
    Done {
        exit: exit.code(),
        output,
        errors,
    }
}

fn parse(args: &[&str], config: &Path) -> Args {
    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    let given = ["gomote".as_ref(), "--config".as_ref(), config.as_os_str()];
    let args = gomote::accept_go_flags(args.iter().map(Into::into));
    Cli::parse_from(given.into_iter().map(ToOwned::to_owned).chain(args)).args
}

fn streams<'a>(
    input: &'static [u8],
    output: &'a mut (dyn std::io::Write + Send),
    errors: &'a mut (dyn std::io::Write + Send),
) -> Streams<'a> {
    Streams {
        input: Box::pin(input),
        output,
        input_is_terminal: false,
        output_is_terminal: false,
        errors,
        errors_is_terminal: false,
    }
}

/// The real program, with no environment but its configuration.
fn program(coordinator: &Coordinator) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gomote"));
    command
        .env_clear()
        .env("GOMOTE_CONFIG", coordinator.config())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn within_seconds<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), Box::pin(test))
        .await
        .expect("the test ends within twenty seconds")
}

/// Hands on what is written.
struct Sent(std::sync::mpsc::SyncSender<Vec<u8>>);

impl std::io::Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
