//! Jobs, and their output over connections that break.

use bytes::{Bytes, BytesMut};

use super::*;
use crate::jobs::frame::{Frame, Stream};
use crate::jobs::{JobAbout, JobCommand, Signal, SignalTarget};

#[tokio::test]
async fn a_job_is_asked_for_in_json() {
    let (client, mut server) = peer();
    let call = async {
        let key = Some("k1".to_owned());
        client.start_job(JobRequest::shell("make"), key).await
    };
    let serve = async {
        let mut conn = server.accept().await;
        assert_eq!(
            conn.request().await,
            "POST /jobs HTTP/1.1\r\ncontent-type: application/json\r\nidempotency-key: k1\r\nhost: buildlet\r\n\
             content-length: 16\r\n\r\n{\"shell\":\"make\"}"
        );
        conn.send(&json_reply("201 Created")).await;
        conn
    };
    let (job, _conn) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert_eq!(job.unwrap(), a_job());
}

#[tokio::test]
async fn signals_sizes_and_deletions_have_paths_of_their_own() {
    let (client, mut server) = peer();
    let id = a_job().id;
    let size = TerminalSize {
        rows: 50,
        columns: 132,
    };
    let call = async {
        let kill = SignalRequest::new(Signal::Kill, SignalTarget::Tree);
        client.signal_job(id, kill).await?;
        client.resize_job(id, size).await?;
        let stdin: ByteReader = Box::pin(&b"abc"[..]);
        let place = StdinRequest::at(7).and_close();
        assert_eq!(client.write_job_stdin(id, place, stdin).await?.taken, 10);
        client.delete_job(id).await
    };
    let serve = async {
        for (begins, ends) in [
            (
                "POST /jobs/0000000001/signal HTTP/1.1\r\n",
                "\r\n\r\nsignal=KILL&whole=1",
            ),
            (
                "POST /jobs/0000000001/resize HTTP/1.1\r\n",
                "\r\n\r\nrows=50&columns=132",
            ),
        ] {
            let mut conn = server.accept().await;
            let request = conn.request().await;
            assert!(
                request.starts_with(begins) && request.ends_with(ends),
                "{request}"
            );
            conn.send(&json_reply("200 OK")).await;
        }
        let mut conn = server.accept().await;
        let head = conn.head().await;
        let line = "POST /jobs/0000000001/stdin?offset=7&close=true HTTP/1.1\r\n";
        assert!(head.starts_with(line), "{head}");
        assert_eq!(conn.read_until("0\r\n\r\n").await, "3\r\nabc\r\n0\r\n\r\n");
        conn.send("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"taken\":10}")
            .await;
        let mut conn = server.accept().await;
        let head = conn.head().await;
        let line = "DELETE /jobs/0000000001 HTTP/1.1\r\n";
        assert!(head.starts_with(line), "{head}");
        conn.send(&json_reply("200 OK")).await;
    };
    let (deleted, ()) = within_seconds(async { tokio::join!(call, serve) }).await;
    assert_eq!(deleted.unwrap(), a_job());
}

