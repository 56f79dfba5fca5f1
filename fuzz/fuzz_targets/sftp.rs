//! Whatever a client sends, the SFTP server answers each request that has a number once and in order, in packets that a
//! client takes, and holds no more than its bounds.

#![no_main]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use revdial_fuzz::Counting;
use sshbridge::sftp::{
    Attributes, DirectoryEntry, Existing, FileApi, FileError, FileSystem, Links, OpenDirectory,
    OpenFile, OpenOptions, serve,
};
use tokio::io::{AsyncRead, ReadBuf};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Files whose answers follow from their paths. No path reaches a disk.
struct Files;

fn attributes(path: &[u8]) -> Result<Attributes, FileError> {
    match path.first() {
        Some(b'x') => Err(FileError::NoSuchFile),
        Some(b'p') => Err(FileError::PermissionDenied),
        _ => Ok(Attributes {
            size: Some(path.len() as u64),
            permissions: Some(0o100_644),
            ..Attributes::default()
        }),
    }
}

#[async_trait]
impl FileApi for Files {
    async fn open(
        &self,
        path: &Bytes,
        _options: OpenOptions,
        _attributes: Attributes,
    ) -> Result<Arc<dyn OpenFile>, FileError> {
        attributes(path)?;
        Ok(Arc::new(File(path.clone())))
    }

    async fn open_dir(&self, path: &Bytes) -> Result<Arc<dyn OpenDirectory>, FileError> {
        attributes(path)?;
        let left = AtomicU64::new(path.len() as u64 * 100);
        Ok(Arc::new(Directory(left)))
    }

    async fn attributes(&self, path: &Bytes, _links: Links) -> Result<Attributes, FileError> {
        attributes(path)
    }

    async fn set_attributes(
        &self,
        path: &Bytes,
        _links: Links,
        _attributes: Attributes,
    ) -> Result<(), FileError> {
        attributes(path).map(drop)
    }

    async fn create_dir(&self, path: &Bytes, _attributes: Attributes) -> Result<(), FileError> {
        attributes(path).map(drop)
    }

    async fn remove_dir(&self, path: &Bytes) -> Result<(), FileError> {
        attributes(path).map(drop)
    }

    async fn remove_file(&self, path: &Bytes) -> Result<(), FileError> {
        attributes(path).map(drop)
    }

    async fn rename(&self, from: &Bytes, to: &Bytes, _existing: Existing) -> Result<(), FileError> {
        attributes(from).and(attributes(to)).map(drop)
    }

    async fn symlink(&self, _target: &Bytes, link: &Bytes) -> Result<(), FileError> {
        attributes(link).map(drop)
    }

    async fn read_link(&self, path: &Bytes) -> Result<Bytes, FileError> {
        attributes(path).map(|_| path.clone())
    }

    async fn canonical(&self, path: &Bytes) -> Result<Bytes, FileError> {
        attributes(path).map(|_| path.clone())
    }

    async fn file_system(&self, _path: &Bytes) -> Result<FileSystem, FileError> {
        Ok(FileSystem::default())
    }
}

struct File(Bytes);

#[async_trait]
impl OpenFile for File {
    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, FileError> {
        assert!(length <= MAX_PACKET);
        let left = (1 << 20_u64).min(u64::MAX - offset).saturating_sub(offset);
        let length = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        // Another task may come in between, as on a disk.
        tokio::task::yield_now().await;
        Ok(vec![b'r'; length].into())
    }

    async fn write(&self, _offset: u64, data: Bytes) -> Result<(), FileError> {
        assert!(data.len() <= MAX_PACKET);
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn attributes(&self) -> Result<Attributes, FileError> {
        attributes(&self.0)
    }

    async fn set_attributes(&self, _attributes: Attributes) -> Result<(), FileError> {
        Ok(())
    }
}

struct Directory(AtomicU64);

#[async_trait]
impl OpenDirectory for Directory {
    async fn next(&self, max: usize) -> Result<Vec<DirectoryEntry>, FileError> {
        let left = self.0.load(Ordering::Relaxed);
        let given = left.min(max as u64);
        self.0.store(left - given, Ordering::Relaxed);
        let entry = |_| DirectoryEntry {
            name: "name".into(),
            long_name: "-rw-r--r-- name".into(),
            attributes: Attributes::default(),
        };
        Ok((0..given).map(entry).collect())
    }
}

/// The client's bytes, so many at a time.
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.size.min(self.bytes.len()).min(buf.remaining());
        let (piece, rest) = self.bytes.split_at(length);
        buf.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// What the server answers, and whether the client spoke SFTP to its end.
fn answers(bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
    let mut written = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let served = serve(Arc::new(Files), Pieces { bytes, size }, &mut written);
    let served = runtime.expect("a runtime").block_on(served);
    (written, served.is_ok())
}

/// The numbers of the requests that came whole behind the version, in packets of a size that is served.
fn numbers(mut bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some((packet, rest)) = packet(bytes) {
        bytes = rest;
        numbers.extend(
            packet
                .get(1..5)
                .map(|it| u32::from_be_bytes(it.try_into().expect("4"))),
        );
    }
    numbers
}

fn packet(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let rest = &bytes[4..];
    (length <= rest.len()).then(|| rest.split_at(length))
}

/// Serves a client, and checks what it is answered.
fn check(bytes: &[u8], size: usize) {
    let before = Counting::held();
    let (answered, is_sftp) = answers(bytes, size);
    assert!(Counting::held() - before <= answered.capacity() + (1 << 20));

    // Packets that a client takes: the version first, then an answer to each number in their order.
    let mut rest = &answered[..];
    let mut told = Vec::new();
    let mut first = true;
    while let Some((packet, behind)) = packet(rest) {
        assert!(!packet.is_empty() && packet.len() <= MAX_PACKET + 1024);
        if !std::mem::take(&mut first) {
            let number = packet[1..5].try_into().expect("a number");
            told.push(u32::from_be_bytes(number));
        }
        rest = behind;
    }
    let asked = packet(bytes)
        .map(|(_, rest)| numbers(rest))
        .unwrap_or_default();
    if is_sftp {
        assert!(rest.is_empty(), "half a packet");
        assert_eq!(told, asked);
    } else {
        // Where the stream ends for a fault, what came before it may be unanswered, or half so.
        assert!(asked.starts_with(&told), "{asked:?} {told:?}");
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (split, bytes) = input;
    check(bytes, usize::MAX);
    check(bytes, 1 + usize::from(split));
});

/// The largest packet that is served.
const MAX_PACKET: usize = 256 << 10;
