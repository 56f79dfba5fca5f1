//! `/tgz` and `/writetgz`.

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::files::names;
use super::support::Served;

/// An entry of ustar with any name, type and link.
fn entry(name: &str, flag: u8, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
    header[100..108].copy_from_slice(b"0000755\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"77777777777\0");
    header[148..156].fill(b' ');
    header[156] = flag;
    header[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let padding = content.len().next_multiple_of(512) - content.len();
    [header.as_slice(), content, &vec![0; padding]].concat()
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(name, b'0', "", content.as_bytes())
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

fn tgz(entries: &[Vec<u8>]) -> Vec<u8> {
    gzip(&[entries.concat(), vec![0; 1024]].concat())
}

#[tokio::test]
async fn a_tree_goes_out_and_comes_back() {
    let served = Served::start().await;
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    for (path, content) in [
        ("from/a/x", "x"),
        (&format!("from/{long}"), "long"),
        ("from/empty", ""),
    ] {
        served
            .ask("PUT", &format!("/write?path={path}&mode=493"), content)
            .await;
    }
    symlink("a/x", served.work().join("from/link")).unwrap();
    let reply = served.ask("GET", "/tgz?dir=from", "").await;
    assert_eq!(
        reply.header("content-type").as_deref(),
        Some("application/x-gzip")
    );
    assert_eq!(reply.header("content-encoding"), None);
    assert!(reply.complete);

    let written = served
        .ask("PUT", "/writetgz?dir=to/there", &reply.body)
        .await;
    assert_eq!((written.status, written.text().as_str()), (200, "OK"));
    let to = served.work().join("to/there");
    assert_eq!(std::fs::read_to_string(to.join(&long)).unwrap(), "long");
    assert_eq!(std::fs::read_to_string(to.join("link")).unwrap(), "x");
    assert_eq!(
        to.join("a/x").metadata().unwrap().permissions().mode() & 0o7777,
        0o755
    );
    let age = |path: &str| {
        served
            .work()
            .join(path)
            .metadata()
            .unwrap()
            .modified()
            .unwrap()
    };
    let second = |time: std::time::SystemTime| {
        time.duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs()
    };
    assert_eq!(second(age("from/a/x")), second(age("to/there/a/x")));
    assert_eq!(names(&served), ["from", "to"]);
}

#[tokio::test]
async fn one_file_is_an_archive_without_names_and_holes() {
    let served = Served::start().await;
    std::fs::create_dir(served.work().join("d")).unwrap();
    let path = served.work().join("d/holes");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    for target in ["/tgz?dir=d/holes", "/tgz?dir=d/holes&pargzip=0"] {
        let reply = served.ask("GET", target, "").await;
        assert!((reply.status, reply.complete) == (200, true), "{target}");
        let mut tar = Vec::new();
        let mut gzip = MultiGzDecoder::new(reply.body.as_slice());
        gzip.read_to_end(&mut tar).unwrap();
        assert_eq!((&tar[..8], tar[156]), (&[0; 8][..], b'0'));
        assert_eq!(tar.len(), 512 + (1 << 20) + 1024, "{target}");
    }
    symlink("holes", served.work().join("d/link")).unwrap();
    for target in ["/tgz?dir=d/link", "/tgz?dir=d/none", "/tgz?dir=d/holes/x"] {
        assert_eq!(served.ask("GET", target, "").await.status, 500, "{target}");
    }
}

#[tokio::test]
async fn an_archive_is_merged_into_what_is_there() {
    let served = Served::start().await;
    served.ask("PUT", "/write?path=d/old&mode=420", "old").await;
    served
        .ask("PUT", "/write?path=d/both&mode=420", "old")
        .await;
    let archive = tgz(&[
        entry(
            "pax_global_header",
            b'g',
            "",
            b"52 comment=0123456789012345678901234567890123456789\n",
        ),
        file("both", "new"),
        file("sub/new", "new"),
    ]);
    assert_eq!(
        served.ask("PUT", "/writetgz?dir=d", archive).await.status,
        200
    );
    for (path, content) in [("old", "old"), ("both", "new"), ("sub/new", "new")] {
        assert_eq!(
            std::fs::read_to_string(served.work().join("d").join(path)).unwrap(),
            content,
            "{path}"
        );
    }
    let modified = served
        .work()
        .join("d/both")
        .metadata()
        .unwrap()
        .modified()
        .unwrap();
    assert!(
        modified <= std::time::SystemTime::now(),
        "a time ahead is not kept"
    );
}

#[tokio::test]
async fn several_gzip_members_are_one_archive() {
    let served = Served::start().await;
    let tar = [file("a", &"a".repeat(3000)), vec![0; 1024]].concat();
    let members: Vec<u8> = tar.chunks(700).flat_map(gzip).collect();
    assert_eq!(served.ask("PUT", "/writetgz", members).await.status, 200);
    assert_eq!(served.work().join("a").metadata().unwrap().len(), 3000);
}

#[tokio::test]
async fn a_bad_archive_is_400_and_leaves_nothing() {
    let served = Served::start().await;
    let good = tgz(&[file("a", "x"), file("b", &"y".repeat(100_000))]);
    let mut flipped = good.clone();
    let middle = flipped.len() - 6;
    flipped[middle] ^= 0xff;
    let long = "n".repeat(99);
    for (archive, text) in [
        (Vec::new(), "requires gzip-compressed body: "),
        (
            b"hello, this is not gzip".to_vec(),
            "requires gzip-compressed body: ",
        ),
        (good[..good.len() / 2].to_vec(), "tar error: "),
        (good[..good.len() - 1].to_vec(), "tar error: "),
        (flipped, "tar error: "),
        (gzip(b"not a tar archive"), "tar error: "),
        (gzip(&file("a", "x")[..700]), "tar error: "),
        (
            tgz(&[file("a", "x"), file("../b", "x")]),
            "tar file contained invalid name \"../b\"",
        ),
        (
            tgz(&[file("a", "x"), file("/b", "x")]),
            "tar file contained invalid name \"/b\"",
        ),
        (
            tgz(&[file("a", "x"), file("x/../../b", "x")]),
            "tar file contained invalid name ",
        ),
        (
            tgz(&[file("a", "x"), file("b\\c", "x")]),
            "tar file contained invalid name ",
        ),
        (
            tgz(&[file("a", "x"), entry("dev", b'3', "", b"")]),
            "tar file entry dev contained unsupported file type '3'",
        ),
        (
            tgz(&[file("a", "x"), entry(&long, b'6', "", b"")]),
            "tar file entry ",
        ),
    ] {
        let reply = served.ask("PUT", "/writetgz?dir=d", archive).await;
        assert_eq!(reply.status, 400, "{text} {reply:?}");
        assert!(reply.text().starts_with(text), "{text} {reply:?}");
        assert_eq!(names(&served), [""; 0], "{text}");
    }
}

#[tokio::test]
async fn links_of_an_archive_do_not_lead_out() {
    let served = Served::start().await;
    std::fs::write(served.outside().join("secret"), "kept").unwrap();
    let archive = tgz(&[
        entry("out", b'2', "..", b""),
        file("out/planted", "x"),
        entry("absolute", b'2', "/tmp", b""),
        entry("sub/up", b'2', "../inside", b""),
        entry("sub/far", b'2', "../../secret", b""),
        file("inside", "x"),
        entry("hard", b'1', "inside", b""),
    ]);
    let reply = served.ask("PUT", "/writetgz", archive).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!served.outside().join("planted").exists());
    assert_eq!(names(&served), ["hard", "inside", "out", "sub"]);
    assert_eq!(
        std::fs::read_to_string(served.work().join("sub/up")).unwrap(),
        "x"
    );
    assert!(!served.work().join("sub/far").exists());

    for target in ["../secret", "/etc/passwd", "nothing"] {
        let reply = served
            .ask(
                "PUT",
                "/writetgz?dir=n",
                tgz(&[entry("h", b'1', target, b"")]),
            )
            .await;
        assert_ne!(reply.status, 200, "{target}");
        assert!(!served.work().join("n").exists(), "{target}");
    }
}

#[tokio::test]
async fn an_archive_goes_around_a_link_that_leads_out() {
    let served = Served::start().await;
    symlink("..", served.work().join("out")).unwrap();
    let reply = served
        .ask("PUT", "/writetgz?dir=out", tgz(&[file("planted", "x")]))
        .await;
    assert_eq!(reply.status, 500);
    let reply = served
        .ask("PUT", "/writetgz", tgz(&[file("out/planted", "x")]))
        .await;
    assert_eq!(reply.status, 500);
    assert!(!served.outside().join("planted").exists());
    assert_eq!(served.ask("GET", "/tgz?dir=out", "").await.status, 500);
    assert_eq!(names(&served), ["out"]);
}

#[tokio::test]
async fn holes_of_files_stay_holes() {
    const SIZE: u64 = 64 << 20;
    let served = Served::start().await;
    std::fs::create_dir(served.work().join("from")).unwrap();
    let made = std::fs::File::create(served.work().join("from/sparse")).unwrap();
    made.set_len(SIZE).unwrap();
    for (offset, text) in [(0, "head"), (SIZE / 2, "middle"), (SIZE - 4, "tail")] {
        made.write_all_at(text.as_bytes(), offset).unwrap();
    }
    std::fs::File::create(served.work().join("from/empty"))
        .unwrap()
        .set_len(SIZE)
        .unwrap();
    let reply = served.ask("GET", "/tgz?dir=from", "").await;
    assert!(
        reply.complete && reply.body.len() < 1 << 20,
        "{}",
        reply.body.len()
    );
    let written = served.ask("PUT", "/writetgz?dir=to", &reply.body).await;
    assert_eq!(written.text(), "OK");
    for name in ["sparse", "empty"] {
        let metadata = served.work().join("to").join(name).metadata().unwrap();
        assert_eq!(metadata.len(), SIZE, "{name}");
        assert!(
            metadata.blocks() * 512 < 1 << 20,
            "{name}: {}",
            metadata.blocks()
        );
    }
    let to = std::fs::File::open(served.work().join("to/sparse")).unwrap();
    for (offset, text) in [
        (0, "head"),
        (4, "\0"),
        (SIZE / 2, "middle"),
        (SIZE - 4, "tail"),
    ] {
        let mut read = vec![0; text.len()];
        to.read_exact_at(&mut read, offset).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), text);
    }

    let dir = served.outside();
    gnu_tar(dir, &["-x", "-f", "-"], Some(&gunzip(&reply.body)));
    let same = std::process::Command::new("cmp")
        .arg(dir.join("sparse"))
        .arg(served.work().join("from/sparse"))
        .status();
    assert!(same.unwrap().success(), "GNU tar reads what we write");
}

