//! Faults of a multiplexer: a session in memory whose streams are reference pairs.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use tokio::sync::{Mutex, mpsc};

use super::REFERENCE_CAPS;
use crate::caps::{Cap, Caps};
use crate::mux::{MakeMux, Mux, MuxPair, Side};
use crate::pair::{BoxFuture, Control, End, Pair, Wire};
use crate::reference::reference;
use crate::target::Target;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    CancelledAcceptLosesStream,
    CloseWakesNobody,
    FinishedStreamsCount,
    #[cfg(test)]
    None,
    OneTooManyKills,
    SmallBacklog,
}

/// A session in memory with a flaw.
pub(super) fn flawed(flaw: Flaw) -> Target {
    Target::mux("mutant", Sessions(flaw), SESSION_CAPS)
}

struct Sessions(Flaw);

impl MakeMux for Sessions {
    fn side(&self, _: Wire, _: Side) -> BoxFuture<'_, io::Result<Box<dyn Mux>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn make(&self) -> BoxFuture<'_, io::Result<MuxPair>> {
        let flaw = self.0;
        let backlog = if flaw == Flaw::SmallBacklog { 8 } else { 128 };
        let (to_server, from_client) = mpsc::channel(backlog);
        let (to_client, from_server) = mpsc::channel(backlog);
        let side = |peer, inbound| -> Box<dyn Mux> {
            Box::new(Session {
                flaw,
                peer,
                inbound: Mutex::new(inbound),
                streams: std::sync::Mutex::default(),
                opened: AtomicUsize::new(0),
            })
        };
        let pair = MuxPair::new(side(to_server, from_server), side(to_client, from_client));
        Box::pin(async { Ok(pair) })
    }
}

struct Session {
    flaw: Flaw,
    peer: mpsc::Sender<End>,
    inbound: Mutex<mpsc::Receiver<End>>,
    streams: std::sync::Mutex<Vec<Open>>,
    opened: AtomicUsize,
}

/// A stream of this side, as long as it is alive.
struct Open {
    alive: Arc<()>,
    control: Arc<dyn Control>,
}

impl Session {
    /// Counts a stream, and refuses one too many.
    fn admit(&self, control: Arc<dyn Control>) -> io::Result<Arc<()>> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|open| Arc::strong_count(&open.alive) > 1);
        let opened = self.opened.fetch_add(1, Ordering::Relaxed);
        let count = if self.flaw == Flaw::FinishedStreamsCount {
            opened
        } else {
            streams.len()
        };
        if count >= STREAMS {
            if self.flaw == Flaw::OneTooManyKills {
                streams.iter().for_each(|open| open.control.reset());
            }
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let alive = Arc::new(());
        streams.push(Open {
            alive: Arc::clone(&alive),
            control,
        });
        Ok(alive)
    }
}

impl Mux for Session {
    fn open(&self) -> BoxFuture<'_, io::Result<End>> {
        Box::pin(async {
            let Pair { a, b, .. } = reference();
            let alive = self.admit(a.control())?;
            let a = a.keep(alive);
            let sent = self.peer.send(b).await;
            sent.map_err(|_| io::ErrorKind::ConnectionAborted)?;
            Ok(a)
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Option<End>>> {
        Box::pin(async {
            let end = self.inbound.lock().await.recv().await;
            if self.flaw == Flaw::CancelledAcceptLosesStream {
                // Whoever gives up here has taken the stream.
                tokio::task::yield_now().await;
            }
            Ok(end)
        })
    }

    fn close(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async {
            let streams = {
                let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *streams)
            };
            if self.flaw != Flaw::CloseWakesNobody {
                streams.iter().for_each(|open| open.control.close());
            }
            Ok(())
        })
    }
}

/// The streams that one side opens at a time.
const STREAMS: usize = 64;

const SESSION_CAPS: Caps = REFERENCE_CAPS.with(Cap::SessionClose).max_streams(STREAMS);
