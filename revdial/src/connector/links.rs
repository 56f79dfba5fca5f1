//! One link after the other, for ever.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::connector::client::Connector;
use crate::connector::error::ConnectError;
use crate::connector::timing::{Outcome, Schedule, Timing};
use crate::error::CloseReason;
use crate::listener::Listener;

/// Makes links, as long as somebody asks for them.
///
/// [`next`](Self::next) is all that most programs need; [`step`](Self::step) shows what happens on the way.
pub struct Links {
    connector: Connector,
    schedule: Schedule,
    state: State,
}

/// What to do next.
enum State {
    /// Try at this time.
    Waiting(Instant),
    /// Wait for the end of the link.
    Linked { ended: Ended, since: Instant },
}

/// Resolves at the end of a link.
type Ended = Pin<Box<dyn Future<Output = CloseReason> + Send>>;

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// There is a link. Serve it; the next step waits for its end.
    Linked(Listener),
    /// An attempt failed.
    Failed {
        /// Why.
        error: ConnectError,
        /// How long the next step waits.
        retry_in: Duration,
    },
    /// The link ended.
    Ended {
        /// Why.
        reason: CloseReason,
        /// How long the next step waits.
        retry_in: Duration,
    },
}

impl Links {
    pub(super) fn new(connector: Connector, timing: &Timing) -> Self {
        Self {
            schedule: Schedule::new(timing),
            state: State::Waiting(Instant::now()),
            connector,
        }
    }

    /// Waits for the end of the last link, then as long as is fit, then makes the next.
    ///
    /// Failures and ends are logged, with the time of the next attempt.
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives up the attempt that runs; a wait goes on where it was.
    pub async fn next(&mut self) -> Listener {
        loop {
            match self.step().await {
                Step::Linked(listener) => {
                    info!(server = %self.connector.server(), "registered");
                    return listener;
                }
                Step::Failed { error, retry_in } => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, ?retry_in, "no link to the server");
                }
                Step::Ended { reason, retry_in } => {
                    info!(%reason, ?retry_in, "the link to the server ended");
                }
            }
        }
    }

    /// Does the next thing: waits for the end of a link, or waits until an attempt is due and makes it.
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives up the attempt that runs; a wait goes on where it was.
    pub async fn step(&mut self) -> Step {
        match &mut self.state {
            State::Waiting(due) => {
                sleep_until(*due).await;
                self.attempt().await
            }
            State::Linked { ended, since } => {
                let reason = ended.as_mut().await;
                let lasted = since.elapsed();
                let retry_in = self.plan(Outcome::of_link(&reason, lasted));
                Step::Ended { reason, retry_in }
            }
        }
    }

    async fn attempt(&mut self) -> Step {
        match self.connector.connect().await {
            Ok(listener) => {
                self.state = State::Linked {
                    ended: Box::pin(listener.when_closed()),
                    since: Instant::now(),
                };
                Step::Linked(listener)
            }
            Err(error) => {
                let retry_in = self.plan(Outcome::of_attempt(&error));
                Step::Failed { error, retry_in }
            }
        }
    }

    /// Sets the time of the next attempt.
    fn plan(&mut self, outcome: Outcome) -> Duration {
        let delay = self
            .schedule
            .next_delay(outcome, rand::random_range(0.0..=1.0));
        self.state = State::Waiting(Instant::now() + delay);
        delay
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}
