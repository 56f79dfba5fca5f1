//! `ssh` and `ssh-config`: the system's own client, told where the gateway is and how to know it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use buildlet_proto::client::Connect;
use buildlet_proto::coordinator::{CoordinatorClient, Instance};

use crate::cli::{Ssh, SshConfig};
use crate::config::{Gateway, base_dir};
use crate::exit::{Exit, NotFound};
use crate::instance;
use crate::streams::Streams;

/// Becomes ssh, so that terminal, signals and exit code are its own. Returns only where there is no ssh, or where the
/// command is just printed.
pub(crate) async fn ssh<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    gateway: &Gateway,
    args: Ssh,
    streams: &mut Streams<'_>,
) -> anyhow::Result<Exit> {
    let (instance, _) = instance::find(coordinator, &args.target.instance).await?;
    let login = login(&instance)?;
    let known_hosts = write_known_hosts(gateway)?;
    let login = match args.i_will_not_break_the_host {
        true => format!("{MUTABLE}{login}"),
        false => login.to_owned(),
    };
    let mut command = command(gateway, known_hosts.as_deref(), &login, &args.command);
    if args.print {
        streams.write(format!("{}\n", shell_line(&command)).as_bytes())?;
        streams.flush()?;
        return Ok(Exit::OK);
    }
    streams.chat(format_args!("$ {}", shell_line(&command)));
    let error = command.exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Err(NotFound(
            "there is no `ssh` on this computer; install OpenSSH's client".to_owned(),
        )
        .into());
    }
    Err(error).context("starting ssh")
}

/// Prints how ssh reaches instances, each as a host of its own.
pub(crate) async fn config<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    gateway: &Gateway,
    args: &SshConfig,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let instances = instance::find_all(coordinator, &args.instances).await?;
    let logins: Vec<_> = instances.iter().map(login).collect::<Result<_, _>>()?;
    let known_hosts = write_known_hosts(gateway)?;
    let hosts = logins
        .iter()
        .map(|login| host(gateway, known_hosts.as_deref(), login));
    for (index, host) in hosts.enumerate() {
        if index > 0 {
            streams.write(b"\n")?;
        }
        streams.write(host.as_encoded_bytes())?;
    }
    if instances.is_empty() {
        streams.chat("you hold no instance; `gomote create TYPE` leases one");
    }
    Ok(())
}

/// An instance's name, which is what the gateway knows it by. It is chosen by the coordinator, and must not be an option or a
/// line of ssh's.
fn login(instance: &Instance) -> anyhow::Result<&str> {
    let name = instance.name.as_str();
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    anyhow::ensure!(
        is_plain,
        "the coordinator calls an instance {name:?}, which ssh may take for something else"
    );
    Ok(name)
}

/// A section of ssh's configuration (ssh_config(5)).
fn host(gateway: &Gateway, known_hosts: Option<&Path>, login: &str) -> OsString {
    let mut section = OsString::from(format!(
        "Host {login}\n  HostName {}\n  Port {}\n  User {login}\n",
        gateway.host, gateway.port
    ));
    if let Some(known_hosts) = known_hosts {
        section.push("  StrictHostKeyChecking yes\n  UserKnownHostsFile ");
        section.push(quoted_path(known_hosts));
        section.push("\n");
    }
    if let Some(identity) = &gateway.identity {
        section.push("  IdentitiesOnly yes\n  IdentityFile ");
        section.push(quoted_path(identity));
        section.push("\n");
    }
    section
}

fn command(
    gateway: &Gateway,
    known_hosts: Option<&Path>,
    login: &str,
    remote: &[String],
) -> Command {
    let mut command = Command::new("ssh");
    command.arg("-p").arg(gateway.port.to_string());
    if let Some(known_hosts) = known_hosts {
        let mut option = OsString::from("UserKnownHostsFile=");
        option.push(quoted_path(known_hosts));
        command
            .args(["-o", "StrictHostKeyChecking=yes", "-o"])
            .arg(option);
    }
    if let Some(identity) = &gateway.identity {
        command
            .arg("-i")
            .arg(identity)
            .args(["-o", "IdentitiesOnly=yes"]);
    }
    // The login by itself: an instance's name and a host cannot be taken for anything else.
    command.arg(format!("{login}@{}", gateway.host));
    if !remote.is_empty() {
        command.arg("--").args(remote);
    }
    command
}

