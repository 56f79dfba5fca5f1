//! A session between a program and a peer that both do whatever they like: it neither panics, nor breaks the rules of
//! the wire, nor holds more memory than it was given.

#![no_main]

use std::task::Poll;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use revdial::Config;
use revdial::frame::{HEADER_LEN, StreamId};
use revdial::session::{Role, Session};
use revdial_fuzz::{Counting, Script, Wire};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct World {
    session: Session,
    role: Role,
    now: Instant,
    wire: Option<Wire>,
    /// Handles that the program holds.
    held: Vec<StreamId>,
    /// Frames that were made.
    ticket: u64,
    goodbye: bool,
}

impl World {
    fn new(role: Role) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(role, config(), now, 0),
            role,
            now,
            wire: Some(Wire::default()),
            held: Vec::new(),
            ticket: 0,
            goodbye: false,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 24 {
            0..6 => self.frame(script),
            6 => {
                // They may open any number any number of times: what is to stand on the wire is not known.
                self.wire = None;
                let len = usize::from(script.byte());
                self.session
                    .handle_input(self.now, script.bytes(len).to_vec());
            }
            7 | 8 if !self.goodbye => self.arrive(),
            9..12 => self.transmit(script),
            12 => self.session.handle_flushed(self.ticket),
            13 => {
                self.now += Duration::from_millis(u64::from(script.short()));
                self.session.handle_timeout(self.now);
            }
            14 => {
                self.session.ping();
            }
            15 => self.depart(script.byte()),
            _ => self.operate(script),
        }
        let mut events = 0;
        while self.session.poll_event().is_some() {
            events += 1;
        }
        assert!(events <= 100 + 2 * self.session.stream_count());
    }

    /// A frame of the peer, with a small number most of the time and payload that costs no input.
    fn frame(&mut self, script: &mut Script<'_>) {
        let (kind, flags) = (script.byte() % 5, script.byte() % 32);
        let id = match script.byte() {
            255 => script.word(),
            small => u32::from(small % 12),
        };
        let length = match script.byte() {
            255 => script.word(),
            254 => 256 * 1024 + u32::from(script.byte()),
            253 => 256 * 1024,
            small => u32::from(small) * 64,
        };
        let mut bytes = vec![0, kind, 0, flags];
        bytes.extend(id.to_be_bytes());
        bytes.extend(length.to_be_bytes());
        if let Some(id) = StreamId::new(id)
            && let Some(wire) = &mut self.wire
        {
            if flags & 1 == 1 {
                wire.reopen(id);
            } else if kind == 0 {
                wire.data(id);
            }
        }
        assert_eq!(bytes.len(), HEADER_LEN);
        if kind == 0 {
            let present = usize::try_from(length).unwrap().min(300 * 1024);
            bytes.resize(HEADER_LEN + present, 7);
        }
        for piece in bytes.chunks(1 + usize::from(script.byte()) * 256) {
            self.session.handle_input(self.now, piece.to_vec());
        }
    }

    /// A stream for the program: dialed or accepted.
    fn arrive(&mut self) {
        let id = match self.role {
            Role::Dialer => self.session.open().ok(),
            _ => self.session.accept(),
        };
        self.held.extend(id);
    }

    fn transmit(&mut self, script: &mut Script<'_>) {
        let max = match script.byte() {
            255 => usize::MAX,
            small => usize::from(small) * 100,
        };
        for _ in 0..1 + script.byte() % 16 {
            let Some(frame) = self.session.poll_transmit(self.now, max) else {
                assert!(!self.session.has_output(), "output that is none");
                break;
            };
            if let Some(wire) = &mut self.wire {
                wire.check(&frame, self.role, max, TOMBSTONES);
            }
            assert!(frame.ticket() > self.ticket);
            self.ticket = frame.ticket();
        }
    }

    fn depart(&mut self, how: u8) {
        match how {
            // Seldom: a session that has ended does not do much.
            0..4 => self.session.handle_eof(),
            4..8 => self.session.end(revdial::CloseReason::Local),
            8..24 => {
                self.goodbye = true;
                self.session.release_endpoint(self.now);
            }
            _ => {}
        }
    }

    fn operate(&mut self, script: &mut Script<'_>) {
        if self.held.is_empty() {
            return self.arrive_unless_gone();
        }
        let place = usize::from(script.byte()) % self.held.len();
        let id = self.held[place];
        let session = &mut self.session;
        match script.byte() % 12 {
            0 | 1 => {
                let data = vec![1; usize::from(script.short())];
                if let Poll::Ready(Ok(count)) = session.write(id, &data) {
                    assert!(count <= data.len() && (count > 0 || data.is_empty()));
                }
                assert!(session.queued(id) <= config().send_buffer);
            }
            2 => {
                let max = usize::from(script.short());
                if let Poll::Ready(Ok(chunk)) = session.read_chunk(id, max) {
                    assert!(chunk.len() <= max);
                }
            }
            3 => {
                let _ = session.read(id, &mut Vec::new());
            }
            4 => {
                let _ = session.flush(id);
            }
            5 => {
                let _ = session.shutdown(id);
            }
            6 => session.close(id),
            7 => session.reset(id, u32::from(script.byte())),
            8 => session.stop_reading(id),
            9 => session.stop_writing(id),
            10 => {
                let _ = session.poll_opened(id);
            }
            _ => {
                self.held.swap_remove(place);
                session.release(id, self.now);
            }
        }
    }

    fn arrive_unless_gone(&mut self) {
        if !self.goodbye {
            self.arrive();
        }
    }
}

/// Small limits, so that they are reached.
fn config() -> Config {
    let mut config = Config::default();
    config.max_inbound_streams = STREAMS;
    config.max_outbound_streams = STREAMS;
    config.send_buffer = SEND_BUFFER;
    config.max_stream_window = 512 * 1024;
    config.growth_budget = 256 * 1024;
    config.max_pending_resets = 16;
    config.tombstones = TOMBSTONES;
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
    let mut world = World::new(role);
    while !script.is_over() {
        world.step(&mut script);
        let held = Counting::held().saturating_sub(before);
        assert!(held <= MEMORY, "{held} bytes are held");
    }
});

const STREAMS: usize = 3;
const SEND_BUFFER: usize = 4096;
const TOMBSTONES: usize = 16;

/// The promise of `Config`, what the program itself may queue, and what this target holds.
const MEMORY: usize =
    STREAMS * 256 * 1024 + 256 * 1024 + STREAMS * SEND_BUFFER + 64 * 1024 + 16 * 1024;
