//! Signals by name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A signal that can be sent to a job, by its name without `SIG`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "POSIX describes them")]
#[non_exhaustive]
pub enum Signal {
    Abrt,
    Alrm,
    Cont,
    Hup,
    Int,
    Kill,
    Quit,
    Stop,
    Term,
    Tstp,
    Usr1,
    Usr2,
    Winch,
}

impl Signal {
    /// The name, in capitals and without `SIG`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Abrt => "ABRT",
            Self::Alrm => "ALRM",
            Self::Cont => "CONT",
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
            Self::Stop => "STOP",
            Self::Term => "TERM",
            Self::Tstp => "TSTP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Winch => "WINCH",
        }
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(name: &str) -> Result<Self, UnknownSignal> {
        ALL.into_iter()
            .find(|signal| signal.as_str() == name)
            .ok_or(UnknownSignal)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(de::Error::custom)
    }
}

/// The text names no [`Signal`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "no such signal; there are ABRT ALRM CONT HUP INT KILL QUIT STOP TERM TSTP USR1 USR2 WINCH"
)]
#[non_exhaustive]
pub struct UnknownSignal;

const ALL: [Signal; 13] = [
    Signal::Abrt,
    Signal::Alrm,
    Signal::Cont,
    Signal::Hup,
    Signal::Int,
    Signal::Kill,
    Signal::Quit,
    Signal::Stop,
    Signal::Term,
    Signal::Tstp,
    Signal::Usr1,
    Signal::Usr2,
    Signal::Winch,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_listed_in_the_error() {
        for signal in ALL {
            assert_eq!(signal.as_str().parse(), Ok(signal));
            assert!(UnknownSignal.to_string().contains(signal.as_str()));
        }
        for bad in ["", "SIGINT", "int", "9"] {
            assert_eq!(bad.parse::<Signal>(), Err(UnknownSignal), "{bad}");
        }
    }
}
