//! Records of `rcpu`, from its handshake on, mean the same however the stream splits them, and nothing is taken that was
//! changed on the way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sshbridge::backend::conterm::fuzzing::tls;

fuzz_target!(|input: &[u8]| tls(input));
