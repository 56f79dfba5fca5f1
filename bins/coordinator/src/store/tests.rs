use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::*;
use crate::lease::LEASE_TIME;

fn machine(hostname: &str) -> MachineId {
    MachineId {
        host_type: "host-a".into(),
        hostname: hostname.into(),
    }
}

#[tokio::test]
async fn names_take_the_lowest_free_number() {
    let store = SqliteStore::in_memory().await;
    let now = SystemTime::UNIX_EPOCH;
    for (host, want) in [
        ("m0", "user-al-t-0"),
        ("m1", "user-al-t-1"),
        ("m2", "user-al-t-2"),
    ] {
        assert_eq!(
            store
                .create("al", "t", &machine(host), now)
                .await
                .unwrap()
                .name,
            want
        );
    }
    store.remove("user-al-t-1").await.unwrap().unwrap();
    assert_eq!(
        store
            .create("al", "t", &machine("m3"), now)
            .await
            .unwrap()
            .name,
        "user-al-t-1"
    );
    assert_eq!(
        store
            .create("bo", "t", &machine("m4"), now)
            .await
            .unwrap()
            .name,
        "user-bo-t-0"
    );
}

#[tokio::test]
async fn a_machine_has_one_lease() {
    let store = SqliteStore::in_memory().await;
    let now = SystemTime::UNIX_EPOCH;
    store.create("al", "t", &machine("m"), now).await.unwrap();
    assert!(matches!(
        store.create("bo", "t", &machine("m"), now).await,
        Err(StoreError::Leased)
    ));
    assert_eq!(
        store
            .of_machine(&machine("m"), now)
            .await
            .unwrap()
            .unwrap()
            .user,
        "al"
    );
}

#[tokio::test]
async fn a_lease_ends_after_its_time_unless_it_is_renewed() {
    let store = SqliteStore::in_memory().await;
    let start = SystemTime::UNIX_EPOCH;
    let name = store
        .create("al", "t", &machine("m"), start)
        .await
        .unwrap()
        .name;

    let last_moment = start + LEASE_TIME - Duration::from_secs(1);
    let renewed = store.renew(&name, last_moment).await.unwrap();
    assert_eq!(renewed.unwrap().expires, last_moment + LEASE_TIME);
    assert!(
        store
            .get(&name, start + LEASE_TIME)
            .await
            .unwrap()
            .is_some()
    );

    let end = last_moment + LEASE_TIME;
    assert!(store.get(&name, end).await.unwrap().is_none());
    let ended = store.renew(&name, end).await.unwrap();
    assert_eq!(ended, None, "what has ended cannot be renewed");
    assert_eq!(store.sweep(end).await.unwrap().len(), 1);
    assert!(store.list(start).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_clock_that_goes_back_shortens_no_lease() {
    let store = SqliteStore::in_memory().await;
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(7200);
    let lease = store.create("al", "t", &machine("m"), start).await.unwrap();
    let earlier = start - Duration::from_secs(3600);
    let renewed = store.renew(&lease.name, earlier).await.unwrap();
    assert_eq!(renewed.unwrap().expires, lease.expires);
}

#[tokio::test]
async fn what_was_written_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leases.sqlite");
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let store = SqliteStore::open(&file).await.unwrap();
    let kept = store.create("al", "t", &machine("m"), now).await.unwrap();
    assert_eq!((kept.created, kept.expires), (now, now + LEASE_TIME));
    let gone = store.create("al", "t", &machine("n"), now).await.unwrap();
    store.remove(&gone.name).await.unwrap();
    drop(store);
    let store = SqliteStore::open(&file).await.unwrap();
    assert_eq!(store.list(now).await.unwrap(), [kept]);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leases.sqlite");
    let _store = SqliteStore::open(&file).await.unwrap();
    let refused = SqliteStore::open(&file).await.unwrap_err();
    assert!(matches!(refused, OpenError::InUse), "{refused:?}");
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leases.sqlite");
    let garbage = [b'x'; 4096];
    std::fs::write(&file, garbage).unwrap();
    let refused = SqliteStore::open(&file).await.unwrap_err();
    assert!(matches!(refused, OpenError::Sqlite(_)), "{refused:?}");
    assert_eq!(std::fs::read(&file).unwrap(), garbage);

    std::fs::remove_file(&file).unwrap();
    drop(SqliteStore::open(&file).await.unwrap());
    let mut db = SqliteConnectOptions::new()
        .filename(&file)
        .connect()
        .await
        .unwrap();
    let newer = sqlx::raw_sql("PRAGMA user_version = 2");
    newer.execute(&mut db).await.unwrap();
    db.close().await.unwrap();
    let refused = SqliteStore::open(&file).await.unwrap_err();
    assert!(matches!(refused, OpenError::Newer(2)), "{refused:?}");
}

#[tokio::test]
async fn a_machine_that_two_ask_for_at_once_is_leased_to_one() {
    let store = SqliteStore::in_memory().await;
    let now = SystemTime::UNIX_EPOCH;
    let machine = machine("m");
    let users = ["a", "b", "c", "d"];
    let asked = users.map(|user| store.create(user, "t", &machine, now));
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn one_who_stops_waiting_leaves_the_store_as_it_should_be() {
    let store = SqliteStore::in_memory().await;
    let now = SystemTime::UNIX_EPOCH;
    for number in 0..50 {
        let machine = machine(&format!("m{number}"));
        let create = store.create("al", "t", &machine, now);
        let _ = tokio::time::timeout(Duration::from_micros(number), create).await;
    }
    let leases = store.list(now).await.unwrap();
    let fresh = store.create("al", "t", &machine("z"), now).await.unwrap();
    assert_eq!(fresh.name, format!("user-al-t-{}", leases.len()));
}

#[tokio::test]
async fn names_are_data() {
    let store = SqliteStore::in_memory().await;
    let now = SystemTime::UNIX_EPOCH;
    let odd = "x'; DROP TABLE leases; --";
    let lease = store.create(odd, odd, &machine(odd), now).await.unwrap();
    assert_eq!(store.get(&lease.name, now).await.unwrap(), Some(lease));
    assert_eq!(store.get(odd, now).await.unwrap(), None);
}
