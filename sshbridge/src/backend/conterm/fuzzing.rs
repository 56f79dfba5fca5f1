//! What fuzz targets run: each takes the bytes of a hostile machine, and panics where something is not as promised.

use bytes::{Bytes, BytesMut};

use super::auth::{Amount, AuthProtocol, Entropy, Handshake, Identity, Next, Tickets};
use super::console::{Console, MAX_WAITING, Mode};
use super::error::ContermError;
use super::keys::Keys;
use super::ninep::server::{FileServer, MAX_UNSENT};
use super::{ssl, tls};

/// A machine's requests of 9P, between which a user types and reads. However the stream splits them, they get the same
/// answers, and no more of those wait than the bounds say. `look` is called after each step.
///
/// # Panics
///
/// Where that does not hold.
pub fn ninep(data: &[u8], look: impl Fn()) {
    let (split, script) = data.split_first().unwrap_or((&0, &[]));
    let split = 1 + usize::from(split % 29);
    let whole = answers(script, usize::MAX, &look);
    assert_eq!(whole, answers(script, split, &look));
}

/// The answers, and whether the machine was cut off.
fn answers(mut script: &[u8], split: usize, look: impl Fn()) -> (Vec<u8>, bool) {
    let mut server = FileServer::new(Console::new(Mode::Terminal));
    server.set_script(Bytes::from(vec![b'x'; 1000]));
    let mut sent = Vec::new();
    while let Some(([action, length], rest)) = script.split_first_chunk() {
        let (piece, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        script = rest;
        match action % 8 {
            0 if server.console.waiting() <= MAX_WAITING => server.console.handle_input(piece),
            1 => drop(server.console.poll_event()),
            2 => server.console.note("interrupt"),
            3 => server.console.handle_eof(),
            4 => server.set_script(Bytes::copy_from_slice(piece)),
            // A message whose size is right, or bytes of which nothing is known.
            kind => {
                let size = u32::from(*length) + 4;
                let head = if kind < 7 { size.to_le_bytes() } else { [0; 4] };
                let head = if kind < 7 { &head[..] } else { &[] };
                let message = [head, piece].concat();
                for part in message.chunks(split.min(message.len().max(1))) {
                    if server.handle(part).is_err() {
                        return (sent, true);
                    }
                }
            }
        }
        server.wake();
        let room = MAX_UNSENT + 2 * MAX_WAITING + LARGEST;
        assert!(server.unsent() <= room, "{} bytes", server.unsent());
        sent.extend(server.poll_transmit().unwrap_or_default());
        look();
    }
    (sent, false)
}

/// A machine's side, and an authentication server's, of a handshake. Without the password nobody gets to its end.
///
/// # Panics
///
/// Where somebody does.
pub fn p9any(data: &[u8]) {
    thread_local! {
        static KEYS: Keys = Keys::new("glenda", b"glenda123");
    }
    let (first, mut rest) = data.split_first().unwrap_or((&0, &[]));
    let tickets = [Tickets::AuthServer, Tickets::HostOwner];
    let mut handshake = Handshake::new(Identity {
        user: "glenda".to_owned(),
        keys: KEYS.with(Clone::clone),
        protocols: vec![AuthProtocol::Dp9ik, AuthProtocol::P9sk1],
        tickets: tickets[usize::from(first % 2)],
    });
    let (_, mut amount) = handshake.begin();
    loop {
        let size = match amount {
            Amount::Exactly(size) => size,
            Amount::Text(max) => {
                let end = rest.iter().position(|byte| *byte == 0);
                end.map_or(rest.len(), |at| at + 1).min(max)
            }
        };
        let Some((bytes, more)) = rest.split_at_checked(size) else {
            return;
        };
        rest = more;
        match handshake.handle(bytes, &mut Fixed).map(|step| step.next) {
            Ok(Next::Read(_, next)) => amount = next,
            Ok(Next::Done(_)) => panic!("a machine that knows no password is believed"),
            Err(_) => return,
        }
    }
}

/// Records of the layer of `cpu`: bytes of a stranger, and good records of which one byte was changed on the way.
///
/// # Panics
///
/// Where anything is taken that was not sent, or a split changes something.
pub fn ssl(data: &[u8]) {
    let direction = || {
        let made = ssl::directions(&[1; 8], [2; 4], [3; 4]);
        made.expect("the secret is long enough").0
    };
    records(
        data,
        |plain, out| direction().seal(plain, out),
        || {
            let mut opener = direction();
            move |input| opener.open(input)
        },
    );
}

/// A machine's side of a TLS handshake, then records as for [`ssl()`].
///
/// # Panics
///
/// As for [`ssl()`], and where a machine without the key gets to the end of the handshake.
pub fn tls(data: &[u8]) {
    let split = 1 + usize::from(data.first().unwrap_or(&0) % 29);
    assert_eq!(handshake(data, usize::MAX), handshake(data, split));
    let session = || tls::Session::new(&[1; 256], &[2; 32], &[3; 32]);
    records(
        data,
        |plain, out| session().server.seal(plain, out),
        || {
            let mut opener = session().server;
            move |input| Ok(opener.open(input)?.map(|(_, data)| data))
        },
    );
}

/// What we say in a handshake, and whether it failed.
fn handshake(data: &[u8], split: usize) -> (BytesMut, bool) {
    let mut out = BytesMut::new();
    let mut handshake = tls::TlsHandshake::new(&[1; 256], [2; 32], &mut out);
    let mut input = BytesMut::new();
    for piece in data.chunks(split.min(data.len().max(1))) {
        input.extend_from_slice(piece);
        match handshake.handle(&mut input, &mut out) {
            Ok(tls::Progress::Wait) => {}
            Ok(tls::Progress::Done(_)) => panic!("a machine that knows no secret is believed"),
            Err(_) => return (out, true),
        }
        assert!(input.len() < LARGEST, "{} bytes wait", input.len());
    }
    (out, false)
}

/// Opens the bytes as they are, and then sealed, with a change.
fn records<O>(data: &[u8], seal: impl FnOnce(&[u8], &mut BytesMut), opener: impl Fn() -> O)
where
    O: FnMut(&mut BytesMut) -> Result<Option<BytesMut>, ContermError>,
{
    let Some(([split, high, low, mask], plain)) = data.split_first_chunk() else {
        return;
    };
    let split = 1 + usize::from(split % 29);
    let both = |wire: &[u8]| {
        let whole = open(&mut opener(), wire, usize::MAX);
        assert_eq!(whole, open(&mut opener(), wire, split));
        whole
    };
    both(data);
    let mut wire = BytesMut::new();
    seal(plain, &mut wire);
    let place = usize::from(u16::from_be_bytes([*high, *low])) % wire.len().max(1);
    if let Some(byte) = wire.get_mut(place) {
        *byte ^= mask;
    }
    let (taken, failed) = both(&wire);
    assert!(plain.starts_with(&taken), "what was not sent is taken");
    if *mask == 0 {
        assert!((taken.len(), failed) == (plain.len(), false));
    } else {
        assert!(plain.is_empty() || taken.len() < plain.len());
    }
}

/// What the records hold up to the first bad one, and whether there was one.
fn open(
    opener: &mut impl FnMut(&mut BytesMut) -> Result<Option<BytesMut>, ContermError>,
    wire: &[u8],
    split: usize,
) -> (Vec<u8>, bool) {
    let (mut input, mut taken) = (BytesMut::new(), Vec::new());
    for piece in wire.chunks(split.min(wire.len().max(1))) {
        input.extend_from_slice(piece);
        loop {
            match opener(&mut input) {
                Ok(Some(data)) => taken.extend_from_slice(&data),
                Ok(None) => break,
                Err(_) => return (taken, true),
            }
        }
        assert!(
            split == usize::MAX || input.len() < LARGEST,
            "{} bytes wait",
            input.len()
        );
    }
    (taken, false)
}

/// Randomness that is none.
struct Fixed;

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// No record and no message is longer than this.
const LARGEST: usize = 64 << 10;
