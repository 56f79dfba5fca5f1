//! What a coordinator knows when it starts where another has ended.

use revdial::{CloseReason, Listener};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_starts_anew_knows_who_has_what() {
    in_time(async {
        let mut farm = Farm::start("").await;
        let _machine = farm.machine("m1").await;
        let alice = farm.client("alice", ALICE);
        let before = alice.create("type", |_| {}).await.unwrap();
        let buildlet = alice.instance(&before.name).unwrap();
        let job = JobRequest::shell("while ! test -e go; do sleep 0.01; done; echo done");
        let job = buildlet.start_job(job, None).await.unwrap();

        farm.restart().await;
        // Nobody else gets the machine when it is back.
        farm.pool.joined(1).await;
        let bob = farm.client("bob", BOB);
        let (told, mut heard) = tokio::sync::mpsc::channel(8);
        let waiting = AbortOnDropHandle::new(tokio::spawn(async move {
            let tell = move |waiting: Waiting| drop(told.try_send(waiting));
            bob.create("type", tell).await
        }));
        heard.recv().await.expect("a status while waiting");

        let after = &alice.list().await.unwrap()[0];
        assert_eq!(after.restarted, None, "the machine was not");
        assert_eq!((&after.name, after.created), (&before.name, before.created));
        let go = buildlet.write(path("go"), 0o644, Box::pin(&b""[..])).await;
        go.unwrap();
        let mut output = buildlet.follow_job(job.id, OutputRequest::following(0, 0));
        let mut text = Vec::new();
        loop {
            match output.next().await.unwrap() {
                JobEvent::Data { bytes, .. } => text.extend(bytes),
                JobEvent::End(_) => break,
                event @ (JobEvent::Gap { .. } | JobEvent::Retrying { .. } | _) => {
                    panic!("{event:?}")
                }
            }
        }
        assert_eq!(text, b"done\n");

        buildlet.halt().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap().name, "user-bob-type-0");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_ends_does_not_say_goodbye() {
    in_time(async {
        let farm = Farm::start("").await;
        let mut stream = farm.connect().await.unwrap();
        stream.write_all(REGISTER).await.unwrap();
        read_head(&mut stream).await;
        let mut listener = Listener::new(stream, revdial::Config::default());
        let status = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"Version\":26}";
        let forgotten = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        for reply in [&status[..], forgotten] {
            let mut conn = listener.accept().await.unwrap();
            // A client that is answered before it has asked breaks off.
            read_head(&mut conn).await;
            conn.write_all(reply).await.unwrap();
            // It knows the answer's length, and may have gone before it hears of the end.
            let _ = conn.shutdown().await;
        }
        farm.pool.joined(1).await;
        farm.shutdown.cancel();
        let reason = listener.closed().await;
        assert!(!matches!(reason, CloseReason::PeerClosed), "{reason:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_belongs_to_one_coordinator() {
    in_time(async {
        let farm = Farm::start("").await;
        let config = Config::load(&farm.dir.path().join(CONFIG)).unwrap();
        let second = Server::bind(config, CancellationToken::new()).await;
        let error = format!("{:#}", second.err().unwrap());
        assert!(
            error.contains("leases.sqlite: another coordinator uses it"),
            "{error}"
        );
    })
    .await;
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}
