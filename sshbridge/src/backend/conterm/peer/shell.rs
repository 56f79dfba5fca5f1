//! What a script of rc would do, done with the system's own shell: a process between the client's files.

use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

use super::mount::Mount;

/// Runs what a script starts, and reports how it ended.
pub(super) async fn run(mount: Mount, script: &[u8]) -> Option<()> {
    let script = String::from_utf8_lossy(script).into_owned();
    let pipes = script.contains("</mnt/term/fd/0");
    let [input, output, error] = if pipes {
        ["fd/0", "fd/1", "fd/2"]
    } else {
        ["dev/cons"; 3]
    };
    let mount = Arc::new(mount);
    let input = mount.open(input, 0).await?;
    let output = mount.open(output, 0x11).await?;
    let error = mount.open(error, 0x11).await?;
    let mut shell = Command::new("/bin/sh");
    match command(&script) {
        Some(command) => shell.arg("-c").arg(command),
        None => shell.arg("-s"),
    };
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = shell.process_group(0).kill_on_drop(true).spawn().ok()?;
    let mut stdin = child.stdin.take()?;
    let reading = mount.clone();
    let _input = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(data) = reading.read(input, 0).await {
            if data.is_empty() || stdin.write_all(&data).await.is_err() {
                return;
            }
        }
    }));
    let copies = [
        copy(child.stdout.take()?, mount.clone(), output),
        copy(child.stderr.take()?, mount.clone(), error),
    ];
    let group = child.id()?;
    let _notes = AbortOnDropHandle::new(tokio::spawn(pass_notes(mount.clone(), group)));
    let status = child.wait().await.ok()?;
    for copy in copies {
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), copy).await;
    }
    let text = match status.code() {
        Some(0) => String::new(),
        Some(code) => format!("rc 703: {code}"),
        None => "rc 703: interrupt".to_owned(),
    };
    let file = mount.open("env/rstatus", 0x11).await?;
    if !text.is_empty() {
        mount.write(file, text.as_bytes()).await?;
    }
    mount.clunk(file).await
}

/// Passes the client's notes on to a group of processes, which hangs up when the client is gone.
async fn pass_notes(mount: Arc<Mount>, group: u32) {
    let file = mount.open("mnt/cpunote/data", 0).await;
    if file.is_none() && mount.is_alive() {
        return; // a client that has no notes
    }
    let mut gone = false;
    while !gone {
        let note = match file {
            Some(file) => mount.read(file, 0).await,
            None => None,
        };
        gone = note.is_none();
        let signal = match note.as_deref() {
            // Not INT or HUP, which are ignored by all that was started in the background or by nohup, as tests may have been.
            Some(b"interrupt" | b"hangup") | None => "-TERM",
            Some(b"kill") => "-KILL",
            Some(_) => return,
        };
        let kill = format!("kill {signal} -{group}");
        let _ = Command::new("/bin/sh").args(["-c", &kill]).status().await;
    }
}

fn copy(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mount: Arc<Mount>,
    to: u32,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = vec![0; 8192];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 || mount.write(to, &buffer[..count]).await.is_none() {
                return;
            }
        }
    }))
}

/// The command of a script, without rc's quotes; `None` for a shell.
fn command(script: &str) -> Option<String> {
    if let Some(command) = script.strip_prefix('!') {
        return Some(command.split('\0').next()?.to_owned()); // a client of `cpu` other than ours
    }
    let (_, quoted) = script.split_once(" rc -lc ")?;
    let Some(quoted) = quoted.strip_prefix('\'') else {
        return Some(quoted.split([' ', '}']).next()?.to_owned());
    };
    let mut command = String::new();
    let mut rest = quoted.chars().peekable();
    while let Some(character) = rest.next() {
        if character == '\'' && rest.next_if_eq(&'\'').is_none() {
            break;
        }
        command.push(character);
    }
    Some(command)
}
