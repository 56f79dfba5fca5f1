//! tunbench measures a TCP tunnel from outside, whatever is inside it.
//!
//! `tunbench serve` runs at the tunnel's far end; `tunbench run` connects to its near end and
//! speaks a tiny protocol to `serve` through it. Nothing here knows the tunnel's own protocol, so
//! the same numbers can be taken of plain TCP, `ssh -R`, or any other tunnel in one run.
//!
//! Wire: the client opens with one mode byte and a big-endian u64 length.
//! `U`: the server reads that many bytes, then answers with one byte.
//! `D`: the server writes that many bytes. `E`: the server echoes until EOF.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const CHUNK: usize = 64 * 1024;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer at the tunnel's far end.
    Serve {
        #[arg(long, default_value = "127.0.0.1:9700")]
        listen: SocketAddr,
    },
    /// Measure through the tunnel's near end and print one JSON object.
    Run {
        /// Near end of the tunnel (or `serve` itself, for the direct baseline).
        #[arg(long)]
        via: SocketAddr,
        /// Name to print with the figures.
        #[arg(long, default_value = "tunnel")]
        name: String,
        /// MiB moved in each direction by each throughput test, all streams together.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
        /// Streams in the parallel throughput test.
        #[arg(long, default_value_t = 16)]
        streams: u64,
        /// Round trips of 64 bytes on one connection.
        #[arg(long, default_value_t = 20_000)]
        pings: u32,
        /// Connections dialled one after another, each echoing one byte.
        #[arg(long, default_value_t = 2_000)]
        dials: u32,
        /// Idle connections to hold while the memory of --pid is read.
        #[arg(long, default_value_t = 500)]
        idle: usize,
        /// Processes whose memory makes up the tunnel (repeat).
        #[arg(long)]
        pid: Vec<u32>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().command {
        Command::Serve { listen } => serve(listen).await,
        Command::Run { via, name, mib, streams, pings, dials, idle, pid } => {
            // First, as memory that was used for something else is used again.
            let per_idle = idle_memory(via, idle, &pid).await?;
            let up1 = throughput(via, b'U', 1, mib << 20).await?;
            let down1 = throughput(via, b'D', 1, mib << 20).await?;
            let up_n = throughput(via, b'U', streams, mib << 20).await?;
            let down_n = throughput(via, b'D', streams, mib << 20).await?;
            let (p50, p99) = ping_pong(via, pings).await?;
            let dial_rate = dial_rate(via, dials).await?;
            println!(
                "{}",
                json!({
                    "name": name,
                    "up_1_MiBps": tenths(up1), "down_1_MiBps": tenths(down1),
                    "streams": streams,
                    "up_n_MiBps": tenths(up_n), "down_n_MiBps": tenths(down_n),
                    "rtt_p50_us": p50, "rtt_p99_us": p99,
                    "dials_per_s": tenths(dial_rate),
                    "idle_conns": idle, "bytes_per_idle_conn": per_idle,
                })
            );
            Ok(())
        }
    }
}

/// A figure of a slow link has something behind the point.
fn tenths(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

async fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _ = answer(stream).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mode = stream.read_u8().await?;
    let mut left = stream.read_u64().await?;
    let mut buf = vec![0u8; CHUNK];
    match mode {
        b'U' => {
            while left > 0 {
                let n = stream.read(&mut buf).await?;
                if n == 0 {
                    return Err("upload cut short".into());
                }
                left -= n as u64;
            }
            stream.write_u8(1).await?;
        }
        b'D' => {
            while left > 0 {
                let n = left.min(CHUNK as u64) as usize;
                stream.write_all(&buf[..n]).await?;
                left -= n as u64;
            }
        }
        b'E' => loop {
            let n = stream.read(&mut buf).await?;
            if n == 0 {
                break;
            }
            stream.write_all(&buf[..n]).await?;
        },
        other => return Err(format!("unknown mode {other}").into()),
    }
    stream.shutdown().await?;
    Ok(())
}

async fn open(via: SocketAddr, mode: u8, len: u64) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(via).await?;
    stream.set_nodelay(true)?;
    let mut head = [0u8; 9];
    head[0] = mode;
    head[1..].copy_from_slice(&len.to_be_bytes());
    stream.write_all(&head).await?;
    Ok(stream)
}

/// MiB per second of `total` bytes moved over `streams` connections at once.
async fn throughput(via: SocketAddr, mode: u8, streams: u64, total: u64) -> Result<f64> {
    let each = total / streams;
    let started = Instant::now();
    let mut set = JoinSet::new();
    for _ in 0..streams {
        set.spawn(async move {
            let mut stream = open(via, mode, each).await?;
            let mut buf = vec![0u8; CHUNK];
            let mut left = each;
            while left > 0 {
                let n = if mode == b'U' {
                    let n = left.min(CHUNK as u64) as usize;
                    stream.write_all(&buf[..n]).await?;
                    n
                } else {
                    stream.read(&mut buf).await?
                };
                if n == 0 {
                    return Err("download cut short".into());
                }
                left -= n as u64;
            }
            if mode == b'U' {
                stream.read_u8().await?;
            }
            Result::Ok(())
        });
    }
    while let Some(done) = set.join_next().await {
        done??;
    }
    Ok(total as f64 / (1 << 20) as f64 / started.elapsed().as_secs_f64())
}

/// Median and 99th percentile of a 64-byte round trip, in microseconds.
async fn ping_pong(via: SocketAddr, pings: u32) -> Result<(f64, f64)> {
    let mut stream = open(via, b'E', 0).await?;
    let mut buf = [0u8; 64];
    let mut took = Vec::with_capacity(pings as usize);
    for _ in 0..pings {
        let started = Instant::now();
        stream.write_all(&buf).await?;
        stream.read_exact(&mut buf).await?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize].as_nanos() as f64 / 1000.0;
    Ok((at(0.5), at(0.99)))
}

/// Connections per second, one after another, each proven by one echoed byte.
async fn dial_rate(via: SocketAddr, dials: u32) -> Result<f64> {
    let started = Instant::now();
    for _ in 0..dials {
        let mut stream = open(via, b'E', 0).await?;
        stream.write_u8(7).await?;
        stream.read_u8().await?;
    }
    Ok(f64::from(dials) / started.elapsed().as_secs_f64())
}

/// Bytes of memory that `pids` grow by for each idle connection held through the tunnel.
async fn idle_memory(via: SocketAddr, idle: usize, pids: &[u32]) -> Result<Option<i64>> {
    if pids.is_empty() || idle == 0 {
        return Ok(None);
    }
    let before = resident(pids)?;
    let mut held = Vec::with_capacity(idle);
    for _ in 0..idle {
        let mut stream = open(via, b'E', 0).await?;
        stream.write_u8(7).await?;
        stream.read_u8().await?;
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = resident(pids)?;
    Ok(Some((after - before) / idle as i64))
}

fn resident(pids: &[u32]) -> Result<i64> {
    let mut total = 0;
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib: i64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or("no VmRSS")?
            .parse()?;
        total += kib * 1024;
    }
    Ok(total)
}
