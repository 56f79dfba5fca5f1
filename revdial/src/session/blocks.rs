//! Bytes that wait, in blocks that nobody else holds: what they cost is known, and their memory serves again.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

/// A queue of bytes.
///
/// Every byte is copied in, so that no small rest holds a large read buffer, and costs two bytes at most, above 64. A
/// block is not larger than what may still come: a queue that is full holds its bytes and what was taken of its first
/// block.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Blocks {
    /// The last one may have room, the others are full.
    blocks: VecDeque<BytesMut>,
    /// Bytes of the first block that were taken.
    taken: usize,
    len: usize,
    held: usize,
}

impl Blocks {
    /// Appends `data`; at most `coming` more bytes follow before some are taken.
    pub(crate) fn push(&mut self, mut data: &[u8], coming: usize, spare: &mut Spare) {
        while !data.is_empty() {
            let room = self.blocks.back().map_or(0, room);
            if room == 0 {
                let block = self.new_block(data.len(), coming, spare);
                self.held += block.capacity();
                self.blocks.push_back(block);
                continue;
            }
            let (fits, rest) = data.split_at(room.min(data.len()));
            if let Some(block) = self.blocks.back_mut() {
                block.extend_from_slice(fits);
            }
            self.len += fits.len();
            data = rest;
        }
    }

    /// Moves as many bytes into `buf` as it has room for; how many.
    pub(crate) fn read<B: BufMut>(&mut self, buf: &mut B, spare: &mut Spare) -> usize {
        let before = self.len;
        while buf.has_remaining_mut() {
            let front = self.front();
            let count = front.len().min(buf.remaining_mut());
            if count == 0 {
                break;
            }
            buf.put_slice(&front[..count]);
            if let Some(block) = self.advance(count) {
                spare.keep(block);
            }
        }
        before - self.len
    }

    /// Takes up to `max` bytes off the front: the rest of a block as it lies, or a copy of a part of one.
    pub(crate) fn take(&mut self, max: usize) -> Bytes {
        let (front, taken) = (self.front(), self.taken);
        if front.len() > max {
            let part = Bytes::copy_from_slice(&front[..max]);
            self.advance(max);
            return part;
        }
        let block = self.advance(front.len()).unwrap_or_default();
        block.freeze().split_off(taken)
    }

    /// Throws everything away.
    pub(crate) fn clear(&mut self, spare: &mut Spare) {
        for block in std::mem::take(self).blocks {
            spare.keep(block);
        }
    }

    /// Gives up blocks of which more than half is not in use.
    pub(crate) fn compact(&mut self) {
        let used = self.front().len();
        if let Some(block) = self.blocks.front_mut()
            && used < block.capacity() / 2
        {
            self.held -= block.capacity();
            *block = BytesMut::from(&block[self.taken..]);
            self.held += block.capacity();
            self.taken = 0;
        }
        if let Some(block) = self.blocks.back_mut()
            && block.len() < block.capacity() / 2
        {
            self.held -= block.capacity();
            *block = BytesMut::from(block.as_ref());
            self.held += block.capacity();
        }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// What waits in the first block; empty if nothing waits.
    pub(crate) fn front(&self) -> &[u8] {
        self.blocks
            .front()
            .map_or(&[], |block| &block[self.taken..])
    }

    /// Notes that `count` bytes of the first block are taken; the block, if those were its last.
    fn advance(&mut self, count: usize) -> Option<BytesMut> {
        self.len -= count;
        self.taken += count;
        if self.taken < self.blocks.front()?.len() {
            return None;
        }
        let block = self.blocks.pop_front()?;
        self.taken = 0;
        self.held -= block.capacity();
        if self.blocks.is_empty() {
            // An idle stream holds nothing.
            self.blocks = VecDeque::new();
        }
        Some(block)
    }

    /// A block for `len` bytes, the first of which is behind those that wait. It is as large as all others together.
    fn new_block(&self, len: usize, coming: usize, spare: &mut Spare) -> BytesMut {
        let limit = BLOCK.min(len + coming);
        let wanted = len.max(BLOCK_MIN).next_power_of_two();
        let size = wanted.max(self.held).min(limit);
        let block = if size == BLOCK { spare.0.pop() } else { None };
        block.unwrap_or_else(|| BytesMut::with_capacity(size))
    }
}

/// Blocks of full size that are not in use.
///
/// Without them the allocator would give the memory of every frame back to the system, to ask for it at the next one:
/// with sixteen streams that was a third of the processor time.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Spare(Vec<BytesMut>);

impl Spare {
    /// Keeps a block that served, if it is worth it.
    pub(crate) fn keep(&mut self, mut block: BytesMut) {
        block.clear();
        if block.capacity() == BLOCK && self.0.len() < SPARE_MAX {
            self.0.push(block);
        }
    }

