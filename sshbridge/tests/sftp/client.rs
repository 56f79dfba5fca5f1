//! A client that sends any packet it is told to.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sshbridge::sftp::{FileApi, LocalFiles, SftpError, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub(crate) struct Client {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    last: u32,
    pub(crate) served: Option<JoinHandle<Result<(), SftpError>>>,
    _child: Option<Child>,
}

/// An answer: the kind of packet, and what follows its number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    pub(crate) kind: u8,
    pub(crate) body: Bytes,
}

impl Client {
    /// A client of our server, in a directory.
    pub(crate) async fn of_ours(directory: &Path) -> Self {
        let files = LocalFiles::new(directory, Some(directory.to_owned())).unwrap();
        Self::of(Arc::new(files)).await
    }

    pub(crate) async fn of(files: Arc<dyn FileApi>) -> Self {
        let mut client = Self::unversioned(files);
        client.greet().await;
        client
    }

    /// A client that has not said its version.
    pub(crate) fn unversioned(files: Arc<dyn FileApi>) -> Self {
        let (near, far) = tokio::io::duplex(64 << 10);
        let (reader, writer) = tokio::io::split(far);
        let served = tokio::spawn(serve(files, reader, writer));
        let (reader, writer) = tokio::io::split(near);
        Self {
            reader: Box::new(reader),
            writer: Box::new(writer),
            last: 0,
            served: Some(served),
            _child: None,
        }
    }

