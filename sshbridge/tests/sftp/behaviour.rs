use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use bytes::Buf as _;

use crate::client::{
    APPEND, CREATE, Client, EXCLUSIVE, EXTENDED, FOR_READING, FOR_WRITING, FSETSTAT, Field, MKDIR,
    OPEN, OPENDIR, READ, READDIR, REALPATH, RENAME, SETSTAT, STAT, SYMLINK, TRUNCATE, WRITE,
};

#[tokio::test]
async fn a_file_is_written_read_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let handle = client.open("f", FOR_WRITING | CREATE | TRUNCATE).await;
    assert_eq!(client.write(&handle, 3, b"def").await, 0);
    assert_eq!(client.write(&handle, 0, b"abc").await, 0);
    assert_eq!(client.close(&handle).await, 0);
    assert_eq!(client.close(&handle).await, 4, "it is closed");
    assert_eq!(fs::read(directory.path().join("f")).unwrap(), b"abcdef");
    let handle = client.open("f", FOR_READING).await;
    assert_eq!(client.read(&handle, 1, 3).await.data(), "bcd");
    assert_eq!(client.read(&handle, 4, 100).await.data(), "ef");
    assert_eq!(client.read(&handle, 6, 100).await.status(), 1, "the end");
    assert!(client.end().await.is_ok());
}

#[tokio::test]
async fn requests_of_a_pipeline_are_answered_in_turn_and_see_what_came_before_them() {
    let directory = tempfile::tempdir().unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let handle = client.open("f", FOR_READING | FOR_WRITING | CREATE).await;
    // Nobody waits for anything: the size, the last read and the name must show what was written before them.
    let mut last = 0;
    for offset in 0..200_u64 {
        let data = [u8::try_from(offset).unwrap(); 100];
        let fields = [
            Field::Bytes(&handle),
            Field::U64(offset * 100),
            Field::Bytes(&data),
        ];
        last = client.request(WRITE, &fields).await;
    }
    let stat = client.request(STAT, &[Field::Text("f")]).await;
    let fields = [Field::Bytes(&handle), Field::U64(19_900), Field::U32(500)];
    let read = client.request(READ, &fields).await;
    let close = client.request(4, &[Field::Bytes(&handle)]).await;
    let rename = [Field::Text("f"), Field::Text("g")];
    let rename = client.request(RENAME, &rename).await;
    let missing = client.request(STAT, &[Field::Text("f")]).await;
    for turn in 2..207 {
        let (id, answer) = client.answer().await;
        assert_eq!(id, turn);
        if id <= last {
            assert_eq!(answer.status(), 0);
        } else if id == stat {
            assert_eq!(answer.attributes().size, 20_000);
        } else if id == read {
            assert_eq!(answer.data(), [199; 100][..]);
        } else if id == close || id == rename {
            assert_eq!(answer.status(), 0);
        } else {
            assert_eq!(id, missing);
            assert_eq!(answer.status(), 2);
        }
    }
}

#[tokio::test]
async fn flags_create_truncate_append_and_exclude() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "old").unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let exclusive = FOR_WRITING | CREATE | EXCLUSIVE;
    let fields = [Field::Text("f"), Field::U32(exclusive), Field::U32(0)];
    assert_eq!(client.ask(OPEN, &fields).await.status(), 4);
    let handle = client.open("f", FOR_WRITING | APPEND).await;
    // The offsets do not count, the order does.
    for word in [" and", " new"] {
        assert_eq!(client.write(&handle, 0, word.as_bytes()).await, 0);
    }
    assert_eq!(fs::read(&path).unwrap(), b"old and new");
    client.open("f", FOR_WRITING | TRUNCATE).await;
    assert_eq!(fs::read(&path).unwrap(), b"");
    let fields = [Field::Text("g"), Field::U32(FOR_READING), Field::U32(0)];
    assert_eq!(client.ask(OPEN, &fields).await.status(), 2);
}

#[tokio::test]
async fn attributes_are_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    fs::write(&path, "0123456789").unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let fields = [
        Field::Text("f"),
        Field::U32(1 | 4 | 8),
        Field::U64(4),
        Field::U32(0o100_640),
        Field::U32(1_000_000),
        Field::U32(2_000_000),
    ];
    assert_eq!(client.ask(SETSTAT, &fields).await.status(), 0);
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 4);
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    assert_eq!((metadata.atime(), metadata.mtime()), (1_000_000, 2_000_000));
    let handle = client.open("f", FOR_READING | FOR_WRITING).await;
    let fields = [Field::Bytes(&handle), Field::U32(1), Field::U64(2)];
    assert_eq!(client.ask(FSETSTAT, &fields).await.status(), 0);
    assert_eq!(fs::read(&path).unwrap(), b"01");
}

