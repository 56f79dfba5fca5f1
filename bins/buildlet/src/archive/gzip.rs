//! Gzip on as many cores as there are.
//!
//! An archive becomes a row of members, each compressed on its own. Every decoder of RFC 1952 reads members one behind the
//! other as one file (section 2.2); Go's clients and buildlets have sent archives of this shape since 2015. One that is read
//! is decompressed on a thread of its own, while another makes files: where a member begins is known only when the one
//! before it was decompressed.

use std::io::{self, Cursor, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Compresses what is written to it, a block at a time on threads of its own, in order.
///
/// It holds at most two blocks, and two members, for each thread. [`finish`](Self::finish) writes the rest; dropped before that, it
/// leaves a file that is cut.
pub(super) struct GzWriter<W> {
    out: W,
    block: Vec<u8>,
    /// They take blocks in turn, so their members come back in order.
    compressors: Vec<Compressor>,
    /// Whose turn it is.
    next: usize,
    /// Blocks that were given away and whose members have not come back.
    waiting: usize,
}

impl<W: Write> GzWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(out, threads.min(MAX_THREADS))
    }

    fn with_threads(out: W, threads: usize) -> io::Result<Self> {
        Ok(Self {
            out,
            block: Vec::with_capacity(BLOCK),
            compressors: (0..threads)
                .map(|_| Compressor::spawn())
                .collect::<io::Result<_>>()?,
            next: 0,
            waiting: 0,
        })
    }

    /// Writes what is left, and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        // An archive of nothing is still a member.
        if !self.block.is_empty() || self.waiting == 0 {
            self.give_away()?;
        }
        while self.waiting > 0 {
            self.write_oldest()?;
        }
        Ok(self.out)
    }

    fn give_away(&mut self) -> io::Result<()> {
        if self.waiting == self.compressors.len() * DEPTH {
            self.write_oldest()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.compressors[self.next].take(block)?;
        self.next = (self.next + 1) % self.compressors.len();
        self.waiting += 1;
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let count = self.compressors.len();
        let oldest = (self.next + count * DEPTH - self.waiting) % count;
        let member = self.compressors[oldest].give()?;
        self.waiting -= 1;
        self.out.write_all(&member)
    }
}

impl<W: Write> Write for GzWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.give_away()?;
        }
        Ok(taken)
    }

    /// Does nothing: a member for each flush would be a poor archive.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A thread that makes members of blocks.