#[tokio::test(start_paused = true)]
async fn output_goes_on_at_the_byte_where_it_was_cut() {
    let (client, mut server) = peer();
    let follow = follow_to_end(&client);
    let serve = async {
        // Cut in the middle of a frame, cut before any, ended without the last frame, refused for the moment.
        let mut conn = server.accept().await;
        assert_asked(&conn.head().await, 0, 0);
        let frames = frames(&[data(Stream::Stdout, 0, "abc"), data(Stream::Stderr, 0, "E")]);
        conn.send_frames(&frames[..frames.len() - 1]).await;
        drop(conn);
        drop(server.accept().await);
        let mut conn = server.accept().await;
        assert_asked(&conn.head().await, 3, 0);
        conn.send_frames(&self::frames(&[
            data(Stream::Stderr, 0, "E"),
            Frame::Heartbeat,
            Frame::Gap {
                stream: Stream::Stdout,
                offset: 3,
                end: 10,
            },
        ]))
        .await;
        conn.send("0\r\n\r\n").await;
        let mut conn = server.accept().await;
        assert_asked(&conn.head().await, 10, 1);
        conn.send("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\naway")
            .await;
        let mut conn = server.accept().await;
        assert_asked(&conn.head().await, 10, 1);
        conn.send_frames(&self::frames(&[data(Stream::Stdout, 10, "d"), end()]))
            .await;
    };
    let (read, ()) = tokio::join!(follow, serve);
    assert_eq!(
        read.unwrap(),
        "stdout 0 abc|(the connection was cut before a reply came)|stderr 0 E|gap 3 10|(away)|stdout 10 d|"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_for_good_is_not_asked_for_again() {
    for reply in [
        "HTTP/1.1 404 Not Found\r\ncontent-length: 11\r\n\r\nno such job",
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 27\r\n\r\nunknown or expired buildlet",
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let (client, mut server) = peer();
        let serve = async {
            let mut conn = server.accept().await;
            conn.head().await;
            conn.send(reply).await;
        };
        let (read, ()) = tokio::join!(follow_to_end(&client), serve);
        assert!(reply.ends_with(read.unwrap_err().message()));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_out_of_order_are_an_error_and_no_output() {
    for frame in [
        data(Stream::Stdout, 1, "x"),
        data(Stream::Stderr, u64::from(u32::MAX), "x"),
        Frame::Gap {
            stream: Stream::Stdout,
            offset: 4,
            end: 9,
        },
    ] {
        let (client, mut server) = peer();
        let serve = async {
            let mut conn = server.accept().await;
            conn.head().await;
            conn.send_frames(&frames(&[frame, end()])).await;
        };
        let (read, ()) = tokio::join!(follow_to_end(&client), serve);
        assert!(read.unwrap_err().message().contains("not as the protocol"));
    }
}

#[tokio::test(start_paused = true)]
async fn patience_has_an_end() {
    let client = Client::new(|| async {
        Err::<DuplexStream, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    });
    let began = tokio::time::Instant::now();
    let from = OutputRequest::following(0, 0);
    let mut output = client
        .follow_job(a_job().id, from)
        .with_patience(Duration::from_secs(60));
    let why = "the server cannot be reached";
    let retrying = JobEvent::Retrying {
        why: why.to_owned(),
    };
    assert_eq!(output.next().await.unwrap(), retrying);
    let error = output.next().await.unwrap_err();
    assert_eq!(error.message(), why);
    let waited = began.elapsed().as_secs();
    assert!((60..80).contains(&waited), "{waited}");
}

async fn follow_to_end<C: Connect>(client: &Client<C>) -> Result<String, ApiError> {
    let mut output = client.follow_job(a_job().id, OutputRequest::following(0, 0));
    let mut text = String::new();
    loop {
        match output.next().await? {
            JobEvent::Data {
                stream,
                offset,
                bytes,
            } => {
                let name = match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                };
                text.push_str(&format!(
                    "{name} {offset} {}|",
                    std::str::from_utf8(&bytes).unwrap()
                ));
            }
            JobEvent::End(job) => {
                assert_eq!(*job, a_job());
                return Ok(text);
            }
            JobEvent::Gap { offset, end, .. } => text.push_str(&format!("gap {offset} {end}|")),
            JobEvent::Retrying { why } => text.push_str(&format!("({why})|")),
        }
    }
}

fn assert_asked(head: &str, stdout: u64, stderr: u64) {
    let line = format!(
        "GET /jobs/0000000001/output?stdout={stdout}&stderr={stderr}&follow=true HTTP/1.1\r\n"
    );
    assert!(head.starts_with(&line), "{head}");
}

fn a_job() -> Job {
    let command = JobCommand::Shell("make".to_owned());
    let about = JobAbout::new(command, "/work", std::time::SystemTime::UNIX_EPOCH);
    Job::new(JobId::from_bits(1), about)
}

fn json_reply(status: &str) -> String {
    let json = serde_json::to_string(&a_job()).unwrap();
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    )
}

fn data(stream: Stream, offset: u64, text: &'static str) -> Frame {
    Frame::Data {
        stream,
        offset,
        bytes: Bytes::from_static(text.as_bytes()),
    }
}

fn end() -> Frame {
    Frame::End {
        job: serde_json::to_vec(&a_job()).unwrap().into(),
    }
}

fn frames(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

impl Conn {
    /// Sends the head of a reply in chunks, and one chunk.
    async fn send_frames(&mut self, frames: &[u8]) {
        self.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        self.send(&format!("{:x}\r\n", frames.len())).await;
        self.0.write_all(frames).await.unwrap();
        self.send("\r\n").await;
    }
}
