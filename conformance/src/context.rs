//! What a case is given: fresh pairs, a clock, random numbers, and words for its failures.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::caps::Caps;
use crate::fault::{Splice, SpliceHandle};
use crate::mux::{FrameKind, Mux, MuxPair, Side};
use crate::pair::{Pair, Wire, pipe};
use crate::report::{Expecting, Failure, describe};
use crate::rng::Rng;
use crate::target::Target;

/// The clock and threads that a case runs by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// One thread, real time.
    Current,
    /// One thread, virtual time: when nothing can run, the clock jumps to the next timer.
    Paused,
    /// Several threads, real time.
    Threads,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Current => "on one thread",
            Self::Paused => "in virtual time",
            Self::Threads => "on several threads",
        }
    }
}

/// The surroundings of one run of one case.
#[derive(Clone)]
pub(crate) struct Cx {
    target: Target,
    mode: Mode,
    seed: u64,
    step: Arc<Mutex<String>>,
}

impl Cx {
    pub(crate) fn new(target: Target, mode: Mode, seed: u64) -> Self {
        Self {
            target,
            mode,
            seed,
            step: Arc::default(),
        }
    }

    pub(crate) fn caps(&self) -> Caps {
        self.target.caps
    }

    pub(crate) fn rng(&self) -> Rng {
        Rng::new(self.seed)
    }

    /// A fresh pair.
    pub(crate) async fn pair(&self) -> Result<Pair, Failure> {
        self.step("making a pair");
        self.target.pairs.make().await.expecting("a fresh pair")
    }

    /// A fresh pair over two byte pipes.
    pub(crate) async fn pair_over(&self, a: Wire, b: Wire) -> Result<Pair, Failure> {
        self.step("making a pair over the suite's byte pipes");
        self.target
            .pairs
            .make_over(a, b)
            .await
            .expecting("a fresh pair over a byte pipe")
    }

    /// A fresh session.
    pub(crate) async fn session(&self) -> Result<MuxPair, Failure> {
        self.step("making a session");
        match &self.target.mux {
            Some(mux) => mux.make().await.expecting("a fresh session"),
            None => Err(Failure::new("a multiplexer", "a transport of connections")),
        }
    }

    /// A fresh session over two byte pipes.
    pub(crate) async fn session_over(&self, a: Wire, b: Wire) -> Result<MuxPair, Failure> {
        self.step("making a session over the suite's byte pipes");
        match &self.target.mux {
            Some(mux) => mux
                .make_over(a, b)
                .await
                .expecting("a fresh session over a byte pipe"),
            None => Err(Failure::new("a multiplexer", "a transport of connections")),
        }
    }

    /// A fresh session, and what slips frames into the server's end of its wire.
    pub(crate) async fn spliced_session(&self) -> Result<(MuxPair, SpliceHandle), Failure> {
        let mux = self.target.mux.clone();
        let frame_len = move |bytes: &[u8]| {
            let frames = mux.as_ref()?.frames()?;
            frames.parse(bytes).map(|frame| frame.len)
        };
        let (a, b) = pipe();
        let (b, handle) = Splice::new(b, frame_len);
        let session = self.session_over(a, Box::new(b)).await?;
        Ok((session, handle))
    }

    /// A frame of the multiplexer's wire that concerns the session.
    pub(crate) fn frame(&self, kind: FrameKind) -> Result<Vec<u8>, Failure> {
        let frames = self.target.mux.as_ref().and_then(|mux| mux.frames());
        let frame = frames.and_then(|frames| frames.encode(kind));
        frame.ok_or_else(|| Failure::new(format!("a frame of kind {kind:?}"), "none"))
    }

    /// One side of a session, whose peer the case plays itself.
    pub(crate) async fn side(&self, wire: Wire, side: Side) -> Result<Box<dyn Mux>, Failure> {
        self.step("making one side of a session");
        match &self.target.mux {
            Some(mux) => mux
                .side(wire, side)
                .await
                .expecting("one side of a session"),
            None => Err(Failure::new("a multiplexer", "a transport of connections")),
        }
    }

