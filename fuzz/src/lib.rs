//! What the fuzz targets share: a way to read an input as a script, a count of the heap, and what a session may send.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use revdial::frame::{Flags, Header, StreamId};
use revdial::session::{Frame, Role};

/// The system's allocator, with a count of what is held.
#[derive(Debug)]
pub struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

impl Counting {
    /// Bytes that are allocated.
    pub fn held() -> usize {
        HELD.load(Ordering::Relaxed)
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        HELD.fetch_add(new_size, Ordering::Relaxed);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// An input, read from the front. Behind its end it is all zeros.
#[derive(Debug)]
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// A number of two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A number of four bytes.
    pub fn word(&mut self) -> u32 {
        u32::from(self.short()) << 16 | u32::from(self.short())
    }

    /// Up to `len` bytes.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// What stands on the wire: no frame of a stream behind its FIN but credit, none behind its RST.
#[derive(Debug, Default)]
pub struct Wire(HashMap<StreamId, Sent>);

#[derive(Debug, Default)]
struct Sent {
    fin: bool,
    resets: u32,
    /// How often the peer opened a stream with this number: each may be reset.
    opened: u32,
    /// The peer sent data with this number before it opened a stream: that is answered with a reset of its own, which
    /// may still wait to be sent when the stream is opened.
    skipped: bool,
}

impl Sent {
    fn is_over(&self) -> bool {
        self.resets >= self.opened.max(1) + u32::from(self.skipped && self.opened > 0)
    }
}

impl Wire {
    /// Notes that the peer opened a stream with this number, perhaps again.
    pub fn reopen(&mut self, id: StreamId) {
        let sent = self.0.entry(id).or_default();
        sent.opened += 1;
        sent.fin = false;
    }

    /// Notes that the peer sent data with this number, without opening a stream.
    pub fn data(&mut self, id: StreamId) {
        let sent = self.0.entry(id).or_default();
        sent.skipped |= sent.opened == 0;
    }

    /// Says whether a session with so many tombstones remembers every number that it has reset.
    fn is_remembered(&self, tombstones: usize) -> bool {
        self.0.values().filter(|sent| sent.resets > 0).count() <= tombstones
    }

    /// Checks a frame that the session made.
    pub fn check(&mut self, frame: &Frame, role: Role, max: usize, tombstones: usize) {
        let head = frame.head().try_into().expect("twelve bytes");
        let header = Header::decode(head).expect("a frame of our own");
        assert!(frame.payload().len() <= max.max(1));
        match header {
            Header::Data { id, flags, length } => {
                assert_eq!(length as usize, frame.payload().len());
                let sent = self.0.entry(id).or_default();
                assert!(!sent.fin, "a frame behind FIN");
                assert!(!sent.is_over(), "a frame behind RST");
                assert!(!flags.contains(Flags::RST));
                sent.fin |= flags.contains(Flags::FIN);
            }
            Header::WindowUpdate { id, flags, .. } => {
                let remembered = self.is_remembered(tombstones);
                let sent = self.0.entry(id).or_default();
                // A number that was forgotten is reset anew when data comes for it.
                let again = flags.contains(Flags::RST) && !remembered;
                assert!(again || !sent.is_over(), "a frame behind RST");
                assert!(!flags.contains(Flags::FIN));
                assert!(!flags.contains(Flags::SYN) || role == Role::Dialer);
                sent.resets += u32::from(flags.contains(Flags::RST));
            }
            _ => {}
        }
    }
}
