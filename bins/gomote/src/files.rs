//! `put`, `puttar`, `gettar`, `ls`, `rm`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use buildlet_proto::api::{ByteReader, ListRequest};
use buildlet_proto::client::Connect;
use buildlet_proto::coordinator::CoordinatorClient;
use buildlet_proto::{Buildlet, RelPath};
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::archive;
use crate::cli::{Gettar, Ls, Put, Puttar, Rm};
use crate::exit::{NotFound, Usage};
use crate::instance;
use crate::progress::Progress;
use crate::streams::Streams;

pub(crate) async fn put<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: Put,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let destination = destination(&args)?;
    let (content, length, mode) = if is_standard(&args.source) {
        (take_input(streams), None, GO_INPUT_MODE)
    } else {
        let (file, metadata) = open(&args.source).await?;
        (
            Box::pin(file) as ByteReader,
            Some(metadata.len()),
            metadata.permissions().mode() & 0o777,
        )
    };
    let (instance, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let progress = Progress::new(streams.errors_is_terminal, length);
    let writing = || format!("writing {destination} on {}", instance.name);
    let content = progress.watch(content);
    buildlet
        .write(destination.clone(), args.mode.unwrap_or(mode), content)
        .await
        .with_context(writing)
}

pub(crate) async fn puttar<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: Puttar,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let dir = rel_path(&args.dir)?;
    let (archive, length) = if is_standard(&args.source) {
        (take_input(streams), None)
    } else if args.source.is_dir() {
        (archive::pack(&args.source), None)
    } else {
        let (file, metadata) = open(&args.source).await?;
        (Box::pin(file) as ByteReader, Some(metadata.len()))
    };
    let (instance, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let progress = Progress::new(streams.errors_is_terminal, length);
    let unpacking = || {
        format!(
            "unpacking {} into {dir} on {}",
            args.source.display(),
            instance.name
        )
    };
    buildlet
        .write_tgz(dir.clone(), progress.watch(archive))
        .await
        .with_context(unpacking)
}

pub(crate) async fn gettar<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: Gettar,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let dir = rel_path(&args.dir)?;
    let to_output = is_standard(&args.output);
    if to_output && streams.output_is_terminal {
        let message = "an archive would garble the terminal; say -o FILE, or send standard output somewhere else";
        return Err(Usage(message.to_owned()).into());
    }
    let (instance, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let fetching = || format!("fetching {dir} of {}", instance.name);
    let archive = buildlet
        .read_tgz(dir.clone())
        .await
        .with_context(fetching)?;
    let mut archive = Progress::new(streams.errors_is_terminal, None).watch(archive);
    if !to_output {
        return save(&mut archive, &args.output)
            .await
            .with_context(fetching);
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = archive.read(&mut chunk).await.with_context(fetching)?;
        if count == 0 {
            return Ok(());
        }
        streams.write(&chunk[..count])?;
    }
}

pub(crate) async fn ls<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: Ls,
    streams: &mut Streams<'_>,
) -> anyhow::Result<()> {
    let dir = rel_path(&args.dir)?;
    let mut request = ListRequest::new(dir.clone());
    (request.recursive, request.digest, request.skip) = (args.recursive, args.digest, args.skip);
    let (instance, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    let listing = || format!("listing {dir} of {}", instance.name);
    let mut lines = buildlet.list(request).await.with_context(listing)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = lines.read(&mut chunk).await.with_context(listing)?;
        if count == 0 {
            return Ok(());
        }
        streams.write_listing(&mut chunk[..count])?;
    }
}

pub(crate) async fn rm<C: Connect>(
    coordinator: &CoordinatorClient<C>,
    args: Rm,
) -> anyhow::Result<()> {
    let paths = args
        .paths
        .iter()
        .map(|path| rel_path(path))
        .collect::<Result<_, _>>()?;
    let (instance, buildlet) = instance::find(coordinator, &args.target.instance).await?;
    buildlet
        .remove_all(paths)
        .await
        .with_context(|| format!("removing files of {}", instance.name))
}

/// Writes a file under a temporary name and then gives it its own: a file that is there is whole.
async fn save(archive: &mut ByteReader, path: &Path) -> anyhow::Result<()> {
    let mut partial = PartialFile::create(path).await?;
    tokio::io::copy(archive, &mut partial.file).await?;
    partial.file.flush().await?;
    partial
        .finish(path)
        .await
        .with_context(|| format!("writing {}", path.display()))
}

/// A file in the making, removed when dropped.
struct PartialFile {
    file: fs::File,
    path: PathBuf,
}

impl PartialFile {
    async fn create(target: &Path) -> anyhow::Result<Self> {
        let mut path = target.to_owned().into_os_string();
        path.push(".partial");
        let path = PathBuf::from(path);
        let file = fs::File::create(&path)
            .await
            .with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file, path })
    }

    async fn finish(self, target: &Path) -> std::io::Result<()> {
        fs::rename(&self.path, target).await
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // After a rename there is nothing of this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn open(path: &Path) -> anyhow::Result<(fs::File, std::fs::Metadata)> {
    let reading = || format!("reading {}", path.display());
    let file = match fs::File::open(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(NotFound(format!("there is no file {}", path.display())).into());
        }
        file => file.with_context(reading)?,
    };
    let metadata = file.metadata().await.with_context(reading)?;
    if metadata.is_dir() {
        return Err(Usage(format!(
            "{} is a directory; `gomote puttar` copies those",
            path.display()
        ))
        .into());
    }
    Ok((file, metadata))
}

fn destination(args: &Put) -> Result<RelPath, Usage> {
    if let Some(destination) = &args.destination {
        return rel_path(destination);
    }
    if is_standard(&args.source) {
        return Err(Usage(
            "say where standard input goes: gomote put INST - DEST".to_owned(),
        ));
    }
    let name = args.source.file_name().and_then(|name| name.to_str());
    rel_path(name.ok_or_else(|| {
        Usage(format!(
            "{} has no name to keep; say DEST",
            args.source.display()
        ))
    })?)
}

fn rel_path(path: &str) -> Result<RelPath, Usage> {
    RelPath::new(path).map_err(|error| Usage(format!("{path:?}: {error}")))
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn take_input(streams: &mut Streams<'_>) -> ByteReader {
    std::mem::replace(&mut streams.input, Box::pin(tokio::io::empty()))
}

const CHUNK: usize = 64 * 1024;
/// What Go's gomote gives to a file from standard input; the machine's umask takes its share.
const GO_INPUT_MODE: u32 = 0o666;
