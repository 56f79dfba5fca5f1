//! The names of jobs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The name of a job on its machine: ten letters and digits of Crockford's base 32 in lower case, `c1vx7k3m9q`.
///
/// Fifty random bits are too many to guess over a network, and few enough to type.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct JobId([u8; LENGTH]);

impl JobId {
    /// Makes the name out of the lowest fifty of some random bits.
    pub fn from_bits(mut bits: u64) -> Self {
        let mut letters = [0; LENGTH];
        for letter in letters.iter_mut().rev() {
            let [low, ..] = bits.to_le_bytes();
            *letter = ALPHABET[usize::from(low & 31)];
            bits >>= 5;
        }
        Self(letters)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // The alphabet is ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let letters: [u8; LENGTH] = text.as_bytes().try_into().map_err(|_| InvalidJobId)?;
        if letters.iter().all(|letter| ALPHABET.contains(letter)) {
            Ok(Self(letters))
        } else {
            Err(InvalidJobId)
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The text is no [`JobId`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a job's id has ten letters and digits")]
#[non_exhaustive]
pub struct InvalidJobId;

const LENGTH: usize = 10;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ten_letters_of_one_alphabet() {
        assert_eq!(JobId::from_bits(0).as_str(), "0000000000");
        assert_eq!(JobId::from_bits(u64::MAX).as_str(), "zzzzzzzzzz");
        assert_eq!(JobId::from_bits(33).as_str(), "0000000011");
        let id = JobId::from_bits(0x1234_5678_9abc);
        assert_eq!(id.as_str().parse(), Ok(id));
        for bad in ["", "000000000", "00000000000", "000000000O", "00000/0000"] {
            assert_eq!(bad.parse::<JobId>(), Err(InvalidJobId), "{bad:?}");
        }
    }
}
