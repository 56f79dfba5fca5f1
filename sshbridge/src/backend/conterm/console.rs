//! The console: what the user types on its way to the machine, and what the machine says on its way to the user.

mod line;

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use self::line::{Editor, Typed};
use super::ninep::tree::Node;
use crate::backend::ChannelEvent;

/// How a session talks to its user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Three streams of bytes that nobody touches.
    Pipes,
    /// A terminal, whose lines are edited here: the console of a Plan 9 machine expects whole ones.
    Terminal,
}

/// Where the machine's output goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    Console,
    Stderr,
    Stdout,
}

/// Both directions of a session.
pub(crate) struct Console {
    mode: Mode,
    editor: Editor,
    /// How many files the machine has open that keep the terminal raw.
    controls: usize,
    raw: bool,
    /// What can be read; an empty piece is an end of file, once.
    input: VecDeque<Bytes>,
    waiting: usize,
    ended: bool,
    notes: VecDeque<&'static str>,
    events: VecDeque<ChannelEvent>,
    unread: usize,
    /// The last byte for the terminal, which says whether a line feed needs a carriage return.
    last: u8,
    finished: bool,
}

impl Console {
    pub(crate) fn new(mode: Mode) -> Self {
        Self {
            mode,
            editor: Editor::default(),
            controls: 0,
            raw: false,
            input: VecDeque::new(),
            waiting: 0,
            ended: false,
            notes: VecDeque::new(),
            events: VecDeque::new(),
            unread: 0,
            last: 0,
            finished: false,
        }
    }

    /// Says how the session talks to its user.
    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Takes what the user typed.
    pub(crate) fn handle_input(&mut self, bytes: &[u8]) {
        if self.mode == Mode::Pipes || self.raw {
            return self.offer(Bytes::copy_from_slice(bytes));
        }
        let mut echo = Vec::new();
        for byte in bytes {
            match self.editor.handle(*byte, &mut echo) {
                Typed::EndOfFile => self.input.push_back(Bytes::new()),
                Typed::Interrupt => {
                    self.discard_input();
                    self.note("interrupt");
                }
                Typed::Line(line) => self.offer(Bytes::from(line)),
                Typed::Nothing => {}
            }
        }
        self.echo(echo);
    }

    /// Takes the end of the user's input.
    pub(crate) fn handle_eof(&mut self) {
        if self.mode == Mode::Terminal {
            let rest = self.editor.take();
            self.offer(Bytes::from(rest));
        }
        self.ended = true;
    }

