//! What answers the machine's requests: a table of its files, and what waits.
//!
//! Reads of the console, of the input and of notes wait until there is something; writes of output wait while the user
//! does not read. Both wait in order, and a flush takes them out without loss.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::message::{Answer, HEADER, Malformed, Request, take};
use super::tree::Node;
use crate::backend::conterm::console::{Console, Output};

/// Serves the tree to one machine.
pub(crate) struct FileServer {
    pub(crate) console: Console,
    script: Bytes,
    status: Vec<u8>,
    /// What came and is not a whole message.
    input: BytesMut,
    out: BytesMut,
    /// The size of messages, once a version is agreed on.
    size: Option<u32>,
    fids: HashMap<u32, Fid>,
    parked: VecDeque<Parked>,
}

#[derive(Clone, Copy)]
struct Fid {
    node: Node,
    mode: Option<u8>,
}

/// A request that waits.
struct Parked {
    tag: u16,
    fid: u32,
    work: Work,
}

enum Work {
    Read(Node, usize),
    Write(Output, Bytes),
}

impl FileServer {
    /// Serves `console`.
    pub(crate) fn new(console: Console) -> Self {
        Self {
            console,
            script: Bytes::new(),
            status: Vec::new(),
            input: BytesMut::new(),
            out: BytesMut::new(),
            size: None,
            fids: HashMap::new(),
            parked: VecDeque::new(),
        }
    }

    /// Serves `script` as a file.
    pub(crate) fn set_script(&mut self, script: Bytes) {
        self.script = script;
    }

    /// Takes bytes of the machine. What it asks beyond [`MAX_UNSENT`] waits for another call, which may bring nothing
    /// new. After an error the connection is of no more use.
    pub(crate) fn handle(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.input.extend_from_slice(bytes);
        while self.out.len() <= MAX_UNSENT {
            let Some((tag, request)) = take(&mut self.input, self.size.unwrap_or(MAX_SIZE))? else {
                break;
            };
            if self.parked.iter().any(|parked| parked.tag == tag) {
                return Err(Malformed);
            }
            if let Some(answer) = self.answer(tag, request) {
                answer.put(tag, &mut self.out);
            }
        }
        self.wake();
        Ok(())
    }

    /// What is to be sent to the machine.
    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    /// How much is to be sent. Whoever reads from the machine stops beyond [`MAX_UNSENT`].
    pub(crate) fn unsent(&self) -> usize {
        self.out.len()
    }

    /// Does what waits and can be done by now; to be called after the console has changed.
    pub(crate) fn wake(&mut self) {
        let mut waiting = VecDeque::with_capacity(self.parked.len());
        let mut blocked = Vec::new();
        while let Some(parked) = self.parked.pop_front() {
            let key = match &parked.work {
                Work::Read(node, _) => Some(*node),
                Work::Write(..) => None,
            };
            // A later one must not overtake an earlier one.
            let answer = (!blocked.contains(&key)).then(|| self.perform(&parked.work));
            match answer.flatten() {
                Some(answer) => answer.put(parked.tag, &mut self.out),
                None => {
                    blocked.push(key);
                    waiting.push_back(parked);
                }
            }
        }
        self.parked = waiting;
    }

    fn perform(&mut self, work: &Work) -> Option<Answer> {
        match work {
            Work::Read(node, count) => self.console.read(*node, *count).map(Answer::Read),
            Work::Write(output, data) => self
                .console
                .write(*output, data)
                .then(|| Answer::Write(u32::try_from(data.len()).unwrap_or_default())),
        }
    }

    fn answer(&mut self, tag: u16, request: Request) -> Option<Answer> {
        if self.size.is_none() && !matches!(request, Request::Version { .. }) {
            return Some(Answer::Error("no version was agreed on"));
        }
        let answer = match request {
            Request::Version { size, version } => self.version(size, &version),
            Request::Auth => Err("authentication not required"),
            Request::Attach { fid } => self.attach(fid),
            Request::Flush { tag } => {
                self.parked.retain(|parked| parked.tag != tag);
                Ok(Answer::Flush)
            }
            Request::Walk { fid, new, names } => self.walk(fid, new, &names),
            Request::Open { fid, mode } => self.open(fid, mode),
            Request::Create { fid, name, mode } => self.create(fid, &name, mode),
            Request::Read { fid, offset, count } => return self.read(tag, fid, offset, count),
            Request::Write { fid, data } => return self.write(tag, fid, data),
            Request::Clunk { fid } => self.clunk(fid),
            Request::Remove { fid } => self.clunk(fid).and(Err(PERMISSION)),
            Request::Stat { fid } => self.stat(fid),
            Request::Wstat { .. } => Err(PERMISSION),
            Request::Unknown => Err("an unknown message"),
        };
        Some(answer.unwrap_or_else(Answer::Error))
    }