#[tokio::test]
async fn a_link_s_own_times_are_changed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "").unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let fields = [Field::Text("f"), Field::Text("l")];
    assert_eq!(client.ask(SYMLINK, &fields).await.status(), 0);
    let link = directory.path().join("l");
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("f"));
    let fields = [
        Field::Text("lsetstat@openssh.com"),
        Field::Text("l"),
        Field::U32(8),
        Field::U32(1_000_000),
        Field::U32(2_000_000),
    ];
    assert_eq!(client.ask(EXTENDED, &fields).await.status(), 0);
    assert_eq!(fs::symlink_metadata(&link).unwrap().mtime(), 2_000_000);
    assert_ne!(fs::metadata(&link).unwrap().mtime(), 2_000_000);
}

#[tokio::test]
async fn a_directory_is_told_whole_with_lines_as_from_ls() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..250 {
        fs::write(directory.path().join(format!("f{number}")), "x").unwrap();
    }
    let mut client = Client::of_ours(directory.path()).await;
    let handle = client.ask(OPENDIR, &[Field::Text(".")]).await.handle();
    let mut names = Vec::new();
    loop {
        let answer = client.ask(READDIR, &[Field::Bytes(&handle)]).await;
        if answer.kind == 101 {
            assert_eq!(answer.status(), 1);
            break;
        }
        names.extend(answer.names());
    }
    assert_eq!(names.len(), 252);
    let (_, line, attributes) = names.iter().find(|it| it.0 == "f7").unwrap();
    let line = std::str::from_utf8(line).unwrap();
    assert!(line.starts_with("-rw-r--r--"), "{line}");
    assert!(line.ends_with(" f7"), "{line}");
    assert_eq!(attributes.size, 1);
    assert_eq!(client.close(&handle).await, 0);
}

#[tokio::test]
async fn paths_start_in_the_directory_and_may_leave_it() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().canonicalize().unwrap();
    let real = real.to_str().unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    for (path, expected) in [
        ("", real.to_owned()),
        (".", real.to_owned()),
        ("new", format!("{real}/new")),
        ("/", "/".to_owned()),
        ("/tmp/..", "/".to_owned()),
    ] {
        assert_eq!(
            client.ask(REALPATH, &[Field::Text(path)]).await.path(),
            expected
        );
    }
    let answer = client.ask(REALPATH, &[Field::Text("no/such")]).await;
    assert_eq!(answer.status(), 2);
    let expand = |path| [Field::Text("expand-path@openssh.com"), Field::Text(path)];
    let answer = client.ask(EXTENDED, &expand("~/x")).await;
    assert_eq!(answer.path(), format!("{real}/x"));
    assert_eq!(
        client.ask(EXTENDED, &expand("x")).await.path(),
        format!("{real}/x")
    );
}

#[tokio::test]
async fn data_is_copied_between_files_without_passing_the_client() {
    let directory = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..1_000_000_u32).map(|it| it.to_le_bytes()[1]).collect();
    fs::write(directory.path().join("from"), &data).unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let from = client.open("from", FOR_READING).await;
    let to = client.open("to", FOR_WRITING | CREATE).await;
    for (offset, length, to_offset) in [(0, 0, 0), (10, 600_000, 2_000_000)] {
        let fields = [
            Field::Text("copy-data"),
            Field::Bytes(&from),
            Field::U64(offset),
            Field::U64(length),
            Field::Bytes(&to),
            Field::U64(to_offset),
        ];
        assert_eq!(client.ask(EXTENDED, &fields).await.status(), 0);
    }
    let copied = fs::read(directory.path().join("to")).unwrap();
    assert!(copied[..1_000_000] == data);
    assert!(copied[2_000_000..] == data[10..600_010]);
}

#[tokio::test]
async fn limits_are_told_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), vec![7; 400_000]).unwrap();
    let mut client = Client::of_ours(directory.path()).await;
    let answer = client
        .ask(EXTENDED, &[Field::Text("limits@openssh.com")])
        .await;
    assert_eq!(answer.kind, 201);
    let mut body = answer.body.clone();
    let limits = [(); 4].map(|()| body.get_u64());
    assert_eq!(limits, [262_144, 261_120, 261_120, 256]);
    let handle = client.open("f", FOR_READING).await;
    let data = client.read(&handle, 0, u32::MAX).await.data();
    assert_eq!(data.len(), 261_120);
    for _ in 1..256 {
        client.open("f", FOR_READING).await;
    }
    let fields = [Field::Text("f"), Field::U32(FOR_READING), Field::U32(0)];
    assert_eq!(client.ask(OPEN, &fields).await.status(), 4);
    assert_eq!(client.ask(OPENDIR, &[Field::Text(".")]).await.status(), 4);
    client.close(&handle).await;
    client.open("f", FOR_READING).await;
}

#[tokio::test]
async fn a_fifo_that_nobody_reads_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let mut client = Client::of_ours(directory.path()).await;
    let fields = [Field::Text("fifo"), Field::U32(FOR_WRITING), Field::U32(0)];
    assert_eq!(client.ask(OPEN, &fields).await.status(), 4);
    let fields = [Field::Text("d"), Field::U32(4), Field::U32(0o700)];
    assert_eq!(client.ask(MKDIR, &fields).await.status(), 0);
    let mode = fs::metadata(directory.path().join("d"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
}
