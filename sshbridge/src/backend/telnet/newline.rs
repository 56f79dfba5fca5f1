//! The ends of lines (RFC 854, RFC 1123 §3.3.1, RFC 856), which are different in each direction.

use super::codec;

/// How a direction has its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// As they are: the option BINARY is on, or the peer does not speak telnet.
    Plain,
    /// As a network virtual terminal's: behind CR stands LF, or NUL where the CR is one.
    Nvt,
}

/// Undoes the server's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FromServer {
    behind_cr: bool,
}

impl FromServer {
    /// Whether a terminal is to see the next byte.
    pub(super) fn shows(&mut self, byte: u8, format: Format) -> bool {
        let padding = self.behind_cr && byte == NUL && format == Format::Nvt;
        self.behind_cr = byte == CR;
        !padding
    }
}

/// Appends what a user typed. A line feed is the same key as Enter: it comes from pasted text.
pub(super) fn to_server(typed: &[u8], format: Format, out: &mut Vec<u8>) {
    for piece in typed.split_inclusive(|byte| matches!(*byte, CR | LF)) {
        match piece.split_last() {
            Some((&(CR | LF), text)) => {
                codec::encode(text, out);
                out.push(CR);
                if format == Format::Nvt {
                    out.push(NUL);
                }
            }
            _ => codec::encode(piece, out),
        }
    }
}

/// What a terminal shows of what was typed, where the server does not show it.
pub(super) fn echo(typed: &[u8], out: &mut Vec<u8>) {
    for &byte in typed {
        match byte {
            CR | LF => out.extend(b"\r\n"),
            BACKSPACE | DELETE => out.extend(b"\x08 \x08"),
            INTERRUPT => out.extend(b"^C"),
            0..0x20 => {}
            byte => out.push(byte),
        }
    }
}

/// `^C`.
pub(super) const INTERRUPT: u8 = 3;
const NUL: u8 = 0;
const BACKSPACE: u8 = 8;
const LF: u8 = 10;
pub(super) const CR: u8 = 13;
const DELETE: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&[u8]], format: Format) -> Vec<u8> {
        let (mut from, mut out) = (FromServer::default(), Vec::new());
        for piece in pieces {
            out.extend(piece.iter().filter(|byte| from.shows(**byte, format)));
        }
        out
    }

    fn sent(typed: &[u8], format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        to_server(typed, format, &mut out);
        out
    }

    #[test]
    fn a_nul_behind_cr_is_dropped_over_any_split() {
        assert_eq!(shown(&[b"x\r\0z\r\n"], Format::Nvt), b"x\rz\r\n");
        assert_eq!(shown(&[b"x\r", b"\0z"], Format::Nvt), b"x\rz");
        assert_eq!(shown(&[b"x\r\0\0"], Format::Nvt), b"x\r\0");
        assert_eq!(shown(&[b"x\r\0z"], Format::Plain), b"x\r\0z");
    }

    #[test]
    fn enter_has_a_nul_unless_binary() {
        assert_eq!(sent(b"ls\r", Format::Nvt), b"ls\r\0");
        assert_eq!(sent(b"ls\r", Format::Plain), b"ls\r");
        assert_eq!(sent(b"a\nb\xff", Format::Nvt), b"a\r\0b\xff\xff");
        assert_eq!(sent(b"\x03", Format::Nvt), b"\x03");
    }

    #[test]
    fn an_echo_is_what_a_terminal_would_show() {
        let mut out = Vec::new();
        echo(b"a\xc3\xa9\x7f\x1b\x03\r", &mut out);
        assert_eq!(out, b"a\xc3\xa9\x08 \x08^C\r\n");
    }
}