#[tokio::test]
async fn sparse_files_are_read_as_gnu_tar_has_ever_written_them() {
    let served = Served::start().await;
    let made = std::fs::File::create(served.outside().join("sparse")).unwrap();
    made.set_len(8 << 20).unwrap();
    // More pieces than a header of the old format holds.
    for piece in 0..40 {
        made.write_all_at(b"piece", piece * 200_000).unwrap();
    }
    let original = std::fs::read(served.outside().join("sparse")).unwrap();
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let args = [format, &["-c", "-S", "-f", "-", "sparse"]].concat();
        let tar = gnu_tar(served.outside(), &args, None);
        assert!(tar.len() < 1 << 20, "{format:?}: {}", tar.len());
        let reply = served.ask("PUT", "/writetgz?dir=d", gzip(&tar)).await;
        assert_eq!(reply.text(), "OK", "{format:?}");
        let read = std::fs::read(served.work().join("d/sparse")).unwrap();
        assert!(read == original, "{format:?}");
    }
}

#[tokio::test]
async fn a_file_with_two_names_stays_one() {
    let served = Served::start().await;
    let long = "n".repeat(150);
    served
        .ask("PUT", &format!("/write?path=from/{long}&mode=420"), "x")
        .await;
    std::fs::hard_link(
        served.work().join("from").join(&long),
        served.work().join("from/z"),
    )
    .unwrap();
    let reply = served.ask("GET", "/tgz?dir=from", "").await;
    let written = served.ask("PUT", "/writetgz?dir=to", &reply.body).await;
    assert_eq!(written.text(), "OK");
    let number = |name: &str| {
        let metadata = served.work().join("to").join(name).metadata().unwrap();
        (metadata.ino(), metadata.nlink())
    };
    assert_eq!(number(&long), number("z"));
    assert_eq!(number("z").1, 2);
}

