//! `/tgz` and `/writetgz` of a tree against `tar` and `gzip` on this machine.
//!
//! The tree has as many small files as a source tree and some large ones, and is as compressible as text. Each pair is timed
//! in turn, several rounds, and what counts is the median of the ratios, above 1 where the buildlet is faster.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use buildlet::{JobSettings, Machine, Supervisor};
use buildlet_proto::{Buildlet, RelPath};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How many times faster than `tar` and `gzip`.
pub(crate) struct Ratios {
    pub(crate) pack: f64,
    pub(crate) unpack: f64,
}

pub(crate) async fn measure(mebibytes: u64, rounds: usize) -> anyhow::Result<Ratios> {
    let dir = tempfile::tempdir()?;
    let work = dir.path().join("work");
    let files = make_tree(&work.join("tree"), mebibytes)?;
    eprintln!("a tree of {mebibytes} MiB in {files} files, {rounds} rounds");
    let jobs = JobSettings::new(Supervisor::this_program()?, dir.path().join("jobs"));
    let machine = Machine::without_ssh(&work, jobs)?;
    let archive = dir.path().join("tree.tgz");

    let (mut packing, mut unpacking) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let began = Instant::now();
        pack(&machine, &archive).await?;
        let ours = began.elapsed();
        let theirs = shell(
            "tar -C \"$1/work/tree\" -c . | gzip -1 >\"$1/their.tgz\"",
            dir.path(),
        )?;
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        eprintln!("{round}: /tgz {ours:.2?}, tar c | gzip -1 {theirs:.2?}: {ratio:.2}");
        packing.push(ratio);

        let began = Instant::now();
        unpack(&machine, &archive).await?;
        let ours = began.elapsed();
        let theirs = shell(
            "mkdir \"$1/work/their\" && gzip -d <\"$1/their.tgz\" | tar -C \"$1/work/their\" -x",
            dir.path(),
        )?;
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        eprintln!("{round}: /writetgz {ours:.2?}, gzip -d | tar x {theirs:.2?}: {ratio:.2}");
        unpacking.push(ratio);
        for made in ["ours", "their"] {
            std::fs::remove_dir_all(work.join(made)).with_context(|| format!("removing {made}"))?;
        }
    }
    Ok(Ratios {
        pack: median(&mut packing),
        unpack: median(&mut unpacking),
    })
}

async fn pack(machine: &Machine, archive: &Path) -> anyhow::Result<()> {
    let mut bytes = machine.read_tgz(RelPath::new("tree")?).await?;
    let mut file = tokio::fs::File::create(archive).await?;
    tokio::io::copy(&mut bytes, &mut file).await?;
    Ok(())
}

async fn unpack(machine: &Machine, archive: &Path) -> anyhow::Result<()> {
    let file =
        tokio::io::BufReader::with_capacity(256 * 1024, tokio::fs::File::open(archive).await?);
    Ok(machine
        .write_tgz(RelPath::new("ours")?, Box::pin(file))
        .await?)
}

/// Three quarters of the bytes in files of 1 to 32 KiB, forty in each directory, the rest in files of 8 MiB.
pub(crate) fn make_tree(root: &Path, mebibytes: u64) -> anyhow::Result<usize> {
    let mut random = StdRng::seed_from_u64(1);
    let words: Vec<String> = (0..4000)
        .map(|_| {
            (0..random.random_range(2..10))
                .map(|_| char::from(random.random_range(b'a'..=b'z')))
                .collect()
        })
        .collect();
    let total = mebibytes << 20;
    let (mut made, mut files) = (0_u64, 0_usize);
    while made < total {
        let length = if made < total * 3 / 4 {
            random.random_range(1 << 10..32 << 10)
        } else {
            8 << 20
        };
        let dir = root.join(format!("d{}/e{}", files / 1600, files / 40));
        std::fs::create_dir_all(&dir)?;
        let mut file = BufWriter::new(File::create(dir.join(format!("f{files}")))?);
        let mut left: u64 = length;
        while left > 0 {
            let word = &words[random.random_range(0..words.len())];
            let end = if random.random_range(0..10) == 0 {
                "\n"
            } else {
                " "
            };
            file.write_all(word.as_bytes())?;
            file.write_all(end.as_bytes())?;
            left = left.saturating_sub(word.len() as u64 + 1);
        }
        file.flush()?;
        made += length;
        files += 1;
    }
    Ok(files)
}

fn shell(script: &str, dir: &Path) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let status = Command::new("sh")
        .args(["-ec", script, "sh"])
        .arg(dir)
        .status()?;
    ensure!(status.success(), "{script}: {status}");
    Ok(began.elapsed())
}

fn median(ratios: &mut [f64]) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}
