//! Tables by stream number.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

use crate::frame::StreamId;

/// A map from stream numbers.
pub(crate) type IdMap<V> = HashMap<StreamId, V, IdHash>;

/// A set of stream numbers.
pub(crate) type IdSet = HashSet<StreamId, IdHash>;

/// Hashes a number by two multiplications, the first with a secret: every operation looks up several.
///
/// The peer chooses the numbers of its streams. It cannot choose those that collide without the secret, and as all
/// tables are bounded it would gain a walk through some hundred entries.
#[derive(Clone, Debug)]
pub(crate) struct IdHash {
    /// Odd.
    secret: u64,
}

impl Default for IdHash {
    fn default() -> Self {
        // The standard library seeds its own tables at random.
        let secret = RandomState::new().hash_one(0u8) | 1;
        Self { secret }
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher {
            secret: self.secret,
            hash: 0,
        }
    }
}

/// The hash of one number.
#[derive(Debug)]
pub(crate) struct IdHasher {
    secret: u64,
    hash: u64,
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        let product = (self.hash ^ u64::from(number)).wrapping_mul(self.secret);
        // The table takes bits from both ends, and those of a product are good at its upper end. One round is not enough:
        // with one secret in seventy, numbers in a row share few places.
        let product = (product ^ product >> 32).wrapping_mul(GOLDEN_RATIO);
        self.hash = product ^ product >> 32;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

/// 2⁶⁴ divided by the golden ratio, odd: its multiples spread (Knuth, The Art of Computer Programming 3, 6.4).
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::DefaultHasher;

    use super::*;

    #[test]
    fn numbers_in_a_row_spread() {
        for n in 0..5000 {
            let mut secret = DefaultHasher::new();
            secret.write_u32(n);
            let secret = secret.finish() | 1;
            let hash = IdHash { secret };
            let places = |shift: u32| {
                let numbers = (1u32..2000).step_by(2);
                let places = numbers.map(|n| hash.hash_one(n) >> shift & 0x3ff);
                places.collect::<HashSet<u64>>().len()
            };
            // Of 1000 balls in 1024 bins 638 bins are hit on average.
            assert!(places(0) > 500, "{secret:x}: {}", places(0));
            assert!(places(54) > 500, "{secret:x}: {}", places(54));
        }
    }
}
