//! How long each phase of an attempt may take, and how long to wait between attempts.

use std::time::Duration;

use crate::backoff::FullJitter;
use crate::connector::error::ConnectError;
use crate::error::CloseReason;

/// The time limits of a [`Connector`](crate::Connector), and its waits.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timing {
    /// Resolving a name; 10 s. System resolvers give up after 5 s for each of their servers.
    pub resolve: Duration,
    /// Connecting to one address; 10 s, which is three lost SYNs.
    pub connect: Duration,
    /// Waiting for one address before the next one is tried beside it; 250 ms, as
    /// [RFC 8305](https://www.rfc-editor.org/rfc/rfc8305#section-8) recommends.
    pub stagger: Duration,
    /// Getting a tunnel from a proxy, with TLS to an `https://` one; 20 s. The proxy resolves and connects meanwhile.
    pub proxy: Duration,
    /// The TLS handshake; 15 s.
    pub tls: Duration,
    /// From sending the registration to the whole answer; 30 s.
    pub register: Duration,
    /// The first and the longest ceiling of the wait after an outage; 1 s and 60 s. The wait is a random part of the
    /// ceiling, which doubles each time ([`FullJitter`]).
    pub outage: (Duration, Duration),
    /// The same after a refusal: somebody was reached who knows us and said no, and who will say so again; 30 s and
    /// 10 min.
    pub refusal: (Duration, Duration),
    /// A link that lasted this long was no accident: the wait after it begins at the first ceiling; 30 s.
    pub steady: Duration,
    /// The longest time that a server's `Retry-After` is believed; 1 h. A date with a wrong year must not take a
    /// machine away for ever.
    pub retry_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            resolve: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            stagger: Duration::from_millis(250),
            proxy: Duration::from_secs(20),
            tls: Duration::from_secs(15),
            register: Duration::from_secs(30),
            outage: (Duration::from_secs(1), Duration::from_secs(60)),
            refusal: (Duration::from_secs(30), Duration::from_secs(600)),
            steady: Duration::from_secs(30),
            retry_after: Duration::from_secs(3600),
        }
    }
}

/// When to try again: a machine without a clock.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    outage: FullJitter,
    refusal: FullJitter,
    first: Duration,
    steady: Duration,
    longest_asked: Duration,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// The server said goodbye to a link that lasted this long. It does so to get the machine back afresh.
    Goodbye { lasted: Duration },
    /// A link that lasted this long was lost.
    Lost { lasted: Duration },
    /// Nobody was reached, or somebody who is about to be back.
    Outage { asked: Option<Duration> },
    /// Somebody said no, and perhaps when to come again.
    Refused { asked: Option<Duration> },
}

impl Schedule {
    pub(super) fn new(timing: &Timing) -> Self {
        Self {
            outage: FullJitter::new(timing.outage.0, timing.outage.1),
            refusal: FullJitter::new(timing.refusal.0, timing.refusal.1),
            first: timing.outage.0,
            steady: timing.steady,
            longest_asked: timing.retry_after,
        }
    }

    /// The wait before the next attempt; `part`, from 0 to 1, is the random part of its ceiling.
    ///
    /// What a server asked for comes on top of the random wait: machines that were told the same date must not come
    /// back at the same moment.
    pub(super) fn next_delay(&mut self, outcome: Outcome, part: f64) -> Duration {
        match outcome {
            Outcome::Goodbye { lasted } => self.after_link(lasted, self.first, part),
            Outcome::Lost { lasted } => self.after_link(lasted, self.steady, part),
            Outcome::Outage { asked } => self.outage.next_delay_with(part) + self.asked(asked),
            Outcome::Refused { asked } => self.refusal.next_delay_with(part) + self.asked(asked),
        }
    }

    /// A registration succeeded: refusals are forgotten. Outages are, if the link lasted long `enough`; a server that
    /// takes everybody and loses them at once is treated as one that is down.
    fn after_link(&mut self, lasted: Duration, enough: Duration, part: f64) -> Duration {
        self.refusal.reset();
        if lasted >= enough {
            self.outage.reset();
        }
        self.outage.next_delay_with(part)
    }

