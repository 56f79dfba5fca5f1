//! A machine for tests: an authentication server, `cpu` and `rcpu`, and in place of rc the system's own shell, between
//! files that are read and written by 9P.

mod layer;
mod mount;
mod shell;

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::layer::{Link, serve_tls};
use self::mount::Mount;
use super::des::NAME;
use super::keys::Keys;
use super::layer::{Opener, Sealer};
use super::pak::{PAK, Pak, PakSide};
use super::ssl;
use super::ticket::{DES_AUTH, DES_TICKET, DesTicket, Kind, PAK_AUTH, PAK_TICKET, PakTicket};
use super::{Entropy as _, System};
use crate::backend::ssh::Stream;

/// The machine: its owner is its only user.
pub(super) struct Peer {
    pub(super) user: String,
    pub(super) keys: Keys,
    /// What p9any offers.
    pub(super) offer: &'static str,
}

impl Peer {
    pub(super) fn new(user: &str, password: &[u8]) -> Arc<Self> {
        Arc::new(Self {
            user: user.to_owned(),
            keys: Keys::new(user, password),
            offer: "p9sk1@test dp9ik@test",
        })
    }

    /// Serves `rcpu` to one client.
    pub(super) async fn rcpu(self: Arc<Self>, mut stream: Box<dyn Stream>) -> Option<()> {
        let secret = self.authenticate(&mut stream).await?;
        let mut link = serve_tls(stream, &secret).await?;
        let length: usize = String::from_utf8(link.take(8).await?)
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let script = link.take(length).await?;
        shell::run(Mount::new(link).await?, &script).await
    }

    /// Serves `cpu` to one client.
    pub(super) async fn cpu(self: Arc<Self>, mut stream: Box<dyn Stream>) -> Option<()> {
        if text(&mut stream).await? != b"p9 rc4_256 sha1" {
            stream.write_all(b"no such encryption\0").await.ok()?;
            return None;
        }
        stream.write_all(b"\0").await.ok()?;
        let secret = self.authenticate(&mut stream).await?;
        let theirs = read::<4>(&mut stream).await?;
        let ours = draw::<4>();
        stream.write_all(&ours).await.ok()?;
        let (to, from) = ssl::directions(&secret, theirs, ours)?;
        let mut link = Link {
            stream,
            input: BytesMut::new(),
            plain: BytesMut::new(),
            sealer: Sealer::Ssl(Box::new(to)),
            opener: Opener::Ssl(Box::new(from)),
        };
        let mut command = link.text().await?;
        if command.starts_with(b"!") {
            link.text().await?; // the directory
        } else {
            command = b"!exec /bin/sh\0".to_vec();
        }
        link.send(b"FS\0").await?;
        link.send(b"/\0").await?;
        (link.take(2).await? == b"OK").then_some(())?;
        let mount = Mount::new(link).await?;
        // Either our own script, which is a file, or what another client asks for.
        let mut script = command;
        if script.starts_with(b"!. /mnt/term/env/run\0") {
            let file = mount.open("env/run", 0).await?;
            script.clear();
            loop {
                let offset = u64::try_from(script.len()).ok()?;
                let piece = mount.read(file, offset).await?;
                if piece.is_empty() {
                    break;
                }
                script.extend(piece);
            }
        }
        shell::run(mount, &script).await
    }

