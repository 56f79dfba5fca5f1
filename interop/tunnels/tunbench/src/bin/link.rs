//! link joins two network namespaces of Linux with a line that has a delay, a rate and a loss.
//!
//! `link PID PID --delay-ms 25 --mbit 100 --loss 0.01` makes an interface `line` in the namespace of each process, prints
//! `ready`, and passes packets until it is killed. Each direction is a line of its own: packets leave one after the other at
//! the line's rate, or are dropped where they would wait for more than 100 ms; some are lost, by a generator whose seed is fixed;
//! the others arrive in order after the delay.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;

#[derive(Clone, Parser)]
struct Args {
    /// A process in the one namespace.
    one: u32,
    /// A process in the other.
    other: u32,
    /// How long a packet travels, in milliseconds; the round trip is twice that.
    #[arg(long, default_value_t = 25)]
    delay_ms: u64,
    /// The rate in either direction, in Mbit/s.
    #[arg(long, default_value_t = 100)]
    mbit: u64,
    /// Which part of the packets is lost, from 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
}

/// What may wait at the head of the line; a router's buffer.
const QUEUE: Duration = Duration::from_millis(100);

/// As many packets as are under way at 1 Gbit/s, delay and queue together.
const UNDER_WAY: usize = 16 * 1024;

fn main() -> io::Result<()> {
    let args = Args::parse();
    let (one, other) = (interface(args.one)?, interface(args.other)?);
    let mut directions = Vec::new();
    for (from, to, seed) in [(&one, &other, 1), (&other, &one, 2)] {
        let (from, to, args) = (from.try_clone()?, to.try_clone()?, args.clone());
        let (sender, receiver) = mpsc::sync_channel(UNDER_WAY);
        directions.push(thread::spawn(move || take(from, &args, seed, &sender)));
        directions.push(thread::spawn(move || deliver(to, &receiver)));
    }
    println!("ready");
    for direction in directions {
        direction.join().map_err(|_| io::Error::other("a direction panicked"))??;
    }
    Ok(())
}

type Packet = (Instant, Vec<u8>);

/// Reads packets, and says when each arrives.
fn take(mut from: File, args: &Args, seed: u64, to: &mpsc::SyncSender<Packet>) -> io::Result<()> {
    let delay = Duration::from_millis(args.delay_ms);
    let lost = (args.loss * u64::MAX as f64) as u64;
    let mut random = seed;
    let mut free = Instant::now();
    let mut buffer = [0; 2048];
    loop {
        let length = from.read(&mut buffer)?;
        let now = Instant::now();
        let start = free.max(now);
        if start - now > QUEUE {
            continue;
        }
        free = start + Duration::from_nanos(length as u64 * 8 * 1000 / args.mbit);
        random = next(random);
        if random < lost {
            continue;
        }
        let packet = (free + delay, buffer[..length].to_vec());
        to.send(packet).map_err(io::Error::other)?;
    }
}

fn deliver(mut to: File, from: &mpsc::Receiver<Packet>) -> io::Result<()> {
    while let Ok((at, packet)) = from.recv() {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        // A packet that the other side has no room for is lost, as on any line.
        let _ = to.write(&packet);
    }
    Ok(())
}

/// The next number of SplitMix64, which is its state's as well.
fn next(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Makes the interface `line` in the namespace of a process; a thread of its own goes there and ends.
fn interface(process: u32) -> io::Result<File> {
    let made = thread::spawn(move || {
        let namespace = File::open(Path::new("/proc").join(process.to_string()).join("ns/net"))?;
        // SAFETY: the descriptor is open, and the call changes this thread alone.
        check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })?;
        let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        // SAFETY: an `ifreq` of zeros is one, with an empty name.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"line") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: both outlive the call, which reads and writes one `ifreq`.
        check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
        Ok(tun)
    });
    made.join().map_err(|_| io::Error::other("the namespace's thread panicked"))?
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
