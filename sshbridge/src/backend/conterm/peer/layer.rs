//! The machine's side of the layers.

use bytes::{BufMut, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::draw;
use crate::backend::conterm::layer::{Opened, Opener, Sealer};
use crate::backend::conterm::tls;
use crate::backend::ssh::Stream;

/// A protected stream to a client.
pub(super) struct Link {
    pub(super) stream: Box<dyn Stream>,
    pub(super) input: BytesMut,
    pub(super) plain: BytesMut,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
}

impl Link {
    pub(super) async fn send(&mut self, data: &[u8]) -> Option<()> {
        let mut out = BytesMut::new();
        self.sealer.seal(data, &mut out);
        self.stream.write_all(&out).await.ok()
    }

    /// A text with the zero at its end.
    pub(super) async fn text(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        while text.last() != Some(&0) {
            text.extend(self.take(1).await?);
        }
        Some(text)
    }

    pub(super) async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.plain.len() < count {
            match self.opener.open(&mut self.input).ok()? {
                Opened::Data(data) => self.plain.extend_from_slice(&data),
                Opened::End => return None,
                Opened::Wait => {
                    let read = self.stream.read_buf(&mut self.input).await.ok()?;
                    (read > 0).then_some(())?;
                }
            }
        }
        Some(self.plain.split_to(count).to_vec())
    }
}

/// The machine's side of TLS.
pub(super) async fn serve_tls(mut stream: Box<dyn Stream>, psk: &[u8]) -> Option<Link> {
    let mut input = BytesMut::new();
    let mut transcript = Sha256::new();
    let hello = record(&mut stream, &mut input).await?;
    transcript.update(&hello);
    let client: [u8; 32] = hello[6..38].try_into().ok()?;
    let suites = usize::from(u16::from_be_bytes(hello[39..41].try_into().ok()?));
    let offers = hello[41..41 + suites].chunks(2);
    offers
        .into_iter()
        .any(|suite| suite == tls::SUITE.to_be_bytes())
        .then_some(())?;
    let server: [u8; 32] = draw();
    let mut body = Vec::new();
    body.put_u16(tls::VERSION);
    body.put_slice(&server);
    body.put_u8(0);
    body.put_u16(tls::SUITE);
    body.put_u8(0);
    let mut message = tls::handshake(tls::SERVER_HELLO, &body);
    message.extend(tls::handshake(tls::SERVER_HELLO_DONE, &[]));
    transcript.update(&message);
    let mut out = BytesMut::new();
    tls::plain(&message, &mut out);
    stream.write_all(&out.split()).await.ok()?;
    let exchange = record(&mut stream, &mut input).await?;
    transcript.update(&exchange);
    exchange.ends_with(tls::IDENTITY).then_some(())?;
    let mut session = tls::Session::new(psk, &client, &server);
    (record(&mut stream, &mut input).await?[..] == [1]).then_some(())?;
    let finished = loop {
        match session.client.open(&mut input).ok()? {
            Some((tls::Content::Handshake, message)) => break message,
            Some(_) => return None,
            None => (stream.read_buf(&mut input).await.ok()? > 0).then_some(())?,
        }
    };
    (finished[4..] == session.finished(b"client finished", &transcript)).then_some(())?;
    transcript.update(&finished);
    out.put_slice(&[20, 3, 3, 0, 1, 1]);
    let proof = session.finished(b"server finished", &transcript);
    let proof = tls::handshake(tls::FINISHED, &proof);
    session
        .server
        .seal_as(tls::Content::Handshake, &proof, &mut out);
    stream.write_all(&out).await.ok()?;
    Some(Link {
        stream,
        input,
        plain: BytesMut::new(),
        sealer: Sealer::Tls(session.server),
        opener: Opener::Tls(session.client),
    })
}

async fn record(stream: &mut Box<dyn Stream>, input: &mut BytesMut) -> Option<BytesMut> {
    loop {
        if let Some((_, body)) = tls::record(input).ok()? {
            return Some(body);
        }
        (stream.read_buf(input).await.ok()? > 0).then_some(())?;
    }
}
