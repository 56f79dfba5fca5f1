use std::os::unix::fs::PermissionsExt;

use super::*;

const PIN: &str = "sha256:5f1c2d0a9e8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d";

#[test]
fn a_file_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &full().to_toml(), 0o600);
    assert_eq!(File::load(&path).unwrap(), Some(full()));
    assert_eq!(
        toml::from_str::<File>(&File::default().to_toml()).unwrap(),
        File::default()
    );
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for mode in [0o644, 0o640, 0o604, 0o660] {
        let path = write(dir.path(), &full().to_toml(), mode);
        let error = File::load(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(error.is::<Usage>());
    }
    let public = File {
        token: None,
        ..full()
    };
    let path = write(dir.path(), &public.to_toml(), 0o644);
    assert_eq!(File::load(&path).unwrap(), Some(public));
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "sever = 'https://x'\n", 0o600);
    let error = File::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("sever") && error.contains("config.toml"),
        "{error}"
    );
}

#[test]
fn flags_go_before_the_file() {
    let flags = Flags {
        server: Some("https://other:1".to_owned()),
        user: Some("bo".to_owned()),
        ..Flags::default()
    };
    let settings = Settings::join(&flags, full(), None).unwrap();
    assert_eq!(settings.authority, "other:1");
    assert_eq!(settings.user, "bo");
    assert_eq!(settings.token, "secret");
    assert_eq!(settings.pin.unwrap().to_string(), PIN);
}

#[test]
fn what_is_missing_is_named_with_where_to_write_it() {
    let path = Path::new("/home/al/.config/gomote/config.toml");
    let error = Settings::join(&Flags::default(), File::default(), Some(path))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("--server") && error.contains("/home/al/.config/gomote/config.toml"),
        "{error}"
    );
}

#[test]
fn a_server_is_an_https_url_and_nothing_else() {
    for (url, authority) in [
        ("https://a", "a"),
        ("https://a:8443/", "a:8443"),
        ("https://[::1]:1", "[::1]:1"),
    ] {
        assert_eq!(parse_server(url).unwrap(), authority);
    }
    for url in [
        "",
        "a:8443",
        "http://a",
        "https://",
        "https://a/b",
        "https://a?x",
        "https://user:word@a",
        "ftp://a",
    ] {
        assert!(parse_server(url).is_err(), "{url:?}");
    }
}

#[test]
fn the_gateway_is_the_coordinator_unless_it_is_named() {
    let server: Authority = "farm.example.org:8443".parse().unwrap();
    let gateway = |ssh| Gateway::new(ssh, &server, None, None);
    let default = gateway(None).unwrap();
    assert_eq!(
        (default.host.as_str(), default.port),
        ("farm.example.org", 2222)
    );
    let named = gateway(Some("[::1]:2022")).unwrap();
    assert_eq!((named.host.as_str(), named.port), ("::1", 2022));
    for hostile in ["-oProxyCommand=id", "", "a b"] {
        assert!(gateway(Some(hostile)).is_err(), "{hostile:?}");
    }
    let two_lines = Some("ssh-ed25519 AAAA\nssh-rsa BBBB".to_owned());
    assert!(Gateway::new(None, &server, two_lines, None).is_err());
}

#[test]
fn the_default_file_is_where_the_specification_says() {
    let path = |vars: &[(&str, &str)]| {
        default_path(|name| {
            vars.iter()
                .find(|(var, _)| *var == name)
                .map(|(_, value)| (*value).into())
        })
    };
    assert_eq!(
        path(&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]),
        Some("/x/gomote/config.toml".into())
    );
    assert_eq!(
        path(&[("XDG_CONFIG_HOME", "x"), ("HOME", "/h")]),
        Some("/h/.config/gomote/config.toml".into())
    );
    assert_eq!(path(&[]), None);
}

fn full() -> File {
    File {
        server: Some("https://localhost:8443".to_owned()),
        pin: Some(PIN.to_owned()),
        user: Some("al".to_owned()),
        token: Some("secret".to_owned()),
        ssh: Some("localhost:2222".to_owned()),
        ssh_host_key: Some("ssh-ed25519 AAAA".to_owned()),
        ssh_identity: Some("/home/al/.ssh/id".into()),
    }
}

fn write(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let path = dir.join("config.toml");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}
