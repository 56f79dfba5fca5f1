//! The layer under `rcpu` on 17019: TLS 1.2 with a pre-shared key (RFC 4279) and ChaCha20-Poly1305 (RFC 7905).
//!
//! It is what 9front speaks and no more: one suite, no extensions, no renegotiation, no resumption. The key comes from a
//! handshake of its own, so there are no certificates; forward secrecy is that of dp9ik.

use bytes::{Buf, BufMut, BytesMut};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::error::ContermError;

/// What a record is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Content {
    Alert,
    ChangeCipherSpec,
    Data,
    Handshake,
}

/// One direction of the layer.
#[cfg_attr(test, derive(Clone))]
pub(crate) struct TlsDirection {
    cipher: ChaCha20Poly1305,
    iv: [u8; 12],
    sequence: u64,
}

/// Our side of the handshake.
pub(crate) struct TlsHandshake {
    psk: Zeroizing<Vec<u8>>,
    random: [u8; 32],
    transcript: Sha256,
    /// Handshake messages, which records may split and join.
    messages: BytesMut,
    state: State,
}

enum State {
    ChangeCipherSpec(Box<Session>),
    Done,
    Finished(Box<Session>),
    HelloDone([u8; 32]),
    ServerHello,
}

/// How far a handshake is.
pub(crate) enum Progress {
    /// It is done.
    Done(Box<Session>),
    /// More input is needed.
    Wait,
}

/// The keys of a session.
pub(crate) struct Session {
    pub(crate) master: Zeroizing<[u8; 48]>,
    pub(crate) client: TlsDirection,
    pub(crate) server: TlsDirection,
}

impl TlsHandshake {
    /// Begins, and appends the first record to `out`.
    pub(crate) fn new(psk: &[u8], random: [u8; 32], out: &mut BytesMut) -> Self {
        let mut handshake = Self {
            psk: Zeroizing::new(psk.to_vec()),
            random,
            transcript: Sha256::new(),
            messages: BytesMut::new(),
            state: State::ServerHello,
        };
        let mut hello = Vec::with_capacity(41);
        hello.put_u16(VERSION);
        hello.put_slice(&random);
        hello.put_u8(0); // no session to resume
        hello.put_u16(2);
        hello.put_u16(SUITE);
        hello.put_slice(&[1, 0]); // no compression
        handshake.send(CLIENT_HELLO, &hello, out);
        handshake
    }

    /// Takes what came, and appends what is to be sent to `out`.
    pub(crate) fn handle(
        &mut self,
        input: &mut BytesMut,
        out: &mut BytesMut,
    ) -> Result<Progress, ContermError> {
        loop {
            let taken = match &mut self.state {
                State::Finished(session) => session.server.open(input)?,
                State::ChangeCipherSpec(_)
                | State::Done
                | State::HelloDone(_)
                | State::ServerHello => record(input)?,
            };
            let Some((content, body)) = taken else {
                return Ok(Progress::Wait);
            };
            match content {
                Content::Handshake => self.messages.extend_from_slice(&body),
                Content::ChangeCipherSpec => self.change_cipher_spec(&body)?,
                Content::Alert => {
                    return Err(ContermError::Protocol("a TLS alert in the handshake"));
                }
                Content::Data => return Err(ContermError::Protocol("TLS data before its time")),
            }
            if self.messages.len() > MAX_MESSAGES {
                return Err(ContermError::Protocol("a long TLS handshake"));
            }
            while let Some((kind, message)) = message(&mut self.messages) {
                if let Some(session) = self.message(kind, &message, out)? {
                    return Ok(Progress::Done(session));
                }
            }
        }
    }

    fn change_cipher_spec(&mut self, body: &[u8]) -> Result<(), ContermError> {
        const EARLY: ContermError = ContermError::Protocol("a TLS key change before its time");
        let State::ChangeCipherSpec(session) = std::mem::replace(&mut self.state, State::Done)
        else {
            return Err(EARLY);
        };
        if body != [1] || !self.messages.is_empty() {
            return Err(EARLY);
        }
        self.state = State::Finished(session);
        Ok(())
    }

    fn message(
        &mut self,
        kind: u8,
        message: &[u8],
        out: &mut BytesMut,
    ) -> Result<Option<Box<Session>>, ContermError> {
        match (std::mem::replace(&mut self.state, State::Done), kind) {
            (State::ServerHello, SERVER_HELLO) => {
                let random = server_hello(&message[4..])?;
                self.state = State::HelloDone(random);
                self.transcript.update(message);
                Ok(None)
            }
            // A hint at the identity: there is just one.
            (State::HelloDone(random), SERVER_KEY_EXCHANGE) => {
                self.state = State::HelloDone(random);
                self.transcript.update(message);
                Ok(None)
            }
            (State::HelloDone(random), SERVER_HELLO_DONE) => {
                self.transcript.update(message);
                let session = self.exchange(&random, out);
                self.state = State::ChangeCipherSpec(Box::new(session));
                Ok(None)
            }
            (State::Finished(session), FINISHED) => {
                let expected = session.finished(b"server finished", &self.transcript);
                if !bool::from(message[4..].ct_eq(&expected)) {
                    return Err(ContermError::NotTheMachine);
                }
                Ok(Some(session))
            }
            _ => Err(ContermError::Protocol("a TLS message before its time")),
        }
    }

