//! The coordinator: what its HTTPS and SSH sides share.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use revdial::v2::PickUps;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::access::Access;
use crate::config::Config;
use crate::go_keys::MasterKeys;
use crate::instances::Instances;
use crate::pool::Pool;
use crate::reload::Current;
use crate::store::Store;

/// One running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    config: Current<Config>,
    /// The machines that dialled in.
    pub pool: Arc<Pool>,
    /// The dials that wait for a machine of dialect v2 to bring a connection.
    pub pick_ups: PickUps,
    /// What users hold.
    pub instances: Instances,
    /// When it was started.
    pub started: SystemTime,
    /// Cancelled when it ends.
    pub shutdown: CancellationToken,
    go_keys: MasterKeys,
}

impl Coordinator {
    /// Makes a coordinator that keeps its leases in `store`, those that are there as well, and ends with `shutdown`.
    ///
    /// # Errors
    ///
    /// An error where a file that the configuration names, or the store, cannot be read.
    pub async fn new(
        config: Config,
        store: Arc<dyn Store>,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let go_keys = MasterKeys::load(config.go_keys.as_ref())?;
        let pool = Arc::new(Pool::default());
        pool.set_standing(config.standing_machines());
        let instances = Instances::load(store, pool.clone()).await?;
        Ok(Self {
            config: Current::new(config),
            pool,
            pick_ups: PickUps::new(),
            instances,
            started: SystemTime::now(),
            shutdown,
            go_keys,
        })
    }

    /// What it is told at this time.
    pub fn config(&self) -> Arc<Config> {
        self.config.get()
    }

    /// Tells it something else. What is asked for from here on goes by `config`.
    pub(crate) fn set_config(&self, config: Arc<Config>) {
        self.config.set(config);
    }

    /// Who may come in.
    pub fn access(&self) -> Access<'_> {
        Access::new(self.config(), &self.go_keys)
    }

    /// Ends leases that have expired and looks after machines that are idle, until shutdown.
    pub async fn keep_house(&self) {
        let (mut sweep, mut check) = (
            tokio::time::interval(SWEEP_INTERVAL),
            tokio::time::interval(CHECK_INTERVAL),
        );
        loop {
            tokio::select! {
                _ = sweep.tick() => if let Err(error) = self.instances.sweep().await {
                    error!(%error, "cannot look for expired leases");
                },
                _ = check.tick() => self.check_idle_machines().await,
                () = self.shutdown.cancelled() => return,
            }
        }
    }

    /// A machine that does not answer while it is idle is cut off before a user gets it; one that has something to
    /// complain of is set aside.
    async fn check_idle_machines(&self) {
        let mut checks = JoinSet::new();
        for link in self.pool.start_checks() {
            let pool = self.pool.clone();
            checks.spawn(async move {
                let health = link.examine().await;
                pool.end_check(&link, health);
            });
        }
        checks.join_all().await;
    }
}

/// Go's coordinator looks every 10 to 14 seconds.
const CHECK_INTERVAL: Duration = Duration::from_secs(12);
/// An expired lease cannot be used from its last second on; the sweep only frees its machine.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
