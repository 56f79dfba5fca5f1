//! How long a user has a machine.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

/// How long a user has a machine, by the word of whoever lends it, which may change while the machine is used.
///
/// Clones are one tenure: the lender keeps one and gives the other away in a [`Machine`](super::Machine).
#[derive(Clone, Debug)]
pub struct Tenure(Arc<watch::Sender<Term>>);

/// What is known of the end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Term {
    /// It is not over, and will be at this time, where there is one.
    Lasting(Option<Instant>),
    /// It was ended, with a sentence for the user.
    Over(String),
}

impl Tenure {
    /// A tenure without an end.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Term::Lasting(None))))
    }

    /// Sets when the tenure ends by itself, later or earlier than it was to. One that is over stays so.
    pub fn set_end(&self, end: Instant) {
        self.0.send_if_modified(|term| {
            let changes = matches!(term, Term::Lasting(known) if *known != Some(end));
            if changes {
                *term = Term::Lasting(Some(end));
            }
            changes
        });
    }

    /// Ends the tenure at once. `reason` is a sentence that the user reads, without a final line break; the first one
    /// counts.
    pub fn end(&self, reason: impl Into<String>) {
        self.0.send_if_modified(|term| {
            let changes = matches!(term, Term::Lasting(_));
            if changes {
                *term = Term::Over(reason.into());
            }
            changes
        });
    }

    /// Follows what is known of the end.
    pub(crate) fn follow(&self) -> watch::Receiver<Term> {
        self.0.subscribe()
    }

    /// Waits for the end. The sentence, where it did not just come with time.
    pub(crate) async fn ended(&self) -> Option<String> {
        let mut terms = self.follow();
        loop {
            let term = terms.borrow_and_update().clone();
            let end = match term {
                Term::Lasting(end) => end.map(tokio::time::Instant::from_std),
                Term::Over(reason) => return Some(reason),
            };
            let expired = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expired => return None,
                // We hold the sender.
                _ = terms.changed() => {}
            }
        }
    }
}

impl Default for Tenure {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn after(seconds: u64) -> Instant {
        tokio::time::Instant::now().into_std() + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_was_set_last_ends_it() {
        let tenure = Tenure::new();
        let start = tokio::time::Instant::now();
        tenure.set_end(after(10));
        let renewed = tenure.clone();
        let (reason, ()) = tokio::join!(tenure.ended(), async {
            tokio::time::advance(Duration::from_secs(9)).await;
            renewed.set_end(after(10));
        });
        assert_eq!(reason, None);
        assert_eq!(start.elapsed().as_secs(), 19);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_reason_counts_and_no_time_comes_after_it() {
        let tenure = Tenure::new();
        tenure.end("first");
        tenure.end("second");
        tenure.set_end(after(10));
        assert_eq!(tenure.ended().await.as_deref(), Some("first"));
    }
}
