//! What clients ask.
#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use bytes::Bytes;

use super::attributes::Attributes;
use super::wire::{Fields, Malformed};
use super::{Access, Contents, Create, Creation, Existing, Links, OpenOptions, Writes};

/// A packet with a number, by which it is answered.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) id: u32,
    pub(super) request: Result<Request, Malformed>,
    /// The bytes of the packet.
    pub(super) size: usize,
}

/// A file or directory that is open, as the client names it.
pub(super) type Handle = Bytes;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Request {
    ByPath(ByPath),
    Close {
        handle: Handle,
    },
    CopyData {
        from: Handle,
        from_offset: u64,
        /// 0 is until the end.
        length: u64,
        to: Handle,
        to_offset: u64,
    },
    FileAttributes {
        handle: Handle,
    },
    FileFileSystem {
        handle: Handle,
    },
    Limits,
    Read {
        handle: Handle,
        offset: u64,
        length: u32,
    },
    ReadDir {
        handle: Handle,
    },
    SetFileAttributes {
        handle: Handle,
        attributes: Attributes,
    },
    Sync {
        handle: Handle,
    },
    /// Something that is not known here.
    Unknown,
    Write {
        handle: Handle,
        offset: u64,
        data: Bytes,
    },
}

/// What is about files by their paths.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ByPath {
    Attributes {
        path: Bytes,
        links: Links,
    },
    Canonical {
        path: Bytes,
    },
    CreateDir {
        path: Bytes,
        attributes: Attributes,
    },
    Expand {
        path: Bytes,
    },
    FileSystem {
        path: Bytes,
    },
    HardLink {
        original: Bytes,
        link: Bytes,
    },
    Open {
        path: Bytes,
        options: OpenOptions,
        attributes: Attributes,
    },
    OpenDir {
        path: Bytes,
    },
    ReadLink {
        path: Bytes,
    },
    RemoveDir {
        path: Bytes,
    },
    RemoveFile {
        path: Bytes,
    },
    Rename {
        from: Bytes,
        to: Bytes,
        existing: Existing,
    },
    SetAttributes {
        path: Bytes,
        links: Links,
        attributes: Attributes,
    },
    Symlink {
        target: Bytes,
        link: Bytes,
    },
}

/// Reads the client's first packet, its version.
pub(super) fn decode_init(packet: Bytes) -> Result<u32, Malformed> {
    let mut fields = Fields(packet);
    match fields.u8()? {
        INIT => fields.u32(),
        _ => Err(Malformed),
    }
}

/// Reads any later packet. What follows the last field is not looked at, as OpenSSH does.
pub(super) fn decode(packet: Bytes) -> Result<Numbered, Malformed> {
    let size = packet.len();
    let mut fields = Fields(packet);
    let kind = fields.u8()?;
    let id = fields.u32()?;
    Ok(Numbered {
        id,
        request: body(kind, &mut fields),
        size,
    })
}

fn body(kind: u8, fields: &mut Fields) -> Result<Request, Malformed> {
    Ok(match kind {
        3 => Request::ByPath(ByPath::Open {
            path: fields.path()?,
            options: options(fields.u32()?),
            attributes: Attributes::decode(fields)?,
        }),
        4 => Request::Close {
            handle: fields.string()?,
        },
        5 => Request::Read {
            handle: fields.string()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        },
        6 => Request::Write {
            handle: fields.string()?,
            offset: fields.u64()?,
            data: fields.string()?,
        },
        7 => Request::ByPath(ByPath::Attributes {
            path: fields.path()?,
            links: Links::Kept,
        }),
        8 => Request::FileAttributes {
            handle: fields.string()?,
        },
        9 => set_attributes(fields, Links::Followed)?,
        10 => Request::SetFileAttributes {
            handle: fields.string()?,
            attributes: Attributes::decode(fields)?,
        },
        200 => extended(fields)?,
        kind => by_path(kind, fields)?,
    })
}

/// What has only paths.
fn by_path(kind: u8, fields: &mut Fields) -> Result<Request, Malformed> {
    Ok(match kind {
        11 => Request::ByPath(ByPath::OpenDir {
            path: fields.path()?,
        }),
        12 => Request::ReadDir {
            handle: fields.string()?,
        },
        13 => Request::ByPath(ByPath::RemoveFile {
            path: fields.path()?,
        }),
        14 => Request::ByPath(ByPath::CreateDir {
            path: fields.path()?,
            attributes: Attributes::decode(fields)?,
        }),
        15 => Request::ByPath(ByPath::RemoveDir {
            path: fields.path()?,
        }),
        16 => Request::ByPath(ByPath::Canonical {
            path: fields.path()?,
        }),
        17 => Request::ByPath(ByPath::Attributes {
            path: fields.path()?,
            links: Links::Followed,
        }),
        18 => rename(fields, Existing::Kept)?,
        19 => Request::ByPath(ByPath::ReadLink {
            path: fields.path()?,
        }),
        // OpenSSH has the two paths the other way round than the draft, and so has everybody since.
        20 => Request::ByPath(ByPath::Symlink {
            target: fields.path()?,
            link: fields.path()?,
        }),
        _ => Request::Unknown,
    })
}

fn extended(fields: &mut Fields) -> Result<Request, Malformed> {
    Ok(match &*fields.string()? {
        b"copy-data" => Request::CopyData {
            from: fields.string()?,
            from_offset: fields.u64()?,
            length: fields.u64()?,
            to: fields.string()?,
            to_offset: fields.u64()?,
        },
        b"expand-path@openssh.com" => Request::ByPath(ByPath::Expand {
            path: fields.path()?,
        }),
        b"fstatvfs@openssh.com" => Request::FileFileSystem {
            handle: fields.string()?,
        },
        b"fsync@openssh.com" => Request::Sync {
            handle: fields.string()?,
        },
        b"hardlink@openssh.com" => Request::ByPath(ByPath::HardLink {
            original: fields.path()?,
            link: fields.path()?,
        }),
        b"limits@openssh.com" => Request::Limits,
        b"lsetstat@openssh.com" => set_attributes(fields, Links::Kept)?,
        b"posix-rename@openssh.com" => rename(fields, Existing::Replaced)?,
        b"statvfs@openssh.com" => Request::ByPath(ByPath::FileSystem {
            path: fields.path()?,
        }),
        _ => Request::Unknown,
    })
}

fn set_attributes(fields: &mut Fields, links: Links) -> Result<Request, Malformed> {
    Ok(Request::ByPath(ByPath::SetAttributes {
        path: fields.path()?,
        links,
        attributes: Attributes::decode(fields)?,
    }))
}

fn rename(fields: &mut Fields, existing: Existing) -> Result<Request, Malformed> {
    Ok(Request::ByPath(ByPath::Rename {
        from: fields.path()?,
        to: fields.path()?,
        existing,
    }))
}

/// The flags of draft-ietf-secsh-filexfer-02 §6.3.
fn options(flags: u32) -> OpenOptions {
    let has = |flag: u32| flags & flag != 0;
    OpenOptions {
        access: match (has(1), has(2)) {
            (true, true) => Access::ReadWrite,
            (false, true) => Access::Write,
            (_, false) => Access::Read,
        },
        writes: if has(4) { Writes::Append } else { Writes::At },
        creation: Creation {
            create: match (has(8), has(0x20)) {
                (true, true) => Create::New,
                (true, false) => Create::Missing,
                (false, _) => Create::Never,
            },
            contents: if has(0x10) {
                Contents::Truncated
            } else {
                Contents::Kept
            },
        },
    }
}

const INIT: u8 = 1;
