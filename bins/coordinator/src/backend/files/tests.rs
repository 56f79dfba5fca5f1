//! Against a real buildlet, in a directory.

use buildlet::{JobSettings, Supervisor};
use buildlet_proto::client::Client;
use buildlet_proto::server::{Auth, Server};
use sshbridge::sftp::Creation;
use tempfile::TempDir;

use super::*;

/// A buildlet's files, and where they are.
fn served() -> (Arc<dyn FileApi>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    // No jobs are started here.
    let jobs = JobSettings::new(Supervisor::at("/none"), dir.path().join("jobs"));
    let machine = buildlet::Machine::without_ssh(&work, jobs).unwrap();
    let server = Server::new(machine, Auth::open());
    let client = Client::new(move || {
        let (near, far) = tokio::io::duplex(64 << 10);
        let server = server.clone();
        tokio::spawn(async move { drop(server.serve(far).await) });
        std::future::ready(std::io::Result::Ok(near))
    });
    let files = BuildletFiles::new(Arc::new(move || Some(client.clone())));
    (Arc::new(files), dir)
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn options(access: Access, create: Create, contents: Contents) -> OpenOptions {
    let mut options = OpenOptions::default();
    options.access = access;
    options.creation = Creation { create, contents };
    options
}

async fn create(files: &Arc<dyn FileApi>, path: &str) -> Result<Arc<dyn OpenFile>, FileError> {
    let options = options(Access::Write, Create::Missing, Contents::Truncated);
    let attributes = Attributes {
        permissions: Some(0o100_600),
        ..Attributes::default()
    };
    files.open(&bytes(path), options, attributes).await
}

async fn read(files: &Arc<dyn FileApi>, path: &str) -> Result<Arc<dyn OpenFile>, FileError> {
    let options = OpenOptions::default();
    files
        .open(&bytes(path), options, Attributes::default())
        .await
}

async fn put(files: &Arc<dyn FileApi>, path: &str, content: &[u8]) {
    let file = create(files, path).await.unwrap();
    file.write(0, Bytes::copy_from_slice(content))
        .await
        .unwrap();
    file.close().await.unwrap();
}

#[tokio::test]
async fn a_file_is_written_in_order_and_read_from_anywhere() {
    let (files, dir) = served();
    let content: Vec<u8> = (0..1_000_003_u32)
        .map(|i| (i % 251).to_le_bytes()[0])
        .collect();
    let file = create(&files, "/f").await.unwrap();
    let mut offset = 0;
    for piece in content.chunks(100_000) {
        file.write(offset, Bytes::copy_from_slice(piece))
            .await
            .unwrap();
        offset += piece.len() as u64;
    }
    let skipped = file.write(offset + 1, bytes("x")).await;
    assert_eq!(skipped, Err(FileError::UnsupportedBecause(WHOLE)));
    let written = file.attributes().await.unwrap();
    assert_eq!(written.size, Some(1_000_003));
    file.set_attributes(written).await.unwrap();
    assert!(!dir.path().join("work/f").exists());
    file.close().await.unwrap();
    assert!(std::fs::read(dir.path().join("work/f")).unwrap() == content);

    let file = read(&files, "f").await.unwrap();
    let attributes = file.attributes().await.unwrap();
    assert_eq!(
        (attributes.size, attributes.permissions),
        (Some(1_000_003), Some(0o100_600))
    );
    for (offset, length, expected) in [
        (0, 1000, &content[..1000]),
        (1000, 500_000, &content[1000..501_000]),
        (700_000, 10, &content[700_000..700_010]),
        (5, 300_000, &content[5..300_005]),
        (1_000_000, 100, &content[1_000_000..]),
        (1_000_003, 100, &[]),
        (2_000_000, 100, &[]),
        (0, 3, &content[..3]),
    ] {
        let data = file.read(offset, length).await.unwrap();
        assert!(data == expected, "{} bytes at {offset}", data.len());
    }
}

#[tokio::test]
async fn what_is_not_closed_is_not_there() {
    let (files, dir) = served();
    put(&files, "f", b"old").await;
    let file = create(&files, "f").await.unwrap();
    file.write(0, bytes("new")).await.unwrap();
    drop(file);
    // The buildlet notices by itself: the next change waits for nothing of the kind.
    put(&files, "g", b"").await;
    assert_eq!(std::fs::read(dir.path().join("work/f")).unwrap(), b"old");
    assert_eq!(std::fs::read(dir.path().join("work/g")).unwrap(), b"");
}

#[tokio::test]
async fn directories_are_made_listed_and_removed() {
    let (files, _dir) = served();
    let make = async |path: &str| files.create_dir(&bytes(path), Attributes::default()).await;
    make("/d").await.unwrap();
    assert_eq!(make("d").await, Err(FileError::Failure), "it is there");
    assert_eq!(make("none/d").await, Err(FileError::NoSuchFile));
    make("d/sub").await.unwrap();
    put(&files, "d/file", b"12345").await;
    let listed = files.open_dir(&bytes("d")).await.unwrap();
    let entries = listed.next(100).await.unwrap();
    let names: Vec<_> = entries.iter().map(|it| it.name.clone()).collect();
    assert_eq!(names, ["file", "sub"]);
    assert_eq!(entries[0].attributes.size, Some(5));
    assert_eq!(entries[1].attributes.permissions, Some(0o040_755));
    assert_eq!(listed.next(100).await.unwrap(), []);
    let remove = async |path: &str| files.remove_dir(&bytes(path)).await;
    assert_eq!(
        remove("d").await,
        Err(FileError::Failure),
        "it is not empty"
    );
    assert_eq!(remove("d/file").await, Err(FileError::Failure));
    assert_eq!(remove("/").await, Err(FileError::PermissionDenied));
    remove("d/sub").await.unwrap();
    assert_eq!(
        files.remove_file(&bytes("d")).await,
        Err(FileError::Failure)
    );
    files.remove_file(&bytes("d/file")).await.unwrap();
    assert_eq!(
        files.remove_file(&bytes("d/file")).await,
        Err(FileError::NoSuchFile)
    );
    remove("d").await.unwrap();
}

#[tokio::test]
async fn attributes_are_told_and_not_changed() {
    let (files, dir) = served();
    put(&files, "f", b"123").await;
    std::os::unix::fs::symlink("f", dir.path().join("work/link")).unwrap();
    let about = async |path: &str| files.attributes(&bytes(path), Links::Followed).await;
    assert_eq!(about("/").await.unwrap().permissions, Some(0o040_755));
    assert_eq!(about("f").await.unwrap().size, Some(3));
    assert_eq!(about("link").await.unwrap().permissions, Some(0o120_777));
    assert_eq!(about("none").await, Err(FileError::NoSuchFile));
    assert_eq!(about("f/x").await, Err(FileError::NoSuchFile));
    let change = async |attributes| {
        let changed = files
            .set_attributes(&bytes("f"), Links::Followed, attributes)
            .await;
        changed.is_ok()
    };
    let mut wanted = Attributes {
        permissions: Some(0o600),
        ..Attributes::default()
    };
    assert!(change(wanted).await);
    wanted.times = Some((0, 0));
    assert!(!change(wanted).await);
    wanted = Attributes {
        permissions: Some(0o644),
        ..Attributes::default()
    };
    assert!(!change(wanted).await);
}

#[tokio::test]
async fn what_the_protocol_has_not_is_refused_with_a_sentence() {
    let (files, dir) = served();
    put(&files, "f", b"123").await;
    let (f, g) = (bytes("f"), bytes("g"));
    let refused = |result: Result<(), FileError>| {
        assert!(
            matches!(result, Err(FileError::UnsupportedBecause(_))),
            "{result:?}"
        );
    };
    refused(files.rename(&f, &g, Existing::Kept).await);
    refused(files.symlink(&f, &g).await);
    refused(files.read_link(&f).await.map(drop));
    let open = async |path: &str, options| {
        let opened = files
            .open(&bytes(path), options, Attributes::default())
            .await;
        opened.map(drop)
    };
    let kept = options(Access::Write, Create::Missing, Contents::Kept);
    refused(open("f", kept).await);
    refused(
        open(
            "f",
            options(Access::ReadWrite, Create::Missing, Contents::Truncated),
        )
        .await,
    );
    let mut append = kept;
    append.writes = Writes::Append;
    refused(open("g", append).await);
    assert_eq!(open("g", kept).await, Ok(()));
    let new = options(Access::Write, Create::New, Contents::Kept);
    assert_eq!(open("f", new).await, Err(FileError::Failure));
    let old = options(Access::Write, Create::Never, Contents::Truncated);
    assert_eq!(open("h", old).await, Err(FileError::NoSuchFile));
    assert_eq!(
        create(&files, "none/f").await.err(),
        Some(FileError::NoSuchFile)
    );
    assert_eq!(
        read(&files, "none").await.err(),
        Some(FileError::NoSuchFile)
    );
    std::fs::create_dir(dir.path().join("work/d")).unwrap();
    std::fs::write(dir.path().join("work/d/d"), "").unwrap();
    assert_eq!(read(&files, "d").await.err(), Some(FileError::Failure));
}

#[tokio::test]
async fn a_path_is_absolute_from_the_work_directory() {
    let (files, _dir) = served();
    assert_eq!(files.canonical(&bytes("a/../b")).await.unwrap(), "/b");
    assert_eq!(files.expand(&bytes("~/b")).await.unwrap(), "/b");
    assert_eq!(files.expand(&bytes("~")).await.unwrap(), "/");
}

#[tokio::test]
async fn what_is_open_at_once_is_bounded() {
    let (files, _dir) = served();
    put(&files, "f", b"123").await;
    let mut open = Vec::new();
    for _ in 0..MAX_TRANSFERS {
        open.push(read(&files, "f").await.unwrap());
    }
    let full = |result: Result<(), FileError>| matches!(result, Err(FileError::FailedBecause(_)));
    assert!(full(read(&files, "f").await.map(drop)));
    assert!(full(create(&files, "g").await.map(drop)));
    assert!(full(files.open_dir(&bytes("/")).await.map(drop)));
    open.pop();
    read(&files, "f").await.unwrap();
}

#[tokio::test]
async fn a_machine_that_is_away_is_called_that() {
    let link = Arc::new(|| {
        None::<Client<fn() -> std::future::Ready<std::io::Result<tokio::io::DuplexStream>>>>
    });
    let files: Arc<dyn FileApi> = Arc::new(BuildletFiles::new(link));
    assert_eq!(
        read(&files, "f").await.err(),
        Some(FileError::FailedBecause(AWAY))
    );
}
