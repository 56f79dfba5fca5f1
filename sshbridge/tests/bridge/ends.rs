use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use russh::ChannelMsg;
use russh::client::{Handle, Msg};
use sshbridge::auth::{AuthRequest, Authorizer, Denied, Grant, Machine};
use sshbridge::backend::ssh::{SshBackend, SshDialer, SshTarget, Stream};
use sshbridge::backend::{
    Backend, BackendChannel, BackendConn, BackendError, ChannelControl, ChannelRequest,
};
use sshbridge::server::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    FakeBackend, Resolves, Trusting, config, log_in, new_key, pipe, read_out, server, server_with,
    try_key, within,
};

/// A machine whose connections the test cuts.
struct Cut {
    server: Server,
    served: Mutex<Vec<AbortHandle>>,
}

#[async_trait]
impl SshDialer for Cut {
    async fn dial(&self, _key: &str) -> Result<SshTarget, BackendError> {
        let (stream, served) = pipe(&self.server, 4 << 10);
        self.served.lock().unwrap().push(served.abort_handle());
        Ok(SshTarget::new(stream, "user"))
    }
}

#[tokio::test]
async fn a_machine_that_is_cut_off_is_never_success() {
    within(async {
        let cut = Arc::new(Cut {
            server: server(),
            served: Mutex::default(),
        });
        let machine = Machine::new("far", Arc::new(SshBackend::new(cut.clone())));
        let client = log_in(&server_with(config(), machine)).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "cat").await.unwrap();
        channel.data_bytes("half").await.unwrap();
        while !matches!(channel.wait().await, Some(ChannelMsg::Data { .. })) {}
        for served in cut.served.lock().unwrap().iter() {
            served.abort();
        }
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.stderr, b"the connection to the machine was lost\n");
        assert_eq!(seen.status, Some(255));
    })
    .await;
}

/// Lets everybody in for ten seconds.
struct Briefly;

#[async_trait]
impl Authorizer for Briefly {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        let mut grant = Grant::new("guest", &request.login);
        grant.not_after = Some(after(10));
        Ok(grant)
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_ends_cuts_the_session_with_a_sentence() {
    within(async {
        let machine = Machine::new("m-1", Arc::new(FakeBackend));
        let resolver = Arc::new(Resolves(Ok(machine)));
        let client = log_in(&Server::new(config(), Arc::new(Briefly), resolver)).await;
        let mut channel = client.channel_open_session().await.unwrap();
        channel.exec(true, "deaf").await.unwrap();
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.stderr, b"your right to use m-1 has ended\n");
        assert_eq!(seen.status, Some(255));
        let _ = client.await;
    })
    .await;
}

/// The fake machine, which tells when a channel on it is given up.
struct Watched(Arc<Notify>);

struct WatchedConn(Box<dyn BackendConn>, Arc<Notify>);

struct WatchedControl(Box<dyn ChannelControl>, Arc<Notify>);

#[async_trait]
impl Backend for Watched {
    async fn connect(&self) -> Result<Box<dyn BackendConn>, BackendError> {
        let conn = FakeBackend.connect().await?;
        Ok(Box::new(WatchedConn(conn, self.0.clone())))
    }
}

#[async_trait]
impl BackendConn for WatchedConn {
    async fn open_session(&self) -> Result<BackendChannel, BackendError> {
        let mut channel = self.0.open_session().await?;
        channel.control = Box::new(WatchedControl(channel.control, self.1.clone()));
        Ok(channel)
    }
}

#[async_trait]
impl ChannelControl for WatchedControl {
    async fn request(&self, request: ChannelRequest) -> Result<(), BackendError> {
        self.0.request(request).await
    }
}

impl Drop for WatchedControl {
    fn drop(&mut self) {
        self.1.notify_one();
    }
}

fn watched() -> (Server, Arc<Notify>) {
    let given_up = Arc::new(Notify::new());
    let machine = Machine::new("watched", Arc::new(Watched(given_up.clone())));
    (server_with(config(), machine), given_up)
}

async fn with_a_command(stream: impl Stream) -> (Handle<Trusting>, russh::Channel<Msg>) {
    let connected = russh::client::connect_stream(Arc::default(), stream, Trusting);
    let mut client = connected.await.unwrap();
    assert!(try_key(&mut client, "user", &new_key()).await);
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "deaf").await.unwrap();
    assert!(matches!(channel.wait().await, Some(ChannelMsg::Success)));
    (client, channel)
}

