use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Files that take 50 ms for everything, as over a slow network, and count what is done at once.
#[derive(Default)]
struct Slow {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Slow {
    async fn take_time(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

struct SlowFile(Arc<Slow>);

#[async_trait]
impl OpenFile for SlowFile {
    async fn close(&self) -> Result<(), FileError> {
        Err(FileError::FailedBecause("what was written is lost"))
    }

    async fn read(&self, _offset: u64, length: usize) -> Result<Bytes, FileError> {
        self.0.take_time().await;
        Ok(Bytes::from(vec![0; length]))
    }

    async fn write(&self, _offset: u64, _data: Bytes) -> Result<(), FileError> {
        self.0.take_time().await;
        Ok(())
    }

    async fn attributes(&self) -> Result<Attributes, FileError> {
        Ok(Attributes::default())
    }

    async fn set_attributes(&self, _attributes: Attributes) -> Result<(), FileError> {
        Ok(())
    }
}

struct SlowFiles(Arc<Slow>);

#[async_trait]
impl FileApi for SlowFiles {
    async fn open(
        &self,
        _path: &Bytes,
        _options: OpenOptions,
        _attributes: Attributes,
    ) -> Result<Arc<dyn OpenFile>, FileError> {
        Ok(Arc::new(SlowFile(self.0.clone())))
    }

    async fn open_dir(&self, _path: &Bytes) -> Result<Arc<dyn OpenDirectory>, FileError> {
        Err(FileError::Unsupported)
    }

    async fn attributes(&self, _path: &Bytes, _links: Links) -> Result<Attributes, FileError> {
        self.0.take_time().await;
        Ok(Attributes::default())
    }

    async fn set_attributes(
        &self,
        _path: &Bytes,
        _links: Links,
        _attributes: Attributes,
    ) -> Result<(), FileError> {
        Err(FileError::Unsupported)
    }

    async fn create_dir(&self, _path: &Bytes, _attributes: Attributes) -> Result<(), FileError> {
        Err(FileError::Unsupported)
    }

    async fn remove_dir(&self, _path: &Bytes) -> Result<(), FileError> {
        Err(FileError::Unsupported)
    }

    async fn remove_file(&self, _path: &Bytes) -> Result<(), FileError> {
        Err(FileError::Unsupported)
    }

    async fn rename(
        &self,
        _from: &Bytes,
        _to: &Bytes,
        _existing: Existing,
    ) -> Result<(), FileError> {
        self.0.take_time().await;
        Ok(())
    }

    async fn symlink(&self, _target: &Bytes, _link: &Bytes) -> Result<(), FileError> {
        Err(FileError::Unsupported)
    }

    async fn read_link(&self, _path: &Bytes) -> Result<Bytes, FileError> {
        Err(FileError::Unsupported)
    }

    async fn canonical(&self, path: &Bytes) -> Result<Bytes, FileError> {
        Ok(path.clone())
    }
}

fn packet(kind: u8, fields: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u8(kind);
    body.put_u32(1);
    fields(&mut body);
    let mut packet = BytesMut::new();
    wire::put_string(&mut packet, &body);
    packet.to_vec()
}

/// Sends `requests` after a file was opened, and waits for as many answers; what was done at once, and how long it took.
async fn pipelined(requests: Vec<Vec<u8>>) -> (usize, Duration) {
    let slow = Arc::new(Slow::default());
    let (near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(far);
    let files = Arc::new(SlowFiles(slow.clone()));
    let served = tokio::spawn(serve(files, reader, writer));
    let (mut reader, mut writer) = tokio::io::split(near);
    writer
        .write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3])
        .await
        .unwrap();
    let open = packet(3, |body| {
        wire::put_string(body, b"f");
        body.put_u32(3);
        body.put_u32(0);
    });
    writer.write_all(&open).await.unwrap();
    let begun = tokio::time::Instant::now();
    for request in &requests {
        writer.write_all(request).await.unwrap();
    }
    for _ in 0..requests.len() + 2 {
        let length = reader.read_u32().await.unwrap();
        let mut answer = vec![0; length as usize];
        reader.read_exact(&mut answer).await.unwrap();
    }
    let elapsed = begun.elapsed();
    drop((reader, writer));
    let _ = served.await;
    (slow.most.load(Ordering::SeqCst), elapsed)
}

fn read(offset: u64) -> Vec<u8> {
    packet(5, |body| {
        wire::put_string(body, &1_u32.to_be_bytes());
        body.put_u64(offset);
        body.put_u32(100);
    })
}

#[tokio::test(start_paused = true)]
async fn reads_of_a_slow_file_run_beside_each_other() {
    let (most, elapsed) = pipelined((0..32).map(read).collect()).await;
    assert_eq!(most, 16);
    assert_eq!(elapsed.as_millis(), 2 * 50);
}

#[tokio::test(start_paused = true)]
async fn changes_of_names_run_alone() {
    let rename = packet(18, |body| {
        wire::put_string(body, b"a");
        wire::put_string(body, b"b");
    });
    let stat = packet(17, |body| wire::put_string(body, b"a"));
    let requests = vec![
        stat.clone(),
        stat.clone(),
        rename.clone(),
        rename,
        stat.clone(),
        stat,
    ];
    let (most, elapsed) = pipelined(requests).await;
    assert_eq!(most, 2);
    assert_eq!(elapsed.as_millis(), 4 * 50);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_fails_is_told_with_its_reason() {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(far);
    let files = Arc::new(SlowFiles(Arc::default()));
    let served = tokio::spawn(serve(files, reader, writer));
    let (mut reader, mut writer) = tokio::io::split(near);
    let open = packet(3, |body| {
        wire::put_string(body, b"f");
        body.put_u32(2);
        body.put_u32(0);
    });
    let close = packet(4, |body| wire::put_string(body, &1_u32.to_be_bytes()));
    let requests = [&[0, 0, 0, 5, 1, 0, 0, 0, 3], &open[..], &close].concat();
    writer.write_all(&requests).await.unwrap();
    writer.shutdown().await.unwrap();
    let mut answers = Vec::new();
    reader.read_to_end(&mut answers).await.unwrap();
    served.await.unwrap().unwrap();
    let reason = b"what was written is lost\0\0\0\0";
    assert!(answers.ends_with(reason), "{answers:?}");
}
