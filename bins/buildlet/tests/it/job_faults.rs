//! Jobs under everything that breaks: connections, clients, disks, readers, numbers.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use buildlet_proto::client::{Client, JobEvent};
use buildlet_proto::jobs::frame::Stream;
use buildlet_proto::jobs::{Job, JobState, OutputRequest};
use rand::RngExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::files::wait_for;
use super::jobs::{eventually, frames, path, processes};
use super::support::{AUTHORIZATION, Served, exec_request};

#[tokio::test]
async fn output_that_is_cut_a_hundred_times_is_equal_byte_for_byte() {
    let served = Served::start().await;
    let script = "i=0; while test $i -lt 60; do head -c 20000 /dev/urandom | tee -a out; \
                  head -c 7000 /dev/urandom | tee -a err >&2; i=$((i+1)); done; exit 5";
    let job = served.job(json!({"shell": script})).await;
    let proxy = CuttingProxy::start(served.address()).await;
    let address = proxy.address;
    let client = Client::new(move || TcpStream::connect(address)).with_password("secret");
    let mut output = client.follow_job(job.id, OutputRequest::following(0, 0));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = loop {
        match output.next().await.unwrap() {
            JobEvent::Data { stream, bytes, .. } => match stream {
                Stream::Stdout => stdout.extend(bytes),
                Stream::Stderr => stderr.extend(bytes),
            },
            JobEvent::End(job) => break job,
            JobEvent::Retrying { .. } => {}
            event @ (JobEvent::Gap { .. } | _) => panic!("{event:?}"),
        }
    };
    assert_eq!(end.end.unwrap().code, Some(5));
    let file = |name| std::fs::read(served.work().join(name)).unwrap();
    assert!(stdout == file("out") && stderr == file("err"));
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    println!("{cuts} cuts in {} bytes", stdout.len() + stderr.len());
    assert!(cuts >= 100, "{cuts}");
}

/// Passes bytes on, and cuts each connection after a random number of them.
struct CuttingProxy {
    address: SocketAddr,
    cuts: Arc<AtomicU32>,
    _serving: AbortOnDropHandle<()>,
}

