//! The editor of a line that is being typed.

/// A line that is being typed.
#[derive(Default)]
pub(super) struct Editor {
    line: Vec<u8>,
}

/// What a byte has brought about.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Typed {
    EndOfFile,
    Interrupt,
    /// A line is ready, nearly always with its line feed.
    Line(Vec<u8>),
    Nothing,
}

impl Editor {
    /// Takes one byte and appends what the user sees of it to `echo`.
    pub(super) fn handle(&mut self, byte: u8, echo: &mut Vec<u8>) -> Typed {
        match byte {
            b'\r' | b'\n' => {
                echo.extend_from_slice(b"\r\n");
                self.line.push(b'\n');
                return Typed::Line(self.take());
            }
            CONTROL_C => {
                echo.extend_from_slice(b"^C\r\n");
                self.line.clear();
                return Typed::Interrupt;
            }
            CONTROL_D if self.line.is_empty() => return Typed::EndOfFile,
            CONTROL_D => return Typed::Line(self.take()),
            // Plan 9's own interrupt is DEL, but the Backspace of an SSH client sends it.
            BACKSPACE | DELETE => {
                self.erase(echo);
            }
            CONTROL_U => while self.erase(echo).is_some() {},
            CONTROL_W => self.erase_word(echo),
            _ if self.line.len() >= MAX_LINE => echo.push(BELL),
            byte => {
                self.line.push(byte);
                show(byte, echo);
            }
        }
        Typed::Nothing
    }

    /// Takes what was typed.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line)
    }

    fn erase_word(&mut self, echo: &mut Vec<u8>) {
        while self.line.last().is_some_and(|last| *last == b' ') {
            self.erase(echo);
        }
        while self.line.last().is_some_and(|last| *last != b' ') {
            self.erase(echo);
        }
    }

    /// Erases the last character, which may have several bytes; it is taken to be one column wide.
    fn erase(&mut self, echo: &mut Vec<u8>) -> Option<()> {
        let mut last = self.line.pop()?;
        while is_continuation(last) {
            let Some(byte) = self.line.pop() else { break };
            last = byte;
        }
        let columns = if is_caret(last) { 2 } else { 1 };
        for _ in 0..columns {
            echo.extend_from_slice(b"\x08 \x08");
        }
        Some(())
    }
}

/// Control characters are shown with a caret, lest they do something to the terminal.
fn show(byte: u8, echo: &mut Vec<u8>) {
    if is_caret(byte) {
        echo.extend_from_slice(&[b'^', byte ^ 0x40]);
    } else {
        echo.push(byte);
    }
}

fn is_caret(byte: u8) -> bool {
    byte < b' ' && byte != b'\t'
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

const CONTROL_C: u8 = 3;
const CONTROL_D: u8 = 4;
const BELL: u8 = 7;
const BACKSPACE: u8 = 8;
const CONTROL_U: u8 = 21;
const CONTROL_W: u8 = 23;
const DELETE: u8 = 127;

/// The longest line: what a terminal of a Unix machine takes.
const MAX_LINE: usize = 4095;

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str) -> (Typed, String) {
        let (mut editor, mut echo) = (Editor::default(), Vec::new());
        let results = keys.bytes().map(|byte| editor.handle(byte, &mut echo));
        let last = results.last().unwrap();
        (last, String::from_utf8(echo).unwrap())
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, line) in [
            ("lx\x7fs\r", "ls\n"),
            ("lx\x08s\n", "ls\n"),
            ("grün\x7f\x7f\x7f\r", "g\r"),
            ("wrong\x15ls\r", "ls\n"),
            ("echo one  two \x17\x17three\r", "echo three\n"),
            ("\x7f\x15\x17ls\r", "ls\n"),
            ("no end\x04", "no end"),
        ] {
            let line = line.replace('\r', "r\n").replace("gr\n", "g\n");
            assert_eq!(typed(keys).0, Typed::Line(line.into_bytes()), "{keys:?}");
        }
        assert_eq!(typed("\x04").0, Typed::EndOfFile);
        assert_eq!(typed("half\x03").0, Typed::Interrupt);
    }

    #[test]
    fn the_user_sees_what_is_in_the_line() {
        assert_eq!(typed("aü\x7f").1, "aü\x08 \x08");
        assert_eq!(
            typed("\x1b[A\x7f\x7f\x7f").1,
            "^[[A\x08 \x08\x08 \x08\x08 \x08\x08 \x08"
        );
        assert_eq!(typed("a\tb\x03").1, "a\tb^C\r\n");
    }

    #[test]
    fn a_line_has_a_bound() {
        let (mut editor, mut echo) = (Editor::default(), Vec::new());
        for _ in 0..10_000 {
            editor.handle(b'x', &mut echo);
        }
        assert_eq!(editor.take().len(), MAX_LINE);
    }
}
