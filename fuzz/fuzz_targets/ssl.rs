//! Records of `cpu` mean the same however the stream splits them, and nothing is taken that was changed on the way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sshbridge::backend::conterm::fuzzing::ssl;

fuzz_target!(|input: &[u8]| ssl(input));
