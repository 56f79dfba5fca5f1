//! Every order in which the threads of a link can take its lock, with `loom`.
//!
//! The driver, a reader, a writer and whoever closes share one mutex and the waiting places behind it. In each model
//! two or three threads do one thing each; a wake that is lost leaves a thread asleep for ever, which `loom` reports as
//! a deadlock. The lock is modelled, tokio is not: its channels are atomic steps here.
//!
//! ```console
//! $ RUSTFLAGS='--cfg revdial_loom' cargo test -p revdial --lib --release --target-dir target/loom orders
//! ```

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use loom::future::block_on;
use loom::thread;

use super::*;
use crate::conn::Conn;
use crate::error::{ConnError, DialError};
use crate::frame::{Flags, Header};
use crate::session::Role;

/// Runs `body` in every order, and says how many those were.
fn explore(name: &str, body: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    loom::model(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        body();
    });
    println!("{name}: {} orders", runs.load(Ordering::Relaxed));
}

/// A link whose driver the model plays, without a watch on the peer.
fn link(role: Role) -> Arc<Link> {
    let config = Config {
        keep_alive: Duration::ZERO,
        ..Config::default()
    };
    let session = Machine::v3(role, config.clone(), now(), 0);
    Arc::new(Link::new(session, &config))
}

/// A dialer's link with one connection, and nothing left to send.
fn dialed() -> (Arc<Link>, Conn) {
    let link = link(Role::Dialer);
    let id = link.with(|state, _| state.session.open()).unwrap();
    transmit(&link);
    (Arc::clone(&link), Conn::new(link, id))
}

/// Takes all frames; the bytes of payload in them.
fn transmit(link: &Link) -> usize {
    link.with(|state, _| {
        let mut bytes = 0;
        while let Some(frame) = state.session.poll_transmit(now(), usize::MAX) {
            bytes += frame.payload().len();
            let ticket = frame.ticket();
            state.session.handle_flushed(ticket);
        }
        bytes
    })
}

/// Lets a frame of the peer arrive on stream 1.
fn receive(link: &Link, flags: Flags, payload: &[u8]) {
    let id = StreamId::new(1).unwrap();
    let length = u32::try_from(payload.len()).unwrap();
    let mut bytes = Header::Data { id, flags, length }.encode().to_vec();
    bytes.extend_from_slice(payload);
    link.with(|state, _| state.session.handle_input(now(), &bytes));
}

/// Plays the driver until `done` or the end: sends what there is, then parks. The bytes that it sent.
fn drive(link: &Link, done: impl Fn(usize, Option<std::time::Instant>) -> bool) -> usize {
    let mut sent = 0;
    block_on(poll_fn(|cx| {
        loop {
            sent += transmit(link);
            match link.park(Inlet::Open, Outlet::Open, cx, |_| {}) {
                Next::Closed(_) => return Poll::Ready(sent),
                Next::Wait(due) if done(sent, due) => return Poll::Ready(sent),
                Next::Wait(_) => return Poll::Pending,
                Next::Work(_) => {}
            }
        }
    }))
}

#[test]
fn what_is_written_while_the_driver_parks_is_sent() {
    explore("write", || {
        let (link, conn) = dialed();
        let writing = Arc::clone(&link);
        let writer = thread::spawn(move || {
            let id = StreamId::new(1).unwrap();
            for _ in 0..2 {
                let outcome = writing.with(|state, _| state.session.write(id, b"x"));
                assert!(matches!(outcome, Poll::Ready(Ok(1))));
            }
            conn
        });
        assert_eq!(drive(&link, |sent, _| sent == 2), 2);
        drop(writer.join().unwrap());
    });
}

#[test]
fn an_end_while_the_driver_parks_reaches_it() {
    explore("end", || {
        let link = link(Role::Listener);
        let ending = Arc::clone(&link);
        let closer = thread::spawn(move || ending.end(CloseReason::Local));
        drive(&link, |_, _| false);
        closer.join().unwrap();
    });
}

#[test]
fn a_sooner_time_reaches_a_driver_that_parks() {
    explore("time", || {
        let (link, conn) = dialed();
        // More than the window: something is left that `close` leaves behind.
        let id = StreamId::new(1).unwrap();
        while link
            .with(|state, _| state.session.write(id, &[0; 60_000]))
            .is_ready()
        {
            transmit(&link);
        }
        let leaving = Arc::clone(&link);
        let leaver = thread::spawn(move || {
            conn.handle().close();
            drop(conn);
            leaving.release_endpoint();
        });
        let expected = now() + Config::default().close_timeout;
        drive(&link, |_, due| {
            due.is_some_and(|due| due > expected - Duration::from_secs(1))
        });
        leaver.join().unwrap();
    });
}

