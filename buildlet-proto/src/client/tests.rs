//! A peer written as a script: what the client sends is compared byte by byte, what it gets is as bad as it comes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use super::*;
use crate::ErrorStatus;

mod jobs;

#[tokio::test]
async fn a_command_is_sent_as_gos_clients_send_it() {
    let (client, mut server) = peer();
    let mut exec = ExecRequest::system("echo");
    exec.args = vec!["a b".to_owned(), "c;d".to_owned()];
    let call = async {
        let mut execution = client.exec(exec).await.unwrap();
        let mut output = String::new();
        execution.output.read_to_string(&mut output).await.unwrap();
        (output, execution.state.await.unwrap())
    };
    let serve = async {
        let mut conn = server.accept().await;
        assert_eq!(
            conn.request().await,
            "POST /exec HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\nte: trailers\r\n\
             host: buildlet\r\ncontent-length: 58\r\n\r\ncmd=echo&mode=sys&dir=&cmdArg=a+b&cmdArg=c%3Bd&debug=false"
        );
        conn.send(EXEC_HEAD).await;
        conn.send("5\r\nhello\r\n0\r\nProcess-State: exit status 2\r\n\r\n")
            .await;
        conn
    };
    let ((output, state), _conn) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert_eq!(output, "hello");
    assert_eq!(state.exit_code(), Some(2));
}

#[tokio::test]
async fn a_missing_process_state_is_an_error() {
    let (output, state) = run("3\r\nabc\r\n0\r\n\r\n").await;
    assert_eq!(output.unwrap(), "abc");
    let error = state.unwrap_err();
    assert!(
        error.message().starts_with("missing Process-State trailer"),
        "{error}"
    );
}

#[tokio::test]
async fn a_command_that_is_cut_off_has_no_end() {
    for body in [
        "",
        "3\r\nab",
        "3\r\nabc\r\n",
        "3\r\nabc\r\n0\r\n",
        "3\r\nabc\r\n0\r\nProcess-State: ok\r\n",
    ] {
        let (output, state) = run(body).await;
        let error = output.unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::UnexpectedEof,
            "{body:?}: {error}"
        );
        assert!(state.unwrap_err().message().contains("cut"), "{body:?}");
    }
}

