//! The supervisor itself: a process of two threads that starts one command, waits for whatever that leaves behind, and
//! kills it all when told to. It opens nothing but `/proc`, and holds a few megabytes, nearly all of them shared with the
//! buildlet's own text: where memory is short, others are killed first.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use super::message::{Order, Report, Spec};
use crate::platform::{Group, Tree, close_inherited, lead_session, receive_descriptors};

/// Watches over the command that standard input tells of, until no process of it is left.
pub(super) fn run() -> io::Result<()> {
    close_inherited();
    let socket = UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let stdio = receive_descriptors(&socket)?;
    let mut orders = BufReader::new(socket.try_clone()?);
    let spec = Spec::read(&mut orders)?;
    Tree::adopt_orphans();
    let leader = match start(spec, stdio) {
        Ok(leader) => leader,
        Err(error) => {
            let reason = error.raw_os_error().unwrap_or(libc::EINVAL);
            return report(&socket, &Report::NotStarted(reason));
        }
    };
    report(&socket, &Report::Started(leader))?;
    let has_leader = Arc::new(AtomicBool::new(true));
    let listener = Listener {
        socket: socket.try_clone()?,
        orders,
        leader: Group::led_by(leader),
        has_leader: has_leader.clone(),
        tree: Tree::of(leader),
    };
    std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || listener.run())?;
    let last = reap(&socket, leader, &has_leader);
    let mut socket = &socket;
    socket.write_all(&last)
}

fn start(spec: Spec, [stdin, stdout, stderr]: [std::os::fd::OwnedFd; 3]) -> io::Result<u32> {
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .env_clear()
        .envs(spec.env)
        .current_dir(&spec.dir)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    lead_session(&mut command, spec.on_terminal);
    // What comes back is neither waited for nor killed here: `reap` waits for it with all others.
    Ok(command.spawn()?.id())
}

/// Waits for children, own and adopted, until there are none; gives the last report.
fn reap(socket: &UnixStream, leader: u32, has_leader: &AtomicBool) -> Vec<u8> {
    let leader = i32::try_from(leader).ok().and_then(Pid::from_raw);
    let mut untold = Vec::new();
    loop {
        // A command that leaves nothing behind, as most do, is told of in one message.
        let options = if untold.is_empty() {
            WaitOptions::empty()
        } else {
            WaitOptions::NOHANG
        };
        match wait(options) {
            Ok(Some((pid, status))) if Some(pid) == leader => {
                has_leader.store(false, Ordering::Release);
                untold = Report::Ended(status.as_raw()).encode();
            }
            Ok(None) => {
                // A buildlet that is gone is dealt with by the listener.
                let mut socket = socket;
                let _ = socket.write_all(&untold);
                untold.clear();
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    untold.extend(Report::Gone.encode());
    untold
}

/// The thread that does as it is told.
struct Listener {
    socket: UnixStream,
    orders: BufReader<UnixStream>,
    leader: Option<Group>,
    /// Whether the command was not waited for yet: after that its number can be another's.
    has_leader: Arc<AtomicBool>,
    tree: Tree,
}

impl Listener {
    fn run(mut self) {
        while let Some(order) = Order::read(&mut self.orders) {
            match order {
                Order::Kill => {
                    let survivors = self.kill(Some(KILL_LIMIT));
                    if report(&self.socket, &Report::Killed(survivors)).is_err() {
                        break;
                    }
                }
                Order::SignalGroup(number) => {
                    let leader = self.leader;
                    if let Some(group) = leader.filter(|_| self.has_leader.load(Ordering::Acquire))
                    {
                        group.signal(number);
                    }
                }
                Order::SignalTree(number) => {
                    self.tree.signal(number);
                }
            }
        }
        // Nobody is there any more to want the command.
        self.kill(None);
    }

    /// Kills the tree over and over, because whoever is killed can have started others meanwhile, and tells who is left
    /// after `limit`.
    fn kill(&self, limit: Option<Duration>) -> Vec<u32> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let alive = self.tree.signal(libc::SIGKILL);
            if alive.is_empty() || limit.is_some_and(|limit| began.elapsed() >= limit) {
                return alive;
            }
            std::thread::park_timeout(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

fn report(mut socket: &UnixStream, report: &Report) -> io::Result<()> {
    socket.write_all(&report.encode())
}

/// A process that does not end for so long after `SIGKILL` waits for a device or is another user's.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(100);
/// The listener has no deep calls.
const STACK: usize = 128 * 1024;
