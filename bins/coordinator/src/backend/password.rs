//! Passwords of accounts on machines, which the coordinator has in files of their own.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a password from its file. It is read when it is needed, so that a new one needs no restart, and what is read
/// is erased after use.
///
/// # Errors
///
/// [`PasswordError`], which holds nothing of the password.
pub fn read_password(path: &Path) -> Result<Zeroizing<String>, PasswordError> {
    let mut file = File::open(path).map_err(PasswordError::Read)?;
    let about = file.metadata().map_err(PasswordError::Read)?;
    if !about.is_file() {
        return Err(PasswordError::NoFile);
    }
    if about.mode() & OTHERS != 0 {
        return Err(PasswordError::Readable);
    }
    // All of the room at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(vec![0; MAX_FILE + 1]);
    let mut length = 0;
    loop {
        let read = file
            .read(&mut bytes[length..])
            .map_err(PasswordError::Read)?;
        if read == 0 {
            break;
        }
        length += read;
    }
    if length > MAX_FILE {
        return Err(PasswordError::Content);
    }
    let text = str::from_utf8(&bytes[..length]).map_err(|_| PasswordError::Content)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains(char::is_control) {
        return Err(PasswordError::Content);
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file does not hold a password.
    #[error("not one line of text")]
    Content,
    /// The path leads to something else than a file.
    #[error("not a file")]
    NoFile,
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
    /// Others than the coordinator may read the file.
    #[error("others may read it: its mode has to be 0600")]
    Readable,
}

/// The bits of a file's mode that give it to its group or to everybody.
const OTHERS: u32 = 0o077;

/// The longest file with a password.
const MAX_FILE: usize = 1024;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(content: &[u8], mode: u32) -> Result<String, String> {
        let file = written(content, mode);
        let password = read_password(file.path()).map_err(|error| error.to_string())?;
        Ok(password.to_string())
    }

    fn written(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_line_break_is_no_part_of_a_password() {
        assert_eq!(read(b" pass word\r\n", 0o600).unwrap(), " pass word");
        assert_eq!(read(b"secret", 0o400).unwrap(), "secret");
    }

    #[test]
    fn a_password_that_others_may_read_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o666] {
            assert_eq!(
                read(b"secret", mode).unwrap_err(),
                PasswordError::Readable.to_string()
            );
        }
    }

    #[test]
    fn what_is_no_password_is_refused() {
        let long = [b'a'; MAX_FILE + 1];
        for content in [&b""[..], b"\n", b"a\nb\n", b"a\x03", b"\xff", &long] {
            let error = read(content, 0o600).unwrap_err();
            assert_eq!(error, PasswordError::Content.to_string());
        }
    }
}
