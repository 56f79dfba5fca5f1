//! The recorded sessions with real servers: a client that draws what was drawn then sends the same bytes, up to 9P.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::auth::{AuthProtocol, Entropy, Identity, Tickets};
use super::connect::connect;
use super::keys::Keys;
use super::layer::{Opened, Opener, Sealer};
use super::vectors::hex;
use super::{ContermDialer, ContermProtocol, Service};
use crate::backend::BackendError;
use crate::backend::ssh::Stream;

/// A recorded session.
struct Recording {
    draws: VecDeque<Vec<u8>>,
    wire: VecDeque<(Service, Sender, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sender {
    Client,
    Server,
}

impl Recording {
    /// Reads the JSON of a recording, in which every string that matters is hexadecimal.
    fn new(json: &str) -> Self {
        let strings: Vec<&str> = json.split('"').skip(1).step_by(2).collect();
        let random = strings.iter().position(|word| *word == "random").unwrap() + 1;
        let wire = strings.iter().position(|word| *word == "wire").unwrap() + 1;
        let draws = strings[random..wire - 1].chunks(2);
        let wire = strings[wire..].chunks(3).map(|entry| {
            let service = match entry[0] {
                "auth" => Service::Auth,
                _ => Service::Machine,
            };
            let sender = match entry[1] {
                "C" => Sender::Client,
                _ => Sender::Server,
            };
            (service, sender, hex(entry[2]))
        });
        Self {
            draws: draws.map(|draw| hex(draw[1])).collect(),
            wire: wire.collect(),
        }
    }
}

struct Draws(VecDeque<Vec<u8>>);

impl Entropy for Draws {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.pop_front().unwrap());
    }
}

/// The recorded server.
struct Peers(Mutex<[Option<DuplexStream>; 2]>);

#[async_trait]
impl ContermDialer for Peers {
    async fn dial(&self, service: Service) -> Result<Box<dyn Stream>, BackendError> {
        let mut streams = self.0.lock().unwrap();
        let stream = streams[usize::from(service == Service::Auth)].take();
        Ok(Box::new(stream.unwrap()))
    }
}

/// Plays the server's part, and asserts the client's byte by byte.
async fn play(wire: VecDeque<(Service, Sender, Vec<u8>)>, mut streams: [DuplexStream; 2]) {
    for (service, sender, bytes) in wire {
        let stream = &mut streams[usize::from(service == Service::Auth)];
        if sender == Sender::Server {
            stream.write_all(&bytes).await.unwrap();
        } else {
            let mut sent = vec![0; bytes.len()];
            stream.read_exact(&mut sent).await.unwrap();
            assert_eq!(sent, bytes);
        }
    }
}

async fn replay(json: &str, protocol: ContermProtocol, auth: AuthProtocol, tickets: Tickets) {
    let mut recording = Recording::new(json);
    let is_layer = |bytes: &[u8]| match protocol {
        ContermProtocol::Cpu => bytes.len() > 20 && bytes[0] == 0x80,
        ContermProtocol::Rcpu => bytes[0] == 23,
    };
    // The layer begins with what the client sends; what came before is played.
    let first = recording
        .wire
        .iter()
        .position(|(_, _, bytes)| is_layer(bytes));
    let protected = recording.wire.split_off(first.unwrap());
    let (main, machine) = tokio::io::duplex(1 << 16);
    let (other, auth_server) = tokio::io::duplex(1 << 16);
    let peers = Peers(Mutex::new([Some(main), Some(other)]));
    let identity = Identity {
        user: "glenda".to_owned(),
        keys: Keys::new("glenda", b"glenda123"),
        protocols: vec![auth],
        tickets,
    };
    let mut draws = Draws(recording.draws.clone());
    let played = play(recording.wire.clone(), [machine, auth_server]);
    let client = connect(&peers, protocol, &identity, &mut draws);
    let (connection, ()) = tokio::join!(client, played);
    let mut connection = connection.unwrap();
    assert!(draws.0.is_empty());
    let mut reader = twin(&connection.sealer);
    for (_, sender, bytes) in protected {
        let mut input = BytesMut::from(&bytes[..]);
        if sender == Sender::Server {
            while let Opened::Data(data) = connection.opener.open(&mut input).unwrap() {
                if data.get(4) == Some(&100) {
                    return; // the first request of 9P
                }
            }
            continue;
        }
        // What was said is what the twin reads; we say it in the same bytes.
        let mut sealed = BytesMut::new();
        while let Opened::Data(data) = reader.open(&mut input).unwrap() {
            connection.sealer.seal(&data, &mut sealed);
        }
        assert_eq!(&sealed[..], bytes);
    }
    panic!("9P never began");
}

/// The other side of a direction that nothing was said on.
fn twin(sealer: &Sealer) -> Opener {
    match sealer {
        Sealer::Ssl(direction) => Opener::Ssl(Box::new(direction.twin())),
        Sealer::Tls(direction) => Opener::Tls(direction.clone()),
    }
}

macro_rules! recordings {
    ($($name:ident: $file:literal, $protocol:ident, $auth:ident, $tickets:ident;)*) => {
        $(#[tokio::test]
        async fn $name() {
            let json = include_str!(concat!("../../../tests/vectors/plan9/", $file, ".json"));
            let (protocol, auth) = (ContermProtocol::$protocol, AuthProtocol::$auth);
            replay(json, protocol, auth, Tickets::$tickets).await;
        })*
    };
}

recordings! {
    cpu_with_tickets_of_a_server: "ncpu-p9sk1-authserver", Cpu, P9sk1, AuthServer;
    cpu_with_tickets_of_our_own: "ncpu-p9sk1-selfticket", Cpu, P9sk1, HostOwner;
    rcpu_with_tickets_of_a_server: "rcpu-dp9ik-authserver", Rcpu, Dp9ik, AuthServer;
    rcpu_with_tickets_of_our_own: "rcpu-dp9ik-selfticket", Rcpu, Dp9ik, HostOwner;
    rcpu_by_p9sk1: "rcpu-p9sk1-selfticket", Rcpu, P9sk1, HostOwner;
}
