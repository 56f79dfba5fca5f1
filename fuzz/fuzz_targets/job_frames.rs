//! The frames of a job's output: any bytes are frames or an error, however they are cut, and what is written of them is read
//! as the same. (The offset of a frame that needs none is not looked at, and written as zero.)

#![no_main]

use buildlet_proto::jobs::frame::{Frame, HEADER_LENGTH, MAX_DATA, MAX_END};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let (whole, rest) = frames(input, input.len());
    let mut written = BytesMut::new();
    for frame in &whole {
        check(frame);
        frame.encode(&mut written);
    }
    assert_eq!(written.len(), input.len() - rest.len());
    let (again, _) = frames(&written, written.len());
    assert_eq!(again, whole);

    let step = usize::from(input.first().copied().unwrap_or(0)) + 1;
    let (pieces, _) = frames(input, step);
    assert_eq!(pieces, whole, "the cut of the input shows");

    let mut rest = rest;
    let cut = rest.len();
    if let Some(frame) = Frame::salvage(&mut rest) {
        check(&frame);
        assert!(cut > HEADER_LENGTH && rest.is_empty());
    }
});

/// Decodes what arrives `step` bytes at a time, up to the first error; what is left is that of the input as a whole.
fn frames(input: &[u8], step: usize) -> (Vec<Frame>, BytesMut) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut pieces = input.chunks(step.max(1));
    while let Some(piece) = pieces.next() {
        buffer.extend_from_slice(piece);
        loop {
            match Frame::decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => {
                    pieces.for_each(|piece| buffer.extend_from_slice(piece));
                    return (frames, buffer);
                }
            }
        }
        assert!(buffer.len() <= HEADER_LENGTH + MAX_DATA.max(MAX_END) + step);
    }
    (frames, buffer)
}

fn check(frame: &Frame) {
    match frame {
        Frame::Data { offset, bytes, .. } => {
            assert!((1..=MAX_DATA).contains(&bytes.len()));
            assert!(offset.checked_add(bytes.len() as u64).is_some());
        }
        Frame::Gap { offset, end, .. } => assert!(offset < end),
        Frame::End { job } => assert!(job.len() <= MAX_END),
        _ => {}
    }
}