    /// How much input waits for the machine to read it.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting + self.input.len()
    }

    /// Posts a note to what runs. What it would be the same as is not repeated, so that few can wait.
    pub(crate) fn note(&mut self, note: &'static str) {
        if !self.notes.contains(&note) {
            self.notes.push_back(note);
        }
    }

    /// Tells the user something.
    pub(crate) fn say(&mut self, event: ChannelEvent) {
        self.unread += cost(&event);
        self.events.push_back(event);
    }

    /// Whether more may be told.
    pub(crate) fn has_room(&self) -> bool {
        self.unread < MAX_UNREAD
    }

    /// What the user is to get.
    pub(crate) fn poll_event(&mut self) -> Option<ChannelEvent> {
        let event = self.events.pop_front()?;
        self.unread -= cost(&event);
        Some(event)
    }

    /// Whether the machine has said how the session ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// A read by the machine; `None` where it must wait.
    pub(crate) fn read(&mut self, node: Node, count: usize) -> Option<Bytes> {
        if matches!(node, Node::Cons | Node::Stdin) {
            return self.read_input(count);
        }
        if node != Node::Note {
            return None;
        }
        if self.finished {
            return Some(Bytes::new());
        }
        let note = self.notes.pop_front()?;
        Some(Bytes::from_static(note.as_bytes()))
    }

    fn read_input(&mut self, count: usize) -> Option<Bytes> {
        let Some(mut piece) = self.input.pop_front() else {
            return self.ended.then(Bytes::new);
        };
        if piece.len() > count {
            self.input.push_front(piece.split_off(count));
        }
        self.waiting -= piece.len();
        Some(piece)
    }

    /// A write by the machine. Whether it was taken: it is not while the user leaves too much unread.
    pub(crate) fn write(&mut self, output: Output, data: &Bytes) -> bool {
        if !self.has_room() {
            return false;
        }
        if data.is_empty() || self.finished {
            return true;
        }
        let data = match self.mode {
            Mode::Pipes => data.clone(),
            Mode::Terminal => self.terminal_lines(data),
        };
        self.say(match output {
            Output::Console | Output::Stdout => ChannelEvent::Data(data),
            Output::Stderr => ChannelEvent::Stderr(data),
        });
        true
    }

    /// Plan 9 ends lines with a line feed; a terminal needs a carriage return as well.
    fn terminal_lines(&mut self, data: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(data.len() + 16);
        for byte in data {
            if *byte == b'\n' && self.last != b'\r' {
                out.extend_from_slice(b"\r");
            }
            out.extend_from_slice(&[*byte]);
            self.last = *byte;
        }
        out.freeze()
    }

    /// The machine has opened the file that controls the terminal.
    pub(crate) fn open_control(&mut self) {
        self.controls += 1;
    }

    /// Words that were written to it.
    pub(crate) fn control(&mut self, words: &[u8]) {
        for word in words.split(u8::is_ascii_whitespace) {
            match word {
                b"rawon" if self.mode == Mode::Terminal => {
                    self.raw = true;
                    let typed = self.editor.take();
                    self.offer(Bytes::from(typed));
                }
                b"rawoff" => self.raw = false,
                // `holdon` and the like are for graphical terminals.
                _ => {}
            }
        }
    }

    /// One of those files is closed. With the last one the terminal is as it was.
    pub(crate) fn close_one_control(&mut self) {
        self.controls = self.controls.saturating_sub(1);
        self.raw &= self.controls > 0;
    }

    pub(crate) fn close_control(&mut self) {
        self.controls = 0;
        self.raw = false;
    }

    /// What runs has ended, with a status.
    pub(crate) fn exit(&mut self, status: &[u8]) {
        if !self.finished {
            self.finished = true;
            self.say(ChannelEvent::Eof);
            self.say(ChannelEvent::ExitStatus(exit_code(status)));
        }
    }

    fn offer(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.waiting += bytes.len();
            self.input.push_back(bytes);
        }
    }

    fn discard_input(&mut self) {
        self.input.clear();
        self.waiting = 0;
    }

    /// Shows the user what was typed, unless that is left unread.
    fn echo(&mut self, bytes: Vec<u8>) {
        let Some(last) = bytes.last() else { return };
        if self.unread < 2 * MAX_UNREAD {
            self.last = *last;
            self.say(ChannelEvent::Data(Bytes::from(bytes)));
        }
    }
}

/// What an event holds until it is read.
fn cost(event: &ChannelEvent) -> usize {
    match event {
        ChannelEvent::Data(data) | ChannelEvent::Stderr(data) => data.len() + EVENT,
        ChannelEvent::Eof | ChannelEvent::ExitSignal { .. } | ChannelEvent::ExitStatus(_) => EVENT,
    }
}

/// The exit code of a status of Plan 9: nothing is success, else there is `name pid: text`, for each part of a pipeline.
/// A text that is a number is the code, any other is 1.
fn exit_code(status: &[u8]) -> u32 {
    let status = String::from_utf8_lossy(status);
    let codes = status.trim().split('|').map(|part| {
        let text = part.rsplit(": ").next().unwrap_or_default().trim();
        match text.parse::<u8>() {
            Ok(code) => u32::from(code),
            Err(_) if text.is_empty() => 0,
            Err(_) => 1,
        }
    });
    codes.rev().find(|code| *code != 0).unwrap_or(0)
}

/// How much the user may leave unread before the machine's writes wait.
const MAX_UNREAD: usize = 256 << 10;

/// What an event costs besides its bytes, against a machine that writes one at a time.
const EVENT: usize = 64;

