//! Whole channels, against servers of a few lines.

use std::sync::Mutex;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_test::io::{Builder, Mock};

use super::*;
use crate::backend::ssh::Stream;
use crate::backend::{ChannelEvent, ChannelRequest, PtyRequest, WindowSize};

/// Gives one stream, or says that nobody answers.
struct Dials {
    stream: Mutex<Option<Box<dyn Stream>>>,
    login: TelnetLogin,
}

#[async_trait]
impl TelnetDialer for Dials {
    async fn dial(&self) -> Result<TelnetTarget, BackendError> {
        let stream = self.stream.lock().unwrap().take();
        let stream = stream.ok_or(BackendError::TimedOut)?;
        Ok(TelnetTarget::new(stream, self.login.clone()))
    }
}

async fn channel_with(login: TelnetLogin, room: usize) -> (BackendChannel, DuplexStream) {
    let (near, far) = tokio::io::duplex(room);
    (channel_over(near, login).await, far)
}

async fn channel_over(stream: impl Stream, login: TelnetLogin) -> BackendChannel {
    let dialer = Arc::new(Dials {
        stream: Mutex::new(Some(Box::new(stream))),
        login,
    });
    let backend = TelnetBackend::new(dialer, TelnetSettings::default());
    let conn = backend.connect().await.unwrap();
    conn.open_session().await.unwrap()
}

async fn channel(login: TelnetLogin) -> (BackendChannel, DuplexStream) {
    channel_with(login, 64 << 10).await
}

fn auto() -> TelnetLogin {
    let credentials = Credentials::new("gopher").unwrap();
    TelnetLogin::Auto(credentials.with_password("s3cret"))
}

async fn start_shell(channel: &BackendChannel) {
    let size = WindowSize {
        columns: 100,
        rows: 30,
        ..WindowSize::default()
    };
    let pty = ChannelRequest::Pty(PtyRequest::new("xterm", size));
    channel.control.request(pty).await.unwrap();
    channel
        .control
        .request(ChannelRequest::Shell)
        .await
        .unwrap();
}

/// What comes to the user, and how it ends.
async fn read_out(mut channel: BackendChannel) -> (String, String, Option<ChannelEvent>) {
    let (mut out, mut err, mut end) = (Vec::new(), Vec::new(), None);
    while let Some(event) = channel.source.next().await {
        match event {
            ChannelEvent::Data(data) => out.extend(data),
            ChannelEvent::Stderr(data) => err.extend(data),
            ChannelEvent::Eof => {}
            ended @ (ChannelEvent::ExitSignal { .. } | ChannelEvent::ExitStatus(_)) => {
                end = Some(ended);
            }
        }
    }
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(out), text(err), end)
}

