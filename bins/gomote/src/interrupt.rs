//! What is left to do when the user has had enough.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What ends, on the machine, with the program: a job is not ended by hanging up.
#[derive(Default)]
pub(crate) struct OnInterrupt(Mutex<Option<Cleanup>>);

type Cleanup = Pin<Box<dyn Future<Output = ()> + Send>>;

impl OnInterrupt {
    /// Plans `cleanup`, in the place of what was planned.
    pub(crate) fn plan(&self, cleanup: impl Future<Output = ()> + Send + 'static) {
        self.put(Some(Box::pin(cleanup)));
    }

    /// Plans nothing.
    pub(crate) fn forget(&self) {
        self.put(None);
    }

    /// Does what is planned, as far as it can be done while the user waits.
    pub(crate) async fn clean_up(&self) {
        let planned = self.take();
        if let Some(cleanup) = planned {
            // What cannot be reached now is ended by its time limit, or with the lease.
            let _ = tokio::time::timeout(PATIENCE, cleanup).await;
        }
    }

    fn put(&self, cleanup: Option<Cleanup>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cleanup;
    }

    fn take(&self) -> Option<Cleanup> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How long somebody waits who has pressed Ctrl-C.
const PATIENCE: Duration = Duration::from_secs(5);
