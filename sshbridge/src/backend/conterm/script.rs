//! What runs on the machine: a script for its shell, rc, that starts the session between the files of the tree.
//!
//! The same one serves both protocols, and gives what neither has by itself: notes that reach what runs, the exit status,
//! and an end when the session ends, whatever it leaves behind.

use bytes::{BufMut, Bytes, BytesMut};

use super::ContermProtocol;
use super::console::Mode;
use crate::backend::WindowSize;

/// What a user has asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// A command, or else the shell.
    pub(crate) command: Option<Bytes>,
    pub(crate) variables: Vec<(String, String)>,
    /// The size of a terminal, where there is one.
    pub(crate) terminal: Option<WindowSize>,
}

impl Session {
    pub(crate) fn mode(&self) -> Mode {
        match self.terminal {
            Some(_) => Mode::Terminal,
            None => Mode::Pipes,
        }
    }

    /// The script.
    pub(crate) fn script(&self, protocol: ContermProtocol) -> Bytes {
        let mut out = BytesMut::new();
        if protocol == ContermProtocol::Rcpu {
            out.put_slice(b"mount -nc /fd/0 /mnt/term || exit\n");
            out.put_slice(b"bind -q /mnt/term/dev/cons /dev/cons\n");
        }
        self.put_variables(&mut out);
        out.put_slice(b"fn server {\n\t");
        out.put_slice(match self.mode() {
            Mode::Pipes => b"</mnt/term/fd/0 >/mnt/term/fd/1 >[2]/mnt/term/fd/2".as_slice(),
            Mode::Terminal => b"</mnt/term/dev/cons >/mnt/term/dev/cons >[2=1]",
        });
        out.put_slice(b" { rm -f /env/'fn#server'; service=cpu exec rc -l");
        match &self.command {
            Some(command) => {
                out.put_slice(b"c ");
                quote(command, &mut out);
            }
            None if self.terminal.is_some() => out.put_slice(b"i"),
            None => {}
        }
        out.put_slice(REST);
        out.freeze()
    }

    fn put_variables(&self, out: &mut BytesMut) {
        if let Some(size) = self
            .terminal
            .filter(|size| size.rows > 0 && size.columns > 0)
        {
            out.put_slice(format!("LINES={}\nCOLS={}\n", size.rows, size.columns).as_bytes());
        }
        for (name, value) in &self.variables {
            out.put_slice(name.as_bytes());
            out.put_u8(b'=');
            quote(value.as_bytes(), out);
            out.put_u8(b'\n');
        }
    }
}

/// Whether rc can set a variable of that name.
pub(crate) fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() < 64 && name.bytes().all(plain)
}

/// A word of rc: in quotes everything but a quote stands for itself, and a quote is written twice.
fn quote(word: &[u8], out: &mut BytesMut) {
    out.put_u8(b'\'');
    for byte in word {
        if *byte == b'\'' {
            out.put_u8(b'\'');
        }
        out.put_u8(*byte);
    }
    out.put_u8(b'\'');
}

/// What follows the command: the notes are passed on until it ends, then its status. It is 9front's own script for this.
const REST: &[u8] = b" } &
	if(test -d /mnt/term/mnt/cpunote) {
		rfork e
		mainproc=$apid
		{cat; echo -n hangup} </mnt/term/mnt/cpunote/data >/proc/$mainproc/notepg &
		noteproc=$apid
		wait $mainproc
		echo -n $status >/mnt/term/env/rstatus >[2]/dev/null
		echo -n hangup >/proc/$noteproc/notepg
	}
}
server
";

/// The longest command: beyond that a machine's exec fails, and says less about it.
pub(crate) const MAX_COMMAND: usize = 60 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_word_whatever_is_in_it() {
        let session = Session {
            command: Some(Bytes::from_static(b"echo 'a' $b\n}")),
            variables: vec![("LANG".to_owned(), "it's".to_owned())],
            terminal: None,
        };
        let script = session.script(ContermProtocol::Cpu);
        let script = std::str::from_utf8(&script).unwrap();
        assert!(
            script.contains(" exec rc -lc 'echo ''a'' $b\n}' } &\n"),
            "{script}"
        );
        assert!(script.starts_with("LANG='it''s'\nfn server {\n\t</mnt/term/fd/0 "));
        assert!(is_variable("LC_ALL") && !is_variable("a b") && !is_variable(""));
    }

    #[test]
    fn a_shell_on_a_terminal_is_interactive_and_knows_its_size() {
        let size = WindowSize {
            columns: 80,
            rows: 24,
            ..WindowSize::default()
        };
        let session = Session {
            terminal: Some(size),
            ..Session::default()
        };
        let script = session.script(ContermProtocol::Rcpu);
        let script = std::str::from_utf8(&script).unwrap();
        assert!(script.starts_with("mount -nc /fd/0 /mnt/term || exit\nbind -q "));
        assert!(script.contains("LINES=24\nCOLS=80\n"));
        assert!(script.contains("exec rc -li } &"));
    }
}
