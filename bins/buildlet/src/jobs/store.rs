//! Output on the disk: the first part and the last part of a stream, within a bound.
//!
//! A stream is kept in files that are only ever appended to. The first one takes the first half of what is kept; behind it
//! the stream goes on in segments, of which the oldest is removed when a new one has no room. A reader asks the [`Index`]
//! where a byte is, which knows only bytes that were written whole, and then reads without it. What the disk does not take
//! is gone, and the stream goes on behind it.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buildlet_proto::jobs::Kept;

/// Makes a directory for output, and empties it.
pub(super) fn prepare(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(dir)
}

/// What of a stream is where.
#[derive(Debug)]
pub(super) struct Index {
    /// What the names of its files begin with.
    path: PathBuf,
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many bytes there were.
    end: u64,
    /// In order; none is empty but perhaps the last.
    segments: VecDeque<Segment>,
    /// How many of them, at most one, are the stream's first part, which stays.
    heads: usize,
    /// The number of the next file.
    next: u32,
    is_wiped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    file: u32,
    start: u64,
    length: u64,
}

impl Segment {
    fn end(self) -> u64 {
        self.start + self.length
    }
}

/// What there is at a place of a stream.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    /// Nothing up to this byte.
    Gap(u64),
    /// It is not written yet.
    Nothing,
}

impl Index {
    /// An empty stream of which `limit` bytes are kept, in files whose names begin with `path`.
    pub(super) fn new(path: PathBuf, limit: u64) -> Arc<Self> {
        Arc::new(Self {
            path,
            limit,
            state: Mutex::default(),
        })
    }

    /// Reads at most `length` bytes at `offset`. Blocks on the disk.
    pub(super) fn read(&self, offset: u64, length: usize) -> io::Result<Piece> {
        loop {
            let (segment, place) = {
                let state = self.lock();
                if state.is_wiped {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let next = state.segments.iter().find(|segment| segment.end() > offset);
                match next {
                    None if offset < state.end => return Ok(Piece::Gap(state.end)),
                    None => return Ok(Piece::Nothing),
                    Some(next) if next.start > offset => return Ok(Piece::Gap(next.start)),
                    Some(next) => (*next, offset - next.start),
                }
            };
            let length = usize::try_from(segment.length - place).map_or(length, |l| l.min(length));
            let file = match File::open(self.file(segment.file)) {
                Ok(file) => file,
                // It has made room meanwhile, and is a gap by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.has(segment) => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, place)?;
            return Ok(Piece::Bytes(bytes));
        }
    }

    /// How much there was, and what of it is gone.
    pub(super) fn kept(&self) -> Kept {
        let state = self.lock();
        let (mut gaps, mut place) = (Vec::new(), 0);
        for segment in state.segments.iter().filter(|segment| segment.length > 0) {
            if segment.start > place {
                gaps.push((place, segment.start));
            }
            place = segment.end();
        }
        if state.end > place {
            gaps.push((place, state.end));
        }
        Kept::new(state.end, gaps)
    }

    pub(super) fn end(&self) -> u64 {
        self.lock().end
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.lock()
            .segments
            .iter()
            .map(|segment| segment.length)
            .sum()
    }

    /// Removes everything that is kept, and keeps nothing more.
    pub(super) fn wipe(&self) {
        let segments = {
            let mut state = self.lock();
            state.is_wiped = true;
            std::mem::take(&mut state.segments)
        };
        for segment in segments {
            self.remove(segment);
        }
    }

    fn has(&self, segment: Segment) -> bool {
        let state = self.lock();
        state
            .segments
            .iter()
            .any(|other| other.file == segment.file)
    }

    fn remove(&self, segment: Segment) {
        match std::fs::remove_file(self.file(segment.file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "a file of a job's output cannot be removed");
            }
            _ => {}
        }
    }

    fn file(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// The one that writes a stream.
#[derive(Debug)]
pub(super) struct Writer {
    index: Arc<Index>,
    /// The last segment's file, while it takes more.
    file: Option<File>,
    is_failing: bool,
}

impl Writer {
    pub(super) fn new(index: Arc<Index>) -> Self {
        Self {
            index,
            file: None,
            is_failing: false,
        }
    }

    /// Appends to the stream what the disk takes of `bytes`; the rest is a gap. Blocks on the disk.
    pub(super) fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.append_some(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(%error, "a job's output cannot be kept");
                    }
                    self.file = None;
                    let mut state = self.index.lock();
                    state.end += bytes.len() as u64;
                    return;
                }
            }
        }
    }

    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room();
        let file = match &mut self.file {
            Some(file) if room > 0 => file,
            _ => return self.begin_segment().map(|()| 0),
        };
        let length = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        let dropped = self.index.make_room(length as u64);
        for segment in dropped {
            self.index.remove(segment);
        }
        let count = file.write(&bytes[..length])?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.is_failing = false;
        let mut state = self.index.lock();
        state.end += count as u64;
        if let Some(last) = state.segments.back_mut() {
            last.length += count as u64;
        }
        Ok(count)
    }

    /// How much more the last segment takes.
    fn room(&self) -> u64 {
        let state = self.index.lock();
        let Some(last) = state.segments.back() else {
            return 0;
        };
        let size = if state.segments.len() == state.heads {
            self.index.head_limit()
        } else {
            self.index.segment_limit()
        };
        size.saturating_sub(last.length)
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.file = None;
        let (segment, replaced) = self.index.add_segment()?;
        if let Some(replaced) = replaced {
            self.index.remove(replaced);
        }
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.index.file(segment.file));
        if file.is_err() {
            let mut state = self.index.lock();
            state.segments.pop_back();
            state.heads = state.heads.min(state.segments.len());
        }
        self.file = Some(file?);
        Ok(())
    }
}