struct Compressor {
    /// `None` once the thread is to end.
    blocks: Option<SyncSender<Vec<u8>>>,
    members: Receiver<io::Result<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Compressor {
    fn spawn() -> io::Result<Self> {
        let (blocks, work) = sync_channel::<Vec<u8>>(DEPTH);
        let (done, members) = sync_channel(DEPTH);
        let compress = move || {
            for block in work {
                if done.send(member(&block)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("gzip".to_owned());
        Ok(Self {
            blocks: Some(blocks),
            members,
            thread: Some(thread.spawn(compress)?),
        })
    }

    fn take(&self, block: Vec<u8>) -> io::Result<()> {
        let sent = self
            .blocks
            .as_ref()
            .map(|blocks| blocks.send(block).is_ok());
        sent.unwrap_or(false).then_some(()).ok_or_else(gone)
    }

    fn give(&self) -> io::Result<Vec<u8>> {
        self.members.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// Waits for the thread, which has at most a few blocks to go.
impl Drop for Compressor {
    fn drop(&mut self) {
        self.blocks = None;
        while self.members.recv().is_ok() {}
        if let Some(thread) = self.thread.take() {
            // One that panicked has made the writer fail.
            let _ = thread.join();
        }
    }
}

fn member(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(block.len() / 2), Compression::fast());
    encoder.write_all(block)?;
    encoder.finish()
}

/// Reads what a thread of its own decompresses, any number of members.
///
/// Where it is dropped early the thread ends with its next piece: it may have to wait for the sender of the archive until
/// then.
pub(super) struct GzReader {
    /// An empty piece is the end.
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
    state: ReadState,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ReadState {
    Open,
    Ended,
}

impl GzReader {
    pub(super) fn new(archive: impl Read + Send + 'static) -> io::Result<Self> {
        let (done, pieces) = sync_channel(PIECES);
        let mut plain = MultiGzDecoder::new(archive);
        let decompress = move || {
            loop {
                let piece = next_piece(&mut plain);
                let is_last = !matches!(&piece, Ok(piece) if !piece.is_empty());
                if done.send(piece).is_err() || is_last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("gunzip".to_owned());
        thread.spawn(decompress)?;
        Ok(Self {
            pieces,
            piece: Cursor::default(),
            state: ReadState::Open,
        })
    }
}

impl Read for GzReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buf)?;
            if read > 0 || buf.is_empty() || self.state == ReadState::Ended {
                return Ok(read);
            }
            let piece = self.pieces.recv().unwrap_or_else(|_| Err(gone()))?;
            if piece.is_empty() {
                self.state = ReadState::Ended;
            }
            self.piece = Cursor::new(piece);
        }
    }
}

fn next_piece(plain: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    plain.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

fn gone() -> io::Error {
    io::Error::other("the thread for compression is gone")
}

/// Bytes of one member before compression: eight of deflate's windows, so that starting anew with each costs little.
const BLOCK: usize = 256 * 1024;

/// Blocks that may wait for one thread, and members that may wait behind it.
const DEPTH: usize = 2;

/// Bytes of a piece that was decompressed, and how many of them may wait for the files to be made.
const PIECE: usize = 64 * 1024;
const PIECES: usize = 8;

/// More would wait for the disk.
const MAX_THREADS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gunzip(bytes: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut reader = GzReader::new(Cursor::new(bytes.to_vec())).unwrap();
        reader.read_to_end(&mut plain).unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the end stays");
        plain
    }

    #[test]
    fn an_archive_of_nothing_is_a_member() {
        let gz = GzWriter::with_threads(Vec::new(), 2).unwrap();
        let bytes = gz.finish().unwrap();
        assert_eq!(&bytes[..2], [0x1f, 0x8b]);
        assert_eq!(gunzip(&bytes), b"");
    }

    #[test]
    fn an_archive_that_is_cut_is_an_error_however_often_one_asks() {
        let mut gz = GzWriter::with_threads(Vec::new(), 1).unwrap();
        gz.write_all(&vec![7; 3 * PIECE]).unwrap();
        let mut bytes = gz.finish().unwrap();
        bytes.truncate(bytes.len() - 3);
        let mut reader = GzReader::new(Cursor::new(bytes)).unwrap();
        let mut plain = Vec::new();
        assert!(reader.read_to_end(&mut plain).is_err());
        assert!(reader.read(&mut [0]).is_err());
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_no_thread_behind() {
        let mut gz = GzWriter::with_threads(Vec::new(), 3).unwrap();
        gz.write_all(&vec![7; 5 * BLOCK]).unwrap();
        drop(gz);
    }

    #[test]
    fn an_output_that_fails_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gz = GzWriter::with_threads(Full, 1).unwrap();
        gz.write_all(b"x").unwrap();
        let error = gz.finish().err().expect("the output takes nothing");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_blocks_come_out_in_order(
            lengths in prop::collection::vec(0..3 * BLOCK, 0..6), threads in 1_usize..5,
        ) {
            let mut gz = GzWriter::with_threads(Vec::new(), threads).unwrap();
            let mut plain = Vec::new();
            for (round, length) in lengths.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..length).map(|at| (at / 7 + round).to_le_bytes()[0]).collect();
                gz.write_all(&bytes).unwrap();
                plain.extend(bytes);
            }
            prop_assert!(gunzip(&gz.finish().unwrap()) == plain);
        }
    }
}
