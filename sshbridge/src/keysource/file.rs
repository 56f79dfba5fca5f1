use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::{KeySource, KeySourceError, MAX_BYTES, MAX_KEYS};
use crate::key::AuthorizedKey;

/// A file in the form of OpenSSH's `authorized_keys`, the same keys for every account. It is read again when it changes.
///
/// A line with options (`restrict`, `from="…"`, `command="…"`, and so on) restricts what its key may do. None of them is
/// honoured here, so such a line is not taken at all, with a warning.
#[derive(Debug)]
pub struct FileKeys {
    path: PathBuf,
    read: Mutex<Option<Contents>>,
}

#[derive(Clone, Debug)]
struct Contents {
    stamp: Stamp,
    keys: Vec<AuthorizedKey>,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

impl FileKeys {
    /// The keys in the file at `path`, which is read when it is first needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read: Mutex::new(None),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Option<Contents>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl KeySource for FileKeys {
    async fn keys(&self, _account: &str) -> Result<Vec<AuthorizedKey>, KeySourceError> {
        let path = self.path.clone();
        let known = self.contents().clone();
        let read = tokio::task::spawn_blocking(move || read(&path, known)).await;
        match read.map_err(io::Error::from).and_then(|read| read) {
            Ok(Some(contents)) => {
                let keys = contents.keys.clone();
                *self.contents() = Some(contents);
                Ok(keys)
            }
            Ok(None) => Err(KeySourceError::TooLarge),
            Err(source) => Err(KeySourceError::File {
                path: self.path.clone(),
                source,
            }),
        }
    }
}

/// Reads the file, unless it is as it was. `None` where it is too large.
fn read(path: &Path, known: Option<Contents>) -> io::Result<Option<Contents>> {
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    let stamp = Stamp {
        modified: metadata.modified().ok(),
        len: metadata.len(),
    };
    if let Some(known) = known
        && known.stamp == stamp
        && stamp.modified.is_some_and(is_settled)
    {
        return Ok(Some(known));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Ok(None);
    }
    let keys = parse(&String::from_utf8_lossy(&bytes), path);
    Ok(Some(Contents { stamp, keys }))
}

/// Whether a file that was changed then would have another time if it were changed again: the clocks of file systems
/// are coarse.
fn is_settled(modified: SystemTime) -> bool {
    modified.elapsed().is_ok_and(|age| age.as_secs() >= 2)
}

fn parse(text: &str, path: &Path) -> Vec<AuthorizedKey> {
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if keys.len() == MAX_KEYS {
            tracing::warn!(path = %path.display(), "keys beyond the first {MAX_KEYS} are not used");
            break;
        }
        match line.parse() {
            Ok(key) => keys.push(key),
            Err(error) => tracing::warn!(
                path = %path.display(),
                line = number + 1,
                %error,
                "a line is not used; lines with options are not supported"
            ),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    struct File(PathBuf);

    impl File {
        fn new(name: &str) -> Self {
            let name = format!("sshbridge-filekeys-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    async fn count(keys: &FileKeys) -> Result<usize, KeySourceError> {
        keys.keys("anybody").await.map(|keys| keys.len())
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changes() {
        let file = File::new("changes");
        let keys = FileKeys::new(&file.0);
        std::fs::write(&file.0, format!("# mine\n\n{ONE} me\n")).unwrap();
        assert_eq!(count(&keys).await.unwrap(), 1);
        std::fs::write(&file.0, "").unwrap();
        assert_eq!(count(&keys).await.unwrap(), 0);
        std::fs::remove_file(&file.0).unwrap();
        assert!(matches!(
            count(&keys).await,
            Err(KeySourceError::File { .. })
        ));
    }

    #[tokio::test]
    async fn a_line_with_options_is_not_used() {
        let file = File::new("options");
        let lines = format!("restrict {ONE}\nfrom=\"192.0.2.1\" {ONE}\ncert-authority {ONE}\n");
        std::fs::write(&file.0, lines).unwrap();
        assert_eq!(count(&FileKeys::new(&file.0)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_lets_nobody_in() {
        let file = File::new("large");
        std::fs::write(&file.0, format!("{ONE}\n").repeat(10_000)).unwrap();
        let error = count(&FileKeys::new(&file.0)).await.unwrap_err();
        assert!(matches!(error, KeySourceError::TooLarge));
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_harm_their_line_only() {
        let file = File::new("bytes");
        let mut bytes = b"\xff\xfe\0\n".to_vec();
        bytes.extend_from_slice(ONE.as_bytes());
        std::fs::write(&file.0, bytes).unwrap();
        assert_eq!(count(&FileKeys::new(&file.0)).await.unwrap(), 1);
    }
}
