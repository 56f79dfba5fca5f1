use std::os::unix::fs::PermissionsExt as _;

use russh::ChannelMsg;
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Bench, Client, exchange, read_all, within};

/// Answers the next stream that comes with what it says, twice.
async fn answer(client: &mut Client) -> String {
    let mut forwarded = client.streams.recv().await.unwrap();
    let mut said = Vec::new();
    while let Some(message) = forwarded.channel.wait().await {
        if let ChannelMsg::Data { data } = message {
            said.extend_from_slice(&data);
        } else if matches!(message, ChannelMsg::Eof) {
            break;
        }
    }
    let twice = [&said[..], &said[..]].concat();
    forwarded.channel.data_bytes(twice).await.unwrap();
    forwarded.channel.eof().await.unwrap();
    read_all(&mut forwarded.channel).await;
    forwarded.name
}

#[tokio::test]
async fn port_0_becomes_a_real_one_that_leads_to_the_client_until_it_is_cancelled() {
    within(async {
        for bench in Bench::both() {
            let mut client = bench.client().await;
            let port = client.handle.tcpip_forward("localhost", 0).await.unwrap();
            let port = u16::try_from(port).unwrap();
            assert_ne!(port, 0);
            for _ in 0..3 {
                let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (said, name) = tokio::join!(exchange(stream, b"hello"), answer(&mut client));
                assert_eq!(said, b"hellohello");
                assert_eq!(name, format!("localhost:{port}"));
            }
            client
                .handle
                .cancel_tcpip_forward("localhost", port.into())
                .await
                .unwrap();
            let again = client.handle.cancel_tcpip_forward("localhost", port.into());
            assert!(again.await.is_err(), "it is cancelled");
            assert!(TcpStream::connect(("127.0.0.1", port)).await.is_err());
        }
    })
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_and_one_that_is_named_is_kept() {
    within(async {
        for bench in Bench::both() {
            let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = u32::from(taken.local_addr().unwrap().port());
            let mut client = bench.client().await;
            assert!(client.handle.tcpip_forward("", port).await.is_err());
            drop(taken);
            client.handle.tcpip_forward("", port).await.unwrap();
            let address = ("127.0.0.1", u16::try_from(port).unwrap());
            let stream = TcpStream::connect(address).await.unwrap();
            let (said, name) = tokio::join!(exchange(stream, b"x"), answer(&mut client));
            assert_eq!((&said[..], name), (&b"xx"[..], format!(":{port}")));
        }
    })
    .await;
}

#[tokio::test]
async fn only_this_machine_reaches_what_listens_for_a_user() {
    within(async {
        let bench = Bench::direct();
        let client = bench.client().await;
        let port = client.handle.tcpip_forward("0.0.0.0", 0).await.unwrap();
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{port:04X}");
        let local = sockets
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1));
        let addresses: Vec<_> = local.filter(|address| address.ends_with(&port)).collect();
        assert_eq!(addresses, [format!("0100007F{port}")]);
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_leads_to_the_client_and_is_the_users_alone() {
    within(async {
        for bench in Bench::both() {
            let path = bench.directory.path().join("s");
            let mut client = bench.client().await;
            client.handle.streamlocal_forward("s").await.unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let stream = UnixStream::connect(&path).await.unwrap();
            let (said, name) = tokio::join!(exchange(stream, b"x"), answer(&mut client));
            assert_eq!((&said[..], &*name), (&b"xx"[..], "s"));
            assert!(client.handle.streamlocal_forward("s").await.is_err());
            client.handle.cancel_streamlocal_forward("s").await.unwrap();
            assert!(!path.exists());
        }
    })
    .await;
}

#[tokio::test]
async fn what_listens_for_a_user_ends_with_the_connection() {
    within(async {
        for bench in Bench::both() {
            let client = bench.client().await;
            let port = client.handle.tcpip_forward("", 0).await.unwrap();
            let port = u16::try_from(port).unwrap();
            client.handle.streamlocal_forward("s").await.unwrap();
            drop(client);
            while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                tokio::task::yield_now().await;
            }
            while bench.directory.path().join("s").exists() {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_listened_and_is_lost_ends_the_client_s_connection() {
    within(async {
        let bench = Bench::gateway();
        let client = bench.client().await;
        client.handle.tcpip_forward("", 0).await.unwrap();
        bench.served.lock().unwrap().abort_all();
        let _ = client.handle.await;
    })
    .await;
}

#[tokio::test]
async fn many_connections_come_at_once() {
    within(async {
        for bench in Bench::both() {
            let mut client = bench.client().await;
            let port = client.handle.tcpip_forward("", 0).await.unwrap();
            let port = u16::try_from(port).unwrap();
            let connecting = (0..100).map(|number: u32| async move {
                let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let text = number.to_string();
                let said = exchange(stream, text.as_bytes()).await;
                assert_eq!(said, text.repeat(2).as_bytes());
            });
            let connecting = futures_util::future::join_all(connecting);
            let answering = async {
                for _ in 0..100 {
                    answer(&mut client).await;
                }
            };
            tokio::join!(connecting, answering);
        }
    })
    .await;
}