/// Runs the system's tar in `dir`, and gives its output.
fn gnu_tar(dir: &std::path::Path, args: &[&str], input: Option<&[u8]>) -> Vec<u8> {
    let mut child = std::process::Command::new("tar")
        .args(args)
        .current_dir(dir)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.unwrap_or_default()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}");
    output.stdout
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn an_archive_is_one_member_for_who_asks_for_that() {
    let served = Served::start().await;
    let noise: Vec<u8> = (0..600_000).map(|_| rand::random()).collect();
    served.ask("PUT", "/write?path=t/f&mode=420", noise).await;
    let first_member = |archive: &[u8]| {
        let mut plain = Vec::new();
        let mut one = flate2::read::GzDecoder::new(archive);
        one.read_to_end(&mut plain).unwrap();
        plain
    };
    let many = served.ask("GET", "/tgz?dir=t", "").await.body;
    let one = served.ask("GET", "/tgz?dir=t&pargzip=0", "").await.body;
    assert!(first_member(&many).len() < gunzip(&many).len());
    assert_eq!(first_member(&one), gunzip(&many));
}

#[tokio::test]
async fn system_tar_reads_what_we_write() {
    let served = Served::start().await;
    served
        .ask("PUT", "/write?path=t/a/b&mode=420", "hello")
        .await;
    let reply = served.ask("GET", "/tgz?dir=t", "").await;
    let listed = gnu_tar(served.outside(), &["tf", "-"], Some(&gunzip(&reply.body)));
    assert_eq!(String::from_utf8(listed).unwrap(), "a/\na/b\n");
}