#[tokio::test]
async fn a_client_that_closes_its_channel_ends_what_runs_on_it() {
    within(async {
        let (server, given_up) = watched();
        let (stream, _served) = pipe(&server, 4 << 10);
        let (_client, channel) = with_a_command(stream).await;
        channel.close().await.unwrap();
        given_up.notified().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_cut_off_ends_what_it_runs() {
    within(async {
        let (server, given_up) = watched();
        let (stream, served) = pipe(&server, 4 << 10);
        let (near, far) = tokio::io::duplex(4 << 10);
        let between = tokio::spawn(async move {
            let (mut far, mut stream) = (far, stream);
            tokio::io::copy_bidirectional(&mut far, &mut stream).await
        });
        let _client = with_a_command(near).await;
        between.abort();
        given_up.notified().await;
        assert!(served.await.unwrap().is_err());
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_ends_what_runs_on_it() {
    within(async {
        let (server, given_up) = watched();
        let (stream, served) = pipe(&server, 4 << 10);
        let (client, _channel) = with_a_command(stream).await;
        served.abort();
        given_up.notified().await;
        let _ = client.await;
    })
    .await;
}

async fn listen(server: &Server) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let (server, token) = (server.clone(), shutdown.clone());
    let serving = tokio::spawn(async move { server.serve(listener, token).await });
    (address, shutdown, serving)
}

#[tokio::test]
async fn a_shutdown_tells_users_and_waits_for_them() {
    within(async {
        let (server, given_up) = watched();
        let (address, shutdown, serving) = listen(&server).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let (_client, mut channel) = with_a_command(stream).await;
        let mut stranger = TcpStream::connect(address).await.unwrap();
        stranger.read_u8().await.unwrap();
        shutdown.cancel();
        let seen = read_out(&mut channel).await;
        assert_eq!(seen.stderr, b"the gateway is shutting down\n");
        assert_eq!(seen.status, Some(255));
        serving.await.unwrap();
        given_up.notified().await;
        assert!(TcpStream::connect(address).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn connections_that_do_not_log_in_are_limited_and_make_room() {
    within(async {
        let mut config = config();
        config.max_startups_per_source = 2;
        config.login_grace = Duration::from_secs(2);
        let server = server_with(config, Machine::new("fake", Arc::new(FakeBackend)));
        let (address, _shutdown, _serving) = listen(&server).await;
        let mut idle = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.read_u8().await.unwrap();
            idle.push(stream);
        }
        // The third waits until the first two are cut off.
        let stream = TcpStream::connect(address).await.unwrap();
        let _client = with_a_command(stream).await;
        let mut rest = Vec::new();
        for stream in &mut idle {
            let _ = stream.read_to_end(&mut rest).await;
            assert!(stream.write_all(b"x").await.is_err() || stream.read_u8().await.is_err());
        }
    })
    .await;
}

fn after(seconds: u64) -> Instant {
    (tokio::time::Instant::now() + Duration::from_secs(seconds)).into_std()
}

#[tokio::test(start_paused = true)]
async fn terminals_are_told_of_the_end_before_it_comes() {
    let machine = Machine::new("m-1", Arc::new(FakeBackend));
    let tenure = machine.tenure.clone();
    tenure.set_end(after(3600));
    let client = log_in(&server_with(config(), machine)).await;
    let mut terminal = client.channel_open_session().await.unwrap();
    let pty = terminal.request_pty(true, "xterm", 80, 24, 0, 0, &[]);
    pty.await.unwrap();
    terminal.exec(true, "deaf").await.unwrap();
    let mut command = client.channel_open_session().await.unwrap();
    command.exec(true, "deaf").await.unwrap();
    let start = tokio::time::Instant::now();
    let line = loop {
        if let Some(ChannelMsg::ExtendedData { data, .. }) = terminal.wait().await {
            break data;
        }
    };
    assert_eq!(line, "\r\nyour right to use m-1 ends in 5 minutes\r\n");
    let elapsed = start.elapsed().as_secs();
    assert!((3298..=3300).contains(&elapsed), "{elapsed}");

    // It is put off, which a second notice tells in its time.
    tenure.set_end(after(1000));
    let seen = read_out(&mut terminal).await;
    assert_eq!(
        String::from_utf8_lossy(&seen.stderr),
        "\r\nyour right to use m-1 ends in 5 minutes\r\nyour right to use m-1 has ended\r\n"
    );
    assert_eq!(seen.status, Some(255));
    let elapsed = start.elapsed().as_secs();
    assert!((4297..=4301).contains(&elapsed), "{elapsed}");
    let seen = read_out(&mut command).await;
    assert_eq!(seen.stderr, b"your right to use m-1 has ended\n");
    assert_eq!(seen.status, Some(255));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_begins_near_the_end_is_told_at_once() {
    let machine = Machine::new("m-1", Arc::new(FakeBackend));
    machine.tenure.set_end(after(100));
    let client = log_in(&server_with(config(), machine)).await;
    let mut terminal = client.channel_open_session().await.unwrap();
    let pty = terminal.request_pty(true, "xterm", 80, 24, 0, 0, &[]);
    pty.await.unwrap();
    terminal.exec(true, "deaf").await.unwrap();
    let start = tokio::time::Instant::now();
    while !matches!(terminal.wait().await, Some(ChannelMsg::ExtendedData { .. })) {}
    assert!(start.elapsed().as_secs() < 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_on_to_a_machine_by_reading_nothing() {
    let machine = Machine::new("m-1", Arc::new(FakeBackend));
    let tenure = machine.tenure.clone();
    let (stream, served) = pipe(&server_with(config(), machine), 4 << 10);
    let (near, far) = tokio::io::duplex(4 << 10);
    let (stopped, between) = (CancellationToken::new(), CancellationToken::new());
    let halt = (stopped.clone(), between.clone());
    let _copy = tokio::spawn(async move {
        let (mut far, mut stream) = (far, stream);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut far, &mut stream) => {}
            () = halt.0.cancelled() => halt.1.cancelled().await,
        }
    });
    let connected = russh::client::connect_stream(Arc::default(), near, Trusting);
    let mut client = connected.await.unwrap();
    assert!(try_key(&mut client, "user", &new_key()).await);
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "flood").await.unwrap();
    while !matches!(channel.wait().await, Some(ChannelMsg::Data { .. })) {}
    // From here on nobody reads what the server sends.
    stopped.cancel();
    tenure.end("it was destroyed");
    let end = tokio::time::Instant::now();
    let _ = served.await.unwrap();
    let elapsed = end.elapsed().as_secs();
    assert!(elapsed < 10, "{elapsed}");
}

/// Lets everybody in, until that is taken back.
#[derive(Default)]
struct TakesBack(AtomicBool);

#[async_trait]
impl Authorizer for TakesBack {
    async fn authorize(&self, request: &AuthRequest) -> Result<Grant, Denied> {
        Ok(Grant::new("anybody", &request.login))
    }

    async fn is_revoked(&self, grant: &Grant) -> bool {
        assert!(grant.key.is_some());
        self.0.load(Ordering::Acquire)
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_is_taken_back_ends_within_ten_seconds() {
    let machine = Machine::new("m-1", Arc::new(FakeBackend));
    let authorizer = Arc::new(TakesBack::default());
    let server = Server::new(
        config(),
        authorizer.clone(),
        Arc::new(Resolves(Ok(machine))),
    );
    let (stream, served) = pipe(&server, 64 << 10);
    let connected = russh::client::connect_stream(Arc::default(), stream, Trusting);
    let mut client = connected.await.unwrap();
    assert!(try_key(&mut client, "user", &new_key()).await);
    let mut channel = client.channel_open_session().await.unwrap();
    channel.exec(true, "deaf").await.unwrap();
    while !matches!(channel.wait().await, Some(ChannelMsg::Success)) {}
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, channel.wait()).await.is_err());

    authorizer.0.store(true, Ordering::Release);
    let start = tokio::time::Instant::now();
    let seen = read_out(&mut channel).await;
    assert_eq!(
        String::from_utf8_lossy(&seen.stderr),
        "your access has been revoked\n"
    );
    assert_eq!(seen.status, Some(255));
    let _ = served.await.unwrap();
    let elapsed = start.elapsed().as_secs();
    assert!(elapsed < 10, "{elapsed}");
}