    /// Names what happens next, for the failure text of a run that gets stuck.
    pub(crate) fn step(&self, what: impl Into<String>) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    /// What was happening last.
    pub(crate) fn last_step(&self) -> String {
        self.step
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until everything that can happen without us has happened. Exact in virtual time; elsewhere it gives the
    /// machine some milliseconds.
    pub(crate) async fn settle(&self) {
        let pause = match self.mode {
            Mode::Paused => Duration::from_millis(1),
            Mode::Current | Mode::Threads => Duration::from_millis(25),
        };
        tokio::time::sleep(pause).await;
    }

    /// Lets other tasks work for a while. Virtual time stands still while somebody works, so there it counts turns.
    pub(crate) async fn busy_pause(&self) {
        match self.mode {
            Mode::Paused => {
                for _ in 0..500 {
                    tokio::task::yield_now().await;
                }
            }
            Mode::Current | Mode::Threads => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }

    /// Waits until `done`, and fails with what was expected if that does not come.
    pub(crate) async fn until(
        &self,
        expected: &str,
        mut done: impl FnMut() -> bool,
    ) -> Result<(), Failure> {
        for _ in 0..PATIENCE.as_millis() {
            if done() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(Failure::new(expected, "nothing within 2 s"))
    }

    /// Waits for `future`, and fails with what was expected if it does not end in two seconds.
    pub(crate) async fn within<F: Future>(
        &self,
        expected: &str,
        future: F,
    ) -> Result<F::Output, Failure> {
        tokio::time::timeout(PATIENCE, future)
            .await
            .map_err(|_| Failure::new(expected, "nothing within 2 s"))
    }
}

/// Writes all of `data`; a failure names the byte.
pub(crate) async fn send(io: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> Result<(), Failure> {
    send_in(io, data, usize::MAX).await
}

/// Writes all of `data` in pieces of at most `size` bytes; a failure names the byte.
pub(crate) async fn send_in(
    io: &mut (impl AsyncWrite + Unpin),
    data: &[u8],
    size: usize,
) -> Result<(), Failure> {
    let mut done = 0;
    while done < data.len() {
        let end = data.len().min(done.saturating_add(size));
        let place = || format!("at byte {done} of {}", data.len());
        let piece = &data[done..end];
        let n = io
            .write(piece)
            .await
            .expecting("a write to succeed")
            .map_err(|f| f.at(place()))?;
        if n == 0 || n > piece.len() {
            let expected = format!("a write of {} bytes to take 1 to {0}", piece.len());
            return Err(Failure::new(expected, format!("{n}")).at(place()));
        }
        done += n;
    }
    io.flush().await.expecting("a flush to succeed")
}

/// Writes all of `data` and ends our direction.
pub(crate) async fn send_and_shutdown(
    io: &mut (impl AsyncWrite + Unpin),
    data: &[u8],
) -> Result<(), Failure> {
    send(io, data).await?;
    io.shutdown().await.expecting("a shutdown to succeed")
}

/// Reads as many bytes as `expected` has, and compares.
pub(crate) async fn receive(
    io: &mut (impl AsyncRead + Unpin),
    expected: &[u8],
) -> Result<(), Failure> {
    receive_in(io, expected, usize::MAX).await
}

/// Reads as many bytes as `expected` has, by reads of at most `size` bytes, and compares.
pub(crate) async fn receive_in(
    io: &mut (impl AsyncRead + Unpin),
    expected: &[u8],
    size: usize,
) -> Result<(), Failure> {
    let mut buf = vec![0; size.min(READ_SIZE)];
    let mut done = 0;
    while done < expected.len() {
        let place = || format!("at byte {done} of {}", expected.len());
        let room = buf.len().min(expected.len() - done);
        let n = io
            .read(&mut buf[..room])
            .await
            .expecting("a read to succeed")
            .map_err(|f| f.at(place()))?;
        if n == 0 {
            return Err(Failure::new("more bytes", "the end of the stream").at(place()));
        }
        same(&expected[done..done + n], &buf[..n], done)?;
        done += n;
    }
    Ok(())
}

/// Reads all of `expected`, then a clean end.
pub(crate) async fn receive_to_end(
    io: &mut (impl AsyncRead + Unpin),
    expected: &[u8],
) -> Result<(), Failure> {
    receive(io, expected).await?;
    expect_end(io).await
}

/// Expects a clean end.
pub(crate) async fn expect_end(io: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
    let mut byte = [0];
    match io.read(&mut byte).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(Failure::new(
            "the end of the stream",
            format!("one more byte, {:#04x}", byte[0]),
        )),
        Err(error) => Err(Failure::new("the end of the stream", describe(&error))),
    }
}

/// Reads a prefix of `sent`, then expects an error. Returns how many bytes came before it.
pub(crate) async fn expect_broken(
    io: &mut (impl AsyncRead + Unpin),
    sent: &[u8],
) -> Result<usize, Failure> {
    let mut buf = vec![0; READ_SIZE];
    let mut done = 0;
    loop {
        let place = || format!("after {done} of {} bytes", sent.len());
        match io.read(&mut buf).await {
            Ok(0) => {
                return Err(Failure::new("an error", "a clean end of the stream").at(place()));
            }
            Ok(n) if n > sent.len() - done => {
                return Err(Failure::new("no more than was sent", "more bytes").at(place()));
            }
            Ok(n) => {
                same(&sent[done..done + n], &buf[..n], done)?;
                done += n;
            }
            Err(_) => return Ok(done),
        }
    }
}

/// Compares received bytes with those sent; `start` is the position of the first.
pub(crate) fn same(expected: &[u8], seen: &[u8], start: usize) -> Result<(), Failure> {
    if expected == seen {
        return Ok(());
    }
    let i = expected
        .iter()
        .zip(seen)
        .take_while(|(a, b)| a == b)
        .count();
    let show =
        |byte: Option<&u8>| byte.map_or_else(|| "nothing".to_owned(), |b| format!("{b:#04x}"));
    Err(Failure::new(show(expected.get(i)), show(seen.get(i))).at(format!("at byte {}", start + i)))
}

/// Fails unless `ok`.
pub(crate) fn ensure(
    ok: bool,
    expected: impl Into<String>,
    seen: impl Into<String>,
) -> Result<(), Failure> {
    if ok {
        Ok(())
    } else {
        Err(Failure::new(expected, seen))
    }
}

/// Unwraps the result of a task of the case.
pub(crate) async fn join<T: 'static>(
    task: &mut tokio::task::JoinSet<Result<T, Failure>>,
) -> Result<(), Failure> {
    while let Some(done) = task.join_next().await {
        match done {
            Ok(result) => drop(result?),
            Err(error) if error.is_panic() => {
                let panic = error.into_panic();
                return Err(Failure::new("no panic", crate::run::panic_text(&*panic)));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

/// How long a case waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// The size of ordinary reads.
const READ_SIZE: usize = 64 * 1024;
