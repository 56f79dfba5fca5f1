//! What a buildlet and its supervisors tell each other: both ends are always of one program, so there are no versions.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use bytes::{Buf, BytesMut};

/// A command to start, in all its parts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Spec {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) dir: PathBuf,
    /// Whether standard input is the terminal that the command's session is to have.
    pub(crate) on_terminal: bool,
}

impl Spec {
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        out.push(u8::from(self.on_terminal));
        put(&mut out, self.program.as_os_str())?;
        put(&mut out, self.dir.as_os_str())?;
        out.write_all(&length(self.args.len())?)?;
        for arg in &self.args {
            put(&mut out, arg)?;
        }
        out.write_all(&length(self.env.len())?)?;
        for (name, value) in &self.env {
            put(&mut out, name)?;
            put(&mut out, value)?;
        }
        Ok(out)
    }

    pub(super) fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut on_terminal = [0];
        input.read_exact(&mut on_terminal)?;
        let mut spec = Self {
            program: take(input)?.into(),
            dir: take(input)?.into(),
            on_terminal: on_terminal != [0],
            ..Self::default()
        };
        for _ in 0..take_length(input)? {
            spec.args.push(take(input)?);
        }
        for _ in 0..take_length(input)? {
            spec.env.push((take(input)?, take(input)?));
        }
        Ok(spec)
    }
}

fn put(out: &mut impl Write, text: &OsStr) -> io::Result<()> {
    out.write_all(&length(text.len())?)?;
    out.write_all(text.as_bytes())
}

fn length(length: usize) -> io::Result<[u8; 4]> {
    let length = u32::try_from(length).map_err(|_| io::ErrorKind::ArgumentListTooLong)?;
    Ok(length.to_be_bytes())
}

fn take(input: &mut impl Read) -> io::Result<OsString> {
    let mut text = Vec::new();
    let length = take_length(input)?;
    let read = input.take(length.into()).read_to_end(&mut text)?;
    if u32::try_from(read) != Ok(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(OsString::from_vec(text))
}

fn take_length(input: &mut impl Read) -> io::Result<u32> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    Ok(u32::from_be_bytes(length))
}

/// What a supervisor is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    Kill,
    SignalGroup(i32),
    SignalTree(i32),
}

impl Order {
    pub(super) fn encode(self) -> [u8; ORDER_LENGTH] {
        let (kind, number) = match self {
            Self::Kill => (KILL, 0),
            Self::SignalGroup(number) => (SIGNAL_GROUP, number),
            Self::SignalTree(number) => (SIGNAL_TREE, number),
        };
        let [a, b, c, d] = number.to_be_bytes();
        [kind, a, b, c, d]
    }

    /// The next order; `None` when there are no more, and for what is none.
    pub(super) fn read(input: &mut impl Read) -> Option<Self> {
        let mut order = [0; ORDER_LENGTH];
        input.read_exact(&mut order).ok()?;
        let [kind, number @ ..] = order;
        let number = i32::from_be_bytes(number);
        match kind {
            KILL => Some(Self::Kill),
            SIGNAL_GROUP => Some(Self::SignalGroup(number)),
            SIGNAL_TREE => Some(Self::SignalTree(number)),
            _ => None,
        }
    }
}

/// What a supervisor tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Report {
    /// The command has ended, with this status of `wait`. What it has left behind may live.
    Ended(i32),
    /// No process is left: the last report.
    Gone,
    /// The tree was killed, and these survived.
    Killed(Vec<u32>),
    /// The command could not be started, for this reason of the system.
    NotStarted(i32),
    /// The command runs as this process.
    Started(u32),
}

impl Report {
    pub(super) fn encode(&self) -> Vec<u8> {
        let number = |number: i32| vec![u32::from_be_bytes(number.to_be_bytes())];
        let (kind, values) = match self {
            Self::Ended(status) => (ENDED, number(*status)),
            Self::Gone => (GONE, Vec::new()),
            Self::Killed(survivors) => (KILLED, survivors.clone()),
            Self::NotStarted(reason) => (NOT_STARTED, number(*reason)),
            Self::Started(pid) => (STARTED, vec![*pid]),
        };
        let values = &values[..values.len().min(MAX_VALUES)];
        let mut out = vec![kind];
        out.extend(u32::try_from(values.len()).unwrap_or(0).to_be_bytes());
        for value in values {
            out.extend(value.to_be_bytes());
        }
        out
    }

    /// Takes the first report out of `input`, if it is there whole.
    pub(super) fn decode(input: &mut BytesMut) -> Option<Self> {
        let mut header = input.get(..REPORT_HEADER)?;
        let (kind, count) = (header.get_u8(), header.get_u32());
        let length = usize::try_from(count).ok()?.min(MAX_VALUES) * size_of::<u32>();
        if input.len() < REPORT_HEADER + length {
            return None;
        }
        input.advance(REPORT_HEADER);
        let mut payload = input.split_to(length);
        let mut values = Vec::with_capacity(length / size_of::<u32>());
        while payload.has_remaining() {
            values.push(payload.get_u32());
        }
        let number = |value: u32| i32::from_be_bytes(value.to_be_bytes());
        match (kind, values.as_slice()) {
            (ENDED, [status]) => Some(Self::Ended(number(*status))),
            (KILLED, _) => Some(Self::Killed(values)),
            (NOT_STARTED, [reason]) => Some(Self::NotStarted(number(*reason))),
            (STARTED, [pid]) => Some(Self::Started(*pid)),
            // Both ends are of one program, so there is no other.
            _ => Some(Self::Gone),
        }
    }
}

/// How many survivors are named at most.
const MAX_VALUES: usize = 100;

const REPORT_HEADER: usize = 5;
const ORDER_LENGTH: usize = 5;
const KILL: u8 = 1;
const SIGNAL_GROUP: u8 = 2;
const SIGNAL_TREE: u8 = 3;

const STARTED: u8 = 1;
const NOT_STARTED: u8 = 2;
const ENDED: u8 = 3;
const KILLED: u8 = 4;
const GONE: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = OsString> {
        vec(any::<u8>(), 0..20).prop_map(OsString::from_vec)
    }

    proptest! {
        #[test]
        fn commands_arrive_as_they_were_sent(
            program in text(), dir in text(), args in vec(text(), 0..5),
            env in vec((text(), text()), 0..5), on_terminal: bool,
        ) {
            let spec = Spec { program: program.into(), args, env, dir: dir.into(), on_terminal };
            let bytes = spec.encode().unwrap();
            prop_assert_eq!(Spec::read(&mut &bytes[..]).unwrap(), spec);
            for cut in 0..bytes.len() {
                prop_assert!(Spec::read(&mut &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn orders_arrive_as_they_were_sent(number: i32) {
            for order in [Order::Kill, Order::SignalGroup(number), Order::SignalTree(number)] {
                prop_assert_eq!(Order::read(&mut &order.encode()[..]), Some(order));
            }
        }

        #[test]
        fn reports_arrive_as_they_were_sent(number: i32, pids in vec(any::<u32>(), 0..10)) {
            for report in [
                Report::Ended(number), Report::Gone, Report::Killed(pids),
                Report::NotStarted(number), Report::Started(7),
            ] {
                let bytes = report.encode();
                let mut input = BytesMut::new();
                for byte in &bytes {
                    prop_assert_eq!(Report::decode(&mut input), None);
                    input.extend_from_slice(&[*byte]);
                }
                prop_assert_eq!(Report::decode(&mut input), Some(report));
            }
        }
    }
}