async fn expect(server: &mut DuplexStream, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_logged_in_used_and_ended() {
    let (mut channel, mut server) = channel(auto()).await;
    start_shell(&channel).await;
    server.write_all(b"\xff\xfb\x01login: ").await.unwrap();
    expect(&mut server, b"\xff\xfd\x01gopher\r\0").await;
    server.write_all(b"gopher\r\nPassword: ").await.unwrap();
    expect(&mut server, b"s3cret\r\0").await;
    server.write_all(b"\r\nhello\r\n$ ").await.unwrap();
    // Its size was not asked for, so it is offered.
    expect(&mut server, b"\xff\xfb\x1f").await;
    channel
        .sink
        .data(Bytes::from_static(b"exit\r"))
        .await
        .unwrap();
    expect(&mut server, b"exit\r\0").await;
    drop(server);
    let (out, err, end) = read_out(channel).await;
    let (about, session) = out.split_once("\r\n").unwrap();
    assert!(about.contains("reached by telnet"), "{about}");
    assert_eq!(session, "hello\r\n$ ");
    assert_eq!((err.as_str(), end), ("", Some(ChannelEvent::ExitStatus(0))));
}

#[tokio::test(start_paused = true)]
async fn a_new_size_is_told_at_once() {
    let (channel, mut server) = channel(TelnetLogin::None).await;
    start_shell(&channel).await;
    server.write_all(b"\xff\xfd\x1f").await.unwrap();
    expect(
        &mut server,
        b"\xff\xfb\x1f\xff\xfa\x1f\x00\x64\x00\x1e\xff\xf0",
    )
    .await;
    let size = WindowSize {
        columns: 80,
        rows: 24,
        ..WindowSize::default()
    };
    let change = ChannelRequest::WindowChange(size);
    channel.control.request(change).await.unwrap();
    expect(&mut server, b"\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_mute_is_given_up() {
    let (channel, _server) = channel(auto()).await;
    start_shell(&channel).await;
    let start = tokio::time::Instant::now();
    let (_, err, end) = read_out(channel).await;
    assert_eq!(start.elapsed().as_secs(), 75);
    assert_eq!(
        err,
        "the telnet server did not ask for an account and a password in time\r\n"
    );
    assert_eq!(end, Some(ChannelEvent::ExitStatus(255)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_status_1_and_a_sentence() {
    let (channel, mut server) = channel(auto()).await;
    start_shell(&channel).await;
    server.write_all(b"\xff\xfb\x01password: ").await.unwrap();
    expect(&mut server, b"\xff\xfd\x01s3cret\r\0").await;
    server.write_all(b"\r\nLogin Failed\r\n").await.unwrap();
    let (_, err, end) = read_out(channel).await;
    assert_eq!(err, "the telnet server refused the login: Login Failed\r\n");
    assert_eq!(end, Some(ChannelEvent::ExitStatus(1)));
}

/// A server that has spoken and gone: it takes nothing, and what it said lies before the end.
fn gone(said: &[u8]) -> Mock {
    let reset = || std::io::ErrorKind::ConnectionReset.into();
    Builder::new()
        .read(b"\xff\xfb\x01")
        .write_error(reset())
        .wait(Duration::from_millis(10))
        .read(said)
        .read_error(reset())
        .build()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_the_login_off_is_heard() {
    let channel = channel_over(gone(b"closed for maintenance\r\n"), auto()).await;
    start_shell(&channel).await;
    let (_, err, end) = read_out(channel).await;
    assert!(err.contains("closed for maintenance"), "{err}");
    assert_eq!(end, Some(ChannelEvent::ExitStatus(1)));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_cut_shows_what_came_and_has_no_status() {
    let mut channel = channel_over(gone(b"shutting down\r\n"), TelnetLogin::None).await;
    start_shell(&channel).await;
    channel.sink.data(Bytes::from_static(b"x")).await.unwrap();
    let (out, _, end) = read_out(channel).await;
    assert!(out.ends_with("shutting down\r\n"), "{out}");
    assert_eq!(end, None);
}

#[tokio::test(start_paused = true)]
async fn nobody_who_answers_is_status_255() {
    let (channel, _server) = channel(auto()).await;
    start_shell(&channel).await;
    drop(channel);
    let dialer = Arc::new(Dials {
        stream: Mutex::new(None),
        login: TelnetLogin::None,
    });
    let backend = TelnetBackend::new(dialer, TelnetSettings::default());
    let channel = backend.open_session().await.unwrap();
    start_shell(&channel).await;
    let (_, err, end) = read_out(channel).await;
    assert_eq!(err, "the machine did not answer in time\r\n");
    assert_eq!(end, Some(ChannelEvent::ExitStatus(255)));
}

#[tokio::test]
async fn what_telnet_cannot_do_is_explained() {
    for request in [
        ChannelRequest::Exec(Bytes::from_static(b"ls")),
        ChannelRequest::Subsystem("netconf".to_owned()),
        ChannelRequest::Subsystem("sftp".to_owned()),
    ] {
        let (channel, _server) = channel(auto()).await;
        channel.control.request(request.clone()).await.unwrap();
        let (out, err, end) = read_out(channel).await;
        assert_eq!(out, "", "{request:?}");
        assert!(err.starts_with("this machine is reached by telnet, "));
        assert_eq!(end, Some(ChannelEvent::ExitStatus(1)));
    }
}

#[tokio::test]
async fn variables_are_not_passed_on() {
    let (channel, _server) = channel(auto()).await;
    let request = ChannelRequest::Env {
        name: "USER".to_owned(),
        value: "-f root".to_owned(),
    };
    assert!(channel.control.request(request).await.is_err());
}

#[tokio::test]
async fn dropping_a_channel_closes_the_connection() {
    let (channel, mut server) = channel(TelnetLogin::None).await;
    start_shell(&channel).await;
    server.write_all(b"$ ").await.unwrap();
    drop(channel);
    assert_eq!(server.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_reads_is_not_read_either() {
    let (channel, mut server) = channel_with(TelnetLogin::None, 1 << 10).await;
    start_shell(&channel).await;
    let block = [b'x'; 1 << 10];
    let mut taken = 0;
    let flood = async {
        loop {
            server.write_all(&block).await.unwrap();
            taken += block.len();
        }
    };
    // Without a reader the flood stands still; the limit is far above what is kept.
    let stuck = tokio::time::timeout(Duration::from_millis(200), flood).await;
    assert!(stuck.is_err());
    assert!(taken < 1 << 20, "{taken}");
}

#[tokio::test]
async fn every_byte_arrives_in_both_directions() {
    let (mut channel, server) = channel_with(TelnetLogin::None, 4 << 10).await;
    start_shell(&channel).await;
    // All bytes but those that end a line.
    let bytes: Vec<u8> = (0..=255)
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .cycle()
        .take(1 << 20)
        .collect();
    let (mut reader, mut writer) = tokio::io::split(server);
    writer
        .write_all(b"\xff\xfb\x00\xff\xfd\x00\xff\xfb\x01")
        .await
        .unwrap();
    // The offer of a size, and the answers: only after them is every byte one.
    reader.read_exact(&mut [0; 12]).await.unwrap();
    let echo = tokio::spawn(async move {
        let mut buffer = vec![0; 4 << 10];
        loop {
            let length = reader.read(&mut buffer).await.unwrap();
            if length == 0 || writer.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    });
    let mut sink = channel.sink;
    let sent = bytes.clone();
    let send = tokio::spawn(async move {
        for piece in sent.chunks(10_000) {
            sink.data(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        sink
    });
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        match channel.source.next().await.unwrap() {
            ChannelEvent::Data(data) if data.starts_with(b"# ") => {}
            ChannelEvent::Data(data) => got.extend(data),
            event @ (ChannelEvent::Eof
            | ChannelEvent::ExitSignal { .. }
            | ChannelEvent::ExitStatus(_)
            | ChannelEvent::Stderr(_)) => panic!("{event:?}"),
        }
    }
    assert!(got == bytes, "the bytes are not the same");
    drop((send.await.unwrap(), channel.source, channel.control));
    echo.await.unwrap();
}
