//! What Go's own programs said to each other, with ours in the place of either. `golden/README.md` says how it was recorded.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::future::Future;
use std::io;
use std::time::Duration;

use http::Request;
use http::uri::PathAndQuery;
use revdial::handshake::{Dialect, upgrade};
use revdial::v2::{PickUps, Tls};
use revdial::{CloseReason, Config, Conn, Dialer, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Who speaks, and what they say, in turns.
type Capture = &'static [(&'static str, &'static [u8])];

const V1: Capture = include!("golden/v1.rs");
const V2_CONTROL: Capture = include!("golden/v2-control.rs");
const V2_PICK_UP: Capture = include!("golden/v2-pickup.rs");
const YAMUX: Capture = include!("golden/yamux.rs");

/// What the coordinator asks in the captures.
const REQUEST: &[u8] = b"GET /status HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn gos_registrations_ask_for_their_dialects() {
    for (capture, dialect) in [(V1, Dialect::V1), (V2_CONTROL, Dialect::V2)] {
        let request = request(capture[0].1);
        assert_eq!(request.uri(), "/reverse");
        assert_eq!(Dialect::from_headers(request.headers()).unwrap(), dialect);
    }
}

#[tokio::test]
async fn a_dialer_of_v1_says_what_gos_says() {
    within(async {
        let (ours, mut theirs) = duplex(64 * 1024);
        let dialer = Dialer::v1(ours, Config::default());
        let (_, first) = split_head(V1[1].1);
        let mut expected = first;
        for exchange in V1[2..].chunks(2) {
            let mut conn = dialer.dial().await.unwrap();
            conn.write_all(REQUEST).await.unwrap();
            expect(&mut theirs, expected).await;
            theirs.write_all(exchange[0].1).await.unwrap();
            assert_eq!(read_status(&mut conn).await, "{\"Version\":21}");
            conn.handle().close();
            // Ours may open the next before it closes the last; Go's does one after the other.
            let (closed, next) = exchange[1].1.split_at(7);
            expect(&mut theirs, closed).await;
            expected = next;
        }
    })
    .await;
}

