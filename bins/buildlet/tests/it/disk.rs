//! A disk that is full.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::files::names;
use super::support::Served;

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_nothing_is_left_of_the_upload() {
    let dir = tempfile::tempdir().unwrap();
    let work = dir.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let Some(_mounted) = SmallDisk::mount(&work) else {
        eprintln!("skipped: only root can mount a small disk");
        return;
    };
    let served = Served::start_in(dir, |_| {}).await;
    let large = vec![7; 8 << 20];

    let written = served
        .ask("PUT", "/write?path=large&mode=420", &large)
        .await;
    let unpacked = served.ask("PUT", "/writetgz?dir=d", tgz(&large)).await;
    for reply in [written, unpacked] {
        assert_eq!(reply.status, 507, "{reply:?}");
        assert!(
            reply.text().starts_with("the machine's disk is full: "),
            "{reply:?}"
        );
    }
    assert_eq!(names(&served), [""; 0]);
    let small = served.ask("PUT", "/write?path=small&mode=420", "x").await;
    assert_eq!(small.status, 200, "there is room again");
}

/// A file system of 4 MiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "none"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mount
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the machine may still hold the directory.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn tgz(content: &[u8]) -> Vec<u8> {
    let mut tar = vec![0; 512];
    tar[..5].copy_from_slice(b"large");
    tar[100..108].copy_from_slice(b"0000644\0");
    tar[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    tar[148..156].fill(b' ');
    tar[156] = b'0';
    let sum: u32 = tar.iter().map(|&byte| u32::from(byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(content);
    tar.resize(tar.len() + 1024, 0);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    gzip.finish().unwrap()
}
