//! The same requests to our server and to OpenSSH's.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf as _, Bytes};

use crate::client::{
    APPEND, Answer, CLOSE, CREATE, Client, EXCLUSIVE, EXTENDED, FOR_READING, FOR_WRITING, FSETSTAT,
    FSTAT, Field, LSTAT, MKDIR, OPEN, OPENDIR, READ, READDIR, READLINK, REALPATH, REMOVE, RENAME,
    RMDIR, SETSTAT, STAT, SYMLINK, TRUNCATE, WRITE, string,
};

/// A request, with the handles that earlier ones gave by their place.
enum Step {
    /// Any request.
    Ask(u8, Vec<Field<'static>>),
    /// One about the handle of an earlier step that opened something.
    On(usize, u8, Vec<Field<'static>>),
    /// An extension that is about one.
    ExtendedOn(usize, &'static str, Vec<Field<'static>>),
}

fn path(kind: u8, path: &'static str) -> Step {
    Step::Ask(kind, vec![Field::Text(path)])
}

fn two(kind: u8, one: &'static str, other: &'static str) -> Step {
    Step::Ask(kind, vec![Field::Text(one), Field::Text(other)])
}

fn open(path: &'static str, flags: u32) -> Step {
    Step::Ask(
        OPEN,
        vec![Field::Text(path), Field::U32(flags), Field::U32(0)],
    )
}

fn mkdir(path: &'static str) -> Step {
    Step::Ask(MKDIR, vec![Field::Text(path), Field::U32(0)])
}

fn extended(name: &'static str, fields: &[Field<'static>]) -> Step {
    let mut all = vec![Field::Text(name)];
    all.extend_from_slice(fields);
    Step::Ask(EXTENDED, all)
}

fn chmod(path: &'static str, mode: u32) -> Step {
    Step::Ask(
        SETSTAT,
        vec![Field::Text(path), Field::U32(4), Field::U32(mode)],
    )
}

fn write(place: usize, offset: u64, data: &'static str) -> Step {
    Step::On(place, WRITE, vec![Field::U64(offset), Field::Text(data)])
}

fn read(place: usize, offset: u64, length: u32) -> Step {
    Step::On(place, READ, vec![Field::U64(offset), Field::U32(length)])
}

/// What is done in a directory with the file `f` (ten digits), the directory `d` with `x` in it, the links `l` to `f`,
/// `dangling` and `loop`.
fn steps() -> Vec<Step> {
    let mut steps = files();
    steps.extend(names());
    steps.extend(extensions());
    steps
}

fn files() -> Vec<Step> {
    vec![
        // 0..=4: handles.
        open("f", FOR_READING),
        open("f", FOR_READING | FOR_WRITING),
        open("new", FOR_WRITING | CREATE | EXCLUSIVE),
        open("f", FOR_WRITING | APPEND),
        path(OPENDIR, "d"),
        // Openings that fail.
        open("none", FOR_READING),
        open("none/x", FOR_READING),
        open("f/x", FOR_READING),
        open("new", FOR_WRITING | CREATE | EXCLUSIVE),
        open("d", FOR_WRITING),
        open("loop", FOR_READING),
        open("dangling", FOR_READING),
        open("", FOR_READING | FOR_WRITING),
        path(OPENDIR, "f"),
        path(OPENDIR, "none"),
        // Reading and writing.
        read(0, 0, 4),
        read(0, 8, 100),
        read(0, 10, 1),
        read(0, 1 << 40, 1),
        read(0, 0, 0),
        read(2, 0, 1),
        read(4, 0, 1),
        write(0, 0, "x"),
        write(1, 20, "far"),
        write(3, 0, "end"),
        read(0, 8, 100),
        write(2, 0, ""),
        Step::On(0, FSTAT, vec![]),
        Step::On(4, FSTAT, vec![]),
        Step::On(1, FSETSTAT, vec![Field::U32(1), Field::U64(5)]),
        Step::On(0, FSTAT, vec![]),
        Step::On(1, FSETSTAT, vec![Field::U32(4), Field::U32(0o600)]),
        Step::On(0, READDIR, vec![]),
        Step::On(4, READDIR, vec![]),
        Step::On(4, READDIR, vec![]),
        Step::On(4, CLOSE, vec![]),
        Step::On(2, CLOSE, vec![]),
        Step::Ask(
            READ,
            vec![Field::Text("none"), Field::U64(0), Field::U32(1)],
        ),
        Step::Ask(FSTAT, vec![Field::Text("")]),
        open("f", FOR_WRITING | TRUNCATE),
        path(STAT, "f"),
    ]
}

fn names() -> Vec<Step> {
    vec![
        path(STAT, "l"),
        path(LSTAT, "l"),
        path(STAT, "dangling"),
        path(LSTAT, "dangling"),
        path(STAT, "loop"),
        path(STAT, "none"),
        path(STAT, "f/x"),
        path(LSTAT, ""),
        path(READLINK, "l"),
        path(READLINK, "f"),
        path(READLINK, "none"),
        path(REALPATH, "."),
        path(REALPATH, "d/../l"),
        path(REALPATH, "none"),
        path(REALPATH, "none/none"),
        mkdir("e"),
        mkdir("e"),
        mkdir("none/e"),
        path(RMDIR, "d"),
        path(RMDIR, "f"),
        path(RMDIR, "none"),
        path(REMOVE, "d"),
        path(REMOVE, "none"),
        two(SYMLINK, "anything", "s"),
        two(SYMLINK, "anything", "s"),
        path(READLINK, "s"),
        two(RENAME, "f", "new"),
        two(RENAME, "none", "other"),
        two(RENAME, "f", "none/f"),
        two(RENAME, "f", "g"),
        path(STAT, "f"),
        path(STAT, "g"),
        two(RENAME, "e", "d"),
        two(RENAME, "e", "e2"),
        two(RENAME, "s", "s2"),
        path(LSTAT, "s2"),
        chmod("g", 0o4755),
        path(STAT, "g"),
        chmod("none", 0o644),
        Step::Ask(
            SETSTAT,
            vec![Field::Text("g"), Field::U32(1), Field::U64(3)],
        ),
        Step::Ask(
            SETSTAT,
            vec![Field::Text("d"), Field::U32(1), Field::U64(3)],
        ),
        Step::Ask(
            SETSTAT,
            vec![
                Field::Text("g"),
                Field::U32(8),
                Field::U32(100),
                Field::U32(200),
            ],
        ),
        path(STAT, "g"),
        path(REMOVE, "s2"),
        path(RMDIR, "e2"),
    ]
}

fn extensions() -> Vec<Step> {
    vec![
        extended(
            "posix-rename@openssh.com",
            &[Field::Text("g"), Field::Text("new")],
        ),
        extended(
            "posix-rename@openssh.com",
            &[Field::Text("none"), Field::Text("new")],
        ),
        extended(
            "posix-rename@openssh.com",
            &[Field::Text("new"), Field::Text("d")],
        ),
        extended(
            "hardlink@openssh.com",
            &[Field::Text("new"), Field::Text("h")],
        ),
        extended(
            "hardlink@openssh.com",
            &[Field::Text("new"), Field::Text("h")],
        ),
        extended(
            "hardlink@openssh.com",
            &[Field::Text("none"), Field::Text("h2")],
        ),
        path(STAT, "h"),
        extended(
            "lsetstat@openssh.com",
            &[Field::Text("l"), Field::U32(1), Field::U64(3)],
        ),
        extended(
            "lsetstat@openssh.com",
            &[
                Field::Text("l"),
                Field::U32(8),
                Field::U32(100),
                Field::U32(200),
            ],
        ),
        extended("expand-path@openssh.com", &[Field::Text("~")]),
        extended("expand-path@openssh.com", &[Field::Text("~/d/x")]),
        extended("expand-path@openssh.com", &[Field::Text("d/x")]),
        extended("no-such@openssh.com", &[]),
        Step::ExtendedOn(1, "fsync@openssh.com", vec![]),
        Step::ExtendedOn(4, "fsync@openssh.com", vec![]),
    ]
}

#[tokio::test]
async fn our_answers_are_those_of_openssh() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [&ours, &theirs] {
        furnish(directory.path());
    }
    let Some(mut openssh) = Client::of_openssh(theirs.path()).await else {
        eprintln!("SKIPPED: OpenSSH's sftp-server is not installed");
        return;
    };
    let mut client = Client::of_ours(ours.path()).await;
    let mut differences = String::new();
    let (mut our_handles, mut their_handles) = (Vec::new(), Vec::new());
    for (place, step) in steps().iter().enumerate() {
        let answer = within(place, perform(&mut client, step, &our_handles)).await;
        let expected = within(place, perform(&mut openssh, step, &their_handles)).await;
        for (answer, handles) in [(&answer, &mut our_handles), (&expected, &mut their_handles)] {
            if answer.kind == 102 {
                handles.push(answer.handle());
            }
        }
        let ours = normal(&answer, ours.path());
        let theirs = normal(&expected, theirs.path());
        if ours != theirs {
            let _ = writeln!(differences, "step {place}: {ours}, and OpenSSH {theirs}");
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// Waits for an answer that a server owes.
async fn within(place: usize, answer: impl Future<Output = Answer>) -> Answer {
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
    answer.unwrap_or_else(|_| panic!("no answer to step {place}"))
}

async fn perform(client: &mut Client, step: &Step, handles: &[Bytes]) -> Answer {
    match step {
        Step::Ask(kind, fields) => client.ask(*kind, fields).await,
        Step::On(place, kind, fields) => {
            let mut all = vec![Field::Bytes(&handles[*place])];
            all.extend_from_slice(fields);
            client.ask(*kind, &all).await
        }
        Step::ExtendedOn(place, name, fields) => {
            let mut all = vec![Field::Text(name), Field::Bytes(&handles[*place])];
            all.extend_from_slice(fields);
            client.ask(EXTENDED, &all).await
        }
    }
}

/// An answer without what differs between two directories and two moments.
fn normal(answer: &Answer, directory: &Path) -> String {
    let real = directory.canonicalize().unwrap();
    let real = real.to_str().unwrap();
    match answer.kind {
        101 => {
            let mut body = answer.body.clone();
            let code = body.get_u32();
            format!("status {code} {:?}", string(&mut body))
        }
        102 => "a handle".to_owned(),
        103 => format!("data {:?}", answer.data()),
        104 => {
            let mut names: Vec<_> = answer
                .names()
                .into_iter()
                .map(|(name, line, attributes)| {
                    let name = String::from_utf8_lossy(&name).replace(real, "DIR");
                    let line = String::from_utf8_lossy(&line).replace(real, "DIR");
                    // The parent directory changes with the other tests.
                    let size = if attributes.mode & 0o40_000 == 0 {
                        attributes.size
                    } else {
                        0
                    };
                    let line = if name == ".." { String::new() } else { line };
                    format!(
                        "{name} {line:?} {} {size} {:o}",
                        attributes.flags, attributes.mode
                    )
                })
                .collect();
            names.sort();
            names.join("\n")
        }
        105 => {
            let attributes = answer.attributes();
            let set = attributes.times == (100, 200);
            let mode = attributes.mode;
            format!(
                "{} {} {mode:o} {:?} {set}",
                attributes.flags, attributes.size, attributes.owner
            )
        }
        kind => format!("{kind} {:?}", answer.body),
    }
}

fn furnish(directory: &Path) {
    std::fs::write(directory.join("f"), "0123456789").unwrap();
    std::fs::create_dir(directory.join("d")).unwrap();
    std::fs::write(directory.join("d/x"), "").unwrap();
    for (target, link) in [("f", "l"), ("nothing", "dangling"), ("loop", "loop")] {
        std::os::unix::fs::symlink(target, directory.join(link)).unwrap();
    }
}