    fn asked(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or_default().min(self.longest_asked)
    }
}

impl Outcome {
    pub(super) fn of_link(reason: &CloseReason, lasted: Duration) -> Self {
        if matches!(reason, CloseReason::PeerClosed) {
            Self::Goodbye { lasted }
        } else {
            Self::Lost { lasted }
        }
    }

    pub(super) fn of_attempt(error: &ConnectError) -> Self {
        let asked = error.retry_after();
        if error.is_refusal() {
            Self::Refused { asked }
        } else {
            Self::Outage { asked }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine in virtual time: each outcome, with the wait after it at its longest.
    fn waits(outcomes: &[Outcome]) -> Vec<u64> {
        let mut schedule = Schedule::new(&Timing::default());
        let wait = |outcome: &Outcome| schedule.next_delay(*outcome, 1.0).as_secs();
        outcomes.iter().map(wait).collect()
    }

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    const OUTAGE: Outcome = Outcome::Outage { asked: None };
    const REFUSED: Outcome = Outcome::Refused { asked: None };

    #[test]
    fn outages_are_waited_for_up_to_a_minute_and_refusals_up_to_ten() {
        assert_eq!(waits(&[OUTAGE; 8]), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits(&[REFUSED; 7]), [30, 60, 120, 240, 480, 600, 600]);
    }

    #[test]
    fn a_goodbye_brings_the_machine_back_at_once() {
        let goodbye = Outcome::Goodbye { lasted: secs(2) };
        assert_eq!(waits(&[goodbye; 4]), [1, 1, 1, 1]);
        assert_eq!(waits(&[OUTAGE, OUTAGE, goodbye]), [1, 2, 1]);
        let mut schedule = Schedule::new(&Timing::default());
        assert_eq!(schedule.next_delay(goodbye, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_server_that_says_goodbye_to_everybody_is_not_asked_in_a_loop() {
        let goodbye = Outcome::Goodbye {
            lasted: Duration::from_millis(10),
        };
        assert_eq!(waits(&[goodbye; 7]), [1, 2, 4, 8, 16, 32, 60]);
    }

    #[test]
    fn links_that_break_early_count_as_outages_and_steady_ones_do_not() {
        let early = Outcome::Lost { lasted: secs(29) };
        let steady = Outcome::Lost { lasted: secs(30) };
        assert_eq!(waits(&[early, early, OUTAGE, early]), [1, 2, 4, 8]);
        assert_eq!(waits(&[early, early, steady, early]), [1, 2, 1, 2]);
    }

    #[test]
    fn a_registration_forgets_earlier_refusals_but_an_outage_does_not() {
        let link = Outcome::Lost { lasted: secs(1) };
        assert_eq!(waits(&[REFUSED, REFUSED, link, REFUSED]), [30, 60, 1, 30]);
        assert_eq!(waits(&[REFUSED, OUTAGE, REFUSED]), [30, 1, 60]);
    }

    #[test]
    fn what_the_server_asks_for_is_a_minimum_within_an_hour() {
        let asked = Some(secs(120));
        let busy = Outcome::Outage { asked };
        assert_eq!(waits(&[busy, busy]), [121, 122]);
        assert_eq!(waits(&[Outcome::Refused { asked }]), [150]);
        let year = Outcome::Outage {
            asked: Some(secs(31_536_000)),
        };
        assert_eq!(waits(&[year]), [3601]);
        let mut schedule = Schedule::new(&Timing::default());
        assert_eq!(schedule.next_delay(busy, 0.0), secs(120));
    }

    #[test]
    fn a_thousand_machines_come_back_spread_over_the_ceiling() {
        let mut seconds = [0; 60];
        for machine in 0..1000 {
            let mut schedule = Schedule::new(&Timing::default());
            for _ in 0..6 {
                schedule.next_delay(OUTAGE, 0.5);
            }
            let wait = schedule.next_delay(OUTAGE, f64::from(machine) / 1000.0);
            seconds[usize::try_from(wait.as_secs()).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|count| *count <= 18), "{seconds:?}");
    }
}
