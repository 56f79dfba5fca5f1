//! Where data comes from and goes to, and where chatter goes.

use std::io::{self, IsTerminal, Write};
use std::pin::Pin;

use tokio::io::AsyncRead;

/// The three standard streams, or what stands in for them.
pub struct Streams<'a> {
    /// What `put -` and `puttar -` send, and commands read.
    pub input: Pin<Box<dyn AsyncRead + Send>>,
    /// Whether a person types `input`: commands do not get it then, as with `ssh -n`.
    pub input_is_terminal: bool,
    /// Data, and nothing else.
    pub output: &'a mut (dyn Write + Send),
    /// Whether `output` shows what it gets to a person.
    pub output_is_terminal: bool,
    /// Errors, and, to a person, chatter and progress.
    pub errors: &'a mut (dyn Write + Send),
    /// Whether `errors` is shown to a person.
    pub errors_is_terminal: bool,
}

impl<'a> Streams<'a> {
    /// The program's own streams. The writers are given, so that whoever locks them decides for how long.
    pub fn standard(
        output: &'a mut (dyn Write + Send),
        errors: &'a mut (dyn Write + Send),
    ) -> Self {
        Self {
            input: Box::pin(tokio::io::stdin()),
            input_is_terminal: io::stdin().is_terminal(),
            output,
            output_is_terminal: io::stdout().is_terminal(),
            errors,
            errors_is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Says something to a person who watches; to a file or a pipe it would be noise.
    pub(crate) fn chat(&mut self, text: impl std::fmt::Display) {
        if self.errors_is_terminal {
            self.warn(text);
        }
    }

    /// Says something that must be said.
    pub(crate) fn warn(&mut self, text: impl std::fmt::Display) {
        // There is no third stream to complain on.
        let _ = writeln!(self.errors, "gomote: {text}");
    }

    /// Writes data.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.output.write_all(bytes).map_err(of_output)
    }

    /// Writes what a command wrote to its standard error. Where ours is gone, its output is still of use.
    pub(crate) fn write_error(&mut self, bytes: &[u8]) {
        let _ = self.errors.write_all(bytes);
        let _ = self.errors.flush();
    }

    /// Hands on what was written.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.output.flush().map_err(of_output)
    }

    /// Writes data that a peer chose: control characters do not reach a terminal.
    pub(crate) fn write_listing(&mut self, bytes: &mut [u8]) -> anyhow::Result<()> {
        if self.output_is_terminal {
            for byte in bytes.iter_mut() {
                if byte.is_ascii_control() && !matches!(byte, b'\n' | b'\t') {
                    *byte = b'?';
                }
            }
        }
        self.write(bytes)
    }
}

impl std::fmt::Debug for Streams<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("output_is_terminal", &self.output_is_terminal)
            .field("errors_is_terminal", &self.errors_is_terminal)
            .finish_non_exhaustive()
    }
}

/// Whoever read standard output has had enough, which is no failure.
#[derive(Debug)]
pub(crate) struct OutputClosed;

impl std::fmt::Display for OutputClosed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for OutputClosed {}

fn of_output(error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return OutputClosed.into();
    }
    anyhow::Error::new(error).context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(output_is_terminal: bool) -> Vec<u8> {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            input: Box::pin(tokio::io::empty()),
            input_is_terminal: false,
            output: &mut output,
            output_is_terminal,
            errors: &mut errors,
            errors_is_terminal: false,
        };
        streams
            .write_listing(&mut b"a\tb\x1b[2J\n".to_vec())
            .unwrap();
        output
    }

    #[test]
    fn a_file_name_cannot_drive_a_terminal() {
        assert_eq!(listed(true), b"a\tb?[2J\n");
        assert_eq!(listed(false), b"a\tb\x1b[2J\n");
    }
}
