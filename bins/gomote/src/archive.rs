//! A directory as a tar.gz, made while it is sent.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_compression::tokio::write::GzipEncoder;
use buildlet_proto::api::ByteReader;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

/// Packs `dir`, whose entries have names relative to it. Symbolic links are packed as links.
///
/// What cannot be read ends the stream with an error, never with half an archive that looks whole. Dropping the reader
/// stops the work.
pub(crate) fn pack(dir: &Path) -> ByteReader {
    let (writer, reader) = tokio::io::duplex(BUFFER);
    let packer = AbortOnDropHandle::new(tokio::spawn(write_archive(dir.to_owned(), writer)));
    Box::pin(Archive {
        reader,
        packer: Some(packer),
    })
}

async fn write_archive(dir: PathBuf, writer: DuplexStream) -> io::Result<()> {
    let mut builder = tokio_tar::Builder::new(GzipEncoder::new(writer));
    builder.follow_symlinks(false);
    builder.append_dir_all(".", &dir).await.map_err(|error| {
        io::Error::new(error.kind(), format!("packing {}: {error}", dir.display()))
    })?;
    builder.into_inner().await?.shutdown().await
}

/// What the packer wrote, and then how it ended.
struct Archive {
    reader: DuplexStream,
    packer: Option<AbortOnDropHandle<io::Result<()>>>,
}

impl AsyncRead for Archive {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.reader).poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let Some(packer) = &mut this.packer else {
            return Poll::Ready(Ok(()));
        };
        let packed =
            ready!(Pin::new(packer).poll(cx)).unwrap_or_else(|error| Err(io::Error::other(error)));
        if packed.is_ok() {
            this.packer = None;
        }
        Poll::Ready(packed)
    }
}

/// A few reads ahead of the network.
const BUFFER: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use async_compression::tokio::bufread::GzipDecoder;
    use tokio::io::{AsyncReadExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn a_directory_is_packed_with_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let large = vec![7; 3 * BUFFER];
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/large"), &large).unwrap();
        std::fs::write(dir.path().join("empty"), "").unwrap();
        std::os::unix::fs::symlink("sub/large", dir.path().join("link")).unwrap();

        let entries = entries(pack(dir.path())).await;
        let names: Vec<_> = entries
            .keys()
            .map(String::as_str)
            .filter(|name| *name != "./" && *name != ".")
            .collect();
        let names: Vec<_> = names
            .iter()
            .map(|name| name.trim_start_matches("./").trim_end_matches('/'))
            .collect();
        assert_eq!(names, ["empty", "link", "sub", "sub/large"]);
        let stored = entries
            .iter()
            .find(|(name, _)| name.ends_with("sub/large"))
            .unwrap()
            .1;
        assert_eq!(stored, &large);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_an_error_and_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("nonesuch");
        let read = async {
            pack(&missing)
                .read_to_end(&mut Vec::new())
                .await
                .unwrap_err()
        };
        let error = tokio::time::timeout(Duration::from_secs(5), read)
            .await
            .unwrap();
        assert!(error.to_string().contains("nonesuch"), "{error}");
    }

    async fn entries(archive: ByteReader) -> BTreeMap<String, Vec<u8>> {
        use futures_core::Stream;

        let mut archive = tokio_tar::Archive::new(GzipDecoder::new(BufReader::new(archive)));
        let mut stream = archive.entries().unwrap();
        let mut entries = BTreeMap::new();
        while let Some(entry) = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await
        {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).await.unwrap();
            entries.insert(name, content);
        }
        entries
    }
}
