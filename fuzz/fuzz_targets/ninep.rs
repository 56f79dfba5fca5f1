//! A Plan 9 machine's requests for files get the same answers however the stream splits them, and no machine makes the
//! gateway panic or hold more than its bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use revdial_fuzz::Counting;
use sshbridge::backend::conterm::fuzzing::ninep;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fuzz_target!(|input: &[u8]| {
    let before = Counting::held();
    ninep(input, || {
        let held = Counting::held().saturating_sub(before);
        assert!(held <= MAX_HELD, "{held} bytes are held");
    });
});

/// 8 MiB of requests that wait, what is unsent, unread and typed, the fids, and the answers that this target keeps.
const MAX_HELD: usize = 24 << 20;
