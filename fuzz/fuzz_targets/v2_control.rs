//! Whatever a peer writes on a v2 control connection, either side takes it or ends the link, in bounded time.

#![no_main]

use std::io;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use revdial::v2::PickUps;
use revdial::{Config, Dialer, Listener};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

async fn dialer(control: DuplexStream) {
    let path = "/revdial".parse().expect("a path");
    let dialer = Dialer::v2(control, &PickUps::new(), path, Config::default());
    // The clock jumps where nothing moves: a dial that nobody picks up ends by its own limit.
    let _ = dialer.dial().await;
    dialer.close();
    let _ = dialer.closed().await;
}

async fn listener(control: DuplexStream) {
    let connect = || async { Err::<DuplexStream, _>(io::Error::other("nobody is there")) };
    let mut listener = Listener::v2(control, connect, Config::default());
    assert!(listener.accept().await.is_err(), "nothing can be picked up");
    let _ = listener.closed().await;
}

fuzz_target!(|input: (bool, &[u8])| {
    let (dials, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (ours, mut theirs) = duplex(64 * 1024);
        let peer = async {
            // A link that ends early takes no more.
            let _ = theirs.write_all(bytes).await;
            theirs
        };
        let side = async {
            if dials {
                dialer(ours).await;
            } else {
                listener(ours).await;
            }
        };
        let both = async { tokio::join!(peer, side) };
        tokio::time::timeout(Duration::from_secs(600), both)
            .await
            .expect("a silent peer is given up");
    });
});
