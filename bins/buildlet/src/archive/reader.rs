//! The tar format, read: ustar, pax and GNU, from anybody.

use std::io::{self, Read};

use super::sparse::{Map, MapReader, old_map};
use super::writer::BLOCK;

/// An entry of an archive, without its content.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) modified: u64,
}

/// What an entry is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Directory,
    HardLink(Vec<u8>),
    /// A device, a pipe or something unknown, by its type flag.
    Other(u8),
    Regular,
    /// A file of which only the pieces in the map are in the archive; the rest reads as zeros.
    Sparse(Map),
    Symlink(Vec<u8>),
}

/// Reads an archive entry by entry.
pub(super) struct TarReader<R> {
    input: R,
    /// What is left of the content of the entry at hand, and of the padding behind it.
    content: u64,
    padding: u64,
}

impl<R: Read> TarReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            content: 0,
            padding: 0,
        }
    }

    /// The next entry, whatever was read of the one before; `None` at the end of the archive. The input is then read to
    /// its own end, so that what vouches for it (a checksum) was seen.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip(self.content + self.padding)?;
            (self.content, self.padding) = (0, 0);
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            let flag = header[156];
            let size = number(&header[124..136])?;
            match flag {
                b'x' => extended.add_pax(&self.read_record(size)?)?,
                // A global header speaks about a commit (git archive) or a volume.
                b'g' | b'V' => self.set_size(size)?,
                b'L' => extended.name = Some(until_nul(&self.read_record(size)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.read_record(size)?).to_vec()),
                _ => return self.entry(&header, extended, size).map(Some),
            }
        }
    }

    /// An entry that is not about another one, as far as its content.
    fn entry(
        &mut self,
        header: &[u8; BLOCK],
        mut extended: Extended,
        size: u64,
    ) -> io::Result<Entry> {
        let flag = header[156];
        let mut entry = extended.entry(header)?;
        // Links and directories have no content, whatever their size says.
        let has_content = !matches!(flag, b'1'..=b'6');
        let size = extended.size.unwrap_or(size);
        let old_map = if flag == b'S' {
            Some(old_map(header, &mut self.input)?)
        } else {
            None
        };
        self.set_size(if has_content { size } else { 0 })?;
        let map = match (old_map, extended.sparse.take()) {
            (Some(map), _) => map,
            (None, Some(sparse)) => sparse.map(&mut *self)?,
            (None, None) => return Ok(entry),
        };
        if entry.kind != Kind::Regular || map.stored() != Some(self.content) {
            return Err(invalid("invalid sparse file"));
        }
        entry.kind = Kind::Sparse(map);
        Ok(entry)
    }

    fn read_header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut header = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(invalid("unexpected EOF")),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if header.iter().all(|&byte| byte == 0) {
            self.read_trailer()?;
            return Ok(None);
        }
        check_sum(&header)?;
        Ok(Some(header))
    }

    /// Reads what follows the end of the archive: zeros, to fill a tape's record.
    fn read_trailer(&mut self) -> io::Result<()> {
        let mut trailer = (&mut self.input).take(MAX_TRAILER + 1);
        match io::copy(&mut trailer, &mut io::sink())? {
            ..=MAX_TRAILER => Ok(()),
            _ => Err(invalid("data behind the end of the archive")),
        }
    }

    /// Reads the content of an entry that describes the next one.
    fn read_record(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_RECORD {
            return Err(invalid("a name or header is too long"));
        }
        self.set_size(size)?;
        let mut record = Vec::new();
        self.read_to_end(&mut record)?;
        Ok(record)
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        if size > i64::MAX.unsigned_abs() {
            return Err(invalid("invalid header: size"));
        }
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.input).take(length), &mut io::sink())?;
        if skipped == length {
            Ok(())
        } else {
            Err(invalid("unexpected EOF"))
        }
    }
}

/// Reads the content of the entry at hand. Where the archive ends in it, that is an error.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.content)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        if length == 0 {
            return Ok(0);
        }
        let read = self.input.read(&mut buf[..length])?;
        if read == 0 {
            return Err(invalid("unexpected EOF"));
        }
        self.content -= read as u64;
        Ok(read)
    }
}

/// What the entries before an entry say about it.
#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    /// The name of a sparse file, whose other name is made up for programs that do not know such files.
    sparse_name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<u64>,
    sparse: Option<MapReader>,
}

