//! A v1 session between a program and a peer that both do whatever they like: it neither panics nor holds more than it
//! may, and it never writes for a connection behind its `C`.

#![no_main]

use std::collections::HashMap;
use std::task::Poll;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use revdial::Config;
use revdial::frame::StreamId;
use revdial::session::Role;
use revdial::v1::Session;
use revdial::v1::frame::{Header, Kind};
use revdial_fuzz::{Counting, Script};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct World {
    session: Session,
    role: Role,
    now: Instant,
    held: Vec<StreamId>,
    /// How often each number was opened, less how often our `C` for it went out. Not known behind bytes that may be
    /// frames of any kind.
    open: Option<HashMap<StreamId, i32>>,
}

impl World {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0..6 => self.frame(script),
            6 => {
                let len = usize::from(script.byte());
                let bytes = script.bytes(len).to_vec();
                self.open = None;
                self.input(&bytes);
            }
            7 | 8 => self.held.extend(match self.role {
                Role::Dialer => self.session.open().ok(),
                _ => self.session.accept(),
            }),
            9..12 => self.transmit(script),
            12 => {
                self.now += Duration::from_millis(u64::from(script.short()));
                self.session.handle_timeout(self.now);
            }
            _ => self.operate(script),
        }
        let mut events = 0;
        while self.session.poll_event().is_some() {
            events += 1;
        }
        assert!(events <= 100 + 2 * self.session.stream_count());
    }

    /// The driver does not read while the session wants no input.
    fn input(&mut self, bytes: &[u8]) {
        if self.session.wants_input() {
            self.session.handle_input(self.now, bytes);
        }
    }

    fn frame(&mut self, script: &mut Script<'_>) {
        let kind = [b'N', b'C', b'W', b'W', b'x'][usize::from(script.byte() % 5)];
        let id = u32::from(script.byte() % 8);
        let length = script.short();
        if kind == b'N'
            && self.session.wants_input()
            && let (Some(id), Some(open)) = (StreamId::new(id), &mut self.open)
        {
            *open.entry(id).or_default() += 1;
        }
        let mut bytes = vec![kind];
        bytes.extend(id.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(length), 7);
        self.input(&bytes);
    }

    fn transmit(&mut self, script: &mut Script<'_>) {
        let max = usize::from(script.short());
        for _ in 0..1 + script.byte() % 16 {
            let Some(frame) = self.session.poll_transmit(self.now, max) else {
                assert!(!self.session.has_output(), "output that is none");
                return;
            };
            let head = frame.head().try_into().expect("seven bytes");
            let header = Header::decode(head);
            assert_eq!(usize::from(header.length), frame.payload().len());
            if let (Some(id), Some(open)) = (header.id, &mut self.open) {
                let open = open.entry(id).or_default();
                match header.kind {
                    Kind::Open => *open += 1,
                    Kind::Write => assert!(*open > 0, "data behind C"),
                    _ => *open -= 1,
                }
                assert!(*open >= 0, "a second C");
            }
            self.session.handle_flushed(frame.ticket());
        }
    }

    fn operate(&mut self, script: &mut Script<'_>) {
        if self.held.is_empty() {
            return;
        }
        let place = usize::from(script.byte()) % self.held.len();
        let id = self.held[place];
        let session = &mut self.session;
        match script.byte() % 9 {
            0 | 1 => {
                let data = vec![1; usize::from(script.short())];
                let _ = session.write(id, &data);
                assert!(session.queued(id) <= config().send_buffer);
            }
            2 => {
                let max = usize::from(script.short());
                if let Poll::Ready(Ok(chunk)) = session.read_chunk(id, max) {
                    assert!(chunk.len() <= max);
                }
            }
            3 => drop(session.shutdown(id)),
            4 => session.close(id),
            5 => session.reset(id, 1),
            6 => session.stop_reading(id),
            7 => session.stop_writing(id),
            _ => {
                self.held.swap_remove(place);
                session.release(id, self.now);
            }
        }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.max_inbound_streams = STREAMS;
    config.max_outbound_streams = STREAMS;
    config.send_buffer = SEND_BUFFER;
    config.v1_receive_buffer = RECEIVE_BUFFER;
    config.max_pending_resets = 16;
    config
}

fuzz_target!(|input: &[u8]| {
    let before = Counting::held();
    let mut script = Script(input);
    let role = if script.byte() % 2 == 0 {
        Role::Listener
    } else {
        Role::Dialer
    };
    let mut world = World {
        session: Session::new(role, config()),
        role,
        now: Instant::now(),
        held: Vec::new(),
        open: Some(HashMap::new()),
    };
    while !script.is_over() {
        world.step(&mut script);
        let held = Counting::held().saturating_sub(before);
        assert!(held <= MEMORY, "{held} bytes are held");
    }
});

const STREAMS: usize = 3;
const SEND_BUFFER: usize = 4096;
const RECEIVE_BUFFER: usize = 32 * 1024;

/// Twice the bound of `Config`, what one read brings beyond it, spare blocks, and what this target holds.
const MEMORY: usize =
    2 * (STREAMS * (RECEIVE_BUFFER + SEND_BUFFER) + 64 * 1024) + 512 * 1024 + 96 * 1024;
