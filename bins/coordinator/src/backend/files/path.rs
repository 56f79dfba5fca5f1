//! Paths of SFTP as those of a buildlet.

use buildlet_proto::RelPath;
use bytes::Bytes;
use sshbridge::sftp::FileError;

/// Reads a path: absolute ones and relative ones begin at the work directory, and nothing is above that.
pub(super) fn read(path: &[u8]) -> Result<RelPath, FileError> {
    let text = str::from_utf8(path).map_err(|_| FileError::NoSuchFile)?;
    let mut elements = Vec::new();
    for element in text.split('/') {
        match element {
            "" | "." => {}
            ".." => {
                elements.pop();
            }
            element => elements.push(element),
        }
    }
    RelPath::new(&elements.join("/")).map_err(|_| FileError::NoSuchFile)
}

/// The path as a client sees it.
pub(super) fn absolute(path: &RelPath) -> Bytes {
    let elements: Vec<&str> = path.elements().collect();
    Bytes::from(format!("/{}", elements.join("/")))
}

/// The directory that holds `path`, and the name in it; `None` for the work directory.
pub(super) fn split(path: &RelPath) -> Option<(RelPath, &str)> {
    let name = path.elements().last()?;
    let parent = path.as_str().strip_suffix(name)?;
    Some((RelPath::new(parent).ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_above_the_work_directory() {
        for (given, absolute_path) in [
            ("", "/"),
            (".", "/"),
            ("/", "/"),
            ("a//b/./c", "/a/b/c"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("a/../../b", "/b"),
        ] {
            let path = read(given.as_bytes()).unwrap();
            assert_eq!(absolute(&path), absolute_path, "{given}");
        }
        for given in [&b"a\\b"[..], b"C:/x", b"a\0b", b"\xff"] {
            assert_eq!(read(given), Err(FileError::NoSuchFile), "{given:?}");
        }
    }

    #[test]
    fn a_path_is_a_directory_and_a_name() {
        let parts = |path: &str| {
            let path = read(path.as_bytes()).unwrap();
            split(&path).map(|(dir, name)| (dir.to_string(), name.to_owned()))
        };
        assert_eq!(parts("/"), None);
        assert_eq!(parts("a"), Some((".".into(), "a".into())));
        assert_eq!(parts("/a/b/b"), Some(("a/b".into(), "b".into())));
    }
}