/// Writes the one host that is known, where its key is. The name of the file is that of the host, so that coordinators do not
/// meet.
fn write_known_hosts(gateway: &Gateway) -> anyhow::Result<Option<PathBuf>> {
    let Some(key) = &gateway.host_key else {
        return Ok(None);
    };
    let dir = base_dir(&|name| std::env::var_os(name), "XDG_CACHE_HOME", ".cache")
        .context("HOME is not set, so that there is no place for the gateway's host key")?
        .join("gomote");
    write_known_hosts_in(&dir, gateway, key)
        .map(Some)
        .with_context(|| format!("writing the gateway's host key into {}", dir.display()))
}

fn write_known_hosts_in(dir: &Path, gateway: &Gateway, key: &str) -> std::io::Result<PathBuf> {
    let Gateway { host, port, .. } = gateway;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    let path = dir.join(format!("known_hosts.{host}.{port}"));
    let partial = dir.join(format!("known_hosts.{host}.{port}.{}", std::process::id()));
    std::fs::write(&partial, format!("[{host}]:{port} {}\n", key.trim()))?;
    std::fs::rename(&partial, &path)?;
    Ok(path)
}

/// A path in the quotes that ssh's own parser takes off, and as it is after ssh has replaced what begins with `%`.
fn quoted_path(path: &Path) -> OsString {
    let mut quoted = vec![b'"'];
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'"' | b'\\' => quoted.push(b'\\'),
            b'%' => quoted.push(b'%'),
            _ => {}
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// The command for a person or a script to paste into a shell.
fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=[]+,%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What comes before an instance's name where the user knows that the machine keeps what is changed on it.
const MUTABLE: &str = "mutable-";

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Gateway {
        Gateway {
            host: "localhost".to_owned(),
            port: 2022,
            host_key: None,
            identity: None,
        }
    }

    #[test]
    fn the_plain_command_is_plain() {
        assert_eq!(
            shell_line(&command(&gateway(), None, "user-al-x-0", &[])),
            "ssh -p 2022 user-al-x-0@localhost"
        );
    }

    #[test]
    fn a_known_key_is_insisted_on() {
        let gateway = Gateway {
            identity: Some("/k/id".into()),
            ..gateway()
        };
        let line = shell_line(&command(
            &gateway,
            Some(Path::new("/a b/known")),
            "i",
            &["echo".into(), "it's".into()],
        ));
        let want = r#"ssh -p 2022 -o StrictHostKeyChecking=yes -o 'UserKnownHostsFile="/a b/known"' -i /k/id -o IdentitiesOnly=yes i@localhost -- echo 'it'\''s'"#;
        assert_eq!(line, want);
    }

    #[test]
    fn an_instance_is_a_host_of_its_own() {
        assert_eq!(
            host(&gateway(), None, "user-al-x-0"),
            "Host user-al-x-0\n  HostName localhost\n  Port 2022\n  User user-al-x-0\n"
        );
        let gateway = Gateway {
            identity: Some("/k/100%".into()),
            ..gateway()
        };
        let section = host(&gateway, Some(Path::new("/a \"b\\/known")), "i");
        let want = r#"  StrictHostKeyChecking yes
  UserKnownHostsFile "/a \"b\\/known"
  IdentitiesOnly yes
  IdentityFile "/k/100%%"
"#;
        assert!(
            section.to_str().unwrap().ends_with(want),
            "{}",
            section.display()
        );
    }

    #[test]
    fn a_name_that_ssh_would_take_for_something_else_is_refused() {
        let now = std::time::SystemTime::now();
        for name in [
            "-oProxyCommand=evil",
            "x\n  ProxyCommand evil",
            "x y",
            "*",
            "x@y",
            "",
        ] {
            let instance = Instance::new("user-al", name, "h", "b", now, now);
            assert!(login(&instance).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_host_is_known_by_its_port() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("new");
        let path = write_known_hosts_in(&dir, &gateway(), "ssh-ed25519 AAAA\n").unwrap();
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "[localhost]:2022 ssh-ed25519 AAAA\n"
        );
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
    }
}