    fn version(&mut self, size: u32, version: &str) -> Result<Answer, &'static str> {
        if size < MIN_SIZE {
            return Err("messages are too small");
        }
        self.fids.clear();
        self.parked.clear();
        self.console.close_control();
        if !version.starts_with("9P2000") {
            self.size = None;
            return Ok(Answer::Version(size.min(MAX_SIZE), "unknown"));
        }
        let size = size.min(MAX_SIZE);
        self.size = Some(size);
        Ok(Answer::Version(size, "9P2000"))
    }

    fn attach(&mut self, fid: u32) -> Result<Answer, &'static str> {
        self.insert(fid, Node::Root)?;
        Ok(Answer::Attach(Node::Root.qid()))
    }

    /// Makes a fid for `node`.
    fn insert(&mut self, fid: u32, node: Node) -> Result<(), &'static str> {
        if self.fids.contains_key(&fid) {
            return Err("fid in use");
        }
        if self.fids.len() >= MAX_FIDS {
            return Err("too many fids");
        }
        self.fids.insert(fid, Fid { node, mode: None });
        Ok(())
    }

    fn walk(&mut self, fid: u32, new: u32, names: &[String]) -> Result<Answer, &'static str> {
        let from = self.fid(fid)?;
        if from.mode.is_some() {
            return Err("the file is open");
        }
        let mut node = from.node;
        let mut qids = Vec::with_capacity(names.len());
        for name in names {
            let Some(next) = node.walk(name) else { break };
            node = next;
            qids.push(node.qid());
        }
        if qids.is_empty() && !names.is_empty() {
            return Err("file does not exist");
        }
        if qids.len() == names.len() {
            if new == fid {
                self.fids.insert(fid, Fid { node, mode: None });
            } else {
                self.insert(new, node)?;
            }
        }
        Ok(Answer::Walk(qids))
    }

    fn open(&mut self, fid: u32, mode: u8) -> Result<Answer, &'static str> {
        let Fid { node, mode: None } = self.fid(fid)? else {
            return Err("the file is open");
        };
        if node.is_directory() && (mode & ACCESS == WRITE || mode & ACCESS == READ_WRITE) {
            return Err(PERMISSION);
        }
        if node == Node::ConsCtl {
            self.console.open_control();
        }
        if node == Node::RStatus && mode & TRUNCATE != 0 {
            self.status.clear();
        }
        let mode = Some(mode);
        self.fids.insert(fid, Fid { node, mode });
        Ok(Answer::Open(node.qid()))
    }

    /// What is created is there already, so it is opened.
    fn create(&mut self, fid: u32, name: &str, mode: u8) -> Result<Answer, &'static str> {
        let Fid { node, mode: None } = self.fid(fid)? else {
            return Err("the file is open");
        };
        let child = node.walk(name).filter(|child| !child.is_directory());
        let child = child.ok_or(PERMISSION)?;
        let fresh = Fid {
            node: child,
            mode: None,
        };
        self.fids.insert(fid, fresh);
        self.open(fid, mode | TRUNCATE)?;
        Ok(Answer::Create(child.qid()))
    }

    fn read(&mut self, tag: u16, fid: u32, offset: u64, count: u32) -> Option<Answer> {
        let node = match self.opened(fid, READ) {
            Ok(node) => node,
            Err(error) => return Some(Answer::Error(error)),
        };
        let room = self.size.unwrap_or(MIN_SIZE) - HEADER - 4;
        let count = usize::try_from(count.min(room)).unwrap_or_default();
        if matches!(node, Node::Cons | Node::CpuNote | Node::Note | Node::Stdin) {
            return self.park(tag, fid, Work::Read(node, count));
        }
        let data = if node.is_directory() {
            self.entries(node, offset, count)
        } else {
            Some(slice(&self.content(node), offset, count))
        };
        Some(data.map_or(Answer::Error("a bad offset"), Answer::Read))
    }

    fn write(&mut self, tag: u16, fid: u32, data: Bytes) -> Option<Answer> {
        let node = match self.opened(fid, WRITE) {
            Ok(node) => node,
            Err(error) => return Some(Answer::Error(error)),
        };
        let outputs = [
            (Node::Cons, Output::Console),
            (Node::Stderr, Output::Stderr),
            (Node::Stdout, Output::Stdout),
        ];
        let Some((_, output)) = outputs.into_iter().find(|(file, _)| *file == node) else {
            return Some(self.write_at_once(node, &data));
        };
        self.park(tag, fid, Work::Write(output, data))
    }

    fn write_at_once(&mut self, node: Node, data: &[u8]) -> Answer {
        if node == Node::ConsCtl {
            self.console.control(data);
        } else if node == Node::RStatus {
            let room = MAX_STATUS.saturating_sub(self.status.len());
            self.status.extend_from_slice(&data[..data.len().min(room)]);
        } else if !matches!(node, Node::Label | Node::Null) {
            return Answer::Error(PERMISSION);
        }
        Answer::Write(u32::try_from(data.len()).unwrap_or_default())
    }

    /// Lets a request wait; `wake` does it at once where that is possible.
    fn park(&mut self, tag: u16, fid: u32, work: Work) -> Option<Answer> {
        if self.parked.len() >= MAX_PARKED {
            return Some(Answer::Error("too many requests"));
        }
        self.parked.push_back(Parked { tag, fid, work });
        self.wake();
        None
    }

    fn clunk(&mut self, fid: u32) -> Result<Answer, &'static str> {
        let closed = self.fids.remove(&fid).ok_or("unknown fid")?;
        // Whoever closes a file has no requests on it; one that does gets no answers.
        self.parked.retain(|parked| parked.fid != fid);
        if let Some(mode) = closed.mode {
            if closed.node == Node::ConsCtl {
                self.console.close_one_control();
            }
            if closed.node == Node::RStatus && mode & ACCESS != READ {
                self.console.exit(&self.status);
            }
        }
        Ok(Answer::Clunk)
    }

    fn stat(&self, fid: u32) -> Result<Answer, &'static str> {
        let node = self.fid(fid)?.node;
        Ok(Answer::Stat(self.description(node)))
    }

    fn description(&self, node: Node) -> Vec<u8> {
        node.stat(u64::try_from(self.content(node).len()).unwrap_or_default())
    }

    /// What a file holds, where that is anything.
    fn content(&self, node: Node) -> Bytes {
        if node == Node::Run {
            self.script.clone()
        } else if node == Node::RStatus {
            Bytes::copy_from_slice(&self.status)
        } else {
            Bytes::new()
        }
    }

    /// Whole entries of a directory from `offset` on, which must be where one starts.
    fn entries(&self, node: Node, offset: u64, count: usize) -> Option<Bytes> {
        let mut skip = usize::try_from(offset).ok()?;
        let mut out = Vec::new();
        for child in node.children() {
            let entry = self.description(child);
            if skip > 0 {
                skip = skip.checked_sub(entry.len())?;
            } else if out.len() + entry.len() <= count {
                out.extend(entry);
            } else {
                break;
            }
        }
        Some(Bytes::from(out))
    }

    fn fid(&self, fid: u32) -> Result<Fid, &'static str> {
        self.fids.get(&fid).copied().ok_or("unknown fid")
    }

    fn opened(&self, fid: u32, access: u8) -> Result<Node, &'static str> {
        let fid = self.fid(fid)?;
        let mode = fid.mode.ok_or("the file is not open")? & ACCESS;
        let allowed = mode == READ_WRITE || (mode == WRITE) == (access == WRITE);
        allowed.then_some(fid.node).ok_or(PERMISSION)
    }
}

fn slice(content: &Bytes, offset: u64, count: usize) -> Bytes {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let start = start.min(content.len());
    content.slice(start..content.len().min(start.saturating_add(count)))
}

const PERMISSION: &str = "permission denied";

const ACCESS: u8 = 3;
const READ: u8 = 0;
const WRITE: u8 = 1;
const READ_WRITE: u8 = 2;
const TRUNCATE: u8 = 0x10;

/// The largest message: twice what 9front asks for.
const MAX_SIZE: u32 = 65536;

/// The smallest that makes sense: a stat must fit.
const MIN_SIZE: u32 = 256;

/// How many files a machine may have at once, against one that never closes them: each process of a session holds a few.
const MAX_FIDS: usize = 4096;

/// How many requests may wait; with the size of a message it bounds what they hold to 8 MiB.
const MAX_PARKED: usize = 128;

/// How much the exit status may hold: Plan 9 has no longer ones than 128 bytes.
const MAX_STATUS: usize = 256;

/// How much may be unsent before requests are left unread, against a machine that asks and does not listen.
pub(crate) const MAX_UNSENT: usize = 1 << 20;

#[cfg(test)]
mod tests;
