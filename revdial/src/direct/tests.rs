//! What the conformance suite does not see: halves that meet at the transport, and transports that are odd.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::Semaphore;

use super::*;
use crate::conn::Conn;

/// A connection with this transport.
fn conn(transport: impl Transport + 'static) -> Conn {
    let number = StreamId::new(1).unwrap();
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    Conn::direct(Parts {
        transport: Box::pin(transport),
        number,
        local_addr: Addr::new(None, Some(number)),
        peer_addr: Addr::new(None, Some(number)),
        close_timeout: Duration::from_secs(5),
        permit,
    })
}

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A transport that does what a test says before it reads, and whose flush may be shut.
struct Odd {
    inner: DuplexStream,
    before_read: Box<dyn FnMut() + Send>,
    flush_is_shut: Arc<AtomicBool>,
    flushes: Arc<AtomicUsize>,
}

impl Odd {
    fn new(inner: DuplexStream) -> Self {
        Self {
            inner,
            before_read: Box::new(|| {}),
            flush_is_shut: Arc::default(),
            flushes: Arc::default(),
        }
    }
}

impl AsyncRead for Odd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        (self.before_read)();
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Odd {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flush_is_shut.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_half_that_comes_while_the_other_is_at_work_is_woken_behind_it() {
    let (ours, _theirs) = duplex(64);
    let mut odd = Odd::new(ours);
    let writer: Arc<Mutex<Option<crate::WriteHalf>>> = Arc::default();
    let woken = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&woken));
    let (shared, inline) = (Arc::clone(&writer), waker.clone());
    odd.before_read = Box::new(move || {
        if let Some(writer) = shared.lock().unwrap().as_mut() {
            let write = Pin::new(writer).poll_write(&mut Context::from_waker(&inline), b"x");
            assert!(write.is_pending(), "the transport is lent");
        }
    });
    let (mut read, write) = conn(odd).into_split();
    *writer.lock().unwrap() = Some(write);
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    let noop = Waker::noop();
    let polled = Pin::new(&mut read).poll_read(&mut Context::from_waker(noop), &mut buf);
    assert!(polled.is_pending());
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    let mut write = writer.lock().unwrap().take().unwrap();
    let written = Pin::new(&mut write).poll_write(&mut Context::from_waker(&waker), b"x");
    assert!(matches!(written, Poll::Ready(Ok(1))), "{written:?}");
}

#[tokio::test]
async fn a_close_and_a_reset_reach_a_transport_that_is_lent() {
    for reset in [false, true] {
        let (ours, mut theirs) = duplex(64);
        let mut odd = Odd::new(ours);
        let handle: Arc<Mutex<Option<crate::ConnHandle>>> = Arc::default();
        let shared = Arc::clone(&handle);
        odd.before_read = Box::new(move || {
            if let Some(handle) = shared.lock().unwrap().take() {
                if reset {
                    handle.reset(7);
                } else {
                    handle.close();
                }
            }
        });
        let mut conn = conn(odd);
        conn.write_all(b"said").await.unwrap();
        *handle.lock().unwrap() = Some(conn.handle());
        let error = conn.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        let mut said = Vec::new();
        theirs.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"said");
    }
}

#[tokio::test]
async fn bytes_that_a_writer_left_behind_leave_when_it_reads() {
    let (ours, _theirs) = duplex(64);
    let odd = Odd::new(ours);
    let (shut, flushes) = (Arc::clone(&odd.flush_is_shut), Arc::clone(&odd.flushes));
    let mut conn = conn(odd);
    shut.store(true, Ordering::SeqCst);
    conn.write_all(b"question").await.unwrap();
    shut.store(false, Ordering::SeqCst);
    assert_eq!(flushes.load(Ordering::SeqCst), 0);
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(
        Pin::new(&mut conn)
            .poll_read(&mut cx, &mut buf)
            .is_pending()
    );
    assert!(
        Pin::new(&mut conn)
            .poll_read(&mut cx, &mut buf)
            .is_pending()
    );
    assert_eq!(flushes.load(Ordering::SeqCst), 1, "once is enough");
}

#[tokio::test]
async fn what_nobody_reads_does_not_keep_the_peer_from_reading() {
    let (ours, theirs) = duplex(1024);
    let (read, mut write) = conn(ours).into_split();
    drop(read);
    let peer = tokio::spawn(async move {
        let mut theirs = theirs;
        // It reads only when it has said all.
        theirs.write_all(&[7; 100_000]).await.unwrap();
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        heard.len()
    });
    write.write_all(&[1; 50_000]).await.unwrap();
    write.shutdown().await.unwrap();
    assert_eq!(peer.await.unwrap(), 50_000);
}

#[tokio::test]
async fn a_pending_writer_takes_over_from_a_reader_that_goes() {
    let (ours, mut theirs) = duplex(64);
    let (read, mut write) = conn(ours).into_split();
    let writing = tokio::spawn(async move { write.write_all(&[1; 1000]).await.map(|()| write) });
    tokio::task::yield_now().await;
    drop(read);
    theirs.write_all(&[7; 1000]).await.unwrap();
    theirs.read_exact(&mut [0; 1000]).await.unwrap();
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_close_needs_no_runtime_around_it() {
    let (ours, mut theirs) = duplex(64);
    let conn = conn(ours);
    let handle = conn.handle();
    std::thread::spawn(move || handle.close()).join().unwrap();
    assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
    drop(conn);
}

#[tokio::test(start_paused = true)]
async fn a_close_whose_peer_does_not_read_is_given_up() {
    let (ours, theirs) = duplex(64);
    let mut conn = conn(ours);
    conn.write_all(&[1; 64]).await.unwrap();
    conn.handle().close();
    let began = Instant::now();
    let mut theirs = theirs;
    tokio::time::sleep(Duration::from_secs(4)).await;
    theirs.write_all(b"x").await.unwrap();
    // It ends when the transport is dropped, five seconds after the close.
    while theirs.write(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() < Duration::from_millis(5_200));
}

#[tokio::test]
async fn after_a_failed_write_what_came_before_can_be_read() {
    let (ours, mut theirs) = duplex(64);
    let mut conn = conn(ours);
    theirs.write_all(b"last words").await.unwrap();
    drop(theirs);
    let error = conn.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut words = String::new();
    conn.read_to_string(&mut words).await.unwrap();
    assert_eq!(words, "last words");
    let again = conn.write(b"x").await.unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::ConnectionReset);
}