impl Extended {
    /// Takes the records of a pax header: `LENGTH KEY=VALUE\n`, the length in decimal and that of the whole record.
    fn add_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let bad = || invalid("invalid pax header");
        while !records.is_empty() {
            let space = records
                .iter()
                .position(|&byte| byte == b' ')
                .ok_or_else(bad)?;
            let length: usize = ascii(&records[..space])
                .and_then(|l| l.parse().ok())
                .ok_or_else(bad)?;
            let record = records.get(space + 1..length).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record
                .iter()
                .position(|&byte| byte == b'=')
                .ok_or_else(bad)?;
            self.set(&record[..equals], &record[equals + 1..])
                .ok_or_else(bad)?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.name = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(ascii(value)?.parse().ok()?),
            b"mtime" => self.modified = Some(ascii(value)?.split('.').next()?.parse().unwrap_or(0)),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            _ if key.starts_with(b"GNU.sparse.") => {
                let sparse = self.sparse.get_or_insert_default();
                sparse.set(&key[b"GNU.sparse.".len()..], ascii(value)?)?;
            }
            _ => {}
        }
        Some(())
    }

    fn entry(&mut self, header: &[u8; BLOCK]) -> io::Result<Entry> {
        let name = self.sparse_name.take().or_else(|| self.name.take());
        let name = name.unwrap_or_else(|| full_name(header));
        let link = self
            .link
            .take()
            .unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        let kind = match header[156] {
            // Before there were flags a directory was a name that ends in a slash.
            b'0' | b'7' | 0 if name.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | b'S' | 0 => Kind::Regular,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'5' => Kind::Directory,
            flag => Kind::Other(flag),
        };
        Ok(Entry {
            name,
            kind,
            mode: u32::try_from(number(&header[100..108])? & 0o7777).unwrap_or(0),
            modified: match self.modified {
                Some(modified) => modified,
                // A time before 1970 is negative in base 256, and no reason to refuse a file.
                None => number(&header[136..148]).unwrap_or(0),
            },
        })
    }
}

fn full_name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = until_nul(&header[345..500]);
    // GNU's own headers have other things where ustar has the prefix.
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

/// Checks a header's sum, which old programs made of signed bytes.
fn check_sum(header: &[u8; BLOCK]) -> io::Result<()> {
    let sum = number(&header[148..156])?;
    let counted = header.iter().enumerate().map(
        |(at, &byte)| {
            if (148..156).contains(&at) { b' ' } else { byte }
        },
    );
    let unsigned: u64 = counted.clone().map(u64::from).sum();
    let signed: i64 = counted.map(|byte| i64::from(byte.cast_signed())).sum();
    if sum == unsigned || i64::try_from(sum) == Ok(signed) {
        Ok(())
    } else {
        Err(invalid("invalid tar header"))
    }
}

/// A number in octal between spaces, or in GNU's base 256.
pub(super) fn number(field: &[u8]) -> io::Result<u64> {
    let bad = || invalid("invalid tar header");
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        let negative_or_huge = *first != 0x80;
        let (high, low) = rest.split_at(rest.len() - rest.len().min(8));
        if negative_or_huge || high.iter().any(|&byte| byte != 0) {
            return Err(bad());
        }
        return Ok(low
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)));
    }
    let text = ascii(until_nul(field)).ok_or_else(bad)?.trim();
    if text.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(text, 8).map_err(|_| bad())
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes)
        .ok()
        .filter(|text| text.is_ascii())
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The longest name, link or pax header: far above any system's longest path, and all that a hostile archive can make us
/// hold.
const MAX_RECORD: u64 = 1 << 20;

/// The most that may follow the end of an archive. Tapes were padded to 10 KiB; more is a bomb.
const MAX_TRAILER: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::writer::{EntryType, Meta, TarWriter};

    fn archive(path: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        let meta = Meta {
            entry_type: if link.is_empty() {
                EntryType::Regular
            } else {
                EntryType::Symlink
            },
            mode: 0o755,
            size: content.len() as u64,
            modified: 1_000_000_000_000,
        };
        tar.append(path, link, meta, &mut &*content).unwrap();
        tar.finish().unwrap()
    }

    #[test]
    fn a_record_of_a_gigabyte_is_refused_before_it_is_read() {
        let mut tar = archive(&[b'a'; 200], b"", b"");
        // The size of the long name's entry, and the sum again.
        tar[124..136].copy_from_slice(b"10000000000\0");
        tar[148..156].fill(b' ');
        let sum: u32 = tar[..512].iter().map(|&byte| u32::from(byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let endless = tar.as_slice().chain(io::repeat(b'a'));
        let error = TarReader::new(endless).next().unwrap_err();
        assert_eq!(error.to_string(), "a name or header is too long");
    }

    #[test]
    fn an_archive_that_ends_in_an_entry_is_an_error() {
        let tar = archive(b"a", b"", &[7; 1000]);
        for length in [100, 512, 600, 1400, 1530] {
            let mut reader = TarReader::new(&tar[..length]);
            let read = reader
                .next()
                .and_then(|_| io::copy(&mut reader, &mut io::sink()));
            let all = read.and_then(|_| reader.next());
            assert!(all.is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            path in proptest::collection::vec(1_u8.., 1..300), link in proptest::collection::vec(1_u8.., 0..300),
            content in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            prop_assume!(!path.ends_with(b"/"));
            let content = if link.is_empty() { content } else { Vec::new() };
            let tar = archive(&path, &link, &content);
            let mut reader = TarReader::new(tar.as_slice());
            let entry = reader.next().unwrap().unwrap();
            let kind = if link.is_empty() { Kind::Regular } else { Kind::Symlink(link) };
            prop_assert_eq!(entry, Entry { name: path, kind, mode: 0o755, modified: 1_000_000_000_000 });
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            prop_assert_eq!(read, content);
            prop_assert_eq!(reader.next().unwrap(), None);
        }

        #[test]
        fn no_input_panics_or_is_endless(input in proptest::collection::vec(any::<u8>(), 0..2000), flag: u8) {
            let mut input = input;
            if let Some(header) = input.first_chunk_mut::<512>() {
                header[156] = flag;
                header[148..156].fill(b' ');
                let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            let mut reader = TarReader::new(input.as_slice());
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
