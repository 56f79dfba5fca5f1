//! The program itself.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::files::wait_for;
use super::jobs::processes;
use super::support::AUTHORIZATION;

pub(crate) fn program(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buildlet"));
    command
        .args(["--workdir".as_ref(), dir.join("work").as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// The program, listening, with the password `secret`, and its address.
pub(crate) async fn listening(
    dir: &std::path::Path,
    settle: impl FnOnce(&mut Command),
) -> (Child, String) {
    let mut program = program(dir);
    program
        .args(["--listen", "127.0.0.1:0", "--password-file"])
        .arg(password_file(dir));
    settle(&mut program);
    let mut child = program.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.next_line().await.unwrap().unwrap();
    let address = address.strip_prefix("listening on http://").unwrap();
    (child, address.to_owned())
}

#[tokio::test]
async fn listen_mode_makes_a_password_and_halts_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = program(dir.path())
        .args(["--listen", "127.0.0.1:0"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.next_line().await.unwrap().unwrap();
    let address = address
        .strip_prefix("listening on http://")
        .unwrap()
        .to_owned();
    let password = lines.next_line().await.unwrap().unwrap();
    assert_eq!(password.strip_prefix("password ").unwrap().len(), 32);

    let mut tcp = TcpStream::connect(&address).await.unwrap();
    tcp.write_all(b"POST /halt HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut reply = String::new();
    tcp.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");

    let password = password.strip_prefix("password ").unwrap();
    let credentials = base64(format!("x:{password}").as_bytes());
    let mut tcp = TcpStream::connect(&address).await.unwrap();
    let halt = format!(
        "POST /halt HTTP/1.1\r\nHost: \r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
    );
    tcp.write_all(halt.as_bytes()).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait())
        .await
        .unwrap();
    assert!(ended.unwrap().success());
}

#[tokio::test]
async fn a_directory_of_somebody_else_is_not_wiped() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("work")).unwrap();
    std::fs::write(dir.path().join("work/thesis"), "dear").unwrap();
    let output = program(dir.path())
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("buildlet: ") && text.contains("was not made by a buildlet"),
        "{text}"
    );
    assert!(dir.path().join("work/thesis").exists());
}

#[tokio::test]
async fn a_key_file_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--coordinator",
        "localhost:1",
        "--host-type",
        "t",
        "--key-file",
        "/none",
        "--pin",
    ];
    let pin = format!("sha256:{}", "0".repeat(64));
    let output = program(dir.path())
        .args(args)
        .arg(pin)
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("reading the machine's key from /none"),
        "{text}"
    );
    assert!(
        !dir.path().join("work").exists(),
        "nothing is made before the arguments are checked"
    );
}

#[tokio::test]
async fn a_buildlet_that_is_killed_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, address) = listening(dir.path(), |_| {}).await;
    let body = r#"{"shell":"(setsid sleep 9302 &) ; exec sleep 9301"}"#;
    let request = format!(
        "POST /jobs HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: {}\r\n\
         Authorization: Basic {AUTHORIZATION}\r\n\r\n{body}",
        body.len()
    );
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    tcp.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
    let alive = || processes("sleep 9301") + processes("sleep 9302");
    wait_for("both run", || alive() == 2).await;
    child.kill().await.unwrap();
    wait_for("both are gone", || alive() == 0).await;
}

#[tokio::test]
async fn the_unit_of_systemd_has_options_that_there_are() {
    let unit = include_str!("../../dist/buildlet.service").replace("\\\n", " ");
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let args = start.unwrap().split_whitespace().skip(1);
    let pin = format!("sha256:{}", "0".repeat(64));
    let args = args.filter(|arg| *arg != "$OPTIONS").map(|arg| match arg {
        "${PIN}" => pin.as_str(),
        arg => arg,
    });
    // Whatever is not understood is refused before the help is given.
    let mut help = Command::new(env!("CARGO_BIN_EXE_buildlet"));
    let output = help.args(args).arg("--help").output().await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.is_empty(), "{text}");
}

#[tokio::test]
async fn the_subcommand_for_supervisors_is_not_shown() {
    let output = Command::new(env!("CARGO_BIN_EXE_buildlet"))
        .arg("--help")
        .output()
        .await
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(
        help.contains("--keep-jobs") && !help.contains("supervise"),
        "{help}"
    );
    let mut supervise = Command::new(env!("CARGO_BIN_EXE_buildlet"));
    supervise.arg("supervise").stdin(Stdio::null());
    let ended = supervise.status().await.unwrap();
    assert_eq!(
        ended.code(),
        Some(2),
        "there is nobody to tell it what to do"
    );
}

fn password_file(dir: &std::path::Path) -> std::path::PathBuf {
    let file = dir.join("password");
    std::fs::write(&file, "secret").unwrap();
    file
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let value = three
            .iter()
            .fold(0_usize, |value, &byte| value << 8 | usize::from(byte))
            << (8 * (3 - three.len()));
        for position in 0..4 {
            let letter = LETTERS[value >> (18 - 6 * position) & 63];
            text.push(if position <= three.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}
