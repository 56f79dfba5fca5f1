//! One file from the archive that it comes in.

use async_compression::tokio::bufread::GzipDecoder;
use buildlet_proto::api::ByteReader;
use sshbridge::sftp::FileError;
use tokio::io::{AsyncRead, AsyncReadExt as _, BufReader, Take};

use super::AWAY;

/// A file whose content is being read.
pub(super) struct ArchivedFile {
    /// The size that the archive announces.
    pub(super) size: u64,
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) modified: u64,
    content: Take<Tar>,
}

type Tar = Box<dyn AsyncRead + Send + Unpin>;

impl ArchivedFile {
    /// Reads an archive as far as its first entry, which has to be a file without a name.
    pub(super) async fn open(archive: ByteReader) -> Result<Self, FileError> {
        let mut gzip = GzipDecoder::new(BufReader::new(archive));
        gzip.multiple_members(true);
        let mut tar: Tar = Box::new(gzip);
        let mut size = None;
        for _ in 0..MAX_RECORDS {
            let mut header = [0; BLOCK];
            tar.read_exact(&mut header).await.map_err(cut)?;
            let stored = number(&header[124..136]).ok_or(FileError::Failure)?;
            match header[156] {
                b'x' => size = pax_size(&record(&mut tar, stored).await?).or(size),
                b'g' => drop(record(&mut tar, stored).await?),
                b'0' | 0 if header[0] == 0 => {
                    let size = size.unwrap_or(stored);
                    return Ok(Self {
                        size,
                        mode: u32::try_from(number(&header[100..108]).unwrap_or(0)).unwrap_or(0),
                        modified: number(&header[136..148]).unwrap_or(0),
                        content: tar.take(size),
                    });
                }
                // A directory, a link, a device.
                _ => break,
            }
        }
        Err(FileError::Failure)
    }

    /// Reads until `buffer` is full or the file is at its end, and says how much came.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, FileError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.content.read(&mut buffer[filled..]).await {
                Ok(0) if self.content.limit() > 0 => return Err(FileError::FailedBecause(AWAY)),
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) => return Err(cut(error)),
            }
        }
        Ok(filled)
    }
}

/// The content of an entry that describes others.
async fn record(tar: &mut Tar, size: u64) -> Result<Vec<u8>, FileError> {
    if size > MAX_RECORD {
        return Err(FileError::Failure);
    }
    let mut record = Vec::new();
    let padded = size.next_multiple_of(BLOCK as u64);
    let read = tar.take(padded).read_to_end(&mut record).await;
    if read.map_err(cut)? as u64 != padded {
        return Err(FileError::FailedBecause(AWAY));
    }
    record.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    Ok(record)
}

/// The size in the records of pax, where files do not fit into the header's field.
fn pax_size(records: &[u8]) -> Option<u64> {
    let text = str::from_utf8(records).ok()?;
    text.lines().rev().find_map(|line| {
        let (_, size) = line.split_once(" size=")?;
        size.parse().ok()
    })
}

/// A number of a header: in octal, or in GNU's binary form where it is too large for that.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let mut number = u64::from(first & 0x7f);
        for byte in rest {
            number = number.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(number);
    }
    let text = str::from_utf8(field).ok()?;
    let text = text.trim_matches([' ', '\0']);
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(text, 8).ok()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` hands over"
)]
fn cut(error: std::io::Error) -> FileError {
    tracing::debug!(%error, "a file did not come whole");
    FileError::FailedBecause(AWAY)
}

/// An archive of nothing: the two blocks of zeros at its end, compressed.
pub(super) const EMPTY: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 255, 99, 96, 24, 5, 163, 96, 20, 140, 84, 0, 0, 46, 175, 181,
    239, 0, 4, 0, 0,
];

const BLOCK: usize = 512;

/// What describes an entry may be this long.
const MAX_RECORD: u64 = 64 << 10;

/// And there may be so many such descriptions.
const MAX_RECORDS: usize = 8;

#[cfg(test)]
mod tests {
    use std::io;

    use async_compression::tokio::bufread::GzipEncoder;

    use super::*;

    fn entry(name: &str, flag: u8, size: &[u8; 12], content: &[u8]) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..136].copy_from_slice(size);
        block[156] = flag;
        block.extend_from_slice(content);
        block.resize(block.len().next_multiple_of(BLOCK), 0);
        block
    }

    async fn open(tar: Vec<u8>) -> Result<ArchivedFile, FileError> {
        let packed = GzipEncoder::new(BufReader::new(io::Cursor::new(tar)));
        ArchivedFile::open(Box::pin(packed)).await
    }

    #[tokio::test]
    async fn nothing_is_an_archive_too() {
        let mut tar = Vec::new();
        GzipDecoder::new(EMPTY).read_to_end(&mut tar).await.unwrap();
        assert_eq!(tar, [0; 2 * BLOCK]);
    }

    #[tokio::test]
    async fn sizes_are_read_as_every_tar_writes_them() {
        let mut binary = *b"\x80\0\0\0\0\0\0\0\0\0\0\0";
        binary[11] = 3;
        let pax = entry("././@PaxHeader", b'x', b"00000000010\0", b"8 size=3");
        for tar in [
            entry("", b'0', b"00000000003\0", b"abc"),
            entry("", 0, b"         3 \0", b"abc"),
            entry("", b'0', &binary, b"abc"),
            [pax, entry("", b'0', b"00000000000\0", b"abc")].concat(),
        ] {
            let mut file = open(tar).await.unwrap();
            let mut content = [0; 10];
            assert_eq!((file.size, file.mode), (3, 0o644));
            assert_eq!(file.read(&mut content).await, Ok(3));
            assert_eq!(&content[..3], b"abc");
        }
    }

    #[tokio::test]
    async fn what_is_no_file_is_a_failure() {
        let long = entry("", b'x', b"00000200001\0", b"");
        let pax = entry("", b'x', b"00000000000\0", b"");
        for tar in [
            entry("d/", b'5', b"00000000000\0", b""),
            entry("named", b'0', b"00000000000\0", b""),
            entry("", b'2', b"00000000000\0", b""),
            entry("", b'0', b"nonsense    ", b""),
            entry("", b'0', &[0xff; 12], b""),
            pax.repeat(1000),
            long,
        ] {
            assert_eq!(open(tar).await.err(), Some(FileError::Failure));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_cut_has_no_end() {
        let away = FileError::FailedBecause(AWAY);
        let mut file = open(entry("", b'0', b"00000001001\0", b"abc"))
            .await
            .unwrap();
        assert_eq!(file.read(&mut [0; 600]).await, Err(away));
        assert_eq!(open(vec![0; 100]).await.err(), Some(away));
        let garbage = ArchivedFile::open(Box::pin(&b"no gzip"[..])).await;
        assert_eq!(garbage.err(), Some(away));
    }
}
