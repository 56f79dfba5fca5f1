//! `demo --check`: the whole path once, with the real gomote and the real ssh.

use std::io::Write;
use std::process::{ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::server::Addresses;

use super::files::DemoFiles;
use super::{BUILDER_TYPE, FIRST_INSTANCE, USER};

/// Goes through every step, prints a line for each with its time, and fails if one did.
pub(super) async fn run(
    files: &DemoFiles,
    addresses: &Addresses,
    out: &mut (impl Write + Send),
) -> anyhow::Result<ExitCode> {
    let check = Check { files, addresses };
    let started = Instant::now();
    let mut failed = 0;
    for step in STEPS {
        let began = Instant::now();
        let result = match tokio::time::timeout(STEP_TIME, check.step(step)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("it took longer than {STEP_TIME:?}")),
        };
        let ms = began.elapsed().as_millis();
        match result {
            Ok(()) => writeln!(out, "ok    {ms:>5} ms  {}", step.title())?,
            Err(error) => {
                failed += 1;
                writeln!(out, "FAIL  {ms:>5} ms  {}: {error:#}", step.title())?;
            }
        }
    }
    let passed = STEPS.len() - failed;
    writeln!(
        out,
        "\n{passed} passed, {failed} failed in {} ms",
        started.elapsed().as_millis()
    )?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Check<'a> {
    files: &'a DemoFiles,
    addresses: &'a Addresses,
}

impl Check<'_> {
    async fn step(&self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Create => self.create().await,
            Step::Put => self.put().await,
            Step::Run => self.run().await,
            Step::Ls => self.ls().await,
            Step::Gettar => self.gettar().await,
            Step::SshExec => self.ssh_exec().await,
            Step::SshPty => self.ssh_pty().await,
            Step::Destroy => self.destroy().await,
        }
    }

    async fn create(&self) -> anyhow::Result<()> {
        let name = stdout_of(&self.gomote(&["create", BUILDER_TYPE], b"").await?)?;
        ensure!(
            name.trim() == FIRST_INSTANCE,
            "expected {FIRST_INSTANCE}, got {name:?}"
        );
        Ok(())
    }

    async fn put(&self) -> anyhow::Result<()> {
        let script = b"#!/bin/sh\necho \"hello, $1\"\nexit 42\n";
        stdout_of(
            &self
                .gomote(
                    &["put", "--mode", "755", FIRST_INSTANCE, "-", "bin/hello"],
                    script,
                )
                .await?,
        )?;
        Ok(())
    }

    async fn run(&self) -> anyhow::Result<()> {
        let output = self
            .gomote(&["run", FIRST_INSTANCE, "bin/hello", USER], b"")
            .await?;
        expect(&output, "hello, gopher\n", 42)
    }

    async fn ls(&self) -> anyhow::Result<()> {
        let listing = stdout_of(&self.gomote(&["ls", FIRST_INSTANCE, "bin"], b"").await?)?;
        ensure!(
            listing.starts_with("-rwxr-xr-x\thello\t"),
            "got {listing:?}"
        );
        Ok(())
    }

    async fn gettar(&self) -> anyhow::Result<()> {
        let output = self
            .gomote(&["gettar", "--dir", "bin", FIRST_INSTANCE], b"")
            .await?;
        ensure!(output.status.success(), "{}", described(&output));
        ensure!(
            output.stdout.starts_with(&GZIP_MAGIC),
            "{} bytes that are no gzip",
            output.stdout.len()
        );
        Ok(())
    }

    async fn ssh_exec(&self) -> anyhow::Result<()> {
        let output = self.ssh(&[], "echo out; echo err >&2; exit 42").await?;
        expect(&output, "out\n", 42)?;
        ensure!(
            output.stderr == b"err\n",
            "standard error: {:?}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    async fn ssh_pty(&self) -> anyhow::Result<()> {
        let output = self.ssh(&["-tt"], "tty && stty size && exit 7").await?;
        ensure!(output.status.code() == Some(7), "{}", described(&output));
        ensure!(
            output.stdout.starts_with(b"/dev/"),
            "no terminal: {}",
            described(&output)
        );
        Ok(())
    }

    async fn destroy(&self) -> anyhow::Result<()> {
        stdout_of(&self.gomote(&["destroy", FIRST_INSTANCE], b"").await?)?;
        let left = stdout_of(&self.gomote(&["list"], b"").await?)?;
        ensure!(
            !left.contains(FIRST_INSTANCE),
            "it is still listed: {left:?}"
        );
        Ok(())
    }

    async fn gomote(&self, args: &[&str], input: &[u8]) -> anyhow::Result<Output> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        command
            .arg("gomote")
            .arg("--config")
            .arg(self.files.gomote_config())
            .args(args);
        output_of(command, input).await
    }

    async fn ssh(&self, options: &[&str], remote: &str) -> anyhow::Result<Output> {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(self.files.ssh_config())
            .args(["-o", "BatchMode=yes"])
            .args(options);
        command.args([
            "-p",
            &self.addresses.ssh.port().to_string(),
            &format!("{FIRST_INSTANCE}@localhost"),
            remote,
        ]);
        output_of(command, b"")
            .await
            .context("running ssh; is OpenSSH's client installed?")
    }
}

async fn output_of(mut command: Command, input: &[u8]) -> anyhow::Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child
        .stdin
        .take()
        .context("the child has a standard input")?;
    stdin.write_all(input).await?;
    drop(stdin);
    Ok(child.wait_with_output().await?)
}

fn stdout_of(output: &Output) -> anyhow::Result<String> {
    ensure!(output.status.success(), "{}", described(output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn expect(output: &Output, stdout: &str, code: i32) -> anyhow::Result<()> {
    if output.status.code() != Some(code) || output.stdout != stdout.as_bytes() {
        bail!(
            "expected {stdout:?} and exit status {code}: {}",
            described(output)
        );
    }
    Ok(())
}

fn described(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    format!(
        "{}, {:?} on stdout, {:?} on stderr",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

#[derive(Clone, Copy)]
enum Step {
    Create,
    Put,
    Run,
    Ls,
    Gettar,
    SshExec,
    SshPty,
    Destroy,
}

impl Step {
    fn title(self) -> &'static str {
        match self {
            Self::Create => "gomote create: a machine is leased",
            Self::Put => "gomote put: a script is copied to it",
            Self::Run => "gomote run: the script runs, and its exit code comes back",
            Self::Ls => "gomote ls: the script is listed",
            Self::Gettar => "gomote gettar: its directory comes back as an archive",
            Self::SshExec => "ssh: a command, both streams apart, its exit code",
            Self::SshPty => "ssh -tt: a terminal",
            Self::Destroy => "gomote destroy: the lease ends",
        }
    }
}

const STEPS: [Step; 8] = [
    Step::Create,
    Step::Put,
    Step::Run,
    Step::Ls,
    Step::Gettar,
    Step::SshExec,
    Step::SshPty,
    Step::Destroy,
];
/// RFC 1952 §2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const STEP_TIME: Duration = Duration::from_secs(30);