#[tokio::test]
async fn a_listener_of_v1_says_what_gos_says() {
    within(async {
        let (ours, mut theirs) = duplex(64 * 1024);
        // Go's 101 and the first frames come in one read here.
        theirs.write_all(V1[1].1).await.unwrap();
        let (transport, _) = upgrade(ours, &request(V1[0].1)).await.unwrap();
        read_head(&mut theirs).await;
        let mut listener = Listener::v1(transport, Config::default());
        for exchange in V1[2..].chunks(2) {
            let mut conn = listener.accept().await.unwrap();
            expect_conn(&mut conn, REQUEST).await;
            conn.write_all(v1_payload(exchange[0].1)).await.unwrap();
            conn.handle().close();
            expect(&mut theirs, exchange[0].1).await;
            theirs.write_all(exchange[1].1).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_dialer_of_v2_says_what_gos_says() {
    within(async {
        let (ours, mut control) = duplex(64 * 1024);
        let pick_ups = PickUps::new();
        let path = PathAndQuery::from_static("/revdial");
        let dialer = Dialer::v2(ours, &pick_ups, path, Config::default());
        let dial = tokio::spawn(async move { dialer.dial().await.map(|conn| (dialer, conn)) });
        let (_, expected) = split_head(V2_CONTROL[1].1);
        let mut said = vec![0; expected.len()];
        control.read_exact(&mut said).await.unwrap();
        let (said, gos) = (text(&said), text(expected));
        let (id, gos_id) = (id(said), id(gos));
        assert_eq!(said, gos.replace(gos_id, id));

        let asked = text(V2_PICK_UP[0].1).replace(gos_id, id);
        let pick_up = pick_ups.begin_request(&request(asked.as_bytes()), Tls::Present);
        let pick_up = pick_up.unwrap();
        assert_eq!(pick_up.response().status(), 101);
        let (ours, mut theirs) = duplex(64 * 1024);
        pick_up.complete(ours);
        let (_dialer, mut conn) = dial.await.unwrap().unwrap();
        conn.write_all(REQUEST).await.unwrap();
        expect(&mut theirs, split_head(V2_PICK_UP[1].1).1).await;
        theirs.write_all(V2_PICK_UP[2].1).await.unwrap();
        theirs.shutdown().await.unwrap();
        assert_eq!(read_status(&mut conn).await, "{\"Version\":29}");
    })
    .await;
}

#[tokio::test]
async fn a_listener_of_v2_picks_up_what_gos_dialer_announces() {
    within(async {
        let (ours, mut control) = duplex(64 * 1024);
        let coordinator = V2_CONTROL[1].1;
        control.write_all(coordinator).await.unwrap();
        let (transport, _) = upgrade(ours, &request(V2_CONTROL[0].1)).await.unwrap();
        let (sender, mut made) = mpsc::channel(1);
        let connect = move || {
            let (ours, theirs) = duplex(64 * 1024);
            let sent = sender.try_send(theirs);
            async move { sent.map(|()| ours).map_err(io::Error::other) }
        };
        let mut listener = Listener::v2(transport, connect, Config::default());
        let mut server = made.recv().await.unwrap();
        let asked = request(&read_head(&mut server).await);
        assert_eq!(asked.uri(), request(V2_PICK_UP[0].1).uri());
        server.write_all(V2_PICK_UP[1].1).await.unwrap();
        let mut conn = listener.accept().await.unwrap();
        expect_conn(&mut conn, REQUEST).await;
        conn.write_all(V2_PICK_UP[2].1).await.unwrap();
        conn.shutdown().await.unwrap();
        expect(&mut server, V2_PICK_UP[2].1).await;
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
}

/// The FIN alone differs: Go's is a window update, ours an empty data frame, and yamux has it on any frame.
#[tokio::test]
async fn a_dialer_of_v3_says_what_hashicorps_client_says() {
    within(async {
        let (ours, mut theirs) = duplex(64 * 1024);
        let dialer = Dialer::new(ours, Config::default());
        let [
            syn,
            ack,
            hello,
            well_met,
            ping,
            pong,
            fin,
            fin_back,
            last,
            _,
        ] = yamux();
        let (dialed, ()) = tokio::join!(dialer.dial(), async {
            assert_eq!(frame(&mut theirs).await, syn);
            theirs.write_all(ack).await.unwrap();
        });
        let mut conn = dialed.unwrap();
        conn.write_all(payload(hello)).await.unwrap();
        assert_eq!(frame(&mut theirs).await, hello);
        theirs.write_all(well_met).await.unwrap();
        expect_conn(&mut conn, payload(well_met)).await;
        // Go asks as its server would as well; the answer is the same in both directions.
        theirs.write_all(ping).await.unwrap();
        assert_eq!(frame(&mut theirs).await, pong);
        conn.shutdown().await.unwrap();
        assert_eq!(frame(&mut theirs).await, as_data(fin));
        theirs.write_all(fin_back).await.unwrap();
        assert_eq!(conn.read(&mut [0]).await.unwrap(), 0);
        dialer.close();
        assert_eq!(frame(&mut theirs).await, last[..12]);
    })
    .await;
}

#[tokio::test]
async fn a_listener_of_v3_says_what_hashicorps_server_says() {
    within(async {
        let (ours, mut theirs) = duplex(64 * 1024);
        let mut listener = Listener::new(ours, Config::default());
        let [
            syn,
            ack,
            hello,
            well_met,
            ping,
            pong,
            fin,
            fin_back,
            last,
            _,
        ] = yamux();
        theirs.write_all(syn).await.unwrap();
        assert_eq!(frame(&mut theirs).await, ack);
        let mut conn = listener.accept().await.unwrap();
        theirs.write_all(hello).await.unwrap();
        expect_conn(&mut conn, payload(hello)).await;
        conn.write_all(payload(well_met)).await.unwrap();
        assert_eq!(frame(&mut theirs).await, well_met);
        theirs.write_all(ping).await.unwrap();
        assert_eq!(frame(&mut theirs).await, pong);
        theirs.write_all(fin).await.unwrap();
        assert_eq!(conn.read(&mut [0]).await.unwrap(), 0);
        conn.shutdown().await.unwrap();
        assert_eq!(frame(&mut theirs).await, as_data(fin_back));
        drop(conn);
        theirs.write_all(last).await.unwrap();
        assert!(matches!(
            listener.accept().await,
            Err(CloseReason::PeerClosed)
        ));
    })
    .await;
}

async fn within<F: Future>(body: F) -> F::Output {
    timeout(Duration::from_secs(20), body)
        .await
        .expect("the test hangs")
}

/// The ten turns of a short life.
fn yamux() -> [&'static [u8]; 10] {
    let turns: Vec<_> = YAMUX.iter().map(|(_, said)| *said).collect();
    turns.try_into().unwrap()
}

/// One frame of yamux, pings of ours left out: they come when data is read, to measure the round trip.
async fn frame(transport: &mut DuplexStream) -> Vec<u8> {
    loop {
        let mut frame = vec![0; 12];
        transport.read_exact(&mut frame).await.unwrap();
        if frame[1] == 0 {
            let length = u32::from_be_bytes(frame[8..].try_into().unwrap());
            frame.resize(12 + usize::try_from(length).unwrap(), 0);
            transport.read_exact(&mut frame[12..]).await.unwrap();
        }
        if frame[..4] != [0, 2, 0, 1] {
            return frame;
        }
    }
}

fn payload(frame: &[u8]) -> &[u8] {
    &frame[12..]
}

/// A window update of no credit as an empty data frame.
fn as_data(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    assert_eq!((frame[1], &frame[8..]), (1, &[0; 4][..]));
    frame[1] = 0;
    frame
}

/// What the first frame of v1 carries.
fn v1_payload(frames: &[u8]) -> &[u8] {
    let length = u16::from_be_bytes([frames[5], frames[6]]);
    &frames[7..7 + usize::from(length)]
}

async fn expect(transport: &mut DuplexStream, said: &[u8]) {
    let mut bytes = vec![0; said.len()];
    transport.read_exact(&mut bytes).await.unwrap();
    assert_eq!(
        bytes.escape_ascii().to_string(),
        said.escape_ascii().to_string()
    );
}

async fn expect_conn(conn: &mut Conn, said: &[u8]) {
    let mut bytes = vec![0; said.len()];
    conn.read_exact(&mut bytes).await.unwrap();
    assert_eq!(text(&bytes), text(said));
}

/// The body of a reply that ends with its connection.
async fn read_status(conn: &mut Conn) -> String {
    let mut reply = String::new();
    conn.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}

async fn read_head(transport: &mut DuplexStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(transport.read_u8().await.unwrap());
    }
    head
}

/// A head, and what is behind it.
fn split_head(said: &[u8]) -> (&[u8], &[u8]) {
    let end = said
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    said.split_at(end + 4)
}

fn request(head: &[u8]) -> Request<()> {
    let mut lines = text(head).trim_end().split("\r\n");
    let target = lines.next().unwrap().split(' ').nth(1).unwrap();
    let request = lines.fold(Request::get(target), |request, line| {
        let (name, value) = line.split_once(':').unwrap();
        request.header(name, value.trim())
    });
    request.body(()).unwrap()
}

/// What a pick-up's path ends in.
fn id(said: &str) -> &str {
    let (_, rest) = said.split_once("revdial.dialer=").unwrap();
    &rest[..32]
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
