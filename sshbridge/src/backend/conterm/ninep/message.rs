//! The messages of 9P2000 (section 5 of Plan 9's manual): requests are read, answers are written.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A request of the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    Attach {
        fid: u32,
    },
    Auth,
    Clunk {
        fid: u32,
    },
    Create {
        fid: u32,
        name: String,
        mode: u8,
    },
    Flush {
        tag: u16,
    },
    Open {
        fid: u32,
        mode: u8,
    },
    Read {
        fid: u32,
        offset: u64,
        count: u32,
    },
    Remove {
        fid: u32,
    },
    Stat {
        fid: u32,
    },
    /// A type that no machine has a reason to send.
    Unknown,
    Version {
        size: u32,
        version: String,
    },
    Walk {
        fid: u32,
        new: u32,
        names: Vec<String>,
    },
    Write {
        fid: u32,
        data: Bytes,
    },
    Wstat {
        fid: u32,
    },
}

/// What identifies a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Qid {
    pub(crate) kind: u8,
    pub(crate) path: u64,
}

/// What a request of the machine is answered with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Attach(Qid),
    Clunk,
    Create(Qid),
    Error(&'static str),
    Flush,
    Open(Qid),
    Read(Bytes),
    Stat(Vec<u8>),
    Version(u32, &'static str),
    Walk(Vec<Qid>),
    Write(u32),
}

/// Why a message is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a malformed 9P message")]
pub(crate) struct Malformed;

/// Takes one message from `input`, where there is a whole one: its tag and what it asks.
pub(crate) fn take(input: &mut BytesMut, max: u32) -> Result<Option<(u16, Request)>, Malformed> {
    let Some(size) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let size = u32::from_le_bytes(*size);
    if size < HEADER || size > max {
        return Err(Malformed);
    }
    let size = usize::try_from(size).map_err(|_| Malformed)?;
    if input.len() < size {
        return Ok(None);
    }
    let mut message = Reader(input.split_to(size).freeze());
    message.0.advance(4);
    let kind = message.byte()?;
    let tag = message.short()?;
    let request = message.request(kind)?;
    Ok(Some((tag, request)))
}

/// Reads the fields of a message.
struct Reader(Bytes);

impl Reader {
    fn request(&mut self, kind: u8) -> Result<Request, Malformed> {
        let request = match kind {
            100 => Request::Version {
                size: self.word()?,
                version: self.string()?,
            },
            102 => return Ok(Request::Auth),
            104 => self.attach()?,
            108 => Request::Flush { tag: self.short()? },
            110 => self.walk()?,
            112 => Request::Open {
                fid: self.word()?,
                mode: self.byte()?,
            },
            114 => self.create()?,
            116 => Request::Read {
                fid: self.word()?,
                offset: self.long()?,
                count: self.word()?,
            },
            118 => self.write()?,
            120 => Request::Clunk { fid: self.word()? },
            122 => Request::Remove { fid: self.word()? },
            124 => Request::Stat { fid: self.word()? },
            126 => {
                let fid = self.word()?;
                let length = usize::from(self.short()?);
                self.bytes(length)?;
                Request::Wstat { fid }
            }
            _ => return Ok(Request::Unknown),
        };
        if self.0.is_empty() {
            Ok(request)
        } else {
            Err(Malformed)
        }
    }

    fn attach(&mut self) -> Result<Request, Malformed> {
        let fid = self.word()?;
        let _authentication = self.word()?;
        let (_user, _tree) = (self.string()?, self.string()?);
        Ok(Request::Attach { fid })
    }

    fn walk(&mut self) -> Result<Request, Malformed> {
        let (fid, new) = (self.word()?, self.word()?);
        let count = self.short()?;
        if count > MAX_WALK {
            return Err(Malformed);
        }
        let names = (0..count).map(|_| self.string());
        let names = names.collect::<Result<_, _>>()?;
        Ok(Request::Walk { fid, new, names })
    }

    fn create(&mut self) -> Result<Request, Malformed> {
        let (fid, name) = (self.word()?, self.string()?);
        let _permissions = self.word()?;
        let mode = self.byte()?;
        Ok(Request::Create { fid, name, mode })
    }

    fn write(&mut self) -> Result<Request, Malformed> {
        let fid = self.word()?;
        let _offset = self.long()?;
        let count = usize::try_from(self.word()?).map_err(|_| Malformed)?;
        // A copy: a slice, which may have to wait, would keep all that came with it.
        let data = Bytes::copy_from_slice(&self.bytes(count)?);
        Ok(Request::Write { fid, data })
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed)
    }

    fn short(&mut self) -> Result<u16, Malformed> {
        self.0.try_get_u16_le().map_err(|_| Malformed)
    }

    fn word(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32_le().map_err(|_| Malformed)
    }

    fn long(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64_le().map_err(|_| Malformed)
    }

    fn bytes(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(count))
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let length = usize::from(self.short()?);
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
    }
}

impl Answer {
    /// Appends the message to `out`.
    pub(crate) fn put(&self, tag: u16, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let kind = self.body(&mut body);
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        out.put_u32_le(size.saturating_add(HEADER));
        out.put_u8(kind);
        out.put_u16_le(tag);
        out.put(body);
    }

    fn body(&self, out: &mut BytesMut) -> u8 {
        match self {
            Self::Version(size, version) => {
                out.put_u32_le(*size);
                put_string(version, out);
                101
            }
            Self::Attach(qid) => {
                qid.put(out);
                105
            }
            Self::Error(text) => {
                put_string(text, out);
                107
            }
            Self::Flush => 109,
            Self::Walk(qids) => {
                out.put_u16_le(u16::try_from(qids.len()).unwrap_or(MAX_WALK));
                qids.iter().for_each(|qid| qid.put(out));
                111
            }
            Self::Open(qid) | Self::Create(qid) => {
                qid.put(out);
                out.put_u32_le(0); // as much as a message holds
                if matches!(self, Self::Open(_)) {
                    113
                } else {
                    115
                }
            }
            Self::Read(data) => {
                out.put_u32_le(u32::try_from(data.len()).unwrap_or(u32::MAX));
                out.put_slice(data);
                117
            }
            Self::Write(count) => {
                out.put_u32_le(*count);
                119
            }
            Self::Clunk => 121,
            Self::Stat(stat) => {
                out.put_u16_le(u16::try_from(stat.len()).unwrap_or(u16::MAX));
                out.put_slice(stat);
                125
            }
        }
    }
}

impl Qid {
    pub(crate) fn put(&self, out: &mut impl BufMut) {
        out.put_u8(self.kind);
        out.put_u32_le(0);
        out.put_u64_le(self.path);
    }
}

pub(crate) fn put_string(text: &str, out: &mut impl BufMut) {
    out.put_u16_le(u16::try_from(text.len()).unwrap_or_default());
    out.put_slice(text.as_bytes());
}

/// The size of a message without a body.
pub(crate) const HEADER: u32 = 7;

/// How many names a walk may have, by the protocol.
const MAX_WALK: u16 = 16;
