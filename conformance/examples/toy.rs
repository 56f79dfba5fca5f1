//! A toy transport with a deliberate bug, and what the suite says about it.
//!
//! The toy passes bytes on. Its author kept one waker for both directions, so that a reader and a
//! writer in different tasks steal each other's wake-ups; everyday tests, which use one task, pass.
//!
//! ```text
//! $ cargo run -p conn-conformance --example toy
//! failed io.bulk: expected an end within 30s, saw a case that is stuck, while sending both ways at once, in virtual time
//! failed wake.rw_independent: expected the writer to be woken, saw nothing after all was read, while filling the
//! connection, in virtual time
//! ```

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use conn_conformance::{Cap, Caps, Options, Pair, Target, run_all};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

#[expect(clippy::print_stdout, reason = "an example talks to its reader")]
fn main() {
    let caps = Caps::of(&[Cap::HalfClose, Cap::InMemory, Cap::PeerGone]);
    let report = run_all(&Target::pairs("toy", toy, caps), &Options::default());
    println!("{report}");
}

async fn toy() -> io::Result<Pair> {
    let (a, b) = tokio::io::duplex(4096);
    Ok(Pair::new(Toy::new(a), Toy::new(b)))
}

/// Passes bytes on, with one waker for both directions.
struct Toy {
    inner: DuplexStream,
    waiting: Arc<OneWaker>,
}

impl Toy {
    fn new(inner: DuplexStream) -> Self {
        Self {
            inner,
            waiting: Arc::default(),
        }
    }

    /// The bug: whoever polled last gets the wake-up, of either direction.
    fn share(&self, cx: &Context<'_>) -> Waker {
        let mut slot = self
            .waiting
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = Some(cx.waker().clone());
        Waker::from(Arc::clone(&self.waiting))
    }
}

#[derive(Default)]
struct OneWaker(Mutex<Option<Waker>>);

impl Wake for OneWaker {
    fn wake(self: Arc<Self>) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl AsyncRead for Toy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = self.share(cx);
        Pin::new(&mut self.inner).poll_read(&mut Context::from_waker(&shared), buf)
    }
}

impl AsyncWrite for Toy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let shared = self.share(cx);
        Pin::new(&mut self.inner).poll_write(&mut Context::from_waker(&shared), buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
