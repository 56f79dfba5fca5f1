//! The lines of a control connection: one JSON object each, as Go's `encoding/json` writes them.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;

use crate::error::ProtocolError;

/// What one side tells the other.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Message {
    /// Dialer to Listener: there is a connection to pick up at this path.
    ConnReady {
        /// Path and query of the pick-up request.
        conn_path: String,
    },
    /// Dialer to Listener: the Dialer lives.
    KeepAlive,
    /// Listener to Dialer: a connection could not be picked up.
    PickUpFailed {
        /// The path of the `conn-ready`; empty, or another, where a server of Go's gave it up.
        conn_path: String,
        /// Why, in the peer's words.
        err: String,
    },
    /// A command of a later time; it is ignored.
    Unknown,
}

impl Message {
    /// The bytes of the message with its line feed, at most [`LINE_MAX`].
    ///
    /// An error text that is too long is cut; a path that leaves no room for one is left out of `pickup-failed`.
    pub(crate) fn encode(&self) -> Bytes {
        let mut line = String::with_capacity(128);
        match self {
            Self::ConnReady { conn_path } => {
                line.push_str(r#"{"command":"conn-ready","connPath":""#);
                escape(conn_path, &mut line, usize::MAX);
                line.push('"');
            }
            Self::KeepAlive => line.push_str(r#"{"command":"keep-alive""#),
            Self::PickUpFailed { conn_path, err } => {
                line.push_str(r#"{"command":"pickup-failed""#);
                let start = line.len();
                if !conn_path.is_empty() {
                    line.push_str(r#","connPath":""#);
                    if escape(conn_path, &mut line, PATH_MAX) == Fit::Whole {
                        line.push('"');
                    } else {
                        line.truncate(start);
                    }
                }
                line.push_str(r#","err":""#);
                escape(err, &mut line, LINE_MAX - r#""}"#.len() - 1);
                line.push('"');
            }
            Self::Unknown => line.push('{'),
        }
        line.push_str("}\n");
        Bytes::from(line)
    }

    /// Reads a line, without its line feed.
    fn decode(line: &[u8]) -> Result<Self, ProtocolError> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(line) else {
            return Err(ProtocolError::InvalidMessage);
        };
        let mut text = |name| match fields.remove(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(ProtocolError::InvalidMessage),
        };
        let (command, conn_path, err) = (text("command")?, text("connPath")?, text("err")?);
        Ok(match command.as_str() {
            "conn-ready" => Self::ConnReady { conn_path },
            "keep-alive" => Self::KeepAlive,
            "pickup-failed" => Self::PickUpFailed { conn_path, err },
            _ => Self::Unknown,
        })
    }
}

/// Says whether a text fitted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fit {
    Cut,
    Whole,
}

/// Appends `text` as the inside of a JSON string, the way Go writes it, until `out` has `limit` bytes.
fn escape(text: &str, out: &mut String, limit: usize) -> Fit {
    for c in text.chars() {
        let before = out.len();
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Go's encoder makes its output safe inside HTML and JavaScript.
            '&' | '<' | '>' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
            }
            _ => out.push(c),
        }
        if out.len() > limit {
            out.truncate(before);
            return Fit::Cut;
        }
    }
    Fit::Whole
}

/// Puts lines together from whatever pieces they arrive in.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The beginning of a line, less than [`LINE_MAX`] bytes.
    partial: Vec<u8>,
}

impl Decoder {
    /// Takes the next message off `input`; `None` when all of it is taken and no line is whole.
    pub(crate) fn decode(&mut self, input: &mut Bytes) -> Option<Result<Message, ProtocolError>> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let piece = input.split_to(end.unwrap_or(input.len()));
        let whole = self.partial.len() + piece.len();
        if whole >= LINE_MAX {
            return Some(Err(ProtocolError::LineTooLong));
        }
        self.partial.extend_from_slice(&piece);
        end?;
        let _line_feed = input.split_to(1);
        let message = Message::decode(&self.partial);
        self.partial.clear();
        Some(message)
    }

    /// Says whether the input ended between two lines.
    pub(crate) fn is_between_lines(&self) -> bool {
        self.partial.is_empty()
    }
}

/// Bytes of a line with its line feed: the read buffer of Go's programs, which give up at a longer one.
pub(crate) const LINE_MAX: usize = 4096;

