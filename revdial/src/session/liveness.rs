//! Signs of life: pings, their round trip time, and when a silent peer counts as dead.

use std::time::{Duration, Instant};

/// What time has brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The peer is fine, or still has time to answer.
    Alive,
    /// The peer was asked and did not answer; nothing was heard for this long.
    Dead(Duration),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// The peer was heard.
    Heard,
    /// The peer was asked at this time.
    Asked(Instant),
}

/// The watch over one peer.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Liveness {
    /// `None` if the watch is off.
    interval: Option<Duration>,
    heard: Instant,
    state: State,
    ping: Ping,
    /// The newest measured time and when it was measured.
    round_trip: Option<(Duration, Instant)>,
    /// The shortest time measured lately and when it was measured.
    distance: Option<(Duration, Instant)>,
}

/// The newest ping.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ping {
    /// Answered, or never asked.
    Done { nonce: u32 },
    /// To be sent.
    Queued { nonce: u32 },
    /// Sent at this time.
    Sent { nonce: u32, at: Instant },
}

impl Liveness {
    /// Watches from `now` on; `jitter`, from 0 to 255, shortens the interval by up to a quarter.
    pub(super) fn new(keep_alive: Duration, jitter: u8, now: Instant) -> Self {
        let interval = keep_alive - keep_alive / 1024 * u32::from(jitter);
        Self {
            interval: (!interval.is_zero()).then_some(interval),
            heard: now,
            state: State::Heard,
            ping: Ping::Done { nonce: 0 },
            round_trip: None,
            distance: None,
        }
    }

    /// Notes that bytes came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.state = State::Heard;
    }

    /// Asks for the round trip time; the nonce of the ping that will tell.
    ///
    /// A ping that is under way serves whoever asks meanwhile.
    pub(super) fn ask(&mut self) -> u32 {
        match self.ping {
            Ping::Done { nonce } => {
                let nonce = nonce.wrapping_add(1);
                self.ping = Ping::Queued { nonce };
                nonce
            }
            Ping::Queued { nonce } | Ping::Sent { nonce, .. } => nonce,
        }
    }

    /// Asks if the round trip time is unknown or old.
    pub(super) fn ask_if_stale(&mut self, now: Instant) {
        let fresh = self
            .round_trip
            .is_some_and(|(_, at)| now.saturating_duration_since(at) < ROUND_TRIP_AGE);
        if !fresh {
            self.ask();
        }
    }

    /// Takes the ping that is to be sent at `now`.
    pub(super) fn take_ping(&mut self, now: Instant) -> Option<u32> {
        let Ping::Queued { nonce } = self.ping else {
            return None;
        };
        self.ping = Ping::Sent { nonce, at: now };
        Some(nonce)
    }

    /// Takes an answer; the round trip time if it answers the newest ping. Any other answer means nothing.
    pub(super) fn handle_pong(&mut self, nonce: u32, now: Instant) -> Option<Duration> {
        match self.ping {
            Ping::Sent { nonce: asked, at } if asked == nonce => {
                let time = now.saturating_duration_since(at);
                self.ping = Ping::Done { nonce };
                self.round_trip = Some((time, now));
                let recent = |at| now.saturating_duration_since(at) < DISTANCE_AGE;
                let nearer = |(shortest, at)| shortest < time && recent(at);
                if !self.distance.is_some_and(nearer) {
                    self.distance = Some((time, now));
                }
                Some(time)
            }
            Ping::Done { .. } | Ping::Queued { .. } | Ping::Sent { .. } => None,
        }
    }

    /// Asks a silent peer, and gives it up when it does not answer.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        match self.poll_timeout() {
            Some(due) if due <= now => {}
            _ => return Verdict::Alive,
        }
        if let State::Asked(_) = self.state {
            return Verdict::Dead(now.saturating_duration_since(self.heard));
        }
        // A ping that was sent before the silence may have been lost in a peer that answers only the last of several.
        if let Ping::Sent { nonce, .. } = self.ping {
            self.ping = Ping::Done { nonce };
        }
        self.ask();
        self.state = State::Asked(now);
        Verdict::Alive
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let since = match self.state {
            State::Heard => self.heard,
            State::Asked(at) => at,
        };
        since.checked_add(self.interval?)
    }

    /// Says whether a ping waits to be sent.
    pub(super) fn has_ping(&self) -> bool {
        matches!(self.ping, Ping::Queued { .. })
    }

    /// The shortest round trip time lately: the road without the queues on it, which our own data makes.
    pub(super) fn distance(&self) -> Option<Duration> {
        self.distance.map(|(time, _)| time)
    }

    /// The newest measured round trip time.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|(time, _)| time)
    }
}

/// Age from which a round trip time is measured anew.
const ROUND_TRIP_AGE: Duration = Duration::from_secs(10);

/// Age from which the shortest round trip time counts no longer: the road may have become longer.
const DISTANCE_AGE: Duration = Duration::from_secs(60);
