//! The threads that serve connections.
//!
//! The bytes of a connection pass through several tasks, each of which wakes the next for every packet. Where a runtime has
//! many threads such a wake calls another of them, which costs more than the packet does: on two processors thirteen
//! context switches for each 32 KiB, and a third of the speed. So all tasks of a connection stay on one thread, whose
//! runtime has no other, and connections are spread over as many threads as there are processors.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The threads. Dropping them ends what they serve.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Shared with each task that runs here.
    tasks: Arc<()>,
    _end: oneshot::Sender<()>,
}

impl Workers {
    /// Starts as many of `threads` as the system allows.
    pub(super) fn start(threads: usize) -> Self {
        let started: io::Result<Vec<_>> = (0..threads).map(Worker::start).collect();
        Self(started.unwrap_or_else(|error| {
            tracing::warn!(%error, "starting threads; connections are served without");
            Vec::new()
        }))
    }

    /// Runs `task` on the thread that has the fewest. Without threads it runs where this is called.
    pub(super) fn spawn(
        &self,
        tasks: &mut JoinSet<()>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        match self.0.iter().min_by_key(|it| Arc::strong_count(&it.tasks)) {
            Some(worker) => {
                let counted = worker.tasks.clone();
                let task = async move {
                    task.await;
                    drop(counted);
                };
                tasks.spawn_on(task, &worker.runtime);
            }
            None => {
                tasks.spawn(task);
            }
        }
    }
}

impl Worker {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new()
            .name(format!("sshbridge-{number}"))
            .spawn(move || {
                // Nothing is ever sent: it ends when the other half is dropped.
                let _ = runtime.block_on(ended);
                // Threads that block in a lookup of a name are not waited for.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            tasks: Arc::default(),
            _end: end,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::mpsc;

    use super::*;

    /// The names of the threads on which `count` tasks run at the same time.
    async fn places(workers: &Workers, count: usize) -> Vec<Option<String>> {
        let (tell, mut told) = mpsc::channel(count);
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let tell = tell.clone();
            workers.spawn(&mut tasks, async move {
                let name = thread::current().name().map(str::to_owned);
                tell.try_send(name).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut names = Vec::new();
        for _ in 0..count {
            names.push(told.recv().await.unwrap());
        }
        names
    }

    #[tokio::test]
    async fn each_thread_has_its_share_and_keeps_a_task_with_what_it_spawns() {
        let workers = Workers::start(3);
        let mut shares = BTreeMap::new();
        for name in places(&workers, 12).await {
            *shares.entry(name).or_insert(0) += 1;
        }
        assert_eq!(shares.len(), 3, "{shares:?}");
        assert!(shares.values().all(|share| *share == 4), "{shares:?}");

        let mut tasks = JoinSet::new();
        let (tell, told) = oneshot::channel();
        workers.spawn(&mut tasks, async move {
            let here = thread::current().id();
            let there = tokio::spawn(async { thread::current().id() });
            tell.send(there.await.unwrap() == here).unwrap();
        });
        assert!(told.await.unwrap());
    }

    #[tokio::test]
    async fn without_threads_tasks_run_here() {
        let here = thread::current().name().map(str::to_owned);
        assert_eq!(places(&Workers::start(0), 1).await, [here]);
    }

    #[tokio::test]
    async fn dropping_them_ends_what_they_serve() {
        let workers = Workers::start(1);
        let mut tasks = JoinSet::new();
        workers.spawn(&mut tasks, std::future::pending());
        drop(workers);
        let ended = tasks.join_next().await.unwrap();
        assert!(ended.unwrap_err().is_cancelled());
    }
}
