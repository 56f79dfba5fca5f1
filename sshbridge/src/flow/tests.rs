use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::backend::ChannelEvent;

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn what_is_handed_out_is_bounded_until_the_peer_takes_it() {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let (link, mut transport, drain) = layer(near, Budget::PerChannel);
    let gone = CancellationToken::new();
    let mut handed = Vec::new();
    while let Ok(piece) = soon(link.reserve(Bytes::from(vec![0; 32 << 10]), &gone)).await {
        handed.push(piece.unwrap());
    }
    assert_eq!(handed.len(), 32);
    // The library encrypts what it was handed and writes it: it still counts.
    for piece in handed.drain(..) {
        let encrypted = piece.to_vec();
        drop(piece);
        transport.write_all(&encrypted).await.unwrap();
    }
    assert!(
        soon(link.reserve(Bytes::from_static(b"x"), &gone))
            .await
            .is_err()
    );
    let drained = tokio::spawn(drain.run());
    let mut taken = vec![0; MIB];
    far.read_exact(&mut taken).await.unwrap();
    assert!(
        soon(link.reserve(Bytes::from_static(b"x"), &gone))
            .await
            .is_ok()
    );
    drop(transport);
    drop(far);
    let _ = drained.await;
}

#[tokio::test(start_paused = true)]
async fn data_for_a_closed_channel_does_not_use_up_the_room() {
    let (near, _far) = tokio::io::duplex(1024);
    let (link, _transport, _drain) = layer(near, Budget::PerChannel);
    let gone = CancellationToken::new();
    let piece = link.reserve(Bytes::from(vec![0; 2 * MIB]), &gone).await;
    assert!(
        soon(link.reserve(Bytes::from_static(b"x"), &gone))
            .await
            .is_err()
    );
    gone.cancel();
    drop(piece);
    assert!(
        soon(link.reserve(Bytes::from_static(b"x"), &gone))
            .await
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_the_end_reaches_the_peer() {
    let (near, mut far) = tokio::io::duplex(16);
    let (_link, mut transport, drain) = layer(near, Budget::PerChannel);
    let drained = tokio::spawn(drain.run());
    transport.write_all(&[7; 4096]).await.unwrap();
    drop(transport);
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, [7; 4096]);
    drop(far);
    drained.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_does_not_hold_a_connection_that_has_ended() {
    let (near, _far) = tokio::io::duplex(16);
    let (_link, mut transport, drain) = layer(near, Budget::PerChannel);
    transport.write_all(&[7; 4096]).await.unwrap();
    drop(transport);
    let error = drain.run().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_connection_over_its_budget_is_not_read_until_something_is_taken() {
    let (near, mut far) = tokio::io::duplex(1024);
    let (link, mut transport, _drain) = layer(near, Budget::Fixed(MIB));
    let inbox = link.inbox();
    for _ in 0..40 {
        inbox.push_data(&[0; 32 << 10]);
    }
    far.write_all(b"more").await.unwrap();
    let mut buf = [0; 4];
    assert!(soon(transport.read_exact(&mut buf)).await.is_err());
    for _ in 0..20 {
        inbox.take().await.unwrap();
    }
    soon(transport.read_exact(&mut buf)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_nothing_is_cut_when_it_keeps_others_from_being_read() {
    let (near, _far) = tokio::io::duplex(1024);
    let (link, mut transport, _drain) = layer(near, Budget::Fixed(MIB));
    let stalled = link.inbox();
    let healthy = link.inbox();
    healthy.push_data(b"x");
    for _ in 0..40 {
        stalled.push_data(&[0; 32 << 10]);
    }
    let reading = async {
        let mut buf = [0; 1];
        let _ = transport.read_exact(&mut buf).await;
    };
    tokio::select! {
        () = link.watch_stalls() => {}
        () = reading => {}
        () = stalled.cut().cancelled() => {}
        () = async { loop { healthy.push_data(b"x"); healthy.take().await; tokio::time::sleep(Duration::from_secs(1)).await } } => {}
    }
    assert!(stalled.cut().is_cancelled());
    assert!(!healthy.cut().is_cancelled());
    assert!(stalled.take().await.is_none());
    assert!(link.backlog() < 1024);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_channel_that_is_alone_is_left_alone() {
    let (near, _far) = tokio::io::duplex(1024);
    let (link, mut transport, _drain) = layer(near, Budget::Fixed(MIB));
    let inbox = link.inbox();
    for _ in 0..40 {
        inbox.push_data(&[0; 32 << 10]);
    }
    let mut buf = [0; 1];
    tokio::select! {
        () = link.watch_stalls() => {}
        _ = transport.read(&mut buf) => {}
        () = tokio::time::sleep(Duration::from_secs(3600)) => {}
    }
    assert!(!inbox.cut().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn an_urgent_answer_is_read_behind_data_that_nobody_takes() {
    let (near, mut far) = tokio::io::duplex(1024);
    let (link, mut transport, _drain) = layer(near, Budget::Fixed(MIB));
    let inbox = link.inbox();
    for _ in 0..40 {
        inbox.push_data(&[0; 32 << 10]);
    }
    far.write_all(b"answer").await.unwrap();
    let mut buf = [0; 6];
    assert!(soon(transport.read(&mut buf)).await.is_err());
    let urgent = link.read_urgently();
    soon(transport.read_exact(&mut buf)).await.unwrap().unwrap();
    // What is urgent has its bound, too.
    for _ in 0..512 {
        inbox.push_data(&[0; 32 << 10]);
    }
    far.write_all(b"answer").await.unwrap();
    assert!(soon(transport.read(&mut buf)).await.is_err());
    drop(urgent);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_channel_within_the_budget_is_left_alone() {
    let (near, _far) = tokio::io::duplex(1024);
    let (link, mut transport, _drain) = layer(near, Budget::PerChannel);
    let inbox = link.inbox();
    inbox.push_data(&[0; 32 << 10]);
    let mut buf = [0; 1];
    tokio::select! {
        () = link.watch_stalls() => {}
        _ = transport.read(&mut buf) => {}
        () = tokio::time::sleep(Duration::from_secs(3600)) => {}
    }
    assert!(!inbox.cut().is_cancelled());
}

#[tokio::test]
async fn small_packets_are_merged_in_order() {
    let (near, _far) = tokio::io::duplex(1024);
    let (link, _transport, _drain) = layer(near, Budget::PerChannel);
    let inbox = link.inbox();
    for byte in 0..100_u8 {
        inbox.push_data(&[byte]);
    }
    inbox.push_stderr(b"e");
    inbox.push_data(b"d");
    inbox.push_event(ChannelEvent::Eof);
    inbox.close();
    let first: Vec<u8> = (0..100).collect();
    assert_eq!(inbox.take().await, Some(ChannelEvent::Data(first.into())));
    assert_eq!(inbox.take().await, Some(ChannelEvent::Stderr("e".into())));
    assert_eq!(inbox.take().await, Some(ChannelEvent::Data("d".into())));
    assert_eq!(inbox.take().await, Some(ChannelEvent::Eof));
    assert_eq!(inbox.take().await, None);
    assert_eq!(link.backlog(), 0);
}

#[tokio::test]
async fn bytes_in_small_packets_cost_what_they_weigh() {
    let (near, _far) = tokio::io::duplex(1024);
    let (link, _transport, _drain) = layer(near, Budget::PerChannel);
    let inbox = link.inbox();
    for _ in 0..MIB {
        inbox.push_data(b"x");
    }
    assert!(inbox.bytes() < MIB + MIB / 64, "{}", inbox.bytes());
}

#[tokio::test]
async fn a_killed_link_tells_everybody() {
    let (near, _far) = tokio::io::duplex(1024);
    let (link, mut transport, drain) = layer(near, Budget::PerChannel);
    let inbox = link.inbox();
    let gone = CancellationToken::new();
    let full = link.reserve(Bytes::from(vec![0; 2 * MIB]), &gone).await;
    let mut buf = [0; 1];
    let (read, taken, reserved, ()) = tokio::join!(
        transport.read(&mut buf),
        inbox.take(),
        link.reserve(Bytes::from_static(b"x"), &gone),
        async { drop(drain) }
    );
    assert_eq!(read.unwrap(), 0);
    assert_eq!(taken, None);
    assert_eq!(reserved, Err(Gone));
    assert!(transport.write_all(b"x").await.is_err());
    drop(full);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn an_inbox_gives_back_what_it_was_given(pushes in prop::collection::vec(push(), 0..40)) {
        let (near, _far) = tokio::io::duplex(1024);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let _entered = runtime.enter();
        let (link, _transport, _drain) = layer(near, Budget::PerChannel);
        let inbox = link.inbox();
        let mut given = Vec::new();
        for push in pushes {
            match push {
                Push::Data(bytes) => {
                    inbox.push_data(&bytes);
                    given.extend(bytes.into_iter().map(|byte| (false, byte)));
                }
                Push::Stderr(bytes) => {
                    inbox.push_stderr(&bytes);
                    given.extend(bytes.into_iter().map(|byte| (true, byte)));
                }
            }
            prop_assert_eq!(inbox.bytes(), link.backlog());
        }
        inbox.close();
        let mut taken = Vec::new();
        while let Some(event) = runtime.block_on(inbox.take()) {
            match event {
                ChannelEvent::Data(bytes) => taken.extend(bytes.iter().map(|byte| (false, *byte))),
                ChannelEvent::Stderr(bytes) => taken.extend(bytes.iter().map(|byte| (true, *byte))),
                ChannelEvent::Eof | ChannelEvent::ExitSignal { .. } | ChannelEvent::ExitStatus(_) => {
                    prop_assert!(false, "an event that was not given");
                }
            }
        }
        prop_assert_eq!(taken, given);
        prop_assert_eq!(link.backlog(), 0);
    }
}

#[derive(Clone, Debug)]
enum Push {
    Data(Vec<u8>),
    Stderr(Vec<u8>),
}

fn push() -> impl Strategy<Value = Push> {
    let sizes = prop_oneof![0..5_usize, 4090..4100_usize, 20_000..40_000_usize];
    (sizes, any::<u8>(), any::<bool>()).prop_map(|(size, byte, stderr)| {
        let bytes = vec![byte; size];
        if stderr {
            Push::Stderr(bytes)
        } else {
            Push::Data(bytes)
        }
    })
}

async fn soon<T>(work: impl Future<Output = T>) -> Result<T, tokio::time::error::Elapsed> {
    tokio::time::timeout(Duration::from_millis(100), work).await
}
