//! What idle links and streams hold on the heap, by a global allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::muxes::{Mux, Revdial, connect, connect_into, tcp_pair};
use crate::report::Figures;
use crate::run;

/// Bytes per end of an idle stream that has carried some, with what its handle points to.
pub(crate) fn measure_streams<M: Mux>(figures: &mut Figures) {
    let bytes = run(async {
        let (ours, theirs) = tcp_pair().await;
        let (opener, mut acceptor) = M::start(ours, theirs);
        let mut pairs = connect::<M>(&opener, &mut acceptor, 1).await;
        pairs.reserve(STREAMS);
        settle().await;
        let before = held();
        connect_into::<M>(&mut pairs, &opener, &mut acceptor, STREAMS).await;
        settle().await;
        let after = held();
        drop(pairs);
        (after - before) as f64
    });
    figures.add(
        "heap_per_idle_stream_end_bytes",
        bytes / (2 * STREAMS) as f64,
    );
}

/// Bytes per end of an idle link: one that is fresh, and one whose only stream has moved much and is gone. Buffers are
/// held for a second after their last use.
pub(crate) fn measure_link(figures: &mut Figures) {
    let (fresh, used) = run(async {
        let (ours, theirs) = tcp_pair().await;
        settle().await;
        let before = held();
        let (opener, mut acceptor) = Revdial::start(ours, theirs);
        opener.ping().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let fresh = held() - before;
        let (mut ours, mut theirs) = connect::<Revdial>(&opener, &mut acceptor, 1)
            .await
            .remove(0);
        let sending = tokio::spawn(async move {
            ours.write_all(&vec![7; MUCH]).await.unwrap();
            ours.shutdown().await.unwrap();
            ours
        });
        let mut received = 0;
        let mut buffer = vec![0; 64 * 1024];
        while received < MUCH {
            received += theirs.read(&mut buffer).await.unwrap();
        }
        drop((buffer, sending.await.unwrap(), theirs));
        opener.ping().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        (fresh, held() - before)
    });
    figures.add("heap_per_idle_link_end_bytes", fresh as f64 / 2.0);
    figures.add("heap_per_used_link_end_bytes", used as f64 / 2.0);
}

/// Lets every task run until all of them wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// The system's allocator, with a count of what is held.
pub(crate) struct CountingAllocator;

static HELD: AtomicIsize = AtomicIsize::new(0);

fn held() -> isize {
    HELD.load(Ordering::Relaxed)
}

fn count(change: isize) {
    // One thread allocates, so that nothing is lost between the load and the store; a locked addition would cost every
    // measurement that allocates.
    HELD.store(held().wrapping_add(change), Ordering::Relaxed);
}

/// No allocation is larger than `isize::MAX`.
fn size(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-size(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size(new_size) - size(layout.size()));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

const STREAMS: usize = 1000;
/// Bytes that a link moves before it is idle again.
const MUCH: usize = 32 * 1024 * 1024;