    fn exchange(&mut self, random: &[u8; 32], out: &mut BytesMut) -> Session {
        let mut identity = Vec::new();
        identity.put_u16(8);
        identity.put_slice(IDENTITY);
        self.send(CLIENT_KEY_EXCHANGE, &identity, out);
        out.put_slice(&[20, 3, 3, 0, 1, 1]);
        let mut session = Session::new(&self.psk, &self.random, random);
        let finished = session.finished(b"client finished", &self.transcript);
        let message = [&[FINISHED, 0, 0, 12], &finished[..]].concat();
        self.transcript.update(&message);
        session.client.seal_as(Content::Handshake, &message, out);
        session
    }

    fn send(&mut self, kind: u8, body: &[u8], out: &mut BytesMut) {
        let message = handshake(kind, body);
        self.transcript.update(&message);
        plain(&message, out);
    }
}

impl Session {
    /// The keys of a key and of what both sides drew.
    pub(crate) fn new(psk: &[u8], client: &[u8; 32], server: &[u8; 32]) -> Self {
        let length = u16::try_from(psk.len()).expect("a secret has at most 256 bytes");
        let mut premaster = Zeroizing::new(Vec::with_capacity(2 * psk.len() + 4));
        premaster.put_u16(length);
        premaster.put_bytes(0, psk.len());
        premaster.put_u16(length);
        premaster.put_slice(psk);
        let mut master = Zeroizing::new([0; 48]);
        prf(
            &premaster,
            &[b"master secret", client, server],
            &mut *master,
        );
        let mut block = Zeroizing::new([0; 88]);
        prf(&*master, &[b"key expansion", server, client], &mut *block);
        Self {
            client: TlsDirection::new(&block[..32], &block[64..76]),
            server: TlsDirection::new(&block[32..64], &block[76..]),
            master,
        }
    }

    pub(crate) fn finished(&self, label: &[u8], transcript: &Sha256) -> [u8; 12] {
        let mut out = [0; 12];
        prf(
            &*self.master,
            &[label, &transcript.clone().finalize()],
            &mut out,
        );
        out
    }
}

impl TlsDirection {
    fn new(key: &[u8], iv: &[u8]) -> Self {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(iv);
        Self {
            cipher: ChaCha20Poly1305::new_from_slice(key).expect("the key has 32 bytes"),
            iv: nonce,
            sequence: 0,
        }
    }

    /// Appends records that carry `data` to `out`.
    pub(crate) fn seal(&mut self, data: &[u8], out: &mut BytesMut) {
        for piece in data.chunks(MAX_PLAIN) {
            self.seal_as(Content::Data, piece, out);
        }
    }

    /// Appends the alert that ends the stream to `out`.
    pub(crate) fn close(&mut self, out: &mut BytesMut) {
        self.seal_as(Content::Alert, &[1, 0], out);
    }

    pub(crate) fn seal_as(&mut self, content: Content, data: &[u8], out: &mut BytesMut) {
        let length = u16::try_from(data.len()).expect("a record has at most 16 KiB");
        out.put_u8(content.number());
        out.put_u16(VERSION);
        out.put_u16(length + TAG);
        let at = out.len();
        out.extend_from_slice(data);
        let (nonce, header) = self.next(content, length);
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce.into(), &header, out[at..].as_mut().into())
            .expect("a record is shorter than 256 GiB");
        out.extend_from_slice(&tag);
    }

    /// Takes one record from `input`, where there is a whole one.
    pub(crate) fn open(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<(Content, BytesMut)>, ContermError> {
        let Some((content, mut body)) = record(input)? else {
            return Ok(None);
        };
        let length = u16::try_from(body.len()).unwrap_or_default();
        let Some(length) = length.checked_sub(TAG) else {
            return Err(ContermError::Protocol("a TLS record without its tag"));
        };
        let tag = body.split_off(usize::from(length));
        let tag: [u8; 16] = tag[..].try_into().unwrap_or_default();
        let (nonce, header) = self.next(content, length);
        self.cipher
            .decrypt_inout_detached(&nonce.into(), &header, body.as_mut().into(), &tag.into())
            .map_err(|_| ContermError::Protocol("a TLS record with a wrong tag"))?;
        Ok(Some((content, body)))
    }

    /// The nonce of the next record, and what is authenticated with it.
    fn next(&mut self, content: Content, length: u16) -> ([u8; 12], [u8; 13]) {
        let sequence = self.sequence.to_be_bytes();
        // At 2^64 records nobody is alive.
        self.sequence = self.sequence.wrapping_add(1);
        let mut nonce = self.iv;
        for (byte, mask) in nonce[4..].iter_mut().zip(sequence) {
            *byte ^= mask;
        }
        let mut header = [0; 13];
        header[..8].copy_from_slice(&sequence);
        header[8] = content.number();
        header[9..11].copy_from_slice(&VERSION.to_be_bytes());
        header[11..].copy_from_slice(&length.to_be_bytes());
        (nonce, header)
    }
}

