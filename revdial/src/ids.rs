//! Tables by stream number.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

use crate::frame::StreamId;

/// A map from stream numbers.
pub(crate) type IdMap<V> = HashMap<StreamId, V, IdHash>;

/// A set of stream numbers.
pub(crate) type IdSet = HashSet<StreamId, IdHash>;

/// Hashes a number by one multiplication with a secret: every operation looks up several.
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
        // The table takes bits from both ends; those of a product are good at its upper end.
        self.hash = product ^ product.rotate_right(32);
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_in_a_row_spread() {
        let hash = IdHash::default();
        let places = |shift: u32| -> HashSet<u64> {
            let numbers = (1u32..2000).step_by(2);
            numbers.map(|n| hash.hash_one(n) >> shift & 0x3ff).collect()
        };
        // Of 1000 balls in 1024 bins 638 bins are hit on average.
        assert!(places(0).len() > 400, "{}", places(0).len());
        assert!(places(54).len() > 400, "{}", places(54).len());
    }
}
