//! Sparse files in archives: which pieces of a file are there, in the four ways in which GNU tar has said it.
//!
//! <https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html>. We write version 1.0, which Go's reader and
//! every other of this century knows.

use std::io::{self, Read};

use super::reader::{invalid, number};
use super::writer::BLOCK;

/// The pieces of a file that are not only zeros.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Map {
    /// In ascending order, without overlaps, within `size`.
    pieces: Vec<Piece>,
    /// The length of the whole file.
    size: u64,
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Map {
    /// Checks that the pieces lie one behind the other within the file.
    pub(super) fn new(pieces: Vec<Piece>, size: u64) -> io::Result<Self> {
        let mut end = 0;
        for piece in &pieces {
            let behind = piece.offset.checked_add(piece.length);
            match behind {
                Some(behind) if piece.offset >= end && behind <= size => end = behind,
                _ => return Err(bad()),
            }
        }
        Ok(Self { pieces, size })
    }

    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The length of the whole file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of all pieces; `None` where they are more than can be.
    pub(super) fn stored(&self) -> Option<u64> {
        let lengths = self.pieces.iter().map(|piece| piece.length);
        lengths
            .into_iter()
            .try_fold(0_u64, |sum, length| sum.checked_add(length))
    }

    /// The map as version 1.0 has it before the content: decimal numbers, a line each, padded to a block.
    pub(super) fn to_lines(&self) -> Vec<u8> {
        let mut lines = format!("{}\n", self.pieces.len());
        for piece in &self.pieces {
            lines.push_str(&format!("{}\n{}\n", piece.offset, piece.length));
        }
        let mut lines = lines.into_bytes();
        lines.resize(lines.len().next_multiple_of(BLOCK), 0);
        lines
    }
}

/// Reads the map of GNU's own format: four pieces in the header, more in blocks behind it.
pub(super) fn old_map(header: &[u8; BLOCK], input: &mut impl Read) -> io::Result<Map> {
    let mut pieces = Vec::new();
    let size = number(&header[483..495])?;
    let mut more = header[482];
    add_pairs(&header[386..482], &mut pieces)?;
    while more != 0 {
        let mut block = [0; BLOCK];
        input.read_exact(&mut block)?;
        add_pairs(&block[..504], &mut pieces)?;
        more = block[504];
    }
    Map::new(pieces, size)
}

fn add_pairs(fields: &[u8], pieces: &mut Vec<Piece>) -> io::Result<()> {
    for pair in fields.chunks_exact(24) {
        // The first that is empty ends the list.
        if pair[0] == 0 {
            return Ok(());
        }
        add(
            pieces,
            Piece {
                offset: number(&pair[..12])?,
                length: number(&pair[12..])?,
            },
        )?;
    }
    Ok(())
}

/// What pax records say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    major: u32,
    size: Option<u64>,
    pieces: Vec<Piece>,
    /// The offset of a piece whose length is still to come (version 0.0).
    offset: Option<u64>,
}

impl MapReader {
    /// Takes one record, by its key behind `GNU.sparse.`; `None` if it means nothing.
    pub(super) fn set(&mut self, key: &[u8], value: &str) -> Option<()> {
        match key {
            b"major" => self.major = value.parse().ok()?,
            b"size" | b"realsize" => self.size = Some(value.parse().ok()?),
            b"offset" => self.offset = Some(value.parse().ok()?),
            b"numbytes" => {
                let length = value.parse().ok()?;
                let offset = self.offset.take()?;
                add(&mut self.pieces, Piece { offset, length }).ok()?;
            }
            b"map" if !value.is_empty() => {
                let mut numbers = value.split(',').map(str::parse);
                while let Some(offset) = numbers.next() {
                    let (offset, length) = (offset.ok()?, numbers.next()?.ok()?);
                    add(&mut self.pieces, Piece { offset, length }).ok()?;
                }
            }
            _ => {}
        }
        Some(())
    }

    /// The map; version 1.0 has it at the beginning of `content`.
    pub(super) fn map(mut self, content: &mut impl Read) -> io::Result<Map> {
        if self.major == 1 {
            self.pieces = Lines::new(content).pieces()?;
        }
        Map::new(self.pieces, self.size.ok_or_else(bad)?)
    }
}

/// Reads decimal lines, a block at a time.
struct Lines<'a, R> {
    content: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
}

impl<'a, R: Read> Lines<'a, R> {
    fn new(content: &'a mut R) -> Self {
        Self {
            content,
            block: [0; BLOCK],
            at: BLOCK,
        }
    }

    fn pieces(mut self) -> io::Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        for _ in 0..self.number()? {
            let (offset, length) = (self.number()?, self.number()?);
            add(&mut pieces, Piece { offset, length })?;
        }
        Ok(pieces)
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut value: Option<u64> = None;
        loop {
            match (self.byte()?, value) {
                (b'\n', Some(value)) => return Ok(value),
                (digit @ b'0'..=b'9', _) => {
                    let so_far = value.unwrap_or(0).checked_mul(10);
                    let digit = u64::from(digit - b'0');
                    value = Some(so_far.and_then(|v| v.checked_add(digit)).ok_or_else(bad)?);
                }
                _ => return Err(bad()),
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        if self.at == BLOCK {
            self.content.read_exact(&mut self.block)?;
            self.at = 0;
        }
        self.at += 1;
        Ok(self.block[self.at - 1])
    }
}

fn add(pieces: &mut Vec<Piece>, piece: Piece) -> io::Result<()> {
    if pieces.len() == MAX_PIECES {
        return Err(invalid("a sparse file has too many pieces"));
    }
    pieces.push(piece);
    Ok(())
}

fn bad() -> io::Error {
    invalid("invalid sparse file")
}

/// A map of 1 MiB; a hostile archive can make us hold no more, and a file of ours with more holes is written as a whole.
pub(super) const MAX_PIECES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_that_overlap_or_lie_outside_are_refused() {
        let piece = |offset, length| Piece { offset, length };
        for pieces in [
            vec![piece(0, 11)],
            vec![piece(4, 4), piece(7, 1)],
            vec![piece(4, 4), piece(0, 1)],
            vec![piece(u64::MAX, 2)],
        ] {
            assert!(Map::new(pieces.clone(), 10).is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn maps_that_are_no_maps_are_errors() {
        for lines in [
            "",
            "1\n0\n",
            "x\n",
            "2\n0\n1\n",
            "\n",
            "99999999999999999999\n",
        ] {
            let mut block = lines.as_bytes().to_vec();
            block.resize(BLOCK, 0);
            let read = Lines::new(&mut block.as_slice()).pieces();
            assert!(read.is_err(), "{lines:?}");
        }
        assert!(MapReader::default().set(b"map", "1,2,3").is_none());
        assert!(MapReader::default().set(b"numbytes", "1").is_none());
    }

    proptest! {
        #[test]
        fn lines_are_read_as_they_are_written(steps in prop::collection::vec((1_u64..1 << 40, 1_u64..1 << 40), 0..80)) {
            let mut end = 0;
            let pieces: Vec<Piece> = steps.into_iter().map(|(gap, length)| {
                let offset = end + gap;
                end = offset + length;
                Piece { offset, length }
            }).collect();
            let map = Map::new(pieces, end).unwrap();
            let lines = map.to_lines();
            prop_assert_eq!(lines.len() % BLOCK, 0);
            let mut input = lines.as_slice();
            prop_assert_eq!(Lines::new(&mut input).pieces().unwrap(), map.pieces());
            prop_assert!(input.is_empty());
        }
    }
}