impl CuttingProxy {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::<AtomicU32>::default();
        let counter = cuts.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let counter = counter.clone();
                // The head of a reply has some two hundred bytes; some connections are cut in it.
                let allowed = rand::rng().random_range(100..25_000);
                connections.spawn(async move {
                    let far = TcpStream::connect(target).await?;
                    let (mut from_far, mut to_far) = far.into_split();
                    let (mut from_near, mut to_near) = near.split();
                    let mut reply = (&mut from_far).take(allowed);
                    tokio::select! {
                        _ = tokio::io::copy(&mut from_near, &mut to_far) => {}
                        copied = tokio::io::copy(&mut reply, &mut to_near) => {
                            if copied? == allowed {
                                counter.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    io::Result::Ok(())
                });
            }
        });
        Self {
            address,
            cuts,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

#[tokio::test]
async fn a_client_may_leave_at_every_stage() {
    let served = Served::start().await;
    let body = r#"{"shell":"echo hello; exec sleep 9201","stdin":"pipe"}"#;
    let request = format!(
        "POST /jobs HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\n{body}",
        body.len()
    );
    // In the middle of a request: nothing is started.
    for cut in (0..request.len()).step_by(7) {
        let mut tcp = served.connect().await;
        tcp.write_all(&request.as_bytes()[..cut]).await.unwrap();
    }
    let exec = exec_request("exec sleep 9202");
    for cut in (0..exec.len()).step_by(7) {
        let mut tcp = served.connect().await;
        tcp.write_all(&exec[..cut]).await.unwrap();
    }
    let list = served.ask("GET", "/jobs", "").await;
    assert_eq!(list.text(), "[]\n");
    assert_eq!(processes("sleep 9201") + processes("sleep 9202"), 0);

    // In the middle of a reply: the job does not care.
    let job = served.job(serde_json::from_str(body).unwrap()).await;
    for (target, length) in [
        ("/output?follow=1", 0),
        ("/output?follow=1", 160),
        ("/output", 10),
        ("/stdin", 0),
        ("", 20),
    ] {
        let method = if target == "/stdin" { "POST" } else { "GET" };
        let mut tcp = served.connect().await;
        let request = format!(
            "{method} {} HTTP/1.1\r\nHost: \r\nContent-Length: 9\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\nabc",
            path(&job, target)
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut read = vec![0; length];
        tcp.read_exact(&mut read).await.unwrap();
    }
    let told = served.tell(&job).await;
    assert_eq!(told.state, JobState::Running);
    served.ask("DELETE", &path(&job, ""), "").await;
    assert_eq!(processes("sleep 9201"), 0);
}

#[tokio::test]
async fn an_upload_that_is_cut_anywhere_leaves_nothing() {
    let served = Served::start().await;
    let made = served.ask("PUT", "/write?path=d/f&mode=420", "hello").await;
    assert_eq!(made.status, 200);
    let archive = served.ask("GET", "/tgz?dir=d", "").await.body;
    served.ask("POST", "/removeall", "path=.").await;
    for target in ["/write?path=a/file&mode=420", "/writetgz?dir=a/dir"] {
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\n",
            archive.len()
        );
        let request = [head.as_bytes(), &archive].concat();
        for cut in 0..request.len() {
            let mut tcp = served.connect().await;
            tcp.write_all(&request[..cut]).await.unwrap();
            // Half of the clients say that they leave, and hear what comes of it.
            if cut % 2 == 0 {
                tcp.shutdown().await.unwrap();
                let mut reply = Vec::new();
                tcp.read_to_end(&mut reply).await.unwrap();
                assert!(!reply.starts_with(b"HTTP/1.1 200"), "{target} {cut}");
            }
        }
        wait_for("nothing is left", || leaves(&served.work()) == 0).await;
        let mut tcp = served.connect().await;
        tcp.write_all(&request).await.unwrap();
        let mut reply = [0; 12];
        tcp.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"HTTP/1.1 200");
        served.ask("POST", "/removeall", "path=.").await;
    }
}

/// Counts what is no directory below `dir`, and what is not finished.
fn leaves(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let count = entries.map(|entry| {
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(".buildlet");
        if entry.file_type().unwrap().is_dir() && !is_unfinished {
            leaves(&entry.path())
        } else {
            1
        }
    });
    count.sum()
}

#[tokio::test]
async fn ten_thousand_jobs_are_listed() {
    let served = Served::start_with(|jobs| jobs.limits.keep_jobs = 10_000).await;
    let body = r#"{"argv":["nonesuch"]}"#;
    let request = format!(
        "POST /jobs HTTP/1.1\r\nHost: \r\nContent-Length: {}\r\nAuthorization: Basic {AUTHORIZATION}\r\n\r\n{body}",
        body.len()
    );
    let hundred = request.repeat(100);
    let mut tcp = served.connect().await;
    let mut seen = 0;
    let mut reply = vec![0; 64 * 1024];
    while seen < 10_000 {
        tcp.write_all(hundred.as_bytes()).await.unwrap();
        let until = seen + 100;
        let mut text = Vec::new();
        while seen + count(&text, b"HTTP/1.1 201 Created") < until || !text.ends_with(b"}") {
            let length = tcp.read(&mut reply).await.unwrap();
            assert_ne!(length, 0);
            text.extend_from_slice(&reply[..length]);
        }
        seen = until;
    }
    let list = served.ask("GET", "/jobs", "").await;
    assert!(list.complete);
    let jobs: Vec<Job> = serde_json::from_slice(&list.body).unwrap();
    assert_eq!(jobs.len(), 10_000);
    assert!(jobs.is_sorted_by_key(|job| job.about.started));
}

fn count(text: &[u8], needle: &[u8]) -> usize {
    text.windows(needle.len())
        .filter(|window| *window == needle)
        .count()
}

#[tokio::test]
async fn a_full_disk_is_a_gap_and_the_job_goes_on() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: only root can mount a small disk");
        return;
    };
    let output_dir = disk.path().join("jobs");
    let served = Served::start_with(|jobs| jobs.output_dir = output_dir).await;
    let script = "head -c 1000000 /dev/zero; echo full >&2; touch full; \
                  while ! test -e go; do sleep 0.01; done; echo more";
    let job = served.job(json!({"shell": script})).await;
    wait_for("the disk is full", || served.work().join("full").exists()).await;
    eventually("all was read", async || {
        (served.tell(&job).await.stdout.end == 1_000_000).then_some(())
    })
    .await;
    disk.make_room();
    std::fs::write(served.work().join("go"), "").unwrap();
    let reply = served.ask("GET", &path(&job, "/output?follow=1"), "").await;
    let end = frames(&reply).end.unwrap();
    assert!(end.end.unwrap().process_state.is_ok());
    assert_eq!(end.stdout.end, 1_000_005);
    let [(start, gone)] = end.stdout.gaps[..] else {
        panic!("{:?}", end.stdout)
    };
    assert!(start > 0 && gone == 1_000_000, "{:?}", end.stdout);
    assert!(frames(&reply).stdout().ends_with("~more\n"));
    served.ask("DELETE", &path(&job, ""), "").await;
}

/// A disk of 256 KiB, of which half is taken.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(dir.path())
            .output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            return None;
        }
        let disk = Self(dir);
        std::fs::write(disk.path().join("ballast"), vec![1; 128 * 1024]).unwrap();
        Some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.path())
            .status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// Prints how much memory it takes. Run it with `--release -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "moves a gibibyte"]
async fn a_gibibyte_for_a_slow_reader_takes_little_memory() {
    const GIB: u64 = 1 << 30;
    let served = Served::start_with(|jobs| jobs.limits.keep_output = 3 * GIB).await;
    let before = memory();
    let began = Instant::now();
    let request = json!({"shell": "head -c 1073741824 /dev/zero", "output_limit": 2 * GIB});
    let job = served.job(request).await;
    let address = served.address();
    let client = Client::new(move || TcpStream::connect(address)).with_password("secret");
    let mut output = client.follow_job(job.id, OutputRequest::following(0, 0));
    let mut most = before;
    let (read, written) = loop {
        let event = output.next().await.unwrap();
        most = most.max(memory());
        match event {
            JobEvent::Data { offset, bytes, .. } => {
                // Slower than any writer, until the writer has finished.
                if offset < GIB / 16 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                assert!(bytes.iter().all(|byte| *byte == 0));
            }
            JobEvent::End(job) => break (output.position().stdout, job.stdout.end),
            event @ (JobEvent::Gap { .. } | JobEvent::Retrying { .. } | _) => panic!("{event:?}"),
        }
    };
    assert_eq!((read, written), (GIB, GIB));
    println!(
        "1 GiB in {:.1} s; memory grew from {before} to at most {most} KiB",
        began.elapsed().as_secs_f64()
    );
    assert!(most - before < 32 * 1024, "{before} {most}");
}

/// What this process has in memory, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}
