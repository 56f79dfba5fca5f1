use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Slips bytes into what is written, between two frames: a word that the session did not say.
pub struct Splice<S> {
    inner: S,
    frame_len: FrameLen,
    head: Vec<u8>,
    left: usize,
    shared: SpliceHandle,
}

/// The length of the frame at the head of these bytes, `None` while they do not tell.
type FrameLen = Box<dyn Fn(&[u8]) -> Option<usize> + Send>;

/// Gives a [`Splice`] something to slip in.
#[derive(Clone, Debug, Default)]
pub struct SpliceHandle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<u8>,
    waker: Option<Waker>,
}

impl<S> Splice<S> {
    /// A splice and its handle. `frame_len` tells the length of the frame at the head of the bytes it is given, header
    /// included, or `None` while the header is incomplete.
    pub fn new(
        inner: S,
        frame_len: impl Fn(&[u8]) -> Option<usize> + Send + 'static,
    ) -> (Self, SpliceHandle) {
        let shared = SpliceHandle::default();
        let splice = Self {
            inner,
            frame_len: Box::new(frame_len),
            head: Vec::new(),
            left: 0,
            shared: shared.clone(),
        };
        (splice, shared)
    }

    fn between_frames(&self) -> bool {
        self.left == 0 && self.head.is_empty()
    }

    /// Follows the frames in what was written.
    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                self.left -= n;
                bytes = &bytes[n..];
                continue;
            }
            self.head.push(first);
            bytes = &bytes[1..];
            if let Some(len) = (self.frame_len)(&self.head) {
                self.left = len.saturating_sub(self.head.len());
                self.head.clear();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Splice<S> {
    /// Writes what is to be slipped in, if this is the place.
    fn poll_slip(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.between_frames() {
            let piece: Vec<u8> = self.shared.lock().queue.iter().copied().collect();
            if piece.is_empty() {
                break;
            }
            let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &piece))?;
            self.shared.lock().queue.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl SpliceHandle {
    /// Slips `bytes` in before the next frame.
    pub fn slip(&self, bytes: &[u8]) {
        let waker = {
            let mut state = self.lock();
            state.queue.extend(bytes);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether everything has been slipped in.
    pub fn is_done(&self) -> bool {
        self.lock().queue.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for Splice<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Splice")
            .field("inner", &self.inner)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Splice<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.shared.lock().waker = Some(cx.waker().clone());
        // A reader is always there; a write that has to wait is tried again when the writer comes.
        if let Poll::Ready(Err(error)) = self.poll_slip(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Splice<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_slip(cx))?;
        let waiting = !this.shared.is_done();
        let most = match this.left {
            // Up to the end of the frame, byte by byte where it is not known.
            left if waiting => left.max(1),
            _ => buf.len(),
        };
        let len = buf.len().min(most);
        let n = ready!(Pin::new(&mut this.inner).poll_write(cx, &buf[..len]))?;
        this.follow(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_slip(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_slip(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Frames of a length and as many bytes.
    fn frame_len(bytes: &[u8]) -> Option<usize> {
        bytes.first().map(|len| 1 + usize::from(*len))
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_slipped_into_a_frame() {
        let (a, mut b) = tokio::io::duplex(64);
        let (mut a, handle) = Splice::new(a, frame_len);
        a.write_all(&[3, 1]).await.unwrap();
        handle.slip(&[1, 9]);
        a.write_all(&[2, 3, 1, 4]).await.unwrap();
        drop(a);
        let mut got = Vec::new();
        b.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, [3, 1, 2, 3, 1, 9, 1, 4]);
    }
}
