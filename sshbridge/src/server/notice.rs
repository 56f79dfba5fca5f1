//! Telling users beforehand that their time ends.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::auth::{Tenure, Term};

/// When a user is told that the end is near: once, and again where the end was put off in between.
pub(super) struct Notices {
    /// How long before the end.
    ahead: Duration,
    /// The end of the login's own right, where it has one.
    not_after: Option<Instant>,
    terms: watch::Receiver<Term>,
    given: bool,
}

impl Notices {
    pub(super) fn new(
        ahead: Duration,
        not_after: Option<std::time::Instant>,
        tenure: &Tenure,
    ) -> Self {
        Self {
            ahead,
            not_after: not_after.map(Instant::from_std),
            terms: tenure.follow(),
            given: false,
        }
    }

    /// Waits for the next notice: how much time is left.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped loses no notice.
    pub(super) async fn next(&mut self) -> Duration {
        loop {
            let end = self.end();
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let is_near = left.is_some_and(|left| left <= self.ahead);
            if !is_near {
                self.given = false;
            }
            if let Some(left) = left.filter(|left| is_near && !self.given && !left.is_zero()) {
                self.given = true;
                return left;
            }
            let near = async {
                match left.filter(|_| !is_near) {
                    Some(left) => tokio::time::sleep(left - self.ahead).await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                if self.terms.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = near => {}
                () = changed => {}
            }
        }
    }

    fn end(&mut self) -> Option<Instant> {
        let until = match &*self.terms.borrow_and_update() {
            Term::Lasting(end) => end.map(Instant::from_std),
            Term::Over(_) => None,
        };
        self.not_after.into_iter().chain(until).min()
    }
}

/// The time that is left, as a user reads it.
pub(super) fn in_words(left: Duration) -> String {
    match left.as_secs().div_ceil(60) {
        0 | 1 => "in less than a minute".to_owned(),
        minutes => format!("in {minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AHEAD: Duration = Duration::from_secs(300);

    fn after(seconds: u64) -> std::time::Instant {
        (Instant::now() + Duration::from_secs(seconds)).into_std()
    }

    async fn is_silent(notices: &mut Notices, seconds: u64) -> bool {
        let limit = Duration::from_secs(seconds);
        tokio::time::timeout(limit, notices.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_one_notice_for_an_end_and_another_where_it_was_put_off() {
        let tenure = Tenure::new();
        let mut notices = Notices::new(AHEAD, None, &tenure);
        assert!(is_silent(&mut notices, 10_000).await);
        tenure.set_end(after(1000));
        assert!(is_silent(&mut notices, 699).await);
        assert_eq!(notices.next().await, AHEAD);
        assert!(is_silent(&mut notices, 100).await);
        tenure.set_end(after(250));
        assert!(is_silent(&mut notices, 100).await, "it is near as before");
        tenure.set_end(after(301));
        assert_eq!(notices.next().await, AHEAD);
        tenure.end("over");
        assert!(is_silent(&mut notices, 10_000).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_ends_counts() {
        let tenure = Tenure::new();
        tenure.set_end(after(1000));
        let mut notices = Notices::new(AHEAD, Some(after(120)), &tenure);
        assert_eq!(notices.next().await.as_secs(), 120);
    }

    #[test]
    fn the_rest_is_told_in_minutes() {
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(words(300), "in 5 minutes");
        assert_eq!(words(241), "in 5 minutes");
        assert_eq!(words(61), "in 2 minutes");
        assert_eq!(words(60), "in less than a minute");
    }
}