    /// Gives all blocks back to the allocator.
    pub(crate) fn release(&mut self) {
        self.0 = Vec::new();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory.
    pub(crate) fn held(&self) -> usize {
        self.0.len() * BLOCK
    }
}

fn room(block: &BytesMut) -> usize {
    block.capacity() - block.len()
}

/// Bytes of a full block, and so of the largest frame.
///
/// At 20 MB/s it takes 0.8 ms, which is what an interactive stream waits at most.
pub(crate) const BLOCK: usize = 16 * 1024;
/// Bytes of the smallest block.
const BLOCK_MIN: usize = 64;
/// Spare blocks that are kept: 512 KiB, some batches of both directions.
const SPARE_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in_and_cost_no_more_than_may_come(
            steps in prop::collection::vec((0..3u8, 0..40_000usize), 1..60),
        ) {
            let window = 128 * 1024;
            let (mut blocks, mut spare) = (Blocks::default(), Spare::default());
            let (mut pushed, mut taken) = (0usize, 0usize);
            let byte = |at: usize| (at * 31 + at / 251).to_le_bytes()[0];
            for (step, count) in steps {
                let mut out = Vec::new();
                match step {
                    0 => {
                        let count = count.min(window - blocks.len());
                        let data: Vec<u8> = (pushed..pushed + count).map(byte).collect();
                        blocks.push(&data, window - blocks.len() - count, &mut spare);
                        pushed += count;
                    }
                    1 => {
                        let mut buf = (&mut out).limit(count);
                        blocks.read(&mut buf, &mut spare);
                    }
                    _ => out.extend(blocks.take(count)),
                }
                for got in out {
                    prop_assert_eq!(got, byte(taken));
                    taken += 1;
                }
                prop_assert_eq!(blocks.len(), pushed - taken);
                prop_assert!(blocks.held() <= window + BLOCK);
                if step == 2 && count % 3 == 0 {
                    blocks.compact();
                }
                let held: usize = blocks.blocks.iter().map(BytesMut::capacity).sum();
                prop_assert_eq!(held, blocks.held());
            }
        }
    }

    #[test]
    fn a_queue_that_fills_up_byte_by_byte_holds_its_window_and_no_more() {
        let (mut blocks, mut spare) = (Blocks::default(), Spare::default());
        let window = 256 * 1024;
        for sent in 1..=window {
            blocks.push(&[0], window - sent, &mut spare);
            assert!(blocks.held() <= window);
        }
        assert_eq!(blocks.held(), window);
    }

    #[test]
    fn a_byte_costs_two_bytes_at_most() {
        for piece in [1, 100, 1000, 5000, 9000, 40_000] {
            let (mut blocks, mut spare) = (Blocks::default(), Spare::default());
            spare.keep(BytesMut::with_capacity(BLOCK));
            while blocks.len() < 100_000 {
                blocks.push(&vec![0; piece], 200_000, &mut spare);
                assert!(
                    blocks.held() <= (2 * blocks.len()).max(BLOCK_MIN),
                    "{piece}"
                );
            }
        }
    }

    #[test]
    fn an_empty_queue_holds_nothing() {
        let (mut blocks, mut spare) = (Blocks::default(), Spare::default());
        blocks.push(&[0; 100_000], 0, &mut spare);
        assert_eq!(blocks.read(&mut Vec::new(), &mut spare), 100_000);
        assert_eq!(blocks.held(), 0);
        assert_eq!(blocks.blocks.capacity(), 0);
    }
}
