use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::ChannelMsg;
use sshbridge::auth::{Machine, Refusal};
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget};
use sshbridge::backend::{Backend, BackendError, ChannelEvent, ChannelRequest};
use sshbridge::hostkey::HostKeys;
use sshbridge::server::Server;

use crate::support::{
    Anybody, Dials, FakeBackend, Resolves, backend_to, config, log_in, read_out, run, server,
    server_with, within,
};

/// The gateway in front of a machine with its own SSH server.
fn bridge() -> Server {
    let machine = Machine::new("far", Arc::new(backend_to(&server(), 64 << 10)));
    server_with(config(), machine)
}

#[tokio::test]
async fn exit_codes_arrive() {
    within(async {
        for server in [server(), bridge()] {
            for code in [0, 1, 42, 255] {
                let seen = run(&server, &format!("exit {code}")).await;
                assert_eq!(seen.status, Some(code));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_status_comes_before_the_end_and_the_end_before_the_close() {
    within(async {
        for server in [server(), bridge()] {
            let seen = run(&server, "exit 7").await;
            assert_eq!(seen.order, ["success", "status", "eof", "close"]);
        }
    })
    .await;
}

#[tokio::test]
async fn the_status_comes_first_even_where_the_machine_ends_its_output_first() {
    within(async {
        for server in [server(), bridge()] {
            let seen = run(&server, "shut").await;
            assert_eq!(seen.order, ["success", "status", "eof", "close"]);
            assert_eq!(seen.status, Some(3));
        }
    })
    .await;
}

#[tokio::test]
async fn standard_error_stays_apart() {
    within(async {
        for server in [server(), bridge()] {
            let seen = run(&server, "both").await;
            assert_eq!((&*seen.stdout, &*seen.stderr), (&b"out"[..], &b"err"[..]));
        }
    })
    .await;
}

#[tokio::test]
async fn a_signal_is_reported_by_its_name() {
    within(async {
        for server in [server(), bridge()] {
            let seen = run(&server, "killed KILL").await;
            assert_eq!(seen.signal.as_deref(), Some("KILL"));
            assert_eq!(seen.status, None);
        }
    })
    .await;
}

#[tokio::test]
async fn input_ends_where_the_client_ends_it() {
    within(async {
        for server in [server(), bridge()] {
            let client = log_in(&server).await;
            let mut channel = client.channel_open_session().await.unwrap();
            channel.exec(true, "cat").await.unwrap();
            channel.data_bytes("some input").await.unwrap();
            channel.eof().await.unwrap();
            let seen = read_out(&mut channel).await;
            assert_eq!(seen.stdout, b"some input");
            assert_eq!(seen.status, Some(0));
        }
    })
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_all_answered_in_order() {
    within(async {
        for server in [server(), bridge()] {
            let client = log_in(&server).await;
            let mut channel = client.channel_open_session().await.unwrap();
            channel
                .request_pty(true, "xterm", 80, 24, 0, 0, &[])
                .await
                .unwrap();
            channel.set_env(true, "LANG", "C").await.unwrap();
            channel.set_env(true, "LD_PRELOAD", "evil").await.unwrap();
            channel.exec(true, "log").await.unwrap();
            let seen = read_out(&mut channel).await;
            assert_eq!(
                seen.order,
                [
                    "success", "success", "failure", "success", "status", "eof", "close"
                ]
            );
            assert_eq!(seen.stdout, b"xterm 80x24\nLANG=C\n");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_served_is_refused() {
    within(async {
        let client = log_in(&server()).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.agent_forward(true).await.unwrap();
        channel
            .request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0)
            .await
            .unwrap();
        channel.exec(true, "refuse").await.unwrap();
        for _ in 0..3 {
            assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
        }
        assert!(
            client
                .channel_open_direct_tcpip("localhost", 22, "localhost", 1)
                .await
                .is_err()
        );
        assert!(client.tcpip_forward("localhost", 0).await.is_err());
        channel.exec(true, "exit 4").await.unwrap();
        assert_eq!(read_out(&mut channel).await.status, Some(4));
    })
    .await;
}

#[tokio::test]
async fn a_channel_starts_one_thing() {
    within(async {
        let client = log_in(&server()).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        channel.exec(true, "exit 1").await.unwrap();
        channel.eof().await.unwrap();
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.order, ["success", "failure", "status", "eof", "close"]);
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_is_lost_is_never_success() {
    within(async {
        for server in [server(), bridge()] {
            let seen = run(&server, "die").await;
            assert_eq!(seen.stdout, b"half");
            assert_eq!(seen.status, Some(255));
            let said = String::from_utf8(seen.stderr).unwrap();
            assert_eq!(said, "the connection to the machine was lost\n");
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_read_by_the_user() {
    within(async {
        let refusal = Refusal::new("no instance user-x-linux-0 of yours");
        let resolver = Arc::new(Resolves(Err(refusal)));
        let server = Server::new(config(), Arc::new(Anybody), resolver);
        let seen = run(&server, "anything").await;
        assert_eq!(seen.stderr, b"no instance user-x-linux-0 of yours\n");
        assert_eq!(seen.stdout, b"");
        assert_eq!(seen.order, ["success", "status", "eof", "close"]);
        assert_eq!(seen.status, Some(255));
    })
    .await;
}

#[tokio::test]
async fn a_machine_that_cannot_be_reached_is_named() {
    within(async {
        struct Down;
        #[async_trait]
        impl SshDialer for Down {
            async fn dial(&self, _key: &str) -> Result<SshTarget, BackendError> {
                let refused = std::io::ErrorKind::ConnectionRefused;
                Err(BackendError::Unreachable(refused.into()))
            }
        }
        let machine = Machine::new("m-1", Arc::new(SshBackend::new(Arc::new(Down))));
        let seen = run(&server_with(config(), machine), "anything").await;
        let said = String::from_utf8(seen.stderr).unwrap();
        assert_eq!(
            said,
            "m-1: the machine cannot be reached: connection refused\n"
        );
        assert_eq!(seen.status, Some(255));
    })
    .await;
}

/// A machine that is not reached, or is and says nothing.
#[derive(Clone, Copy)]
enum Mute {
    Dialled,
    Reached,
}

#[async_trait]
impl SshDialer for Mute {
    async fn dial(&self, _authorized_key: &str) -> Result<SshTarget, BackendError> {
        let (near, far) = tokio::io::duplex(1 << 10);
        match self {
            Self::Dialled => std::future::pending().await,
            Self::Reached => {
                tokio::spawn(async move {
                    let _far = far;
                    std::future::pending::<()>().await;
                });
                Ok(SshTarget::new(near, "user"))
            }
        }
    }
}

#[tokio::test]
async fn a_machine_that_says_nothing_is_given_up() {
    within(async {
        for mute in [Mute::Dialled, Mute::Reached] {
            let machine = Machine::new("far", Arc::new(SshBackend::new(Arc::new(mute))));
            let mut config = config();
            config.connect_timeout = Duration::from_millis(50);
            let seen = run(&server_with(config, machine), "echo").await;
            assert_eq!(seen.status, Some(255));
            let said = String::from_utf8(seen.stderr).unwrap();
            assert!(said.contains("did not answer in time"), "{said}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_machine_with_another_host_key_is_not_spoken_to() {
    within(async {
        let dials = |host_key: String| {
            SshBackend::new(Arc::new(Dials {
                server: server(),
                pipe: 64 << 10,
                host_key: Some(host_key),
            }))
        };
        let other = dials(HostKeys::ephemeral().public_line());
        assert!(matches!(
            other.connect().await,
            Err(BackendError::HostKeyMismatch)
        ));
        let nonsense = dials("nonsense".to_owned());
        assert!(matches!(
            nonsense.connect().await,
            Err(BackendError::HostKeyMismatch)
        ));
    })
    .await;
}

#[tokio::test]
async fn the_announced_host_key_is_accepted() {
    within(async {
        let keys = HostKeys::ephemeral();
        let mut config = config();
        config.host_keys = keys.clone();
        let server = server_with(config, Machine::new("fake", Arc::new(FakeBackend)));
        let backend = SshBackend::new(Arc::new(Dials {
            server,
            pipe: 4 << 10,
            host_key: Some(format!("{} comment", keys.public_line())),
        }));
        assert!(backend.connect().await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_never_answered_fails_in_time() {
    within(async {
        let mut config = config();
        config.request_timeout = Duration::from_millis(50);
        let server = server_with(config, Machine::new("fake", Arc::new(FakeBackend)));
        let client = log_in(&server).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "never answer").await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Failure)));
    })
    .await;
}

#[tokio::test]
async fn only_a_shell_on_a_terminal_is_greeted() {
    within(async {
        let mut machine = Machine::new("fake", Arc::new(FakeBackend));
        machine.greeting = "# Welcome.\n".to_owned();
        let server = server_with(config(), machine);
        assert_eq!(run(&server, "hello").await.stdout, b"hello");

        let client = log_in(&server).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel
            .request_pty(true, "vt100", 80, 24, 0, 0, &[])
            .await
            .unwrap();
        channel.request_shell(true).await.unwrap();
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.stdout, b"# Welcome.\r\nshell");
    })
    .await;
}

#[tokio::test]
async fn the_machines_environment_comes_first() {
    within(async {
        let mut machine = Machine::new("fake", Arc::new(FakeBackend));
        machine.env = vec![("GOROOT".to_owned(), "/go".to_owned())];
        let client = log_in(&server_with(config(), machine)).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.set_env(true, "LC_ALL", "C").await.unwrap();
        channel.exec(true, "log").await.unwrap();
        assert_eq!(
            read_out(&mut channel).await.stdout,
            b"GOROOT=/go\nLC_ALL=C\n"
        );
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_right_cuts_the_session_with_a_sentence() {
    within(async {
        let machine = Machine::new("m-1", Arc::new(FakeBackend));
        let tenure = machine.tenure.clone();
        let client = log_in(&server_with(config(), machine)).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
        tenure.end("m-1 was destroyed");
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.stderr, b"m-1 was destroyed\n");
        assert_eq!(seen.status, Some(255));
        // The connection goes as well.
        let _ = client.await;
    })
    .await;
}

#[tokio::test]
async fn a_last_sentence_on_a_terminal_returns_the_carriage() {
    within(async {
        let machine = Machine::new("m-1", Arc::new(FakeBackend));
        let tenure = machine.tenure.clone();
        let client = log_in(&server_with(config(), machine)).await;
        let mut channel = client.channel_open_session().await.unwrap();
        let pty = || channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]);
        pty().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        pty().await.unwrap();
        for granted in [true, true, false] {
            match channel.wait().await {
                Some(ChannelMsg::Success) => assert!(granted),
                Some(ChannelMsg::Failure) => assert!(!granted),
                other => panic!("{other:?}"),
            }
        }
        tenure.end("m-1 was destroyed");
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.stderr, b"m-1 was destroyed\r\n");
    })
    .await;
}

#[tokio::test]
async fn a_connection_has_a_limited_number_of_channels() {
    within(async {
        let mut config = config();
        config.max_channels = 2;
        let server = server_with(config, Machine::new("fake", Arc::new(FakeBackend)));
        let client = log_in(&server).await;
        let mut first = client.channel_open_session().await.unwrap();
        let _second = client.channel_open_session().await.unwrap();
        assert!(client.channel_open_session().await.is_err());
        first.exec(true, "exit 0").await.unwrap();
        read_out(&mut first).await;
        assert!(client.channel_open_session().await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_command_with_it() {
    within(async {
        let backend = backend_to(&server(), 64 << 10);
        let conn = backend.connect().await.unwrap();
        let channel = conn.open_session().await.unwrap();
        let exec = ChannelRequest::Exec("deaf".into());
        channel.control.request(exec).await.unwrap();
        drop(conn);
        let mut source = channel.source;
        assert_eq!(source.next().await, None::<ChannelEvent>);
    })
    .await;
}
