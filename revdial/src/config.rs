//! The limits of a link; each one says which attack it stops.

use std::net::SocketAddr;
use std::time::Duration;

use crate::frame::INITIAL_WINDOW;

/// The limits of one link.
///
/// The defaults suit a machine that serves some dozens of connections over the internet. What a hostile peer can make
/// this side hold is at most the [`receive_budget`](Self::receive_budget):
/// [`max_inbound_streams`](Self::max_inbound_streams) × [`initial_stream_window`](Self::initial_stream_window)
/// and the [`growth_budget`](Self::growth_budget), 64 MiB. Over it the largest unread connection is reset. On a v1 link it is
/// [`max_inbound_streams`](Self::max_inbound_streams) × 512 KiB, and the 128 KiB that one read of the transport may bring beyond the bound.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Connections that the peer may have open at once, those that wait for `accept` included; 128.
    ///
    /// Stops a peer that opens a million: each may make us hold a window. One too many is refused alone, the others
    /// are not touched. A connection counts until our handle to it is dropped, so that opening and resetting in a
    /// loop gains nothing. With v2, connections that are being picked up count as well.
    pub max_inbound_streams: usize,
    /// Connections that this side may have open at once; 1024.
    ///
    /// Stops a caller of ours who dials in a loop from making us and the peer hold a window for each. With v2, dials that
    /// wait count as well, and of dials that were given up so many may have a fate at the peer that is not known: each
    /// for a minute at most.
    pub max_outbound_streams: usize,
    /// Bytes of one connection that may wait for their turn on the transport; 64 KiB.
    ///
    /// Stops a peer that does not read from making us hold what the application writes.
    pub send_buffer: usize,
    /// The receive window that each connection starts with, in bytes; 256 KiB, which is what the wire gives. Values below
    /// count as that, values above 1 GiB as 1 GiB.
    ///
    /// A window doubles while the round trip time, not the application, limits a transfer, which takes some round trips. Who
    /// knows that the road is long, and the peer well-meaning, gives more at once. A dialer hears of it a round trip after
    /// it has dialed, unless it was told before: [`announce_window`](Self::announce_window).
    pub initial_stream_window: u32,
    /// What the peer is known to give to each connection that this side opens, in bytes; 256 KiB, which is what the wire
    /// gives. Values below count as that, values above 1 GiB as 1 GiB.
    ///
    /// It must be true: who sends more than the peer takes breaks the protocol, and the link ends. Take it from what the
    /// peer says, with [`heed_window`](Self::heed_window).
    pub peer_stream_window: u32,
    /// The largest receive window of one connection, in bytes; 16 MiB. Values below
    /// [`initial_stream_window`](Self::initial_stream_window) count as that.
    ///
    /// Stops one connection from taking the whole [`growth_budget`](Self::growth_budget).
    pub max_stream_window: u32,
    /// Bytes by which all receive windows of the link together may exceed what they started with; 32 MiB.
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
    ///
    /// With v2 the intervals are the wire's: the dialer speaks each 30 s, and is dead to the listener when it was silent for
    /// 90 s; zero turns the latter off. A dead listener is noticed by the transport alone.
    pub keep_alive: Duration,
    /// Bytes of one connection of a v1 link that may wait to be read, beside what one read of the transport brings
    /// (64 KiB); 256 KiB, which is what v3 begins with.
    ///
    /// Stops a peer from filling memory: the wire of v1 has no flow control. While one connection is over this bound
    /// nothing is read from the transport, so that the peer's writes come to a halt, those of all connections.
    pub v1_receive_buffer: usize,
    /// How long one connection of a v1 link may be over [`v1_receive_buffer`](Self::v1_receive_buffer); 10 s.
    ///
    /// Stops a reader that sleeps, and a peer that floods it, from holding up the link for ever: after this time the
    /// connection is closed on this side with [`ConnError::Stalled`](crate::ConnError::Stalled), what it had not read
    /// is thrown away, and the others go on. A reader under such a flood has to take 64 KiB in this time. Go's
    /// coordinator and gomote count a machine as dead when three heartbeats in a row, 10 s apart, fail: this must be
    /// well below.
    pub v1_stall_timeout: Duration,
    /// Time for what remains after the end of a link: sending the farewell, closing the transport, delivering what
    /// `close` on a connection left behind; 5 s.
    ///
    /// Stops a peer that does not read from keeping a closed link in memory.
    pub close_timeout: Duration,
    /// How long a v2 dial waits for its connection; 30 s.
    ///
    /// Ends the wait for a peer that says neither yes nor no, and the life of the secret that it was told. Go's side gives
    /// up dialing after 20 s.
    pub dial_timeout: Duration,
    /// How long a v2 listener takes for one pick-up, connecting and the HTTP exchange together; 20 s, as in Go.
    ///
    /// Stops a server that does not answer from using up [`max_inbound_streams`](Self::max_inbound_streams).
    pub pick_up_timeout: Duration,
    /// The transport's own address on this side, for [`Addr`](crate::Addr) only; none.
    pub local_addr: Option<SocketAddr>,
    /// The transport's address on the other side, for [`Addr`](crate::Addr) only; none.
    pub peer_addr: Option<SocketAddr>,
}

