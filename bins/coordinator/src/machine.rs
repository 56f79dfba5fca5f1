//! A machine that dialled in, as a buildlet that can be asked things.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use buildlet_proto::client::{Client, Connect};
use buildlet_proto::{ApiError, Buildlet, RelPath};
use revdial::{Conn, Dialer};

use crate::lease::MachineId;

/// The connection that a machine keeps to us, over which we dial it.
#[derive(Debug)]
pub struct Link {
    /// Which machine.
    pub id: MachineId,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The protocol level of its buildlet.
    pub version: u32,
    /// Since when it is there.
    pub connected: SystemTime,
    dialer: Dialer,
}

impl Link {
    /// Asks the buildlet behind `dialer` for its status, and makes it a link.
    ///
    /// # Errors
    ///
    /// [`ApiError`] where the buildlet does not answer in time or not as it should.
    pub async fn establish(
        id: MachineId,
        peer: SocketAddr,
        dialer: Dialer,
    ) -> Result<Self, ApiError> {
        let status = in_time(
            STATUS_TIME,
            "/status",
            Client::new(Reverse(dialer.clone())).status(),
        )
        .await?;
        Ok(Self {
            id,
            peer,
            version: status.version,
            connected: SystemTime::now(),
            dialer,
        })
    }

    /// The buildlet.
    pub fn buildlet(&self) -> Client<Reverse> {
        Client::new(Reverse(self.dialer.clone()))
    }

    /// Opens a stream to the buildlet's HTTP server.
    ///
    /// # Errors
    ///
    /// An error where the link is gone.
    pub async fn dial(&self) -> io::Result<Conn> {
        Reverse(self.dialer.clone()).connect().await
    }

    /// Empties the work directory.
    ///
    /// # Errors
    ///
    /// [`ApiError`] where the buildlet cannot.
    pub async fn clean(&self) -> Result<(), ApiError> {
        in_time(
            CLEAN_TIME,
            "/removeall",
            self.buildlet().remove_all(vec![RelPath::ROOT]),
        )
        .await
    }

    /// Whether the buildlet answers within `limit`.
    ///
    /// # Errors
    ///
    /// [`ApiError`] where it does not.
    pub async fn check(&self, limit: Duration) -> Result<(), ApiError> {
        in_time(limit, "/status", self.buildlet().status())
            .await
            .map(|_| ())
    }

    /// Whether the machine at the other end is there: one round trip over the link itself.
    pub async fn is_alive(&self) -> bool {
        matches!(
            tokio::time::timeout(PING_TIME, self.dialer.ping()).await,
            Ok(Ok(_))
        )
    }

    /// Whether the link is gone.
    pub fn is_closed(&self) -> bool {
        self.dialer.is_closed()
    }

    /// Cuts the link and every stream on it.
    pub fn close(&self) {
        self.dialer.close();
    }

    /// Waits until the link is gone, and says why.
    pub async fn closed(&self) -> revdial::CloseReason {
        self.dialer.closed().await
    }
}

#[cfg(test)]
impl Link {
    /// A link to a machine that serves nothing, for tests of what is around it.
    pub(crate) fn unserved(id: MachineId) -> Self {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let dialer = Dialer::new(here, revdial::Config::default());
        // The other end lives until the test's runtime ends.
        tokio::spawn(async move {
            let mut listener = revdial::Listener::new(there, revdial::Config::default());
            while listener.accept().await.is_ok() {}
        });
        Self {
            id,
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            version: 1,
            connected: SystemTime::now(),
            dialer,
        }
    }
}

/// Connects to a buildlet over the link that it opened.
#[derive(Clone, Debug)]
pub struct Reverse(Dialer);

impl Connect for Reverse {
    type Stream = Conn;

    async fn connect(&self) -> io::Result<Conn> {
        // The request follows the SYN at once: a refused stream shows as a failed request, a round trip earlier.
        self.0.dial_optimistic().await.map_err(io::Error::from)
    }
}

async fn in_time<T>(
    limit: Duration,
    path: &str,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let late = || {
        ApiError::bad_gateway(format!(
            "the machine did not answer {path} within {limit:?}"
        ))
    };
    tokio::time::timeout(limit, call)
        .await
        .map_err(|_| late())?
}

/// Go's coordinator of 2022 waits this long: machines may be far away, or just booting.
const STATUS_TIME: Duration = Duration::from_secs(20);
/// A work directory with a million files on a slow disk.
const CLEAN_TIME: Duration = Duration::from_secs(120);
const PING_TIME: Duration = Duration::from_secs(2);