impl Content {
    fn number(self) -> u8 {
        match self {
            Self::Alert => 21,
            Self::ChangeCipherSpec => 20,
            Self::Data => 23,
            Self::Handshake => 22,
        }
    }
}

/// Takes one record from `input`, as it is on the wire.
pub(crate) fn record(input: &mut BytesMut) -> Result<Option<(Content, BytesMut)>, ContermError> {
    let Some(header) = input.first_chunk::<5>().copied() else {
        return Ok(None);
    };
    let content = match header[0] {
        20 => Content::ChangeCipherSpec,
        21 => Content::Alert,
        22 => Content::Handshake,
        23 => Content::Data,
        _ => return Err(ContermError::Protocol("an unknown TLS record")),
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if header[1..3] != VERSION.to_be_bytes() || length > MAX_SEALED {
        return Err(ContermError::Protocol("a malformed TLS record"));
    }
    if input.len() < 5 + length {
        return Ok(None);
    }
    input.advance(5);
    Ok(Some((content, input.split_to(length))))
}

/// Takes one handshake message with its header.
pub(crate) fn message(input: &mut BytesMut) -> Option<(u8, BytesMut)> {
    let header = input.first_chunk::<4>()?;
    let length = u32::from_be_bytes([0, header[1], header[2], header[3]]);
    let whole = usize::try_from(length).ok()?.checked_add(4)?;
    let kind = header[0];
    (input.len() >= whole).then(|| (kind, input.split_to(whole)))
}

/// What the server drew.
fn server_hello(body: &[u8]) -> Result<[u8; 32], ContermError> {
    const WRONG: ContermError = ContermError::Protocol("an unexpected TLS hello");
    let (version, rest) = body.split_first_chunk::<2>().ok_or(WRONG)?;
    let (random, rest) = rest.split_first_chunk::<32>().ok_or(WRONG)?;
    let (session, rest) = rest.split_first().ok_or(WRONG)?;
    let rest = rest.get(usize::from(*session)..).ok_or(WRONG)?;
    let suite = SUITE.to_be_bytes();
    if *version != VERSION.to_be_bytes() || *session > 32 || rest != [suite[0], suite[1], 0] {
        return Err(WRONG);
    }
    Ok(*random)
}

/// A handshake message.
pub(crate) fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("our messages are short");
    let mut message = Vec::with_capacity(body.len() + 4);
    message.put_u32(length);
    message[0] = kind;
    message.put_slice(body);
    message
}

/// Appends a record without protection.
pub(crate) fn plain(message: &[u8], out: &mut BytesMut) {
    out.put_u8(Content::Handshake.number());
    out.put_u16(VERSION);
    out.put_u16(u16::try_from(message.len()).expect("our messages are short"));
    out.put_slice(message);
}

/// The pseudo-random function of TLS 1.2 (RFC 5246 §5).
fn prf(secret: &[u8], seed: &[&[u8]], out: &mut [u8]) {
    let mac = |parts: &[&[u8]]| -> Zeroizing<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes any key");
        for part in parts {
            mac.update(part);
        }
        Zeroizing::new(mac.finalize().into_bytes().into())
    };
    let seed = seed.concat();
    let mut a = mac(&[&seed]);
    for piece in out.chunks_mut(32) {
        piece.copy_from_slice(&mac(&[&*a, &seed])[..piece.len()]);
        a = mac(&[&*a]);
    }
}

pub(crate) const VERSION: u16 = 0x0303;

/// `TLS_PSK_WITH_CHACHA20_POLY1305_SHA256`.
pub(crate) const SUITE: u16 = 0xccab;

/// The identity of the key.
pub(crate) const IDENTITY: &[u8; 8] = b"p9secret";

pub(crate) const CLIENT_HELLO: u8 = 1;
pub(crate) const SERVER_HELLO: u8 = 2;
pub(crate) const SERVER_KEY_EXCHANGE: u8 = 12;
pub(crate) const SERVER_HELLO_DONE: u8 = 14;
pub(crate) const CLIENT_KEY_EXCHANGE: u8 = 16;
pub(crate) const FINISHED: u8 = 20;

const TAG: u16 = 16;

/// The most data of a record (RFC 5246 §6.2.1).
const MAX_PLAIN: usize = 1 << 14;

/// The most bytes of a record after its header (RFC 5246 §6.2.3).
const MAX_SEALED: usize = MAX_PLAIN + 2048;

/// How much of a handshake may wait to be whole: its messages have less than 100 bytes.
const MAX_MESSAGES: usize = 4096;