#[test]
fn data_that_comes_while_a_reader_registers_is_read() {
    explore("read", || {
        let (link, mut conn) = dialed();
        let reader = thread::spawn(move || block_on(conn.read_chunk(8)));
        receive(&link, Flags::NONE, b"x");
        assert_eq!(reader.join().unwrap().unwrap(), "x");
    });
}

#[test]
fn a_reader_and_a_writer_are_woken_by_an_end_from_a_third() {
    explore("close", || {
        let (link, conn) = dialed();
        let id = StreamId::new(1).unwrap();
        while link
            .with(|state, _| state.session.write(id, &[0; 60_000]))
            .is_ready()
        {}
        let handle = conn.handle();
        let (mut read, mut write) = conn.into_split();
        let reader = thread::spawn(move || block_on(read.read_chunk(8)).unwrap_err());
        let writer = thread::spawn(move || {
            let write = &mut write;
            let outcome = block_on(poll_fn(|cx| {
                std::pin::Pin::new(&mut *write).poll_write(cx, b"x")
            }));
            outcome.unwrap_err().kind()
        });
        handle.close();
        assert!(matches!(reader.join().unwrap(), ConnError::Closed));
        assert_eq!(writer.join().unwrap(), std::io::ErrorKind::NotConnected);
    });
}

#[test]
fn a_deadline_that_is_set_while_a_reader_registers_ends_its_wait() {
    explore("deadline", || {
        let (_link, mut conn) = dialed();
        let handle = conn.handle();
        let past = Instant::now();
        let reader = thread::spawn(move || block_on(conn.read_chunk(8)).unwrap_err());
        handle.set_read_deadline(Some(past));
        assert!(matches!(reader.join().unwrap(), ConnError::DeadlinePassed));
    });
}

#[test]
fn the_waker_that_was_registered_last_is_woken() {
    explore("migration", || {
        let (link, mut conn) = dialed();
        let reader = thread::spawn(move || {
            {
                let waker = Arc::new(Nobody).into();
                let mut read = pin!(conn.read_chunk(8));
                if let Poll::Ready(chunk) = read.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return chunk;
                }
            }
            block_on(conn.read_chunk(8))
        });
        receive(&link, Flags::NONE, b"x");
        assert_eq!(reader.join().unwrap().unwrap(), "x");
    });
}

#[test]
fn a_dial_is_confirmed_while_it_registers() {
    explore("dial", || {
        let (link, conn) = dialed();
        let dialer = thread::spawn(move || block_on(poll_fn(|cx| conn.poll_opened(cx))));
        receive(&link, Flags::ACK, b"");
        dialer.join().unwrap().unwrap();
    });
}

#[test]
fn a_dial_that_waits_learns_of_the_end() {
    explore("dial and end", || {
        let (link, conn) = dialed();
        let dialer = thread::spawn(move || block_on(poll_fn(|cx| conn.poll_opened(cx))));
        link.end(CloseReason::Aborted);
        let outcome = dialer.join().unwrap();
        assert!(matches!(
            outcome,
            Err(DialError::Closed(CloseReason::Aborted))
        ));
    });
}

#[test]
fn a_stream_that_comes_while_the_acceptor_registers_is_accepted() {
    explore("accept", || {
        let link = link(Role::Listener);
        let accepting = Arc::clone(&link);
        let acceptor = thread::spawn(move || {
            block_on(poll_fn(|cx| {
                accepting.with(|state, wakes| state.poll_accept(cx, wakes))
            }))
        });
        receive(&link, Flags::SYN, b"x");
        assert_eq!(acceptor.join().unwrap().unwrap().value(), 1);
    });
}

#[test]
fn everybody_who_waits_for_the_end_hears_it() {
    explore("closed", || {
        let link = link(Role::Dialer);
        let (first, second) = (Arc::clone(&link), Arc::clone(&link));
        let waiter = thread::spawn(move || block_on(first.closed()));
        let pinger = thread::spawn(move || block_on(second.ping()));
        link.end(CloseReason::Local);
        assert!(matches!(waiter.join().unwrap(), CloseReason::Local));
        assert!(matches!(
            pinger.join().unwrap(),
            Err(PingError::Closed(CloseReason::Local))
        ));
    });
}

#[test]
fn a_drop_races_with_data_and_with_a_handle() {
    explore("drop", || {
        let (link, conn) = dialed();
        let handle = conn.handle();
        let dropper = thread::spawn(move || drop(conn));
        let closer = thread::spawn(move || handle.reset(7));
        receive(&link, Flags::NONE, b"x");
        dropper.join().unwrap();
        closer.join().unwrap();
        link.with(|state, _| {
            let Machine::V3(session) = &state.session else {
                unreachable!("the link speaks v3");
            };
            assert_eq!(session.stream_count(), 0);
            assert!(state.slots.is_empty(), "a waiting place of nobody");
        });
    });
}

/// Wakes nobody.
struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}
