//! A configuration that changes while users hold machines.

use super::ssh::{read_out, running_session, ssh_farm};
use super::*;

const REVOKED: &str = "your access has been revoked\n";

/// The text without the tables whose heads begin so, which are the last of the file or before another table.
fn without(config: &str, table: &str) -> String {
    let head = format!("[{table}]\n");
    let begin = config.find(&head).unwrap();
    let rest = &config[begin + head.len()..];
    let end = rest.find("\n[").map_or(rest.len(), |at| at + 1);
    format!("{}{}", &config[..begin], &rest[end..])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_leaves_its_file_ends_its_session() {
    in_time(async {
        let farm = ssh_farm("").await;
        let _machine = farm.machine_with("m1", "builtin").await;
        let alice = farm.client("alice", ALICE);
        let instance = alice.create("type", |_| {}).await.unwrap();
        let (_conn, mut channel) = running_session(&farm, &instance.name).await;
        std::fs::write(farm.alice_keys.as_ref().unwrap(), "# nobody\n").unwrap();
        let seen = read_out(&mut *channel.source).await;
        assert_eq!(seen, (String::new(), REVOKED.to_owned(), Some(255)));
        assert_eq!(alice.list().await.unwrap().len(), 1, "the lease is hers");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_come_and_go_and_the_others_notice_nothing() {
    in_time(async {
        let farm = ssh_farm("").await;
        let _machine = farm.machine_with("m1", "builtin").await;
        let (alice, bob) = (farm.client("alice", ALICE), farm.client("bob", BOB));
        let hers = alice.create("type", |_| {}).await.unwrap();
        let (_conn, mut channel) = running_session(&farm, &hers.name).await;

        // A new user beside her.
        let carol = "[users.carol]\ntoken_hash = '";
        let hash = Secret::presented("carol's").hash();
        farm.reconfigure(|config| format!("{config}{carol}{hash}'\n"))
            .unwrap();
        assert!(farm.client("carol", "carol's").list().await.is_ok());
        assert!(bob.list().await.is_ok());
        assert_eq!(alice.list().await.unwrap().len(), 1);

        farm.reconfigure(|config| without(&config, "users.alice"))
            .unwrap();
        let seen = read_out(&mut *channel.source).await;
        assert_eq!(seen, (String::new(), REVOKED.to_owned(), Some(255)));
        let error = alice.list().await.unwrap_err();
        assert_eq!(error.message(), "bad username or password");
        assert!(bob.list().await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_key_has_changed_has_to_register_again() {
    in_time(async {
        let farm = Farm::start("").await;
        let machine = farm.machine("m1").await;
        let link_of = |farm: &Farm| {
            let links = farm.pool.links();
            links.first().map(|link| link.connected)
        };
        let first = link_of(&farm).unwrap();
        farm.reconfigure(|config| format!("{config}[users.dave]\n"))
            .unwrap();
        assert_eq!(link_of(&farm), Some(first), "nothing of it has changed");

        let old = Secret::presented(MACHINE_KEY).hash().to_string();
        let new = Secret::presented("new key").hash().to_string();
        farm.reconfigure(|config| config.replace(&old, &new))
            .unwrap();
        while link_of(&farm).is_some() {
            tokio::task::yield_now().await;
        }
        machine.kill(&farm.pool).await;
        std::fs::write(farm.dir.path().join("key"), "new key").unwrap();
        let _machine = farm.machine("m1").await;
        assert_ne!(link_of(&farm), Some(first));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_see_the_new_certificate_and_old_ones_go_on() {
    in_time(async {
        let farm = Farm::start("").await;
        let as_other = || async {
            let stream = TcpStream::connect(farm.addresses.https).await?;
            tls::connect(stream, "other.example.org", farm.tls.clone()).await
        };
        let mut old = farm.connect().await.unwrap();
        assert!(as_other().await.is_err());
        farm.reconfigure(|config| {
            config.replacen(
                "[listen]",
                "[tls]\nnames = ['localhost', 'other.example.org']\n[listen]",
                1,
            )
        })
        .unwrap();
        as_other().await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        old.write_all(request).await.unwrap();
        let mut reply = String::new();
        old.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_changes_nothing() {
    in_time(async {
        let farm = Farm::start("").await;
        let bob = farm.client("bob", BOB);
        for (change, told) in [
            (
                "[users.carol]\nkey_url = 'https://h/{account}.keys'\n",
                "users.carol",
            ),
            (
                "[tls]\ncertificate_file = '/nonesuch.pem'\nkey_file = '/nonesuch.key'\n",
                "/nonesuch.pem",
            ),
            ("[users.carol\n", "TOML"),
        ] {
            let file = farm.dir.path().join(CONFIG);
            let before = std::fs::read_to_string(&file).unwrap();
            let error = farm
                .reconfigure(|config| format!("{}{change}", without(&config, "users.bob")))
                .unwrap_err();
            assert!(format!("{error:#}").contains(told), "{error:#}");
            std::fs::write(&file, before).unwrap();
            assert!(bob.list().await.is_ok(), "{change}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_change_stays_as_it_was() {
    in_time(async {
        let farm = Farm::start("").await;
        let bob = farm.client("bob", BOB);
        farm.reconfigure(|config| {
            let config = config.replace("https = '127.0.0.1:0'", "https = '127.0.0.1:1'");
            config.replacen("[listen]", "[go_keys]\ndevelopment_key = true\n[listen]", 1)
        })
        .unwrap();
        assert!(bob.list().await.is_ok());
        // hex(HMAC-MD5("gophers rule", "user-bob"))
        let token = "5b3f5098a15e63814d83af32ab526e35";
        assert!(farm.client("bob", token).list().await.is_err());
    })
    .await;
}
