use russh::{ChannelMsg, ChannelOpenFailure};
use sshbridge::backend::{Backend as _, ChannelEvent, Destination, Originator};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UnixListener};

use crate::support::{Bench, echo, flood, machine, read_all, within};

#[tokio::test]
async fn bytes_go_to_a_port_of_the_machine_and_back_to_their_end() {
    within(async {
        let (port, _echo) = echo().await;
        for bench in Bench::both() {
            let client = bench.client().await;
            let mut channel = client.to_port(port).await.unwrap();
            let sent: Vec<u8> = (0..3_000_000_u32).map(|it| it.to_le_bytes()[1]).collect();
            let (_, echoed) = tokio::join!(
                async {
                    let (_, write) = client.to_port(port).await.unwrap().split();
                    write.close().await.unwrap();
                },
                async {
                    let data = bytes::Bytes::from(sent.clone());
                    let writer = channel.make_writer();
                    let write = async {
                        let mut writer = writer;
                        tokio::io::AsyncWriteExt::write_all(&mut writer, &data)
                            .await
                            .unwrap();
                        tokio::io::AsyncWriteExt::shutdown(&mut writer)
                            .await
                            .unwrap();
                    };
                    tokio::join!(write, read_all(&mut channel)).1
                }
            );
            assert!(echoed == sent, "{}", echoed.len());
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    within(async {
        for bench in Bench::both() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = bench.client().await;
            for _ in 0..8 {
                let greet = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut stream, b"220 hello").await
                };
                let (greeted, channel) = tokio::join!(greet, client.to_port(port));
                greeted.unwrap();
                let mut channel = channel.unwrap();
                channel.eof().await.unwrap();
                assert_eq!(read_all(&mut channel).await, b"220 hello");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_client_sends_right_before_it_closes_arrives() {
    within(async {
        for bench in Bench::both() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = bench.client().await;
            let channel = client.to_port(port).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            channel.data_bytes(vec![7; 1_000_000]).await.unwrap();
            channel.close().await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.unwrap();
            assert_eq!(received.len(), 1_000_000);
        }
    })
    .await;
}

#[tokio::test]
async fn where_nobody_listens_the_channel_is_refused_as_such() {
    within(async {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        for bench in Bench::both() {
            let client = bench.client().await;
            let Err(russh::Error::ChannelOpenFailure(reason)) = client.to_port(port).await else {
                panic!("nobody listens");
            };
            assert!(matches!(reason, ChannelOpenFailure::ConnectFailed));
            let nowhere = client
                .handle
                .channel_open_direct_streamlocal("no/such/socket");
            assert!(nowhere.await.is_err());
            assert_eq!(client.run("echo alive").await, "alive\n");
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_of_the_machine_is_reached_by_a_path_from_the_work_directory() {
    within(async {
        for bench in Bench::both() {
            let listener = UnixListener::bind(bench.directory.path().join("s")).unwrap();
            let client = bench.client().await;
            let opened = client.handle.channel_open_direct_streamlocal("s");
            let (accepted, channel) = tokio::join!(listener.accept(), opened);
            let (mut stream, _) = accepted.unwrap();
            let mut channel = channel.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"hello")
                .await
                .unwrap();
            drop(stream);
            channel.eof().await.unwrap();
            assert_eq!(read_all(&mut channel).await, b"hello");
        }
    })
    .await;
}

/// The client of the other tests cannot leave a stream unread, so this is the gateway's way to the machine alone.
#[tokio::test]
async fn streams_that_nobody_reads_do_not_stop_the_others() {
    within(async {
        let (port, _echo) = echo().await;
        let (flood_port, _flood) = flood().await;
        let directory = tempfile::tempdir().unwrap();
        let (backend, _served) = machine(directory.path());
        let conn = backend.connect().await.unwrap();
        let to = |port| Destination::Tcp {
            host: "localhost".to_owned(),
            port,
            originator: Originator::default(),
        };
        let mut floods = Vec::new();
        for _ in 0..6 {
            floods.push(conn.open_stream(&to(flood_port)).await.unwrap());
        }
        let mut streams = Vec::new();
        for _ in 0..40 {
            streams.push(conn.open_stream(&to(port)).await.unwrap());
        }
        for stream in &mut streams {
            stream.sink.data("ping".into()).await.unwrap();
            stream.sink.eof().await.unwrap();
        }
        for stream in &mut streams {
            let echoed = Some(ChannelEvent::Data("ping".into()));
            assert_eq!(stream.source.next().await, echoed);
            assert_eq!(stream.source.next().await, Some(ChannelEvent::Eof));
        }
        // A flood that was cut ends, one that was not goes on.
        for flood in &mut floods {
            assert!(matches!(
                flood.source.next().await,
                Some(ChannelEvent::Data(_)) | None
            ));
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_the_machine_cuts_is_closed() {
    within(async {
        for bench in Bench::both() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = bench.client().await;
            let mut channel = client.to_port(port).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            // Unread input makes the end a reset.
            channel.data_bytes("unread").await.unwrap();
            stream.peek(&mut [0]).await.unwrap();
            drop(stream);
            while let Some(message) = channel.wait().await {
                assert!(!matches!(message, ChannelMsg::Data { .. }));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn many_streams_at_once_share_a_few_connections_to_the_machine() {
    within(async {
        let (port, _echo) = echo().await;
        let bench = Bench::gateway();
        let client = bench.client().await;
        let streams = (0..60_u8).map(|number| {
            let client = &client;
            async move {
                let mut channel = client.to_port(port).await.unwrap();
                channel.data_bytes(vec![number; 1000]).await.unwrap();
                channel.eof().await.unwrap();
                assert_eq!(read_all(&mut channel).await, [number; 1000]);
            }
        });
        futures_util::future::join_all(streams).await;
        let connections = bench.served.lock().unwrap().len();
        assert!((2..=8).contains(&connections), "{connections}");
    })
    .await;
}