impl Index {
    fn head_limit(&self) -> u64 {
        self.limit / 2
    }

    fn tail_limit(&self) -> u64 {
        self.limit - self.head_limit()
    }

    fn segment_limit(&self) -> u64 {
        (self.tail_limit() / SEGMENTS).max(1)
    }

    /// Adds an empty segment at the end, in the place of the last one where that is empty, or of the oldest where there
    /// are too many; gives what it replaces.
    fn add_segment(&self) -> io::Result<(Segment, Option<Segment>)> {
        let mut state = self.lock();
        if state.is_wiped {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut replaced = None;
        if state.segments.back().is_some_and(|last| last.length == 0) {
            replaced = state.segments.pop_back();
            state.heads = state.heads.min(state.segments.len());
        } else if state.segments.len() >= MAX_SEGMENTS {
            let oldest = state.heads;
            replaced = state.segments.remove(oldest);
        }
        let segment = Segment {
            file: state.next,
            start: state.end,
            length: 0,
        };
        state.next = state.next.wrapping_add(1);
        if state.end == 0 {
            state.heads = 1;
        }
        state.segments.push_back(segment);
        Ok((segment, replaced))
    }

    /// Gives up the oldest segments of the last part, so that it takes `more` bytes in the last one.
    fn make_room(&self, more: u64) -> Vec<Segment> {
        let mut state = self.lock();
        let mut dropped = Vec::new();
        let heads = state.heads;
        if state.segments.len() == heads {
            return dropped;
        }
        let mut kept: u64 = state.segments.iter().skip(heads).map(|s| s.length).sum();
        while kept + more > self.tail_limit() && state.segments.len() > heads + 1 {
            let Some(oldest) = state.segments.remove(heads) else {
                break;
            };
            kept -= oldest.length;
            dropped.push(oldest);
        }
        dropped
    }
}

/// How many segments the last part of a stream has when it is full: what is kept of it is at least all but one of them.
const SEGMENTS: u64 = 8;
/// A disk that is full now and then makes short ones.
const MAX_SEGMENTS: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn index(dir: &Path, limit: u64) -> Arc<Index> {
        Index::new(dir.join("o"), limit)
    }

    /// Everything from `offset` on, with a dot for each byte that is gone.
    fn contents(index: &Index) -> Vec<u8> {
        let mut found = Vec::new();
        loop {
            match index.read(found.len() as u64, 7).unwrap() {
                Piece::Bytes(bytes) => found.extend(bytes),
                Piece::Gap(end) => found.resize(usize::try_from(end).unwrap(), b'.'),
                Piece::Nothing => return found,
            }
        }
    }

    fn files(dir: &Path) -> usize {
        std::fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn the_first_and_the_last_part_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path(), 32);
        let mut writer = Writer::new(index.clone());
        let all: Vec<u8> = (0..100).map(|n| b'a' + n % 26).collect();
        writer.append(&all[..10]);
        assert_eq!(contents(&index), all[..10]);
        writer.append(&all[10..]);
        let kept = index.kept();
        assert_eq!((kept.end, kept.gaps.as_slice()), (100, &[(16, 84)][..]));
        let mut want = all.clone();
        want[16..84].fill(b'.');
        assert_eq!(contents(&index), want);
        assert_eq!(index.kept_bytes(), 32);
        drop((writer, index));
        assert_eq!(files(dir.path()), 0, "nothing is left behind");
    }

    #[test]
    fn what_the_disk_does_not_take_is_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("gone");
        let index = index(&place, 1000);
        let mut writer = Writer::new(index.clone());
        writer.append(b"lost");
        std::fs::create_dir(&place).unwrap();
        writer.append(b"kept");
        assert_eq!(index.kept().gaps, [(0, 4)]);
        assert_eq!(contents(&index), b"....kept");
    }

    #[test]
    fn what_was_wiped_cannot_be_read_and_takes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let index = index(dir.path(), 1000);
        let mut writer = Writer::new(index.clone());
        writer.append(b"secret");
        index.wipe();
        writer.append(b"more");
        assert!(index.read(0, 10).is_err());
        assert_eq!(files(dir.path()), 0);
    }

    proptest! {
        #[test]
        fn any_output_keeps_its_ends_within_the_bound(
            limit in 2_u64..200, chunks in vec(vec(any::<u8>(), 0..60), 0..20),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let index = index(dir.path(), limit);
            let mut writer = Writer::new(index.clone());
            let mut all = Vec::new();
            for chunk in chunks {
                writer.append(&chunk);
                all.extend(chunk);
                prop_assert!(index.kept_bytes() <= limit);
                prop_assert!(index.kept().gaps.len() <= 1);
            }
            let mut want = all.clone();
            for (start, end) in index.kept().gaps {
                prop_assert!(start >= limit / 2);
                // At least the last part but one segment is kept.
                let tail = limit - limit / 2;
                prop_assert!(all.len() as u64 - end + (tail / 8).max(1) >= tail);
                want[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].fill(b'.');
            }
            prop_assert_eq!(contents(&index), want);
        }
    }
}
