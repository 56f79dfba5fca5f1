//! Machines that do what no machine does.

use bytes::BufMut;

use super::*;
use crate::backend::conterm::console::Mode;
use crate::backend::conterm::ninep::message::put_string;

/// A machine, as the bytes that it sends.
struct Machine {
    server: FileServer,
}

fn message(kind: u8, tag: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.put_u32_le(u32::try_from(body.len()).unwrap() + HEADER);
    message.put_u8(kind);
    message.put_u16_le(tag);
    message.put_slice(body);
    message
}

fn walk(fid: u32, new: u32, names: &[&str]) -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u32_le(fid);
    body.put_u32_le(new);
    body.put_u16_le(u16::try_from(names.len()).unwrap());
    names.iter().for_each(|name| put_string(name, &mut body));
    body.to_vec()
}

fn open(fid: u32, mode: u8) -> Vec<u8> {
    [&fid.to_le_bytes()[..], &[mode]].concat()
}

fn read(fid: u32, offset: u64, count: u32) -> Vec<u8> {
    let (fid, offset, count) = (fid.to_le_bytes(), offset.to_le_bytes(), count.to_le_bytes());
    [&fid[..], &offset, &count].concat()
}

fn write(fid: u32, count: u32, data: &[u8]) -> Vec<u8> {
    [&read(fid, 0, count)[..], data].concat()
}

impl Machine {
    fn new() -> Self {
        Self {
            server: FileServer::new(Console::new(Mode::Pipes)),
        }
    }

    /// A machine that has agreed on a version and has the root as fid 0.
    fn attached() -> Self {
        let mut machine = Self::new();
        machine.agree("9P2000");
        machine.attach();
        machine
    }

    fn agree(&mut self, version: &str) {
        let mut body = BytesMut::new();
        body.put_u32_le(1 << 20);
        put_string(version, &mut body);
        assert_eq!(self.ask(VERSION, &body).unwrap()[4], VERSION + 1);
    }

    fn attach(&mut self) {
        let body = [&[0; 4][..], &[0xff; 4], &[0; 4]].concat();
        self.granted(ATTACH, &body);
    }

    /// Makes `fid` the open file at `path`.
    fn open(&mut self, fid: u32, path: &[&str], mode: u8) {
        self.granted(WALK, &walk(0, fid, path));
        self.granted(OPEN, &open(fid, mode));
    }

    /// Sends a message with a tag that nothing waits under; its answer, empty where it waits.
    fn ask(&mut self, kind: u8, body: &[u8]) -> Result<Bytes, Malformed> {
        self.send(kind, FREE, body)
    }

    fn send(&mut self, kind: u8, tag: u16, body: &[u8]) -> Result<Bytes, Malformed> {
        self.server.handle(&message(kind, tag, body))?;
        Ok(self.server.poll_transmit().unwrap_or_default())
    }

    fn granted(&mut self, kind: u8, body: &[u8]) {
        let answer = self.ask(kind, body).unwrap();
        assert_eq!(answer[4], kind + 1, "{answer:?}");
    }

    fn refused(&mut self, kind: u8, body: &[u8], why: &str) {
        let answer = self.ask(kind, body).unwrap();
        assert_eq!(answer[4], ERROR, "{answer:?}");
        assert_eq!(str::from_utf8(&answer[9..]).unwrap(), why);
    }
}

#[test]
fn nothing_is_answered_before_a_version() {
    let mut machine = Machine::new();
    machine.refused(STAT, &[0; 4], "no version was agreed on");
    machine.agree("9P1");
    machine.refused(STAT, &[0; 4], "no version was agreed on");
    machine.refused(VERSION, &[255, 0, 0, 0, 0, 0], "messages are too small");
}

