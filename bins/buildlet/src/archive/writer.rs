//! The tar format, written: ustar headers, with GNU's entries and pax records for what they cannot hold.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::sparse::Map;

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EntryType {
    Directory,
    HardLink,
    Pax,
    Regular,
    Symlink,
}

impl EntryType {
    fn flag(self) -> u8 {
        match self {
            Self::Directory => b'5',
            Self::HardLink => b'1',
            Self::Pax => b'x',
            Self::Regular => b'0',
            Self::Symlink => b'2',
        }
    }
}

/// What is said about an entry beside its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    pub(super) entry_type: EntryType,
    pub(super) mode: u32,
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) modified: u64,
}

/// Writes an archive.
pub(super) struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry. `content` must hold the `size` bytes that `meta` announces, and more of it is not read; `link` is
    /// where a link leads.
    pub(super) fn append(
        &mut self,
        path: &[u8],
        link: &[u8],
        meta: Meta,
        content: &mut impl Read,
    ) -> io::Result<()> {
        self.append_long(b'K', link)?;
        self.append_long(b'L', path)?;
        let header = header(path, link, meta.entry_type.flag(), &meta);
        self.out.write_all(&header)?;
        self.copy(content, meta.size)?;
        self.pad(meta.size)
    }

    /// Writes a file of which only the pieces of `map` are kept (GNU's version 1.0); the size in `meta` does not count.
    pub(super) fn append_sparse(
        &mut self,
        path: &[u8],
        meta: Meta,
        map: &Map,
        file: &mut File,
    ) -> io::Result<()> {
        let lines = map.to_lines();
        let stored = map.stored().ok_or(io::ErrorKind::InvalidData)?;
        let mut records = Vec::new();
        push_record(&mut records, "GNU.sparse.major", b"1");
        push_record(&mut records, "GNU.sparse.minor", b"0");
        push_record(&mut records, "GNU.sparse.name", path);
        let size = map.size().to_string();
        push_record(&mut records, "GNU.sparse.realsize", size.as_bytes());
        let pax = Meta {
            entry_type: EntryType::Pax,
            size: records.len() as u64,
            ..meta
        };
        self.out.write_all(&posix_header(b"././@PaxHeader", &pax))?;
        self.out.write_all(&records)?;
        self.pad(pax.size)?;
        let size = lines.len() as u64 + stored;
        let meta = Meta { size, ..meta };
        self.out
            .write_all(&posix_header(b"GNUSparseFile.0", &meta))?;
        self.out.write_all(&lines)?;
        for piece in map.pieces() {
            file.seek(SeekFrom::Start(piece.offset))?;
            self.copy(file, piece.length)?;
        }
        self.pad(size)
    }

    fn copy(&mut self, content: &mut impl Read, size: u64) -> io::Result<()> {
        if io::copy(&mut content.take(size), &mut self.out)? == size {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "a file shrank while it was read",
        ))
    }

    /// Writes the end of the archive, and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    /// Writes a name that is too long for a header as an entry of its own, which goes before the entry that it names.
    fn append_long(&mut self, flag: u8, name: &[u8]) -> io::Result<()> {
        if name.len() <= NAME {
            return Ok(());
        }
        let size = name.len() as u64 + 1;
        let meta = Meta {
            entry_type: EntryType::Regular,
            mode: 0o644,
            size,
            modified: 0,
        };
        self.out
            .write_all(&header(b"././@LongLink", b"", flag, &meta))?;
        self.out.write_all(name)?;
        self.out.write_all(&[0])?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over > 0 {
            self.out.write_all(&[0; BLOCK][over..])?;
        }
        Ok(())
    }
}

/// Adds a pax record, whose length counts its own digits.
fn push_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + " =\n".len();
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// A header in GNU's form, whose names are cut where they are too long.
fn header(path: &[u8], link: &[u8], flag: u8, meta: &Meta) -> [u8; BLOCK] {
    header_in_form(b"ustar  \0", path, link, flag, meta)
}

/// A header in the form of POSIX, which alone lets GNU tar look at pax records.
fn posix_header(path: &[u8], meta: &Meta) -> [u8; BLOCK] {
    header_in_form(b"ustar\x0000", path, b"", meta.entry_type.flag(), meta)
}

fn header_in_form(magic: &[u8; 8], path: &[u8], link: &[u8], flag: u8, meta: &Meta) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    put(&mut header[..NAME], path);
    put_number(&mut header[100..108], u64::from(meta.mode));
    put_number(&mut header[108..116], 0);
    put_number(&mut header[116..124], 0);
    put_number(&mut header[124..136], meta.size);
    put_number(&mut header[136..148], meta.modified);
    header[156] = flag;
    put(&mut header[157..257], link);
    put(&mut header[257..265], magic);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    put(&mut header[148..156], format!("{sum:06o}\0 ").as_bytes());
    header
}

fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// A number in octal, or, where that is too long, in GNU's base 256.
fn put_number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let octal = format!("{value:0digits$o}");
    if octal.len() == digits {
        put(field, octal.as_bytes());
    } else {
        let bytes = value.to_be_bytes();
        let start = field.len() - bytes.len();
        field[start..].copy_from_slice(&bytes);
        field[0] |= 0x80;
    }
}

/// Everything in an archive is a multiple of this.
pub(super) const BLOCK: usize = 512;

/// The length of a header's two names.
const NAME: usize = 100;
