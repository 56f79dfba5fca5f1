use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sshbridge::auth::Machine;
use sshbridge::backend::{Backend, BackendChannel, BackendConn, ChannelEvent, ChannelRequest};
use sshbridge::server::Server;
use tokio::task::JoinSet;

use crate::support::{
    backend_to, config, connect_with, log_in, new_key, read_out, server, server_with, try_key,
    within,
};

async fn start(conn: &dyn BackendConn, command: &'static str) -> BackendChannel {
    let channel = conn.open_session().await.unwrap();
    let exec = ChannelRequest::Exec(Bytes::from_static(command.as_bytes()));
    channel.control.request(exec).await.unwrap();
    channel
}

/// Sends `bytes` through `cat` and counts what comes back.
async fn echo(channel: BackendChannel, bytes: usize) -> usize {
    let BackendChannel {
        mut sink,
        mut source,
        control: _control,
    } = channel;
    let send = async {
        let block = Bytes::from(vec![b'e'; 32 << 10]);
        for _ in 0..bytes / block.len() {
            sink.data(block.clone()).await.unwrap();
        }
        sink.eof().await.unwrap();
    };
    let receive = async {
        let mut received = 0;
        while let Some(event) = source.next().await {
            if let ChannelEvent::Data(data) = event {
                received += data.len();
            }
        }
        received
    };
    tokio::join!(send, receive).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ends_that_both_write_do_not_stand_still() {
    for pipe in [4 << 10, 64 << 10] {
        for channels in [1, 4, 16] {
            within(async {
                let conn = backend_to(&server(), pipe).connect().await.unwrap();
                let each = (8 << 20) / channels;
                let mut echoes = JoinSet::new();
                for _ in 0..channels {
                    echoes.spawn(echo(start(&*conn, "cat").await, each));
                }
                while let Some(received) = echoes.join_next().await {
                    assert_eq!(
                        received.unwrap(),
                        each,
                        "{pipe} byte pipe, {channels} channels"
                    );
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_echoes_more_than_all_its_windows() {
    within(async {
        let machine = Machine::new("far", Arc::new(backend_to(&server(), 64 << 10)));
        let conn = backend_to(&server_with(config(), machine), 64 << 10);
        let conn = conn.connect().await.unwrap();
        let bytes = 24 << 20;
        assert_eq!(echo(start(&*conn, "cat").await, bytes).await, bytes);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_with_a_reader_that_sleeps_is_complete() {
    within(async {
        let conn = backend_to(&server(), 64 << 10).connect().await.unwrap();
        let BackendChannel {
            mut sink,
            mut source,
            control: _control,
        } = start(&*conn, "cat").await;
        let bytes = 32 << 20;
        let send = async {
            let block = Bytes::from(vec![0; 32 << 10]);
            for _ in 0..bytes / block.len() {
                sink.data(block.clone()).await.unwrap();
            }
            sink.eof().await.unwrap();
        };
        let receive = async {
            // Long enough that everything between the two ends is full.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut received = 0;
            while let Some(event) = source.next().await {
                if let ChannelEvent::Data(data) = event {
                    received += data.len();
                }
            }
            received
        };
        assert_eq!(tokio::join!(send, receive).1, bytes);
    })
    .await;
}

/// Floods a command that reads nothing, beside commands that must not notice.
async fn beside_a_flood(server: &Server) {
    let client = log_in(server).await;
    let stalled = client.channel_open_session().await.unwrap();
    stalled.exec(true, "deaf").await.unwrap();
    let (_unread, writer) = stalled.split();
    let flood = async {
        // The windows, the inbox, and what the pipe and the ends hold: beyond that nothing is taken.
        for _ in 0..(12 << 20) / (32 << 10) {
            writer.data_bytes(vec![0; 32 << 10]).await.unwrap();
        }
        panic!("a command that reads nothing was sent 12 MiB");
    };
    let others = async {
        for _ in 0..20 {
            let mut channel = client.channel_open_session().await.unwrap();
            channel.exec(true, "alive").await.unwrap();
            assert_eq!(read_out(&mut channel).await.stdout, b"alive");
        }
    };
    tokio::select! {
        never = flood => never,
        () = others => {}
    }
}

/// Lets a command write to a client that grants no window, beside commands that must not notice.
async fn beside_a_client_that_reads_nothing(server: &Server) {
    // Half a window of one byte is none: russh's client never grants more.
    let config = russh::client::Config {
        window_size: 1,
        ..Default::default()
    };
    let mut client = connect_with(server, config).await;
    assert!(try_key(&mut client, "user", &new_key()).await);
    let stalled = client.channel_open_session().await.unwrap();
    stalled.exec(true, "flood").await.unwrap();
    for code in 0..20 {
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, format!("exit {code}")).await.unwrap();
        assert_eq!(read_out(&mut channel).await.status, Some(code));
    }
}

#[tokio::test]
async fn a_channel_whose_input_is_not_read_stops_no_other() {
    within(beside_a_flood(&server())).await;
}

#[tokio::test]
async fn a_channel_whose_output_is_not_read_stops_no_other() {
    within(beside_a_client_that_reads_nothing(&server())).await;
}

#[tokio::test]
async fn a_stalled_channel_stops_no_other_through_the_bridge() {
    within(async {
        let machine = Machine::new("far", Arc::new(backend_to(&server(), 64 << 10)));
        let server = server_with(config(), machine);
        beside_a_flood(&server).await;
        beside_a_client_that_reads_nothing(&server).await;
    })
    .await;
}
