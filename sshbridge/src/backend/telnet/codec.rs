//! Telnet's bytes (RFC 854): what is data, what is a command, over any split of the stream.

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

/// Takes a server's bytes apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Decoder {
    state: State,
    /// The subnegotiation so far.
    payload: Vec<u8>,
}

/// What a server sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Event<'a> {
    /// A command that stands alone.
    Command(u8),
    /// Data, with its `IAC IAC` undone.
    Data(&'a [u8]),
    /// A request or an answer about an option.
    Negotiation(Verb, u8),
    /// What is told within an option.
    Subnegotiation(u8, Vec<u8>),
}

/// What a server says about an option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verb {
    Do,
    Dont,
    Will,
    Wont,
}

/// A subnegotiation is longer than any that an option has use for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TooLong;

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Data,
    Iac,
    Negotiation(Verb),
    /// Behind `SB`.
    Option,
    Payload(u8),
    PayloadIac(u8),
}

impl Decoder {
    /// The next event of `input`, which loses what it was made of. `None` where `input` is used up.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, TooLong> {
        while let Some((&byte, rest)) = input.split_first() {
            if matches!(self.state, State::Data) && byte != IAC {
                let length = input.iter().take_while(|byte| **byte != IAC).count();
                let (data, rest) = input.split_at(length);
                *input = rest;
                return Ok(Some(Event::Data(data)));
            }
            if matches!(self.state, State::Iac) && byte == IAC {
                self.state = State::Data;
                let (data, rest) = input.split_at(1);
                *input = rest;
                return Ok(Some(Event::Data(data)));
            }
            *input = rest;
            if let Some(event) = self.take(byte)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Takes a byte that is no data.
    fn take(&mut self, byte: u8) -> Result<Option<Event<'static>>, TooLong> {
        match self.state {
            State::Data => self.state = State::Iac,
            State::Iac => return Ok(self.command(byte)),
            State::Negotiation(verb) => {
                self.state = State::Data;
                return Ok(Some(Event::Negotiation(verb, byte)));
            }
            State::Option => {
                self.payload.clear();
                self.state = State::Payload(byte);
            }
            State::Payload(option) if byte == IAC => self.state = State::PayloadIac(option),
            State::PayloadIac(option) if byte != IAC => {
                // What is neither a doubled IAC nor the end is a command whose sender forgot the end. One that stands
                // alone means nothing to us.
                let event = Event::Subnegotiation(option, std::mem::take(&mut self.payload));
                self.state = State::Data;
                if byte != SE {
                    let _ = self.command(byte);
                }
                return Ok(Some(event));
            }
            State::Payload(option) | State::PayloadIac(option) => {
                if self.payload.len() >= MAX_PAYLOAD {
                    return Err(TooLong);
                }
                self.payload.push(byte);
                self.state = State::Payload(option);
            }
        }
        Ok(None)
    }

    fn command(&mut self, byte: u8) -> Option<Event<'static>> {
        let verb = match byte {
            DO => Verb::Do,
            DONT => Verb::Dont,
            WILL => Verb::Will,
            WONT => Verb::Wont,
            SB => {
                self.state = State::Option;
                return None;
            }
            _ => {
                self.state = State::Data;
                return Some(Event::Command(byte));
            }
        };
        self.state = State::Negotiation(verb);
        None
    }
}

/// Appends `data` as data.
pub(super) fn encode(data: &[u8], out: &mut Vec<u8>) {
    for &byte in data {
        out.push(byte);
        if byte == IAC {
            out.push(IAC);
        }
    }
}

/// Appends what is told within an option.
pub(super) fn encode_subnegotiation(option: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.extend([IAC, SB, option]);
    encode(payload, out);
    out.extend([IAC, SE]);
}

pub(super) const IAC: u8 = 255;
pub(super) const DONT: u8 = 254;
pub(super) const DO: u8 = 253;
pub(super) const WONT: u8 = 252;
pub(super) const WILL: u8 = 251;
const SB: u8 = 250;
/// Interrupt process.
pub(super) const IP: u8 = 244;
const SE: u8 = 240;

/// The longest subnegotiation. The longest that servers send asks for variables by their names.
const MAX_PAYLOAD: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of `pieces`, with neighbouring data as one.
    fn events<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let mut data = Vec::new();
        for mut piece in pieces {
            loop {
                match decoder.next(&mut piece) {
                    Ok(Some(Event::Data(bytes))) => data.extend_from_slice(bytes),
                    Ok(None) => break,
                    other => {
                        if !data.is_empty() {
                            events.push(format!("{:?}", std::mem::take(&mut data)));
                        }
                        events.push(format!("{other:?}"));
                        if other.is_err() {
                            return events;
                        }
                    }
                }
            }
        }
        events.push(format!("{data:?}"));
        events
    }

    fn decoded(bytes: &[u8]) -> Vec<Event<'_>> {
        let (mut decoder, mut input, mut events) = (Decoder::default(), bytes, Vec::new());
        while let Some(event) = decoder.next(&mut input).unwrap() {
            events.push(event);
        }
        events
    }

    #[test]
    fn a_doubled_iac_is_a_byte_of_data() {
        assert_eq!(decoded(b"\xff\xff"), [Event::Data(b"\xff")]);
        let mut out = Vec::new();
        encode(b"a\xffb", &mut out);
        assert_eq!(out, b"a\xff\xffb");
    }

    #[test]
    fn an_unknown_command_is_two_bytes() {
        assert_eq!(
            decoded(b"a\xff\x01b"),
            [Event::Data(b"a"), Event::Command(1), Event::Data(b"b")]
        );
    }

    #[test]
    fn a_subnegotiation_that_is_cut_short_ends_and_the_command_counts() {
        assert_eq!(
            decoded(b"\xff\xfa\x18\x01\xff\xfb\x01x"),
            [
                Event::Subnegotiation(24, vec![1]),
                Event::Negotiation(Verb::Will, 1),
                Event::Data(b"x")
            ]
        );
    }

    #[test]
    fn a_size_of_255_columns_survives() {
        let mut out = Vec::new();
        encode_subnegotiation(31, &[0, 255, 0, 24], &mut out);
        assert_eq!(out, b"\xff\xfa\x1f\x00\xff\xff\x00\x18\xff\xf0");
        assert_eq!(
            decoded(&out),
            [Event::Subnegotiation(31, vec![0, 255, 0, 24])]
        );
    }

    #[test]
    fn a_subnegotiation_without_end_is_an_error() {
        let mut flood = b"\xff\xfa\x27".to_vec();
        flood.extend([0; MAX_PAYLOAD]);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&mut &flood[..]), Ok(None));
        assert_eq!(decoder.next(&mut &[0][..]), Err(TooLong));
    }

    /// Bytes among which telnet's own are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(255), 240..=255u8, 0..=40u8, any::<u8>()];
        proptest::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn a_split_changes_nothing(bytes in bytes(), size in 1..9usize) {
            prop_assert_eq!(events([&bytes[..]]), events(bytes.chunks(size)));
        }

        #[test]
        fn what_is_encoded_is_data(bytes in bytes()) {
            let mut out = Vec::new();
            encode(&bytes, &mut out);
            prop_assert_eq!(events([&out[..]]), vec![format!("{bytes:?}")]);
        }
    }
}