#[test]
fn a_version_in_the_middle_begins_anew() {
    let mut machine = Machine::attached();
    machine.open(1, &["fd", "0"], READ);
    assert!(
        machine
            .send(READ_FILE, 7, &read(1, 0, 10))
            .unwrap()
            .is_empty()
    );
    machine.agree("9P2000.u");
    machine.refused(STAT, &[0; 4], "unknown fid");
    // Nothing waits under the tag, nor takes what is typed.
    machine.server.console.handle_input(b"typed");
    machine.server.wake();
    assert_eq!(machine.server.unsent(), 0);
    machine.attach();
    machine.open(1, &["fd", "0"], READ);
    let answer = machine.send(READ_FILE, 7, &read(1, 0, 10)).unwrap();
    assert!(answer.ends_with(b"typed"));
    machine.agree("8P");
    machine.refused(STAT, &[0; 4], "no version was agreed on");
}

#[test]
fn fids_are_bounded() {
    let mut machine = Machine::attached();
    let most = u32::try_from(MAX_FIDS).unwrap();
    for fid in 1..most {
        machine.granted(WALK, &walk(0, fid, &[]));
    }
    machine.refused(WALK, &walk(0, most, &[]), "too many fids");
    machine.refused(WALK, &walk(0, 1, &[]), "fid in use");
    machine.granted(CLUNK, &5_u32.to_le_bytes());
    machine.refused(CLUNK, &5_u32.to_le_bytes(), "unknown fid");
    machine.granted(WALK, &walk(0, most, &[]));
    assert_eq!(machine.server.fids.len(), MAX_FIDS);
}

#[test]
fn a_tag_that_waits_is_not_used_twice() {
    for (kind, body) in [
        (READ_FILE, read(1, 0, 10)),
        (FLUSH, vec![7, 0]),
        (STAT, vec![0; 4]),
        (VERSION, vec![0, 1, 0, 0, 0, 0]),
    ] {
        let mut machine = Machine::attached();
        machine.open(1, &["fd", "0"], READ);
        machine.send(READ_FILE, 7, &read(1, 0, 10)).unwrap();
        assert_eq!(machine.send(kind, 7, &body), Err(Malformed), "{kind}");
    }
}

#[test]
fn requests_that_wait_are_bounded() {
    let mut machine = Machine::attached();
    machine.open(1, &["fd", "0"], READ);
    let most = u16::try_from(MAX_PARKED).unwrap();
    for tag in 0..most {
        let answer = machine.send(READ_FILE, tag, &read(1, 0, 10)).unwrap();
        assert!(answer.is_empty());
    }
    machine.refused(READ_FILE, &read(1, 0, 10), "too many requests");
    machine.granted(FLUSH, &3_u16.to_le_bytes());
    assert!(
        machine
            .send(READ_FILE, most, &read(1, 0, 10))
            .unwrap()
            .is_empty()
    );
    // Whoever closes a file has no requests on it.
    machine.granted(CLUNK, &1_u32.to_le_bytes());
    assert!(machine.server.parked.is_empty());
}

#[test]
fn a_flush_of_what_does_not_wait_is_answered() {
    let mut machine = Machine::attached();
    for tag in [0, 7, FREE, u16::MAX] {
        machine.granted(FLUSH, &tag.to_le_bytes());
    }
}

#[test]
fn counts_are_cut_to_what_a_message_holds() {
    let mut machine = Machine::attached();
    let script = Bytes::from(vec![b'x'; 200_000]);
    machine.server.set_script(script);
    machine.open(1, &["env", "run"], READ);
    let answer = machine.ask(READ_FILE, &read(1, 0, u32::MAX)).unwrap();
    assert_eq!(answer.len(), usize::try_from(MAX_SIZE).unwrap());
    let answer = machine
        .ask(READ_FILE, &read(1, u64::MAX, u32::MAX))
        .unwrap();
    assert_eq!(answer.len(), 11);
    machine.open(2, &[], READ);
    machine.refused(READ_FILE, &read(2, 1, 100), "a bad offset");
    let answer = machine
        .ask(READ_FILE, &read(2, u64::MAX, u32::MAX))
        .unwrap();
    assert_eq!(answer.len(), 11);
    for (count, data) in [(u32::MAX, &b"x"[..]), (2, b"x"), (0, b"x")] {
        let mut machine = Machine::attached();
        let body = write(3, count, data);
        assert_eq!(machine.ask(WRITE_FILE, &body), Err(Malformed), "{count}");
    }
}

