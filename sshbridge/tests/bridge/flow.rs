use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use russh::ChannelMsg;
use russh::client::Handle;
use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use sshbridge::auth::Machine;
use sshbridge::backend::{Backend, BackendChannel, BackendConn, ChannelEvent, ChannelRequest};
use sshbridge::server::Server;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{
    FakeBackend, backend_to, config, connect_with, log_in, new_key, pipe, read_out, server,
    server_with, try_key, within,
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
    for pipe in [4 << 10, 64 << 10, 1 << 20] {
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
async fn nothing_is_lost_while_keys_change_every_256_kib() {
    within(async {
        let machine = Machine::new("far", Arc::new(backend_to(&server(), 64 << 10)));
        let mut config = config();
        config.rekey_bytes = 256 << 10;
        let (client, exchanges) = counting_client(&server_with(config, machine)).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        let writer = channel.make_writer();
        let bytes = 4 << 20;
        let send = async move {
            let mut writer = writer;
            writer.write_all(&vec![b'e'; bytes]).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (seen, ()) = tokio::join!(read_out(&mut channel), send);
        assert_eq!(seen.stdout.len(), bytes);
        assert_eq!(seen.status, Some(0));
        let exchanges = *exchanges.borrow();
        // What is under way counts for the old keys.
        assert!(exchanges > bytes / (512 << 10), "{exchanges} key exchanges");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_after_a_time_without_traffic() {
    within(async {
        let mut config = config();
        config.rekey_time = Duration::from_millis(50);
        let server = server_with(config, Machine::new("fake", Arc::new(FakeBackend)));
        let (_client, mut exchanges) = counting_client(&server).await;
        exchanges.wait_for(|times| *times >= 3).await.unwrap();
    })
    .await;
}

async fn counting_client(server: &Server) -> (Handle<Counting>, watch::Receiver<usize>) {
    let (count, counted) = watch::channel(0);
    let (stream, _) = pipe(server, 64 << 10);
    let client = russh::client::connect_stream(Arc::default(), stream, Counting(count)).await;
    let mut client = client.unwrap();
    let key = PrivateKeyWithHashAlg::new(new_key(), None);
    let answer = client.authenticate_publickey("user", key).await.unwrap();
    assert!(answer.success());
    (client, counted)
}

/// A client that counts key exchanges.
struct Counting(watch::Sender<usize>);

impl russh::client::Handler for Counting {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        _names: &russh::Names,
        _session: &mut russh::client::Session,
    ) -> Result<(), russh::Error> {
        self.0.send_modify(|times| *times += 1);
        Ok(())
    }
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
    let (mut unread, writer) = stalled.split();
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
    while let Some(message) = unread.wait().now_or_never() {
        let message = message.expect("the stalled channel is still there");
        assert!(!matches!(message, ChannelMsg::Close), "it is still open");
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