    /// A client of OpenSSH's server, where that is installed.
    pub(crate) async fn of_openssh(directory: &Path) -> Option<Self> {
        let path = ["/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server"]
            .into_iter()
            .find(|path| Path::new(path).exists())?;
        let mut child = Command::new(path)
            .arg("-e")
            .current_dir(directory)
            .env("HOME", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut client = Self {
            reader: Box::new(child.stdout.take().unwrap()),
            writer: Box::new(child.stdin.take().unwrap()),
            last: 0,
            served: None,
            _child: Some(child),
        };
        client.greet().await;
        Some(client)
    }

    pub(crate) async fn greet(&mut self) {
        self.send(&[1, 0, 0, 0, 3]).await;
        let packet = self.receive().await.unwrap();
        assert_eq!(&packet[..5], [2, 0, 0, 0, 3]);
    }

    /// Sends the bytes of a packet.
    pub(crate) async fn send(&mut self, body: &[u8]) {
        let mut packet = BytesMut::new();
        packet.put_u32(u32::try_from(body.len()).unwrap());
        packet.put_slice(body);
        self.writer.write_all(&packet).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        // The server may be gone, which is what is looked at then.
        let _ = self.writer.write_all(bytes).await;
        let _ = self.writer.flush().await;
    }

    pub(crate) async fn receive(&mut self) -> Option<Bytes> {
        let length = self.reader.read_u32().await.ok()?;
        let mut packet = vec![0; length as usize];
        self.reader.read_exact(&mut packet).await.ok()?;
        Some(packet.into())
    }

    /// Sends a request and does not wait; its number.
    pub(crate) async fn request(&mut self, kind: u8, fields: &[Field<'_>]) -> u32 {
        self.last += 1;
        let mut body = BytesMut::new();
        body.put_u8(kind);
        body.put_u32(self.last);
        for field in fields {
            field.put(&mut body);
        }
        self.send(&body).await;
        self.last
    }

    /// The next answer with its number.
    pub(crate) async fn answer(&mut self) -> (u32, Answer) {
        let mut packet = self.receive().await.expect("the server has ended");
        let kind = packet.get_u8();
        let id = packet.get_u32();
        (id, Answer { kind, body: packet })
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&mut self, kind: u8, fields: &[Field<'_>]) -> Answer {
        let id = self.request(kind, fields).await;
        let (answered, answer) = self.answer().await;
        assert_eq!(answered, id);
        answer
    }

    pub(crate) async fn open(&mut self, path: &str, flags: u32) -> Bytes {
        let answer = self
            .ask(OPEN, &[Field::Text(path), Field::U32(flags), Field::U32(0)])
            .await;
        answer.handle()
    }

    pub(crate) async fn close(&mut self, handle: &[u8]) -> u32 {
        self.ask(CLOSE, &[Field::Bytes(handle)]).await.status()
    }

    pub(crate) async fn write(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> u32 {
        let fields = [Field::Bytes(handle), Field::U64(offset), Field::Bytes(data)];
        self.ask(WRITE, &fields).await.status()
    }

    pub(crate) async fn read(&mut self, handle: &[u8], offset: u64, length: u32) -> Answer {
        let fields = [Field::Bytes(handle), Field::U64(offset), Field::U32(length)];
        self.ask(READ, &fields).await
    }

    /// Ends the client's direction and waits for the server's.
    pub(crate) async fn end(mut self) -> Result<(), SftpError> {
        self.writer.shutdown().await.unwrap();
        while self.receive().await.is_some() {}
        self.served.take().unwrap().await.unwrap()
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u32 {
        assert_eq!(self.kind, 101, "{self:?}");
        self.body.clone().get_u32()
    }

    pub(crate) fn handle(&self) -> Bytes {
        assert_eq!(self.kind, 102, "{self:?}");
        string(&mut self.body.clone())
    }

    pub(crate) fn data(&self) -> Bytes {
        assert_eq!(self.kind, 103, "{self:?}");
        string(&mut self.body.clone())
    }

    /// Names, their lines, and their attributes.
    pub(crate) fn names(&self) -> Vec<(Bytes, Bytes, Attributes)> {
        assert_eq!(self.kind, 104, "{self:?}");
        let mut body = self.body.clone();
        let count = body.get_u32();
        let names = (0..count).map(|_| {
            let (name, line) = (string(&mut body), string(&mut body));
            (name, line, Attributes::take(&mut body))
        });
        names.collect()
    }

    pub(crate) fn path(&self) -> String {
        let names = self.names();
        assert_eq!(names.len(), 1);
        String::from_utf8(names[0].0.to_vec()).unwrap()
    }

    pub(crate) fn attributes(&self) -> Attributes {
        assert_eq!(self.kind, 105, "{self:?}");
        Attributes::take(&mut self.body.clone())
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Attributes {
    pub(crate) flags: u32,
    pub(crate) size: u64,
    pub(crate) owner: (u32, u32),
    pub(crate) mode: u32,
    pub(crate) times: (u32, u32),
}

impl Attributes {
    fn take(body: &mut Bytes) -> Self {
        let flags = body.get_u32();
        let mut it = Self {
            flags,
            size: 0,
            owner: (0, 0),
            mode: 0,
            times: (0, 0),
        };
        if flags & 1 != 0 {
            it.size = body.get_u64();
        }
        if flags & 2 != 0 {
            it.owner = (body.get_u32(), body.get_u32());
        }
        if flags & 4 != 0 {
            it.mode = body.get_u32();
        }
        if flags & 8 != 0 {
            it.times = (body.get_u32(), body.get_u32());
        }
        it
    }
}

pub(crate) fn string(body: &mut Bytes) -> Bytes {
    let length = body.get_u32() as usize;
    body.split_to(length)
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Bytes(&'a [u8]),
    Text(&'a str),
    U32(u32),
    U64(u64),
}

impl Field<'_> {
    fn put(&self, body: &mut BytesMut) {
        let mut string = |bytes: &[u8]| {
            body.put_u32(u32::try_from(bytes.len()).unwrap());
            body.put_slice(bytes);
        };
        match self {
            Self::Bytes(bytes) => string(bytes),
            Self::Text(text) => string(text.as_bytes()),
            Self::U32(number) => body.put_u32(*number),
            Self::U64(number) => body.put_u64(*number),
        }
    }
}

pub(crate) const OPEN: u8 = 3;
pub(crate) const CLOSE: u8 = 4;
pub(crate) const READ: u8 = 5;
pub(crate) const WRITE: u8 = 6;
pub(crate) const LSTAT: u8 = 7;
pub(crate) const FSTAT: u8 = 8;
pub(crate) const SETSTAT: u8 = 9;
pub(crate) const FSETSTAT: u8 = 10;
pub(crate) const OPENDIR: u8 = 11;
pub(crate) const READDIR: u8 = 12;
pub(crate) const REMOVE: u8 = 13;
pub(crate) const MKDIR: u8 = 14;
pub(crate) const RMDIR: u8 = 15;
pub(crate) const REALPATH: u8 = 16;
pub(crate) const STAT: u8 = 17;
pub(crate) const RENAME: u8 = 18;
pub(crate) const READLINK: u8 = 19;
pub(crate) const SYMLINK: u8 = 20;
pub(crate) const EXTENDED: u8 = 200;

pub(crate) const FOR_READING: u32 = 1;
pub(crate) const FOR_WRITING: u32 = 2;
pub(crate) const APPEND: u32 = 4;
pub(crate) const CREATE: u32 = 8;
pub(crate) const TRUNCATE: u32 = 16;
pub(crate) const EXCLUSIVE: u32 = 32;