#[test]
fn a_size_that_cannot_be_is_not_waited_for() {
    for size in [0, HEADER - 1, MAX_SIZE + 1, u32::MAX] {
        let mut machine = Machine::new();
        let handled = machine.server.handle(&size.to_le_bytes());
        assert_eq!(handled, Err(Malformed), "{size}");
    }
}

#[test]
fn walks_are_bounded_and_stay_inside() {
    let mut machine = Machine::attached();
    machine.granted(WALK, &walk(0, 1, &[".."; 16]));
    assert_eq!(machine.server.fids[&1].node, Node::Root);
    machine.refused(WALK, &walk(0, 2, &["none", "x"]), "file does not exist");
    machine.refused(WALK, &walk(9, 2, &[]), "unknown fid");
    // A walk that gets somewhere and not to its end makes no fid.
    machine.granted(WALK, &walk(0, 2, &["dev", "none"]));
    machine.refused(STAT, &2_u32.to_le_bytes(), "unknown fid");
    machine.open(3, &["dev"], READ);
    machine.refused(WALK, &walk(3, 4, &["cons"]), "the file is open");
    machine.refused(OPEN, &open(3, READ), "the file is open");
    machine.refused(OPEN, &open(1, WRITE), PERMISSION);
    assert_eq!(machine.ask(WALK, &walk(0, 2, &[".."; 17])), Err(Malformed));
}

#[test]
fn a_status_is_bounded() {
    let mut machine = Machine::attached();
    machine.open(1, &["env", "rstatus"], WRITE);
    for _ in 0..100 {
        machine.granted(WRITE_FILE, &write(1, 1000, &[b'x'; 1000]));
    }
    assert_eq!(machine.server.status.len(), MAX_STATUS);
}

#[test]
fn answers_that_are_not_taken_are_bounded() {
    let mut machine = Machine::attached();
    machine.server.set_script(Bytes::from(vec![b'x'; 60_000]));
    machine.open(1, &["env", "run"], READ);
    let asked = message(READ_FILE, 9, &read(1, 0, 60_000));
    machine.server.handle(&asked.repeat(1000)).unwrap();
    assert!(machine.server.unsent() <= MAX_UNSENT + asked.len() + 60_011);
    let mut answered = 0;
    while let Some(answers) = machine.server.poll_transmit() {
        answered += answers.len();
        machine.server.handle(&[]).unwrap();
    }
    assert_eq!(answered, 1000 * 60_011);
}

#[test]
fn no_message_is_too_short_to_be_refused() {
    for kind in 0..=u8::MAX {
        for length in 0..24 {
            let mut machine = Machine::attached();
            // Refused, or not taken at all; that it returns is the point.
            if let Ok(answer) = machine.ask(kind, &vec![1; length]) {
                assert!(answer.is_empty() || answer.len() >= 7, "{kind}");
            }
        }
    }
}

#[test]
fn what_waits_to_be_read_keeps_nothing_else() {
    let mut machine = Machine::attached();
    machine.open(1, &["fd", "1"], WRITE);
    let padding = message(0, FREE, &[0; 32 << 10]);
    let write = message(WRITE_FILE, FREE, &write(1, 1, b"x"));
    machine.server.handle(&[padding, write].concat()).unwrap();
    let Some(crate::backend::ChannelEvent::Data(data)) = machine.server.console.poll_event() else {
        panic!("nothing was written");
    };
    // A piece of a larger buffer could not be taken over without a copy.
    let data = data.try_into_mut().unwrap();
    assert!(data.capacity() < 1024, "{}", data.capacity());
}

const VERSION: u8 = 100;
const ATTACH: u8 = 104;
const ERROR: u8 = 107;
const FLUSH: u8 = 108;
const WALK: u8 = 110;
const OPEN: u8 = 112;
const READ_FILE: u8 = 116;
const WRITE_FILE: u8 = 118;
const CLUNK: u8 = 120;
const STAT: u8 = 124;

/// A tag that no test lets wait.
const FREE: u16 = 1000;
