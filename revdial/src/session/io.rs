//! Operations on many buffers, made of those on one.

use std::io::IoSlice;
use std::task::Poll;

use bytes::{BufMut, Bytes};

use crate::error::ConnError;

/// Fills `buf` from `read_chunk`, which is told how much there is room for and returns nothing at the end. An error
/// waits until all that came before it was taken.
pub(crate) fn read<B: BufMut>(
    buf: &mut B,
    mut read_chunk: impl FnMut(usize) -> Poll<Result<Bytes, ConnError>>,
) -> Poll<Result<usize, ConnError>> {
    let mut count = 0;
    while buf.has_remaining_mut() {
        match read_chunk(buf.remaining_mut()) {
            Poll::Ready(Ok(chunk)) if !chunk.is_empty() => {
                count += chunk.len();
                buf.put(chunk);
            }
            Poll::Ready(Ok(_)) => break,
            _ if count > 0 => break,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(count))
}

/// Hands the concatenation of `slices` to `write`, as much as it takes.
pub(crate) fn write_vectored(
    slices: &[IoSlice<'_>],
    mut write: impl FnMut(&[u8]) -> Poll<Result<usize, ConnError>>,
) -> Poll<Result<usize, ConnError>> {
    let mut count = 0;
    for slice in slices.iter().filter(|slice| !slice.is_empty()) {
        match write(slice) {
            Poll::Ready(Ok(written)) => count += written,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending if count == 0 => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    if count > 0 {
        return Poll::Ready(Ok(count));
    }
    write(&[])
}