    /// Serves tickets on one connection.
    pub(super) async fn auth(self: Arc<Self>, mut stream: Box<dyn Stream>) -> Option<()> {
        loop {
            let request = read::<141>(&mut stream).await?;
            let user = name(&request[REQUEST - NAME..]);
            let known = user == self.user;
            // An unknown user gets tickets that are good for nothing.
            let client = if known {
                self.keys.clone()
            } else {
                Keys::new(&user, &draw::<16>())
            };
            if request[0] == 1 {
                let ticket = DesTicket {
                    challenge: challenge(&request),
                    key: super::des::DesKey::new(draw()),
                };
                let ours = ticket.seal(Kind::ClientTicket, &client.des, &user);
                let theirs = ticket.seal(Kind::ServerTicket, &self.keys.des, &user);
                stream
                    .write_all(&[&[4], &ours[..], &theirs[..]].concat())
                    .await
                    .ok()?;
                continue;
            }
            let (service, caller) = (
                read::<PAK>(&mut stream).await?,
                read::<PAK>(&mut stream).await?,
            );
            let to_service = Pak::new(&self.keys.pak, PakSide::Server, &draw());
            let to_caller = Pak::new(&client.pak, PakSide::Server, &draw());
            let answer = [&[4], &to_service.sent()[..], &to_caller.sent()[..]].concat();
            stream.write_all(&answer).await.ok()?;
            let service = to_service.finish(&self.keys.pak, &service)?;
            let caller = to_caller.finish(&client.pak, &caller)?;
            let request = read::<141>(&mut stream).await?;
            let ticket = PakTicket {
                challenge: challenge(&request),
                key: zeroize::Zeroizing::new(draw()),
            };
            let ours = ticket.seal(Kind::ClientTicket, &caller, &user, 0);
            let theirs = ticket.seal(Kind::ServerTicket, &service, &user, 1);
            stream
                .write_all(&[&[4], &ours[..], &theirs[..]].concat())
                .await
                .ok()?;
        }
    }

    /// The machine's side of p9any, to the secret.
    async fn authenticate(&self, stream: &mut Box<dyn Stream>) -> Option<Vec<u8>> {
        let offer = format!("{}\0", self.offer);
        stream.write_all(offer.as_bytes()).await.ok()?;
        let choice = text(stream).await?;
        if self.offer.starts_with("v.2 ") {
            stream.write_all(b"OK\0").await.ok()?;
        }
        let theirs = read::<8>(stream).await?;
        let ours = draw::<8>();
        let mut request = [0; REQUEST];
        request[1..=self.user.len()].copy_from_slice(self.user.as_bytes());
        request[29..33].copy_from_slice(b"test");
        request[77..85].copy_from_slice(&ours);
        if choice == b"p9sk1 test" {
            request[0] = 1;
            stream.write_all(&request).await.ok()?;
            let sealed = read::<DES_TICKET>(stream).await?;
            let ticket = DesTicket::open(Kind::ServerTicket, &self.keys.des, &sealed)?;
            let proof = read::<DES_AUTH>(stream).await?;
            let proved =
                ticket.challenge == ours && ticket.verify(Kind::ClientAuthenticator, &ours, &proof);
            proved.then_some(())?;
            let answer = ticket.authenticator(Kind::ServerAuthenticator, &theirs);
            stream.write_all(&answer).await.ok()?;
            return Some(ticket.secret().to_vec());
        }
        request[0] = 19;
        let pak = Pak::new(&self.keys.pak, PakSide::Client, &draw());
        stream
            .write_all(&[&request[..], pak.sent()].concat())
            .await
            .ok()?;
        let point = read::<PAK>(stream).await?;
        let sealed = read::<PAK_TICKET>(stream).await?;
        let proof = read::<PAK_AUTH>(stream).await?;
        let key = pak.finish(&self.keys.pak, &point)?;
        let ticket = PakTicket::open(Kind::ServerTicket, &key, &sealed)?;
        let drawn = ticket.verify(Kind::ClientAuthenticator, &ours, &proof)?;
        let random = draw();
        let answer = ticket.authenticator(Kind::ServerAuthenticator, &theirs, &random, 0);
        stream.write_all(&answer).await.ok()?;
        Some(ticket.secret(&drawn, &random).to_vec())
    }
}

fn challenge(request: &[u8; REQUEST]) -> [u8; 8] {
    request[77..85].try_into().unwrap()
}

fn name(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
}

fn draw<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    System.fill(&mut bytes);
    bytes
}

async fn read<const N: usize>(stream: &mut Box<dyn Stream>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}

async fn text(stream: &mut Box<dyn Stream>) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        match stream.read_u8().await.ok()? {
            0 => return Some(text),
            byte => text.push(byte),
        }
    }
}

const REQUEST: usize = 141;
