//! An archive of any bytes, given to a machine: nothing outside the work directory changes, nothing unfinished stays, and
//! what it takes it can give again. The first byte says what the rest is: gzip, or a tar archive, whose headers get the
//! right checksum on every other value, as no random one has it.

#![no_main]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::path::Path;

use buildlet::{JobSettings, Machine, Supervisor};
use buildlet_proto::api::ListRequest;
use buildlet_proto::{Buildlet, RelPath};
use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

/// A machine, and what lies around its work directory.
struct World {
    dir: TempDir,
    machine: Machine,
    runtime: Runtime,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new());
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let archive = match kind % 4 {
        0 => rest.to_vec(),
        1 => gzip(rest),
        _ => gzip(&with_checksums(rest)),
    };
    let dir = if kind & 0x80 == 0 { "." } else { "a/b" };
    WORLD.with_borrow(|world| world.unpack(dir, archive));
});

impl World {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            TempDir::new_in(memory)
        } else {
            TempDir::new()
        };
        let dir = dir.expect("a directory");
        for name in ["work", "outside"] {
            std::fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        std::fs::write(dir.path().join("outside/file"), SENTINEL).expect("a file");
        let jobs = JobSettings::new(Supervisor::at("/none"), dir.path().join("jobs"));
        let machine = Machine::without_ssh(&dir.path().join("work"), jobs).expect("a machine");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self {
            dir,
            machine,
            runtime: runtime.expect("a runtime"),
        }
    }

    fn unpack(&self, dir: &str, archive: Vec<u8>) {
        let dir = RelPath::new(dir).expect("a path");
        let archive = Box::pin(std::io::Cursor::new(archive));
        let unpacked = self
            .runtime
            .block_on(self.machine.write_tgz(dir.clone(), archive));
        self.check_outside();
        match unpacked {
            Ok(()) => {
                let first = self.listing(".");
                assert!(!first.contains(".buildlet-"), "left behind: {first}");
                self.repack(&dir);
            }
            Err(error) => {
                assert_eq!(self.listing("."), "", "{error} leaves something");
                assert_ne!(error.status().status().as_u16(), 500, "{error}");
            }
        }
        let emptied = self.machine.remove_all(vec![RelPath::ROOT]);
        self.runtime
            .block_on(emptied)
            .expect("the directory can be emptied");
        self.check_outside();
    }

    /// What was unpacked is packed, unpacked beside it, and the same.
    fn repack(&self, dir: &RelPath) {
        let mut archive = Vec::new();
        self.runtime.block_on(async {
            let mut reader = self
                .machine
                .read_tgz(dir.clone())
                .await
                .expect("a directory");
            reader
                .read_to_end(&mut archive)
                .await
                .expect("it can be packed");
        });
        let again = RelPath::new("again/c").expect("a path");
        let archive = Box::pin(std::io::Cursor::new(archive));
        let before = self.listing(dir.as_str());
        let unpacked = self
            .runtime
            .block_on(self.machine.write_tgz(again, archive));
        unpacked.expect("an archive of our own");
        // Links that lead up from where they were may lead out from there, and are then left out.
        if !before.lines().any(|line| line.starts_with('L')) && !before.contains("again") {
            assert_eq!(self.listing("again/c"), before);
        }
    }

    fn listing(&self, dir: &str) -> String {
        let mut list = ListRequest::new(RelPath::new(dir).expect("a path"));
        list.recursive = true;
        let mut lines = String::new();
        self.runtime.block_on(async {
            let mut reader = self.machine.list(list).await.expect("a directory");
            reader
                .read_to_string(&mut lines)
                .await
                .expect("it can be listed");
        });
        lines
    }

    fn check_outside(&self) {
        let mut names: Vec<_> = std::fs::read_dir(self.dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["jobs", "outside", "work"]);
        let outside = self.dir.path().join("outside");
        assert_eq!(std::fs::read_dir(&outside).expect("a directory").count(), 1);
        let mut file = std::fs::File::open(outside.join("file")).expect("a file");
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("it can be read");
        assert_eq!(content, SENTINEL);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(bytes).expect("memory takes it");
    gzip.finish().expect("memory takes it")
}

/// Gives each block that says it is a header the sum that a header has.
fn with_checksums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    // The end need not be in the input.
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    for block in tar.chunks_exact_mut(512) {
        if block[257..262] != *b"ustar" {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    tar
}

const SENTINEL: &[u8] = b"not yours";