#[tokio::test]
async fn a_cut_stays_an_error_when_it_is_read_again() {
    let mut archive = download("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        .await
        .unwrap();
    let mut buf = Vec::new();
    for _ in 0..3 {
        let error = archive.read_to_end(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    assert_eq!(buf, b"half");
}

#[tokio::test]
async fn a_reply_that_ends_with_its_connection_is_refused() {
    let error = download("HTTP/1.1 200 OK\r\n\r\nall or half of it")
        .await
        .err()
        .unwrap();
    assert!(
        error.message().contains("cannot be told from a cut"),
        "{error}"
    );
}

#[tokio::test]
async fn an_error_keeps_the_servers_status_and_text() {
    let reply = "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 9\r\n\r\nno \x1b[2Jx\n";
    let error = download(reply).await.err().unwrap();
    assert_eq!(error.status(), ErrorStatus::UNPROCESSABLE);
    assert_eq!(error.message(), "no  [2Jx");
}

#[tokio::test]
async fn an_endless_error_is_read_for_four_kibibytes() {
    let reply = format!(
        "HTTP/1.1 500 Oops\r\ncontent-length: 99999\r\n\r\n{}",
        "x".repeat(8192)
    );
    let error = download(&reply).await.err().unwrap();
    assert_eq!(error.message().len(), 4096);
}

#[tokio::test]
async fn an_error_without_text_names_its_status() {
    let error = download("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
        .await
        .err()
        .unwrap();
    assert_eq!(error.message(), "HTTP status 502 Bad Gateway");
}

#[tokio::test]
async fn what_is_neither_success_nor_error_is_an_error() {
    for status in ["302 Found", "304 Not Modified", "101 Switching Protocols"] {
        let reply = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        let error = download(&reply).await.err().unwrap();
        assert_eq!(error.status(), ErrorStatus::BAD_GATEWAY);
        assert!(error.message().starts_with("unexpected reply"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_called_so() {
    let error = download("SSH-2.0-OpenSSH_9.2\r\n").await.err().unwrap();
    assert_eq!(error.message(), "the server does not answer in HTTP/1.1");
    let error = download("").await.err().unwrap();
    assert_eq!(
        error.message(),
        "the connection was cut before a reply came"
    );
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_error_with_its_reason() {
    let refuse =
        || async { Err::<DuplexStream, _>(io::Error::from(io::ErrorKind::ConnectionRefused)) };
    let error = Client::new(refuse).status().await.unwrap_err();
    assert_eq!(error.message(), "the server cannot be reached");
    assert!(
        std::error::Error::source(&error)
            .unwrap()
            .to_string()
            .contains("refused")
    );
}

#[tokio::test]
async fn a_small_reply_may_not_be_large() {
    let (client, mut server) = peer();
    let serve = async {
        let mut conn = server.accept().await;
        conn.request().await;
        let large = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n{}",
            "x".repeat(99999)
        );
        let _ = conn.0.write_all(large.as_bytes()).await;
    };
    let (error, ()) = within_seconds(async { tokio::join!(client.work_dir(), serve) }).await;
    assert!(error.unwrap_err().message().contains("more than"));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_does_not_begin_is_not_waited_for() {
    let (client, mut server) = peer();
    let serve = async {
        let mut conn = server.accept().await;
        conn.request().await;
        // Heartbeats are answered all the while.
        loop {
            server.accept().await.answer_status().await;
        }
    };
    let error = tokio::select! {
        exec = client.exec(ExecRequest::system("x")) => exec.unwrap_err(),
        () = serve => unreachable!("the server waits for ever"),
    };
    assert_eq!(
        error.message(),
        "buildlet: timeout waiting for exec header response"
    );
    assert_eq!(error.status(), ErrorStatus::GATEWAY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_heartbeat_fails_three_times_in_a_row_is_gone() {
    let (client, mut server) = peer();
    let started = tokio::time::Instant::now();
    let serve = async {
        let mut exec = server.accept().await;
        exec.request().await;
        exec.send(EXEC_HEAD).await;
        for is_alive in [false, false, true, false, false, false] {
            let mut heartbeat = server.accept().await;
            if is_alive {
                heartbeat.answer_status().await;
            }
        }
        exec
    };
    let call = async {
        let mut execution = client.exec(ExecRequest::system("x")).await.unwrap();
        let error = execution
            .output
            .read_to_end(&mut Vec::new())
            .await
            .unwrap_err();
        (error, execution.state.await.unwrap_err())
    };
    let ((output, state), _exec) = tokio::join!(call, serve);
    assert_eq!(started.elapsed().as_secs(), 60);
    assert_eq!(output.kind(), io::ErrorKind::TimedOut);
    assert!(
        output
            .to_string()
            .starts_with("the machine is gone: 3 heartbeats"),
        "{output}"
    );
    assert!(
        state.message().starts_with("the machine is gone"),
        "{state}"
    );
}

#[tokio::test]
async fn dropping_the_output_or_the_state_hangs_up() {
    for keep_output in [true, false] {
        let (client, mut server) = peer();
        let serve = async {
            let mut conn = server.accept().await;
            conn.request().await;
            conn.send(EXEC_HEAD).await;
            conn
        };
        let call = client.exec(ExecRequest::system("x"));
        let (execution, mut conn) = tokio::join!(call, serve);
        let Execution { output, state } = execution.unwrap();
        let kept: Box<dyn std::any::Any> = if keep_output {
            drop(state);
            Box::new(output)
        } else {
            drop(output);
            Box::new(state)
        };
        let count = within_seconds(conn.0.read(&mut [0])).await;
        assert_eq!(count.unwrap(), 0, "keep_output: {keep_output}");
        drop(kept);
    }
}

#[tokio::test]
async fn an_upload_streams_with_gos_decimal_mode() {
    let (client, mut server) = peer();
    let path = RelPath::new("a dir/b&c").unwrap();
    let call = client.write(path, 0o100_644, Box::pin(&b"content"[..]));
    let serve = async {
        let mut conn = server.accept().await;
        let want = "PUT /write?path=a+dir%2Fb%26c&mode=420 HTTP/1.1\r\nhost: buildlet\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(conn.head().await, want);
        assert_eq!(
            conn.read_until("0\r\n\r\n").await,
            "7\r\ncontent\r\n0\r\n\r\n"
        );
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK")
            .await;
        conn
    };
    let (written, _conn) = within_seconds(async { tokio::join!(call, serve) }).await;
    written.unwrap();
}

#[tokio::test]
async fn a_source_that_fails_cuts_the_upload_off() {
    let (client, mut server) = peer();
    let failing = tokio_util::io::StreamReader::new(Failing(2));
    let call = client.write(RelPath::new("x").unwrap(), 0o644, Box::pin(failing));
    let serve = async {
        let mut conn = server.accept().await;
        let mut sent = String::new();
        conn.0.read_to_string(&mut sent).await.unwrap();
        sent
    };
    let (written, sent) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert!(
        written
            .unwrap_err()
            .message()
            .contains("the disk is on fire")
    );
    assert!(!sent.contains("0\r\n\r\n"), "{sent}");
}

#[tokio::test]
async fn an_upload_that_is_refused_early_has_the_servers_reason() {
    let (client, mut server) = peer();
    let endless = Box::pin(tokio::io::repeat(b'x'));
    let call = client.write_tgz(RelPath::ROOT, endless);
    let serve = async {
        let mut conn = server.accept().await;
        assert!(
            conn.head()
                .await
                .starts_with("PUT /writetgz?dir=. HTTP/1.1\r\n")
        );
        conn.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 8\r\n\r\ntoo much")
            .await;
        conn
    };
    let (written, _conn) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert_eq!(written.unwrap_err().message(), "too much");
}

#[tokio::test]
async fn an_archive_is_asked_for_by_its_url_as_gos_clients_ask() {
    for (reply, expected) in [("OK", Fetched::Unpacked), ("SKIP", Fetched::AlreadyThere)] {
        let (client, mut server) = peer();
        let dir = RelPath::new("go1.4").unwrap();
        let call = client.fetch_tgz(dir, "https://x/a?b".to_owned());
        let serve = async {
            let mut conn = server.accept().await;
            assert_eq!(
                conn.request().await,
                "POST /writetgz?dir=go1.4 HTTP/1.1\r\ncontent-type: application/x-www-form-urlencoded\r\n\
                 host: buildlet\r\ncontent-length: 27\r\n\r\nurl=https%3A%2F%2Fx%2Fa%3Fb"
            );
            let length = reply.len();
            conn.send(&format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{reply}"
            ))
            .await;
            conn
        };
        let (fetched, _conn) = within_seconds(async { tokio::join!(call, serve) }).await;
        assert_eq!(fetched.unwrap(), expected);
    }
}

#[tokio::test]
async fn bytes_that_come_with_the_101_are_kept() {
    let (client, mut server) = peer();
    let call = async {
        let ssh = SshRequest::new("root", "ssh-ed25519 AAAA\n");
        let mut ssh = client.connect_ssh(ssh).await.unwrap();
        assert_eq!(ssh.host_key.as_deref(), Some("ssh-ed25519 BBBB"));
        ssh.stream.write_all(b"SSH-2.0-client\r\n").await.unwrap();
        ssh.stream.shutdown().await.unwrap();
        let mut received = String::new();
        ssh.stream.read_to_string(&mut received).await.unwrap();
        received
    };
    let serve = async {
        let mut conn = server.accept().await;
        let want = "POST /connect-ssh HTTP/1.1\r\ncontent-length: 0\r\nconnection: Upgrade\r\nupgrade: ssh\r\n\
                    x-go-ssh-user: root\r\nx-go-authorized-key: ssh-ed25519 AAAA\r\nhost: buildlet\r\n\r\n";
        assert_eq!(conn.head().await, want);
        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: ssh\r\nConnection: Upgrade\r\nX-Ssh-Host-Key: ssh-ed25519 BBBB\r\n\r\nSSH-2.0-server\r\n").await;
        let mut sent = String::new();
        conn.0.read_to_string(&mut sent).await.unwrap();
        // The client has ended its direction; ours goes on.
        conn.send("more").await;
        sent
    };
    let (received, sent) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert_eq!(received, "SSH-2.0-server\r\nmore");
    assert_eq!(sent, "SSH-2.0-client\r\n");
}

#[tokio::test]
async fn a_refused_ssh_stream_has_the_servers_reason() {
    for (reply, status, text) in [
        (
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 7\r\n\r\nno sshd",
            ErrorStatus::BAD_GATEWAY,
            "no sshd",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            ErrorStatus::BAD_GATEWAY,
            "unexpected reply: HTTP status 200 OK",
        ),
    ] {
        let (client, mut server) = peer();
        let serve = async {
            let mut conn = server.accept().await;
            conn.head().await;
            conn.send(reply).await;
            conn
        };
        let (ssh, _conn) = within_seconds(async {
            tokio::join!(client.connect_ssh(SshRequest::default()), serve)
        })
        .await;
        let error = ssh.unwrap_err();
        assert_eq!((error.status(), error.message()), (status, text));
    }
}

#[tokio::test]
async fn a_stream_to_a_port_is_asked_for_by_its_number() {
    let (client, mut server) = peer();
    let call = async {
        let mut stream = client.connect_tcp(17010).await.unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
        received
    };
    let serve = async {
        let mut conn = server.accept().await;
        let want = "POST /connect-tcp HTTP/1.1\r\ncontent-length: 0\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\
                    x-target-port: 17010\r\nhost: buildlet\r\n\r\n";
        assert_eq!(conn.head().await, want);
        conn.send(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nearly",
        )
        .await;
    };
    let (received, ()) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert_eq!(received, "early");
}

#[tokio::test]
async fn a_key_of_two_lines_is_not_sent() {
    let (client, _server) = peer();
    let ssh = SshRequest::new("root", "ssh-ed25519 AAAA\r\nX-Evil: 1");
    let error = client.connect_ssh(ssh).await.unwrap_err();
    assert_eq!(error.status(), ErrorStatus::BAD_REQUEST);
}

#[tokio::test]
async fn credentials_and_headers_go_with_every_request() {
    let (client, mut server) = peer();
    let client = client
        .with_password("secret")
        .with_host(&"machine:5936".parse().unwrap());
    let serve = async {
        let mut conn = server.accept().await;
        let head = conn.head().await;
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"Version\":15}")
            .await;
        head
    };
    let (status, head) = within_seconds(async { tokio::join!(client.status(), serve) }).await;
    assert_eq!(status.unwrap().version, 15);
    assert_eq!(
        head,
        "GET /status HTTP/1.1\r\nhost: machine:5936\r\nauthorization: Basic Z29tb3RlOnNlY3JldA==\r\n\r\n"
    );
}

#[tokio::test]
async fn removing_and_listing_name_every_path() {
    let (client, mut server) = peer();
    let paths = vec![RelPath::new("a").unwrap(), RelPath::ROOT];
    let mut list = ListRequest::new(RelPath::ROOT);
    (list.recursive, list.skip) = (true, vec!["go/pkg".to_owned(), "x".to_owned()]);
    let call = async {
        client.remove_all(paths).await.unwrap();
        let mut lines = String::new();
        client
            .list(list)
            .await
            .unwrap()
            .read_to_string(&mut lines)
            .await
            .unwrap();
        lines
    };
    let serve = async {
        let mut conn = server.accept().await;
        assert!(conn.request().await.ends_with("\r\n\r\npath=a&path=."));
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
        let mut conn = server.accept().await;
        let head = conn.head().await;
        assert!(
            head.starts_with(
                "GET /ls?dir=.&recursive=true&digest=false&skip=go%2Fpkg&skip=x HTTP/1.1\r\n"
            ),
            "{head}"
        );
        conn.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\na\tb\n\r\n0\r\n\r\n")
            .await;
        conn
    };
    let (lines, _conn) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert_eq!(lines, "a\tb\n");
}

/// Runs a command whose reply has this body, after which the connection is closed.
async fn run(body: &str) -> (io::Result<String>, Result<ProcessState, ApiError>) {
    let (client, mut server) = peer();
    let serve = async {
        let mut conn = server.accept().await;
        conn.request().await;
        conn.send(EXEC_HEAD).await;
        conn.send(body).await;
    };
    let call = async {
        let mut execution = client.exec(ExecRequest::system("x")).await.unwrap();
        let mut output = String::new();
        let read = execution.output.read_to_string(&mut output).await;
        (read.map(|_| output), execution.state.await)
    };
    within_seconds(async { tokio::join!(call, serve) }).await.0
}

/// Asks for an archive, and is given `reply`, after which the connection is closed.
async fn download(reply: &str) -> Result<ByteReader, ApiError> {
    let (client, mut server) = peer();
    let serve = async {
        let mut conn = server.accept().await;
        conn.head().await;
        conn.send(reply).await;
    };
    within_seconds(async { tokio::join!(client.read_tgz(RelPath::ROOT), serve) })
        .await
        .0
}

fn peer() -> (Client<impl Connect>, Server) {
    let (sender, receiver) = mpsc::channel(16);
    let connect = move || {
        let sender = sender.clone();
        async move {
            let (near, far) = tokio::io::duplex(256 * 1024);
            sender.send(far).await.map_err(io::Error::other)?;
            Ok(near)
        }
    };
    (Client::new(connect), Server(receiver))
}

async fn within_seconds<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), Box::pin(test))
        .await
        .expect("the test ends within ten seconds")
}

struct Server(mpsc::Receiver<DuplexStream>);

impl Server {
    async fn accept(&mut self) -> Conn {
        Conn(self.0.recv().await.unwrap())
    }
}

struct Conn(DuplexStream);

impl Conn {
    async fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            text.push(self.0.read_u8().await.unwrap().into());
        }
        text
    }

    async fn head(&mut self) -> String {
        self.read_until("\r\n\r\n").await
    }

    /// Reads a request whose body, if any, has a length.
    async fn request(&mut self) -> String {
        let mut text = self.head().await;
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body).await.unwrap();
        text.push_str(std::str::from_utf8(&body).unwrap());
        text
    }

    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    async fn answer_status(&mut self) {
        assert!(self.head().await.starts_with("GET /status HTTP/1.1\r\n"));
        self.send("HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"Version\":15}")
            .await;
    }
}

/// Yields some chunks, and then an error.
struct Failing(usize);

impl futures_core::Stream for Failing {
    type Item = io::Result<bytes::Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let item = match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                Ok(bytes::Bytes::from_static(b"chunk"))
            }
            None => Err(io::Error::other("the disk is on fire")),
        };
        std::task::Poll::Ready(Some(item))
    }
}

const EXEC_HEAD: &str =
    "HTTP/1.1 200 OK\r\nTrailer: Process-State\r\nTransfer-Encoding: chunked\r\n\r\n";
