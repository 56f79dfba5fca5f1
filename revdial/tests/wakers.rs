//! Wakers that misbehave: they panic, call back, or take a connection down with them.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use revdial::{Config, Conn, Dialer, Listener};
use tokio::io::{AsyncRead, ReadBuf, duplex};

/// Does something once, when it is woken.
struct OnWake(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for OnWake {
    fn wake(self: Arc<Self>) {
        let act = self.0.lock().unwrap().take();
        if let Some(act) = act {
            act();
        }
    }
}

fn on_wake(act: impl FnOnce() + Send + 'static) -> Waker {
    Waker::from(Arc::new(OnWake(Mutex::new(Some(Box::new(act))))))
}

/// Counts its wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn connected() -> (Dialer, Listener, Conn, Conn) {
    let (a, b) = duplex(64 * 1024);
    let dialer = Dialer::new(a, Config::default());
    let mut listener = Listener::new(b, Config::default());
    let ours = dialer.dial().await.unwrap();
    let theirs = listener.accept().await.unwrap();
    (dialer, listener, ours, theirs)
}

/// Polls a read; the connection is to have nothing to read.
fn wait_with(conn: &mut Conn, waker: &Waker) {
    let polled = poll_read(conn, waker);
    assert!(polled.is_pending(), "{polled:?}");
}

fn poll_read(conn: &mut Conn, waker: &Waker) -> Poll<std::io::Result<()>> {
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    Pin::new(conn).poll_read(&mut Context::from_waker(waker), &mut buf)
}

#[tokio::test]
async fn a_waker_that_panics_keeps_nobody_from_a_wake() {
    let (dialer, _listener, _ours, _theirs) = connected().await;
    let count = Arc::new(Count::default());
    let mut conns = Vec::new();
    for place in 0..16 {
        let mut conn = dialer.dial_optimistic().await.unwrap();
        let waker = if place % 2 == 0 {
            // Unlike `panic!` this prints nothing.
            on_wake(|| resume_unwind(Box::new("a waker panics")))
        } else {
            Waker::from(Arc::clone(&count))
        };
        wait_with(&mut conn, &waker);
        conns.push(conn);
    }
    let closed = catch_unwind(AssertUnwindSafe(|| dialer.close()));
    assert!(closed.is_err(), "the panic is not swallowed");
    assert_eq!(count.0.load(Ordering::Relaxed), 8);
    for conn in &mut conns {
        assert!(matches!(
            poll_read(conn, Waker::noop()),
            Poll::Ready(Err(_))
        ));
    }
}

#[tokio::test]
async fn a_waker_may_use_the_connection_and_the_link() {
    let (dialer, _listener, mut ours, _theirs) = connected().await;
    let handle = ours.handle();
    let (inner, link) = (handle.clone(), dialer.clone());
    let done = Arc::new(Count::default());
    let told = Arc::clone(&done);
    let waker = on_wake(move || {
        inner.set_deadline(None);
        inner.reset(1);
        assert!(!link.is_closed());
        link.close();
        told.0.fetch_add(1, Ordering::Relaxed);
    });
    wait_with(&mut ours, &waker);
    handle.close();
    assert_eq!(done.0.load(Ordering::Relaxed), 1);
    assert!(dialer.is_closed());
}

#[tokio::test]
async fn a_waker_may_drop_handles_when_it_is_woken() {
    let (dialer, mut listener, mut ours, _theirs) = connected().await;
    let (dialed, accepted) = tokio::join!(dialer.dial(), listener.accept());
    let (other, theirs) = (dialed.unwrap(), accepted.unwrap());
    let waker = on_wake(move || drop((other, dialer)));
    wait_with(&mut ours, &waker);
    ours.handle().close();
    drop(theirs);
}

#[tokio::test]
async fn a_waker_that_is_replaced_may_hold_handles() {
    let (dialer, _listener, mut ours, _theirs) = connected().await;
    let other = dialer.dial_optimistic().await.unwrap();
    let waker = on_wake(move || drop(other));
    wait_with(&mut ours, &waker);
    // The last reference to the first waker, and to what it owns, is in the waiting place.
    drop(waker);
    wait_with(&mut ours, Waker::noop());
    let last = dialer.dial_optimistic().await.unwrap();
    wait_with(&mut ours, &on_wake(move || drop(last)));
    drop(ours);
    assert!(!dialer.is_closed());
}
