//! A Plan 9 machine and its authentication server that know no password are believed nothing, and panic nobody.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sshbridge::backend::conterm::fuzzing::p9any;

fuzz_target!(|input: &[u8]| p9any(input));