/// How much may wait for the machine to read before the user's next input does.
pub(crate) const MAX_WAITING: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_exit_codes() {
        for (status, code) in [
            ("", 0),
            ("rc 703: 3", 3),
            ("rc 703: rc 704: 3", 3),
            ("ls 12: file does not exist", 1),
            ("rc 703: 0", 0),
            ("|", 0),
            ("|rc 9: 4", 4),
            ("rc 9: 4|", 4),
            ("interrupt", 1),
            ("rc 9: 256", 1),
        ] {
            assert_eq!(exit_code(status.as_bytes()), code, "{status}");
        }
    }

    fn shown(console: &mut Console) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(event) = console.poll_event() {
            if let ChannelEvent::Data(data) = event {
                out.extend_from_slice(&data);
            }
        }
        out
    }

    #[test]
    fn the_machine_reads_one_line_at_a_time() {
        let mut console = Console::new(Mode::Terminal);
        console.handle_input(b"one\rtwo\nthr");
        assert_eq!(console.read(Node::Cons, 100).unwrap(), "one\n");
        assert_eq!(console.read(Node::Cons, 2).unwrap(), "tw");
        assert_eq!(console.read(Node::Cons, 100).unwrap(), "o\n");
        assert_eq!(console.read(Node::Cons, 100), None);
        assert_eq!(shown(&mut console), b"one\r\ntwo\r\nthr");
    }

    #[test]
    fn an_interrupt_forgets_what_was_typed_and_becomes_a_note() {
        let mut console = Console::new(Mode::Terminal);
        console.handle_input(b"one\rtwo\x03\x03");
        assert_eq!(console.read(Node::Cons, 100), None);
        assert_eq!(console.read(Node::CpuNote, 100), None);
        assert_eq!(console.read(Node::Note, 100).unwrap(), "interrupt");
        assert_eq!(console.read(Node::Note, 100), None);
    }

    #[test]
    fn raw_input_is_neither_echoed_nor_edited_until_the_last_control_is_closed() {
        let mut console = Console::new(Mode::Terminal);
        console.open_control();
        console.open_control();
        console.control(b"holdon rawon\n");
        console.handle_input(b"a\x7f\x03\r");
        assert_eq!(console.read(Node::Cons, 100).unwrap(), "a\x7f\x03\r");
        console.close_one_control();
        console.handle_input(b"b");
        assert_eq!(shown(&mut console), b"");
        console.close_one_control();
        console.handle_input(b"c");
        assert_eq!(shown(&mut console), b"c");
    }

    #[test]
    fn pipes_are_left_alone() {
        let mut console = Console::new(Mode::Pipes);
        let every: Vec<u8> = (0..=255).collect();
        console.handle_input(&every);
        console.handle_eof();
        assert_eq!(console.read(Node::Stdin, 1000).unwrap(), every);
        assert_eq!(console.read(Node::Stdin, 1000).unwrap(), "");
        assert_eq!(console.read(Node::Stdin, 1000).unwrap(), "");
        assert!(console.write(Output::Stdout, &Bytes::from(every.clone())));
        assert!(console.write(Output::Stderr, &Bytes::from_static(b"x")));
        assert_eq!(console.poll_event(), Some(ChannelEvent::Data(every.into())));
        assert_eq!(console.poll_event(), Some(ChannelEvent::Stderr("x".into())));
    }

    #[test]
    fn writes_wait_while_the_user_does_not_read() {
        let mut console = Console::new(Mode::Pipes);
        let piece = Bytes::from(vec![0; 8192]);
        let taken = (0..1000)
            .take_while(|_| console.write(Output::Stdout, &piece))
            .count();
        assert_eq!(taken, MAX_UNREAD / 8192);
        console.poll_event();
        assert!(console.write(Output::Stdout, &piece));
    }

    #[test]
    fn small_writes_cost_more_than_their_bytes() {
        let mut console = Console::new(Mode::Pipes);
        let byte = Bytes::from_static(b"x");
        let taken = (0..).take_while(|_| console.write(Output::Stdout, &byte));
        assert!(taken.count() <= MAX_UNREAD / EVENT);
    }

    #[test]
    fn echo_that_nobody_reads_is_bounded() {
        let mut console = Console::new(Mode::Terminal);
        for _ in 0..100_000 {
            console.handle_input(b"x\x7f");
        }
        assert!(console.unread <= 2 * MAX_UNREAD + EVENT + 8);
    }

    #[test]
    fn lines_end_as_a_terminal_needs_it() {
        let mut console = Console::new(Mode::Terminal);
        console.write(Output::Console, &Bytes::from_static(b"a\nb\r"));
        console.write(Output::Console, &Bytes::from_static(b"\nc"));
        assert_eq!(shown(&mut console), b"a\r\nb\r\nc");
    }
}
