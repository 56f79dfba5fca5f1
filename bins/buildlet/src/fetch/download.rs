//! The content of a reply, as it arrives.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Reads a body of bounded length, from a server that may not be silent for long.
pub(super) struct Download<B> {
    body: B,
    chunk: Bytes,
    left: u64,
    idle: Pin<Box<Sleep>>,
    failure: Failure,
}

impl<B> Download<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    /// Reads `body`, and leaves in `failure` why it could not be read to its end.
    pub(super) fn new(body: B, failure: Failure) -> Self {
        Self {
            body,
            chunk: Bytes::new(),
            left: MAX_BYTES,
            idle: Box::pin(tokio::time::sleep(IDLE_TIME)),
            failure,
        }
    }

    /// Waits for more; at the end there is none.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                ready!(self.idle.as_mut().poll(cx));
                let seconds = IDLE_TIME.as_secs();
                return Poll::Ready(Err(format!("the server was silent for {seconds} s")));
            };
            let Some(frame) = frame else {
                return Poll::Ready(Ok(()));
            };
            let frame = frame.map_err(|error| format!("the server cut the connection: {error}"))?;
            self.idle.as_mut().reset(Instant::now() + IDLE_TIME);
            let chunk = frame.into_data().unwrap_or_default();
            if chunk.is_empty() {
                continue;
            }
            let Some(left) = self.left.checked_sub(chunk.len() as u64) else {
                return Poll::Ready(Err(format!("it is larger than {} GiB", MAX_BYTES >> 30)));
            };
            (self.left, self.chunk) = (left, chunk);
            return Poll::Ready(Ok(()));
        }
    }
}

impl<B> AsyncRead for Download<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Display,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.chunk.is_empty()
            && let Err(why) = ready!(self.poll_chunk(cx))
        {
            self.failure.put(&why);
            return Poll::Ready(Err(io::Error::other(why)));
        }
        let length = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk[..length]);
        self.chunk.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// Why a download failed, if it did.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    fn put(&self, why: &str) {
        let mut failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| why.to_owned());
    }

    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The body of a request that has none.
pub(super) struct NoBody;

impl Body for NoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// More than any toolchain, compressed, and an end to a server that has none.
const MAX_BYTES: u64 = 16 << 30;
/// As long as TCP takes to notice a path that is gone and come back to one that is not.
const IDLE_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Sends the same chunk for ever, or nothing.
    struct Endless(Option<Bytes>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match &self.0 {
                Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk.clone())))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test]
    async fn a_body_without_an_end_has_one() {
        let failure = Failure::default();
        let body = Endless(Some(Bytes::from_static(&[0; 1000])));
        let mut download = Download::new(body, failure.clone());
        download.left = 10_500;
        let mut read = Vec::new();
        assert!(download.read_to_end(&mut read).await.is_err());
        assert_eq!(read.len(), 10_000);
        assert_eq!(failure.take().unwrap(), "it is larger than 16 GiB");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_falls_silent_is_left() {
        let failure = Failure::default();
        let mut download = Download::new(Endless(None), failure.clone());
        assert!(download.read_u8().await.is_err());
        assert_eq!(failure.take().unwrap(), "the server was silent for 60 s");
    }
}
