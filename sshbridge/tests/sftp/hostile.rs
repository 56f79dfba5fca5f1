use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use proptest::prelude::*;
use sshbridge::sftp::{LocalFiles, SftpError};

use crate::client::{Client, EXTENDED, FOR_READING, Field, OPEN, READ, STAT};

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), test)
        .await
        .expect("the test ends in time")
}

#[tokio::test]
async fn a_length_that_nobody_may_send_ends_the_session() {
    within(async {
        for length in [0_u32, 256 * 1024 + 1, u32::MAX] {
            let directory = tempfile::tempdir().unwrap();
            let mut client = Client::of_ours(directory.path()).await;
            client.send_raw(&length.to_be_bytes()).await;
            assert!(client.receive().await.is_none());
            let served = client.served.take().unwrap().await.unwrap();
            assert!(matches!(served, Err(SftpError::Protocol)));
        }
    })
    .await;
}

#[tokio::test]
async fn what_came_before_it_is_answered() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), "some text").unwrap();
        let mut client = Client::of_ours(directory.path()).await;
        let handle = client.open("f", FOR_READING).await;
        let fields = [Field::Bytes(&handle), Field::U64(0), Field::U32(9)];
        for _ in 0..20 {
            client.request(READ, &fields).await;
        }
        client.send_raw(&u32::MAX.to_be_bytes()).await;
        for _ in 0..20 {
            assert_eq!(client.answer().await.1.kind, 103, "SSH_FXP_DATA");
        }
        assert!(client.receive().await.is_none());
        let served = client.served.take().unwrap().await.unwrap();
        assert!(matches!(served, Err(SftpError::Protocol)));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_begin_with_its_version_is_ended() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(directory.path(), None).unwrap();
        let mut client = Client::unversioned(Arc::new(files));
        client.request(STAT, &[Field::Text(".")]).await;
        assert!(client.receive().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_answered_and_the_next_one_served() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let mut client = Client::of_ours(directory.path()).await;
        for (kind, fields, status) in [
            (OPEN, &[Field::U32(1000)][..], 5),
            (
                OPEN,
                &[Field::Text("a\0b"), Field::U32(1), Field::U32(0)],
                5,
            ),
            (STAT, &[], 5),
            (
                READ,
                &[Field::Text("none"), Field::U64(0), Field::U32(1)],
                4,
            ),
            (99, &[], 8),
            (EXTENDED, &[Field::Text("no-such@example.com")], 8),
            (EXTENDED, &[], 5),
        ] {
            assert_eq!(
                client.ask(kind, fields).await.status(),
                status,
                "{kind} {fields:?}"
            );
        }
        assert_eq!(client.ask(STAT, &[Field::Text(".")]).await.kind, 105);
    })
    .await;
}

#[tokio::test]
async fn an_end_within_a_request_is_told_from_a_good_one() {
    within(async {
        let directory = tempfile::tempdir().unwrap();
        let mut client = Client::of_ours(directory.path()).await;
        client.send_raw(&[0, 0, 0, 9, STAT]).await;
        assert!(matches!(client.end().await, Err(SftpError::Truncated)));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_not_read_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("f"), vec![0; 300_000]).unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let handle = client.open("f", FOR_READING).await;
    let fields = [Field::Bytes(&handle), Field::U64(0), Field::U32(u32::MAX)];
    // 8 MiB hold 32 such answers, and pipes of 64 KiB a few thousand such requests.
    let mut sent = 0_usize;
    while sent < 100_000
        && tokio::time::timeout(Duration::from_secs(1), client.request(READ, &fields))
            .await
            .is_ok()
    {
        sent += 1;
    }
    assert!(sent < 20_000, "{sent}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent, the server ends or answers, and does neither panic nor hang.
    #[test]
    fn any_packets_are_borne(packets in prop::collection::vec(packet(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(within(async {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("a"), "some text").unwrap();
            let mut client = Client::of_ours(directory.path()).await;
            for packet in &packets {
                client.send_raw(packet).await;
            }
            // How it ends depends on what was sent; that it ends is what is promised.
            let _ = client.end().await;
        }));
    }
}

/// Packets that are nearly right: the kinds that there are, short names and handles that may exist, wrong ends.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop_oneof![4 => 3..=20_u8, 1 => Just(200_u8), 1 => any::<u8>()];
    let field = prop_oneof![
        Just(vec![0, 0, 0, 1, b'a']),
        Just(vec![0, 0, 0, 1, b'b']),
        Just(vec![0, 0, 0, 4, 0, 0, 0, 1]),
        Just(vec![
            0, 0, 0, 9, b'c', b'o', b'p', b'y', b'-', b'd', b'a', b't', b'a'
        ]),
        (0..64_u32).prop_map(|it| it.to_be_bytes().to_vec()),
        (0..1000_u64).prop_map(|it| it.to_be_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    let fields = prop::collection::vec(field, 0..6);
    (kinds, fields, prop_oneof![9 => Just(0_u32), 1 => 0..40_u32]).prop_map(
        |(kind, fields, wrong)| {
            let mut body = BytesMut::new();
            body.put_u8(kind);
            body.put_u32(7);
            for field in fields {
                body.put_slice(&field);
            }
            let mut packet = (u32::try_from(body.len()).unwrap() + wrong)
                .to_be_bytes()
                .to_vec();
            packet.extend_from_slice(&body);
            packet
        },
    )
}
