//! What clients are answered.

use bytes::{BufMut, Bytes, BytesMut};

use super::attributes::Attributes;
use super::wire::put_string;
use super::{DirectoryEntry, FileError, FileSystem};

/// An answer, as what is sent: data is not copied behind its head.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) head: Bytes,
    pub(super) data: Bytes,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Attributes(Attributes),
    Data(Bytes),
    Done,
    End,
    Entries(Vec<DirectoryEntry>),
    FileSystem(FileSystem),
    Handle(Bytes),
    /// How many files may be open.
    Limits(u64),
    /// One path.
    Path(Bytes),
}

impl Response {
    /// The server's first packet: the version, and the extensions with theirs.
    pub(super) fn version() -> Self {
        let mut body = BytesMut::new();
        body.put_u8(2);
        body.put_u32(3);
        for (name, version) in EXTENSIONS {
            put_string(&mut body, name.as_bytes());
            put_string(&mut body, version.as_bytes());
        }
        packet(&body, Bytes::new())
    }

    pub(super) fn new(id: u32, result: Result<Outcome, FileError>) -> Self {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => {
                let (code, message) = status(error);
                return Self::status(id, code, message);
            }
        };
        let begin = |kind: u8| {
            let mut body = BytesMut::with_capacity(64);
            body.put_u8(kind);
            body.put_u32(id);
            body
        };
        match outcome {
            Outcome::Attributes(attributes) => {
                let mut body = begin(105);
                attributes.encode(&mut body);
                packet(&body, Bytes::new())
            }
            Outcome::Data(data) => {
                let mut body = begin(103);
                body.put_u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
                packet(&body, data)
            }
            Outcome::Done => Self::status(id, 0, "Success"),
            Outcome::End => Self::status(id, 1, "End of file"),
            Outcome::Entries(entries) => names(begin(104), &entries),
            Outcome::FileSystem(system) => {
                let mut body = begin(201);
                put_file_system(&mut body, &system);
                packet(&body, Bytes::new())
            }
            Outcome::Handle(handle) => {
                let mut body = begin(102);
                put_string(&mut body, &handle);
                packet(&body, Bytes::new())
            }
            Outcome::Limits(handles) => {
                let mut body = begin(201);
                for limit in [super::wire::MAX_PACKET, MAX_DATA, MAX_DATA] {
                    body.put_u64(limit as u64);
                }
                body.put_u64(handles);
                packet(&body, Bytes::new())
            }
            Outcome::Path(path) => {
                let entry = DirectoryEntry {
                    name: path.clone(),
                    long_name: path,
                    attributes: Attributes::default(),
                };
                names(begin(104), &[entry])
            }
        }
    }

    fn status(id: u32, code: u32, message: &str) -> Self {
        let mut body = BytesMut::with_capacity(64);
        body.put_u8(101);
        body.put_u32(id);
        body.put_u32(code);
        put_string(&mut body, message.as_bytes());
        put_string(&mut body, b"");
        packet(&body, Bytes::new())
    }
}

fn names(mut body: BytesMut, entries: &[DirectoryEntry]) -> Response {
    body.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    for entry in entries {
        put_string(&mut body, &entry.name);
        put_string(&mut body, &entry.long_name);
        entry.attributes.encode(&mut body);
    }
    packet(&body, Bytes::new())
}

fn put_file_system(body: &mut BytesMut, system: &FileSystem) {
    for number in [
        system.block_size,
        system.fragment_size,
        system.blocks,
        system.free_blocks,
        system.available_blocks,
        system.files,
        system.free_files,
        system.available_files,
        system.id,
        system.flags,
        system.max_name,
    ] {
        body.put_u64(number);
    }
}

fn packet(body: &[u8], data: Bytes) -> Response {
    let mut head = BytesMut::with_capacity(4 + body.len());
    head.put_u32(u32::try_from(body.len() + data.len()).unwrap_or(u32::MAX));
    head.put_slice(body);
    Response {
        head: head.freeze(),
        data,
    }
}

/// The codes of draft-ietf-secsh-filexfer-02 §7 and the texts of OpenSSH, where the files give no reason.
fn status(error: FileError) -> (u32, &'static str) {
    match error {
        FileError::BadMessage => (5, "Bad message"),
        FileError::FailedBecause(reason) => (4, reason),
        FileError::Failure => (4, "Failure"),
        FileError::NoSuchFile => (2, "No such file"),
        FileError::PermissionDenied => (3, "Permission denied"),
        FileError::Unsupported => (8, "Operation unsupported"),
        FileError::UnsupportedBecause(reason) => (8, reason),
    }
}

/// The most data of one read or write, as OpenSSH has it.
pub(super) const MAX_DATA: usize = super::wire::MAX_PACKET - 1024;

const EXTENSIONS: [(&str, &str); 9] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
    ("copy-data", "1"),
];