/// Bytes of a line up to the end of its path, so that half of it is left for an error's text.
const PATH_MAX: usize = LINE_MAX / 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(pieces: &[&[u8]]) -> Vec<Result<Message, ProtocolError>> {
        let mut decoder = Decoder::default();
        let mut messages = Vec::new();
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(message) = decoder.decode(&mut input) {
                let failed = message.is_err();
                messages.push(message);
                if failed {
                    return messages;
                }
            }
            assert!(input.is_empty());
        }
        messages
    }

    fn ready(conn_path: &str) -> Message {
        Message::ConnReady {
            conn_path: conn_path.to_owned(),
        }
    }

    fn failed(conn_path: &str, err: &str) -> Message {
        Message::PickUpFailed {
            conn_path: conn_path.to_owned(),
            err: err.to_owned(),
        }
    }

    #[test]
    fn messages_are_the_bytes_that_go_sends() {
        for (message, line) in [
            (Message::KeepAlive, "{\"command\":\"keep-alive\"}\n"),
            (
                ready("/revdial?revdial.dialer=e9120000000000000000000000000000"),
                "{\"command\":\"conn-ready\",\
                 \"connPath\":\"/revdial?revdial.dialer=e9120000000000000000000000000000\"}\n",
            ),
            (
                ready("/revdial?x=1&revdial.dialer=00"),
                "{\"command\":\"conn-ready\",\"connPath\":\"/revdial?x=1\\u0026revdial.dialer=00\"}\n",
            ),
            (
                failed(
                    "/p",
                    "switch failed: want HTTP status 101 or 307; got 400 Bad Request:\n\t<x>",
                ),
                "{\"command\":\"pickup-failed\",\"connPath\":\"/p\",\"err\":\"switch failed: want HTTP \
                 status 101 or 307; got 400 Bad Request:\\n\\t\\u003cx\\u003e\"}\n",
            ),
            (
                failed("", "EOF"),
                "{\"command\":\"pickup-failed\",\"err\":\"EOF\"}\n",
            ),
            (
                failed("", "\"\\\r\0\u{1b}\u{2028}ä"),
                "{\"command\":\"pickup-failed\",\"err\":\"\\\"\\\\\\r\\u0000\\u001b\\u2028ä\"}\n",
            ),
        ] {
            assert_eq!(message.encode(), line);
            assert_eq!(decode_all(&[line.as_bytes()]), [Ok(message)]);
        }
    }

    #[test]
    fn a_line_may_be_split_anywhere() {
        let lines = "{\"command\":\"keep-alive\"}\n{\"command\":\"conn-ready\",\"connPath\":\"/a?b=1\\u0026c\"}\n";
        let want = [Ok(Message::KeepAlive), Ok(ready("/a?b=1&c"))];
        for at in 0..lines.len() {
            let (first, second) = lines.as_bytes().split_at(at);
            assert_eq!(decode_all(&[first, second]), want, "split at {at}");
        }
        let bytes: Vec<&[u8]> = lines.as_bytes().chunks(1).collect();
        assert_eq!(decode_all(&bytes), want);
    }

    #[test]
    fn unknown_commands_and_fields_are_no_mistakes() {
        for line in [
            "{}\n",
            "{\"command\":null}\n",
            "{\"command\":\"upgrade\",\"to\":[1,{\"x\":2}]}\n",
            "{\"command\":\"KEEP-ALIVE\"}\r\n",
        ] {
            assert_eq!(
                decode_all(&[line.as_bytes()]),
                [Ok(Message::Unknown)],
                "{line}"
            );
        }
        let extra = " {\"x\":1.5e3, \"command\" : \"keep-alive\" , \"err\":null}\r\n";
        assert_eq!(decode_all(&[extra.as_bytes()]), [Ok(Message::KeepAlive)]);
    }

    #[test]
    fn what_is_no_json_object_with_texts_is_a_mistake() {
        let deep = format!("{{\"x\":{}}}\n", "[".repeat(2000));
        for line in [
            "\n",
            "null\n",
            "5\n",
            "\"keep-alive\"\n",
            "{\"command\":5}\n",
            "{\"command\":\"conn-ready\",\"connPath\":[]}\n",
            "{\"command\":\"keep-alive\"} x\n",
            "{\"command\":\"keep-alive\"\n}\n",
            "{\"command\":\"\\ud800\"}\n",
            "GET / HTTP/1.1\r\n",
            deep.as_str(),
        ] {
            let decoded = decode_all(&[line.as_bytes()]);
            assert_eq!(decoded, [Err(ProtocolError::InvalidMessage)], "{line}");
        }
        let decoded = decode_all(&[b"{\"command\":\"\xff\"}\n"]);
        assert_eq!(decoded, [Err(ProtocolError::InvalidMessage)]);
    }

    #[test]
    fn a_line_has_4096_bytes_at_most() {
        let fill = |len: usize| {
            let mut line = b"{\"command\":\"keep-alive\",\"x\":\"".to_vec();
            line.resize(len - 3, b'x');
            line.extend_from_slice(b"\"}\n");
            line
        };
        assert_eq!(decode_all(&[&fill(4096)]), [Ok(Message::KeepAlive)]);
        let too_long = [Err(ProtocolError::LineTooLong)];
        assert_eq!(decode_all(&[&fill(4097)]), too_long);
        assert_eq!(decode_all(&[&[b'x'; 4096]]), too_long, "without its end");
        let trickle: Vec<&[u8]> = std::iter::repeat_n(b"x".as_slice(), 4096).collect();
        assert_eq!(decode_all(&trickle), too_long);
    }

    #[test]
    fn long_texts_are_cut_so_that_the_line_fits() {
        for (path, err) in [
            ("/p".to_owned(), "x".repeat(9000)),
            ("/p".to_owned(), "\0".repeat(9000)),
            ("/p".to_owned(), "€".repeat(9000)),
            ("&".repeat(4000), "&".repeat(4000)),
            ("/".repeat(2000), "\"".repeat(4000)),
        ] {
            let line = failed(&path, &err).encode();
            assert!(line.len() <= LINE_MAX, "{}", line.len());
            assert!(line.len() > LINE_MAX - 8, "{}", line.len());
            let decoded = decode_all(&[&line]);
            let Ok(Message::PickUpFailed {
                conn_path,
                err: cut,
            }) = &decoded[0]
            else {
                panic!("{decoded:?}");
            };
            assert!(err.starts_with(cut.as_str()));
            assert!(conn_path.is_empty() || *conn_path == path);
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(conn_path in "\\PC{0,80}", err in any::<String>()) {
            prop_assume!(err.len() < 300);
            let message = failed(&conn_path, &err);
            prop_assert_eq!(decode_all(&[&message.encode()]), vec![Ok(message)]);
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let _ = decode_all(&pieces);
        }
    }
}
