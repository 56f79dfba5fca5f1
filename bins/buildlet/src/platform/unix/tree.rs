//! All processes that a command has started, and those that they have.
//!
//! On Linux the process that watches over a command is a subreaper: whoever loses its parent, as a daemon does that forks
//! twice, becomes its child, and nothing leaves the tree. Elsewhere there is the process group alone, which a daemon leaves.

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

use super::Group;

/// The processes below this one.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The command itself.
    leader: Option<Group>,
}

impl Tree {
    /// Has whoever loses its parent become a child of this process, from now on.
    pub(crate) fn adopt_orphans() {
        #[cfg(target_os = "linux")]
        {
            // A kernel without it is one of before 2012; the process group is killed all the same.
            let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        }
    }

    /// The tree whose root was started as `leader`.
    pub(crate) fn of(leader: u32) -> Self {
        Self {
            leader: Group::led_by(leader),
        }
    }

    /// Sends a signal, by its number, to every process of the tree, and tells which those are.
    pub(crate) fn signal(&self, signal: i32) -> Vec<u32> {
        let Some(named) = Signal::from_named_raw(signal) else {
            return Vec::new();
        };
        let Some(pids) = descendants() else {
            if let Some(group) = self.leader {
                group.signal(signal);
            }
            return Vec::new();
        };
        for pid in &pids {
            // Whoever is gone is as good as signalled.
            let _ = kill_process(*pid, named);
        }
        pids.into_iter().map(number).collect()
    }
}

impl Tree {
    /// Kills whatever runs below this process, and tells what that is. Elsewhere than on Linux it is not known.
    pub(crate) fn kill_below() -> Vec<u32> {
        let below = descendants().unwrap_or_default();
        let alive = below.into_iter().filter(|pid| !has_ended(*pid));
        alive.inspect(|pid| kill(*pid)).map(number).collect()
    }

    /// Kills whatever runs below the process `pid` now, and not that itself.
    #[cfg(target_os = "linux")]
    pub(crate) fn kill_below_other(pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        for pid in pid.and_then(descendants_of).unwrap_or_default() {
            kill(pid);
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn kill_below_other(_: u32) {}

    /// Waits for those children that have ended and were found so the time before already: whoever has started a process
    /// itself waits for it at once. Gives those to look at the next time.
    pub(crate) fn reap(before: &[u32]) -> Vec<u32> {
        let mut ended = Vec::new();
        for pid in children().unwrap_or_default() {
            if !has_ended(pid) {
                continue;
            }
            if before.contains(&number(pid)) {
                // If somebody else was quicker, it is done as well.
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            } else {
                ended.push(number(pid));
            }
        }
        ended
    }
}

/// Processes that have a variable in the environment that they were started with.
#[derive(Clone, Debug)]
pub(crate) struct Marked(Vec<u8>);

impl Marked {
    pub(crate) fn new(name: &str, value: &str) -> Self {
        Self(format!("{name}={value}").into_bytes())
    }

    /// Kills them, and tells which they are. This process and those that it was started by are not among them.
    #[cfg(target_os = "linux")]
    pub(crate) fn kill(&self) -> Vec<u32> {
        let ours = ancestors();
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = processes.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            Pid::from_raw(name.to_str()?.parse().ok()?)
        });
        pids.filter(|pid| !ours.contains(pid) && self.is_on(*pid) && !has_ended(*pid))
            .inspect(|pid| kill(*pid))
            .map(number)
            .collect()
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn kill(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Of a process of another user nothing can be read, and it could not be killed.
    #[cfg(target_os = "linux")]
    fn is_on(&self, pid: Pid) -> bool {
        let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
        let environment = environment.unwrap_or_default();
        environment
            .split(|&byte| byte == 0)
            .any(|pair| pair == self.0)
    }
}

fn kill(pid: Pid) {
    // Whoever is gone is as good as killed.
    let _ = kill_process(pid, Signal::KILL);
}

fn number(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(0)
}

/// Whether a process is gone, or waits to be waited for.
fn has_ended(pid: Pid) -> bool {
    fields(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// This process, its parent, and so on.
#[cfg(target_os = "linux")]
fn ancestors() -> Vec<Pid> {
    let mut line = vec![rustix::process::getpid()];
    while let Some(parent) = line.last().and_then(|pid| fields(*pid)?.1) {
        if line.contains(&parent) {
            break;
        }
        line.push(parent);
    }
    line
}

/// The state of a process, and its parent.
fn fields(pid: Pid) -> Option<(char, Option<Pid>)> {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before them may hold anything, parentheses too.
    let behind_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let text = String::from_utf8_lossy(&stat[behind_name..]).into_owned();
    let mut fields = text.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok();
    Some((state, parent.and_then(Pid::from_raw)))
}

/// The children of this process; `None` where the system does not tell.
#[cfg(target_os = "linux")]
fn children() -> Option<Vec<Pid>> {
    let mut found = Vec::new();
    append_children(rustix::process::getpid(), &mut found)?;
    Some(found)
}

#[cfg(not(target_os = "linux"))]
fn children() -> Option<Vec<Pid>> {
    None
}

/// All processes below this one; `None` where the system does not tell.
#[cfg(target_os = "linux")]
fn descendants() -> Option<Vec<Pid>> {
    descendants_of(rustix::process::getpid())
}

#[cfg(target_os = "linux")]
fn descendants_of(root: Pid) -> Option<Vec<Pid>> {
    let mut found = Vec::new();
    append_children(root, &mut found)?;
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        // One that has ended meanwhile has left its children to us, to be found the next time.
        append_children(pid, &mut found);
        next += 1;
    }
    Some(found)
}

#[cfg(not(target_os = "linux"))]
fn descendants() -> Option<Vec<Pid>> {
    None
}

/// Appends the children of all threads of `pid`.
#[cfg(target_os = "linux")]
fn append_children(pid: Pid, found: &mut Vec<Pid>) -> Option<()> {
    let threads = format!("/proc/{}/task", pid.as_raw_nonzero());
    for thread in std::fs::read_dir(threads).ok()? {
        let Ok(thread) = thread else { continue };
        match std::fs::read_to_string(thread.path().join("children")) {
            Ok(children) => {
                let children = children.split_whitespace();
                found.extend(children.filter_map(|child| Pid::from_raw(child.parse().ok()?)));
            }
            // A thread that has ended is no matter; a kernel without the file is.
            Err(_) if thread.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(())
}
