//! The limits of a link; each one says which attack it stops.

use std::net::SocketAddr;
use std::time::Duration;

use crate::frame::INITIAL_WINDOW;

/// The limits of one link.
///
/// The defaults suit a machine that serves some dozens of connections over the internet. What a hostile peer can make
/// this side hold is at most [`max_inbound_streams`](Self::max_inbound_streams) × 512 KiB (a window of 256 KiB, held in
/// blocks that may be half empty) and twice [`growth_budget`](Self::growth_budget).
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Connections that the peer may have open at once, those that wait for `accept` included; 128.
    ///
    /// Stops a peer that opens a million: each may make us hold a window. One too many is refused alone, the others
    /// are not touched. A connection counts until our handle to it is dropped, so that opening and resetting in a
    /// loop gains nothing.
    pub max_inbound_streams: usize,
    /// Connections that this side may have open at once; 1024.
    ///
    /// Stops a caller of ours who dials in a loop from making us and the peer hold a window for each.
    pub max_outbound_streams: usize,
    /// Bytes of one connection that may wait for their turn on the transport; 64 KiB.
    ///
    /// Stops a peer that does not read from making us hold what the application writes.
    pub send_buffer: usize,
    /// The largest receive window of one connection, in bytes; 16 MiB.
    ///
    /// A window starts at 256 KiB and doubles while the round trip time, not the application, limits a transfer. Stops
    /// one connection from taking the whole [`growth_budget`](Self::growth_budget). Values below 256 KiB count as
    /// 256 KiB: the wire gives that much to every stream.
    pub max_stream_window: u32,
    /// Bytes by which all receive windows of the link together may exceed 256 KiB each; 32 MiB.
    ///
    /// Stops a peer that asks for large windows on many connections.
    pub growth_budget: u32,
    /// Answers to a peer's mistakes (refused opens, data for closed connections) that may wait to be sent; 1024.
    ///
    /// Stops a peer that provokes answers and never reads them: at this bound the link is closed.
    pub max_pending_resets: usize,
    /// Closed connections that are remembered, so that each gets one reset and not one for each late frame; 1024.
    pub tombstones: usize,
    /// Silence after which the peer is asked for a sign of life; 15 s.
    ///
    /// Any received byte is one. The interval is shortened by up to a quarter, at random for each link, so that ten
    /// thousand links that were made together do not ask together. Without an answer after as long again the link
    /// ends: a dead peer is noticed within twice this time. Zero turns it off.
    pub keep_alive: Duration,
    /// Time for what remains after the end of a link: sending the farewell, closing the transport, delivering what
    /// `close` on a connection left behind; 5 s.
    ///
    /// Stops a peer that does not read from keeping a closed link in memory.
    pub close_timeout: Duration,
    /// The transport's own address on this side, for [`Addr`](crate::Addr) only; none.
    pub local_addr: Option<SocketAddr>,
    /// The transport's address on the other side, for [`Addr`](crate::Addr) only; none.
    pub peer_addr: Option<SocketAddr>,
}

impl Config {
    /// The largest receive window of one stream, at least the 256 KiB of the wire.
    pub(crate) fn window_ceiling(&self) -> u32 {
        self.max_stream_window.max(INITIAL_WINDOW)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_inbound_streams: 128,
            max_outbound_streams: 1024,
            send_buffer: 64 * 1024,
            max_stream_window: 16 * 1024 * 1024,
            growth_budget: 32 * 1024 * 1024,
            max_pending_resets: 1024,
            tombstones: 1024,
            keep_alive: Duration::from_secs(15),
            close_timeout: Duration::from_secs(5),
            local_addr: None,
            peer_addr: None,
        }
    }
}
