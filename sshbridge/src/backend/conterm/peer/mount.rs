//! A small client of 9P2000: many requests at once, over one link.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, WriteHalf};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::layer::Link;
use crate::backend::conterm::layer::{Opened, Opener, Sealer};
use crate::backend::conterm::ninep::message::put_string;
use crate::backend::ssh::Stream;

/// Who waits for the answer with a tag; `None` when none will come any more.
type Waiting = std::sync::Arc<Mutex<Option<HashMap<u16, oneshot::Sender<(u8, Bytes)>>>>>;

/// The files of a client.
pub(super) struct Mount {
    writer: tokio::sync::Mutex<(WriteHalf<Box<dyn Stream>>, Sealer)>,
    waiting: Waiting,
    tags: AtomicU16,
    fids: AtomicU32,
    _reader: AbortOnDropHandle<()>,
}

impl Mount {
    pub(super) async fn new(link: Link) -> Option<Self> {
        let (mut reader, writer) = tokio::io::split(link.stream);
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let (mut input, mut plain, mut opener) = (link.input, link.plain, link.opener);
        let answers = waiting.clone();
        let reading = tokio::spawn(async move {
            while let Some(message) =
                message(&mut reader, &mut input, &mut plain, &mut opener).await
            {
                let tag = u16::from_le_bytes([message[5], message[6]]);
                let waiter = answers.lock().unwrap().as_mut().unwrap().remove(&tag);
                if let Some(waiter) = waiter {
                    let _ = waiter.send((message[4], message.slice(7..)));
                }
            }
            *answers.lock().unwrap() = None;
        });
        let mount = Self {
            writer: tokio::sync::Mutex::new((writer, link.sealer)),
            waiting,
            tags: AtomicU16::new(1),
            fids: AtomicU32::new(1),
            _reader: AbortOnDropHandle::new(reading),
        };
        let mut body = BytesMut::new();
        body.put_u32_le(32792);
        put_string("9P2000", &mut body);
        mount.request(100, &body).await?;
        body.clear();
        body.put_u32_le(0);
        body.put_u32_le(u32::MAX);
        put_string("glenda", &mut body);
        put_string("", &mut body);
        mount.request(104, &body).await?;
        Some(mount)
    }

    /// Whether the client is still there.
    pub(super) fn is_alive(&self) -> bool {
        self.waiting.lock().unwrap().is_some()
    }

    async fn request(&self, kind: u8, body: &[u8]) -> Option<Bytes> {
        let tag = self.tags.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap().as_mut()?.insert(tag, sender);
        let mut message = BytesMut::new();
        message.put_u32_le(u32::try_from(body.len()).ok()? + 7);
        message.put_u8(kind);
        message.put_u16_le(tag);
        message.put_slice(body);
        {
            let mut writer = self.writer.lock().await;
            let (stream, sealer) = &mut *writer;
            let mut out = BytesMut::new();
            sealer.seal(&message, &mut out);
            stream.write_all(&out).await.ok()?;
        }
        let (answered, body) = answer.await.ok()?;
        (answered == kind + 1).then_some(body)
    }

    /// Opens a file.
    pub(super) async fn open(&self, path: &str, mode: u8) -> Option<u32> {
        let fid = self.fids.fetch_add(1, Ordering::Relaxed);
        let names: Vec<&str> = path.split('/').collect();
        let mut body = BytesMut::new();
        body.put_u32_le(0);
        body.put_u32_le(fid);
        body.put_u16_le(u16::try_from(names.len()).ok()?);
        names.iter().for_each(|name| put_string(name, &mut body));
        let walked = self.request(110, &body).await?;
        (usize::from(walked[0]) == names.len()).then_some(())?;
        body.clear();
        body.put_u32_le(fid);
        body.put_u8(mode);
        self.request(112, &body).await?;
        Some(fid)
    }

    pub(super) async fn read(&self, fid: u32, offset: u64) -> Option<Bytes> {
        let mut body = BytesMut::new();
        body.put_u32_le(fid);
        body.put_u64_le(offset);
        body.put_u32_le(8192);
        Some(self.request(116, &body).await?.slice(4..))
    }

    pub(super) async fn write(&self, fid: u32, data: &[u8]) -> Option<()> {
        let mut body = BytesMut::new();
        body.put_u32_le(fid);
        body.put_u64_le(0);
        body.put_u32_le(u32::try_from(data.len()).ok()?);
        body.put_slice(data);
        self.request(118, &body).await.map(drop)
    }

    pub(super) async fn clunk(&self, fid: u32) -> Option<()> {
        self.request(120, &fid.to_le_bytes()).await.map(drop)
    }
}

async fn message(
    reader: &mut (impl AsyncReadExt + Unpin),
    input: &mut BytesMut,
    plain: &mut BytesMut,
    opener: &mut Opener,
) -> Option<Bytes> {
    loop {
        if let Some(size) = plain.first_chunk::<4>() {
            let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
            if plain.len() >= size {
                return Some(plain.split_to(size).freeze());
            }
        }
        match opener.open(input).ok()? {
            Opened::Data(data) => plain.extend_from_slice(&data),
            Opened::End => return None,
            Opened::Wait => (reader.read_buf(input).await.ok()? > 0).then_some(())?,
        }
    }
}
