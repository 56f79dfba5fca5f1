//! A machine that dialled in, as a buildlet that can be asked things.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use buildlet_proto::api::Unhealthy;
use buildlet_proto::client::{Client, Connect};
use buildlet_proto::{ApiError, Buildlet, ErrorStatus, RelPath};
use revdial::{Conn, Dialer, PingError};

use crate::lease::MachineId;
use crate::pool::{CHECK_TIME, Health};

/// The connection that a machine keeps to us, over which we dial it.
#[derive(Debug)]
pub struct Link {
    /// Which machine.
    pub id: MachineId,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The protocol level of its buildlet.
    pub version: u32,
    /// Which process of its buildlet this is, where it says so: a new one has emptied the work directory.
    pub process: Option<u64>,
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
        process: Option<u64>,
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
            process,
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

    /// Kills and forgets the jobs that an earlier user has left on the machine. Buildlets that know of no jobs have none.
    ///
    /// # Errors
    ///
    /// [`ApiError`] where the buildlet cannot.
    pub async fn forget_jobs(&self) -> Result<(), ApiError> {
        let forgotten = in_time(JOBS_TIME, "/jobs", self.buildlet().delete_jobs()).await;
        match forgotten {
            Err(error) if error.status() == ErrorStatus::NOT_FOUND => Ok(()),
            forgotten => forgotten,
        }
    }

    /// Asks the buildlet what it has to complain of.
    ///
    /// # Errors
    ///
    /// [`ApiError`] where it does not answer within `limit`.
    pub async fn check(&self, limit: Duration) -> Result<Option<Unhealthy>, ApiError> {
        let status = in_time(limit, "/status", self.buildlet().status()).await?;
        Ok(status.unhealthy)
    }

    /// Finds out whether users can have the machine. One that is not well is emptied and asked again: what fills its disk
    /// may be what the last user left.
    pub async fn examine(&self) -> Health {
        let examined = async {
            match self.check(CHECK_TIME).await? {
                None => Ok::<_, ApiError>(None),
                Some(_) => {
                    self.clean().await?;
                    self.check(CHECK_TIME).await
                }
            }
        };
        match examined.await {
            Err(_) => Health::Ill,
            Ok(None) => Health::Well,
            Ok(Some(reason)) => Health::Unfit(reason),
        }
    }

    /// Whether the machine at the other end is there: one round trip over the link itself, or, where its dialect has
    /// no pings, an answer of the buildlet.
    pub async fn is_alive(&self) -> bool {
        match tokio::time::timeout(PING_TIME, self.dialer.ping()).await {
            Ok(Ok(_)) => true,
            Ok(Err(PingError::Unsupported)) => self.check(PING_TIME).await.is_ok(),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Whether the link is gone.
    pub fn is_closed(&self) -> bool {
        self.dialer.is_closed()
    }

    /// Cuts the link and every stream on it.
    pub fn close(&self) {
        self.dialer.close();
    }

    /// Cuts the link without telling the machine, which would take a goodbye for the end of its lease.
    pub fn abort(&self) {
        self.dialer.abort();
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
            process: None,
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
/// The ten seconds that a buildlet gives what it kills, and twice as many for the way.
const JOBS_TIME: Duration = Duration::from_secs(30);
const PING_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use revdial::{Config, Listener};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// Answers the requests that come over `there`, one to a connection, and gives their paths.
    async fn answer(there: DuplexStream, bodies: &[&str]) -> Vec<String> {
        let mut listener = Listener::new(there, Config::default());
        let mut paths = Vec::new();
        for body in bodies {
            let mut conn = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(conn.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            paths.push(head.split(' ').nth(1).unwrap().to_owned());
            let length = body.len();
            let reply = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            conn.write_all(reply.as_bytes()).await.unwrap();
            conn.shutdown().await.unwrap();
            let _ = conn.read_to_end(&mut Vec::new()).await;
        }
        paths
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_with_a_full_disk_is_emptied_before_it_is_set_aside() {
        const FULL: &str = r#"{"Version":26,"Unhealthy":"low disk"}"#;
        const WELL: &str = r#"{"Version":26}"#;
        let examine = async |bodies: &'static [&'static str]| {
            let (here, there) = tokio::io::duplex(64 * 1024);
            let mut link = Link::unserved(MachineId {
                host_type: "host".into(),
                hostname: "full".into(),
            });
            link.dialer = Dialer::new(here, Config::default());
            tokio::join!(link.examine(), answer(there, bodies))
        };
        let (health, paths) = examine(&[FULL, "", WELL]).await;
        assert_eq!(health, Health::Well);
        assert_eq!(paths, ["/status", "/removeall", "/status"]);
        let (health, _) = examine(&[FULL, "", FULL]).await;
        assert_eq!(health, Health::Unfit(Unhealthy::LowDisk));
        let (health, paths) = examine(&[WELL]).await;
        assert_eq!((health, paths.len()), (Health::Well, 1));
        let (health, _) = examine(&["{"]).await;
        assert_eq!(health, Health::Ill);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_without_pings_is_alive_while_its_buildlet_answers() {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let dialer = Dialer::v1(here, Config::default());
        let mut listener = Listener::v1(there, Config::default());
        let id = MachineId {
            host_type: "host".into(),
            hostname: "old".into(),
        };
        let mut link = Link::unserved(id);
        link.dialer = dialer;
        assert!(!link.is_alive().await, "nobody answers");
        let served = async {
            drop(listener.accept().await.unwrap());
            let mut conn = listener.accept().await.unwrap();
            let _ = conn.read(&mut [0; 1024]).await.unwrap();
            let reply = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"Version\":26}";
            conn.write_all(reply.as_bytes()).await.unwrap();
            conn.flush().await.unwrap();
            conn
        };
        let (alive, _conn) = tokio::join!(link.is_alive(), served);
        assert!(alive);
    }
}
