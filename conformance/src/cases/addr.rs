//! Addresses.

use crate::case::page;
use crate::context::{Cx, ensure};
use crate::pair::Pair;
use crate::report::Failure;

page! { Addr;
    STABLE = "addr.stable", "addresses are known, match and stay" {
        promise: "Each end's local address is its peer's peer address, and both are the same after a close.",
        source: "Go's net.Conn: LocalAddr and RemoteAddr",
        bug: "logs without an address, because the socket was closed before the line was written",
        secs: 10, needs: [Addresses], Tasks: stable,
    }
}

async fn stable(cx: Cx) -> Result<(), Failure> {
    let Pair {
        a, b, stop: _stop, ..
    } = cx.pair().await?;
    let (a, b) = (a.control(), b.control());
    let (local, peer) = (a.local_addr(), a.peer_addr());
    ensure(
        local.is_some() && peer.is_some(),
        "both addresses",
        format!("{local:?} and {peer:?}"),
    )?;
    ensure(
        local == b.peer_addr() && peer == b.local_addr(),
        format!("the peer to know us as {local:?} and itself as {peer:?}"),
        format!("{:?} and {:?}", b.peer_addr(), b.local_addr()),
    )?;
    a.close();
    ensure(
        local == a.local_addr() && peer == a.peer_addr(),
        "the same addresses after a close",
        format!("{:?} and {:?}", a.local_addr(), a.peer_addr()),
    )
}
