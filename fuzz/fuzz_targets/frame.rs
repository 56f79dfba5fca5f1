//! Any twelve bytes are a header or an error, and a header is written as it was read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use revdial::frame::{HEADER_LEN, Header};

fuzz_target!(|bytes: [u8; HEADER_LEN]| {
    if let Ok(header) = Header::decode(&bytes) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
});
