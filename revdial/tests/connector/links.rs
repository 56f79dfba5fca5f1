//! Coming back.

use std::time::Duration;

use revdial::connector::{ConnectError, Links, Step};
use revdial::{CloseReason, Dialer};

use crate::support::{Server, echo, expect_echo, within};

/// The next link, and what happened until then.
async fn next(links: &mut Links) -> (revdial::Listener, Vec<Step>) {
    let mut before = Vec::new();
    loop {
        let step = links.step().await;
        if let Step::Linked(listener) = step {
            return (listener, before);
        }
        before.push(step);
    }
}

async fn linked(server: &Server, links: &mut Links) -> (Dialer, Vec<Step>) {
    let ((listener, before), (_, dialer)) = tokio::join!(next(links), server.register());
    tokio::spawn(echo(listener));
    expect_echo(&dialer).await;
    (dialer, before)
}

#[tokio::test]
async fn a_machine_comes_back_after_a_goodbye_and_after_a_cut() {
    within(async {
        let server = Server::new().await;
        let mut links = server.connector().links();
        let (dialer, before) = linked(&server, &mut links).await;
        assert!(before.is_empty());

        dialer.close();
        let (dialer, before) = linked(&server, &mut links).await;
        let [Step::Ended { reason, .. }] = &before[..] else {
            panic!("{before:?}");
        };
        assert!(matches!(reason, CloseReason::PeerClosed), "{reason:?}");
        dialer.close();

        // The server's process dies behind the 101.
        let dies = async {
            let mut tcp = server.accept().await;
            crate::support::read_head(&mut tcp).await;
            let reply = crate::support::SWITCHING.as_bytes();
            tokio::io::AsyncWriteExt::write_all(&mut tcp, reply)
                .await
                .unwrap();
        };
        let ((_listener, _), ()) = tokio::join!(next(&mut links), dies);
        let (_dialer, before) = linked(&server, &mut links).await;
        let [Step::Ended { reason, .. }] = &before[..] else {
            panic!("{before:?}");
        };
        assert!(
            matches!(reason, CloseReason::Cut | CloseReason::Transport(_)),
            "{reason:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_started_again_is_found_again() {
    within(async {
        let server = Server::new().await;
        let address = server.address;
        let mut links = server.connector().links();
        let (dialer, _) = linked(&server, &mut links).await;
        drop(server);
        dialer.close();
        drop(dialer);

        let ended = links.step().await;
        assert!(matches!(ended, Step::Ended { .. }), "{ended:?}");
        for _ in 0..3 {
            let failed = links.step().await;
            let Step::Failed { error, retry_in } = failed else {
                panic!("{failed:?}");
            };
            assert!(matches!(error, ConnectError::Connect { .. }), "{error:?}");
            assert!(retry_in <= Duration::from_millis(50));
        }
        let server = Server::at(address).await;
        linked(&server, &mut links).await;
    })
    .await;
}

#[tokio::test]
async fn a_refused_machine_waits_as_long_as_it_was_told_and_no_less() {
    within(async {
        let server = Server::new().await;
        let mut links = server.connector().links();
        let reply = "HTTP/1.1 412 x\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n";
        let (step, _) = tokio::join!(links.step(), server.answer(reply));
        let Step::Failed { retry_in, .. } = step else {
            panic!("{step:?}");
        };
        assert!(retry_in >= Duration::from_secs(600), "{retry_in:?}");
        let soon = tokio::time::timeout(Duration::from_millis(50), links.step()).await;
        assert!(soon.is_err(), "it waits");
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_is_dropped_makes_room_for_the_next_link() {
    within(async {
        let server = Server::new().await;
        let mut links = server.connector().links();
        let ((listener, _), (_, dialer)) = tokio::join!(next(&mut links), server.register());
        drop(listener);
        dialer.closed().await;
        linked(&server, &mut links).await;
    })
    .await;
}

#[tokio::test]
async fn a_service_is_run_with_one_link_after_the_other() {
    within(async {
        let server = Server::new().await;
        let serving = tokio::spawn(server.connector().serve(echo));
        for _ in 0..3 {
            let (_, dialer) = server.register().await;
            expect_echo(&dialer).await;
            dialer.close();
        }
        serving.abort();
    })
    .await;
}