impl Config {
    /// Bytes of memory that received data may hold on one link: an
    /// [`initial_stream_window`](Self::initial_stream_window) for each of
    /// [`max_inbound_streams`](Self::max_inbound_streams), one at least, and the [`growth_budget`](Self::growth_budget).
    ///
    /// What counts is memory, not data: the blocks that data lies in, used or not. Over the budget blocks are packed,
    /// and if that is not enough the connection that holds most is reset, with [`ConnError::Overrun`] for its reader.
    /// Windows alone keep a peer that opens the connections within it; it is the side that dials, and may have more
    /// connections than its budget has windows, that may have to reset one.
    ///
    /// [`ConnError::Overrun`]: crate::ConnError::Overrun
    pub fn receive_budget(&self) -> usize {
        let window = usize::try_from(self.first_window()).unwrap_or(usize::MAX);
        let growth = usize::try_from(self.growth_budget).unwrap_or(usize::MAX);
        let windows = window.saturating_mul(self.max_inbound_streams.max(1));
        windows.saturating_add(growth)
    }

    /// The receive window of a fresh stream, at least that of the wire.
    pub(crate) fn first_window(&self) -> u32 {
        self.initial_stream_window
            .clamp(INITIAL_WINDOW, FIRST_WINDOW_MAX)
    }

    /// What may be sent on a fresh stream of ours, at least what the wire gives.
    pub(crate) fn first_credit(&self) -> u32 {
        self.peer_stream_window
            .clamp(INITIAL_WINDOW, FIRST_WINDOW_MAX)
    }

    /// The largest receive window of one stream.
    pub(crate) fn window_ceiling(&self) -> u32 {
        self.max_stream_window.max(self.first_window())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_inbound_streams: 128,
            max_outbound_streams: 1024,
            send_buffer: 64 * 1024,
            initial_stream_window: INITIAL_WINDOW,
            peer_stream_window: INITIAL_WINDOW,
            max_stream_window: 16 * 1024 * 1024,
            growth_budget: 32 * 1024 * 1024,
            max_pending_resets: 1024,
            tombstones: 1024,
            keep_alive: Duration::from_secs(15),
            v1_receive_buffer: 256 * 1024,
            v1_stall_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(30),
            pick_up_timeout: Duration::from_secs(20),
            local_addr: None,
            peer_addr: None,
        }
    }
}

/// The largest first window. Twice as much still fits into the field for credit: an ACK carries what is beyond the wire's
/// window, and gives back what was read before it.
const FIRST_WINDOW_MAX: u32 = 1 << 30;
