//! Flow control around the SSH library: nothing a peer does, or does not do, may stop another channel or grow memory.
//!
//! russh grants a channel's window when data *arrives* and writes its socket inside its loop, so used plainly it stands
//! still as soon as two ends both write, and one stalled channel freezes its neighbours. It is used through four parts:
//!
//! * [`Transport`] is what russh reads and writes. Writes never wait: they go to a spool that [`Drain`] empties.
//!   Whoever has data to send first asks [`Link::reserve`], which waits while 1 MiB is on its way.
//! * [`Inbox`] is the queue of one channel's input. russh's callbacks fill it without waiting, a pump empties it.
//! * [`Lever`] is the server's hold on the windows: it answers each grant with the size of the next one, so that a
//!   channel whose inbox is full gets two bytes at a time until it is read again.
//! * [`Link`] counts for a whole connection. Above its budget nothing is read from the socket; where that lasts,
//!   [`Link::watch_stalls`] cuts the channels that take nothing.
//!
//! The lever exists on the server side only. On the client side reading stops at the budget, which is safe with one
//! channel per connection, because its input drains to the other leg and needs nothing from this one.

mod inbox;
mod lever;
mod link;
mod transport;

pub(crate) use inbox::Inbox;
pub(crate) use lever::Lever;
pub(crate) use link::{Budget, Gone, Link};
pub(crate) use transport::{Drain, Transport};

/// Puts the flow layer around a byte stream.
pub(crate) fn layer<S>(stream: S, budget: Budget) -> (std::sync::Arc<Link>, Transport<S>, Drain<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let link = std::sync::Arc::new(Link::new(budget));
    let (transport, drain) = transport::pair(stream, link.clone());
    (link, transport, drain)
}

/// The window that a channel starts with and is granted: 2 MiB, as OpenSSH has it, which fills 50 ms at 40 MiB/s.
pub(crate) const WINDOW: u32 = 2 << 20;

/// A channel whose inbox holds more than this is full: it is granted two bytes at a time.
const HIGH_WATER: usize = 2 << 20;

/// A full channel counts as open again when its inbox holds no more than this.
const LOW_WATER: usize = 512 << 10;

/// Bytes on their way to the peer, above which no channel hands out more. It bounds memory whatever window a peer
/// grants.
const OUTBOUND: usize = 1 << 20;

/// Spooled bytes above which nothing is read: a peer that asks and never reads the answers gets no more of them.
const SPOOL_LIMIT: usize = 8 << 20;

#[cfg(test)]
mod tests;
