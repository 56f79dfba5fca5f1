use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use russh::ChannelMsg;
use tokio::net::UnixStream;

use crate::support::{Bench, exchange, read_all, within};

#[tokio::test]
async fn a_session_reaches_its_user_s_agent_by_a_private_socket_that_ends_with_it() {
    within(async {
        for bench in Bench::both() {
            let mut client = bench.client().await;
            let mut channel = client.handle.channel_open_session().await.unwrap();
            channel.agent_forward(true).await.unwrap();
            channel
                .exec(true, "echo $SSH_AUTH_SOCK; cat")
                .await
                .unwrap();
            let path = loop {
                if let Some(ChannelMsg::Data { data }) = channel.wait().await {
                    break String::from_utf8(data.to_vec()).unwrap();
                }
            };
            let path = Path::new(path.trim());
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(path), mode(path.parent().unwrap())), (0o600, 0o700));
            let stream = UnixStream::connect(path).await.unwrap();
            let answer = async {
                let mut agent = client.streams.recv().await.unwrap();
                assert_eq!(agent.name, "agent");
                while !matches!(agent.channel.wait().await, Some(ChannelMsg::Data { .. })) {}
                agent.channel.data_bytes("keys").await.unwrap();
                agent.channel.eof().await.unwrap();
                read_all(&mut agent.channel).await;
            };
            assert_eq!(tokio::join!(exchange(stream, b"list"), answer).0, b"keys");
            channel.eof().await.unwrap();
            read_all(&mut channel).await;
            while path.parent().unwrap().exists() {
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_asked_for_no_agent_has_none() {
    within(async {
        for bench in Bench::both() {
            let client = bench.client().await;
            assert_eq!(client.run("echo \"<$SSH_AUTH_SOCK>\"").await, "<>\n");
        }
    })
    .await;
}
