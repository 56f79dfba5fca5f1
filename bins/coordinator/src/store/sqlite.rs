//! Leases in a file of SQLite.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::error::ErrorKind;
use sqlx::query::Query;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode,
    SqliteLockingMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::Mutex;
use tracing::error;

use super::{Store, StoreError};
use crate::config::USER_PREFIX;
use crate::lease::{LEASE_TIME, Lease, MachineId};

/// Leases in a file, which this process alone has open.
///
/// What was written survives the process, however it ends. Where the whole computer loses its power, the last seconds may be
/// missing: a lease that was just renewed is then the shorter for it.
#[derive(Debug)]
pub struct SqliteStore {
    /// A statement takes microseconds, so one connection is enough for everybody, and its lock keeps others out.
    db: Mutex<SqliteConnection>,
}

impl SqliteStore {
    /// Opens the file, or makes it, for its owner's eyes only.
    ///
    /// # Errors
    ///
    /// [`OpenError`], after some seconds where another process has it open.
    pub async fn open(file: &Path) -> Result<Self, OpenError> {
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(file)?;
        Self::connect(SqliteConnectOptions::new().filename(file)).await
    }

    /// A store that ends with its value.
    #[cfg(test)]
    pub(crate) async fn in_memory() -> Self {
        let options = SqliteConnectOptions::new().in_memory(true);
        Self::connect(options).await.expect("memory can be had")
    }

    async fn connect(options: SqliteConnectOptions) -> Result<Self, OpenError> {
        let mut db = options
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIME)
            .disable_statement_logging()
            .connect()
            .await?;
        // The first write takes the lock, and it is not given back.
        let mut transaction = db.begin_with("BEGIN EXCLUSIVE").await?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *transaction)
            .await?;
        match version {
            0 => {
                sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
            }
            1 => {}
            newer => return Err(OpenError::Newer(newer)),
        }
        transaction.commit().await?;
        Ok(Self { db: Mutex::new(db) })
    }
}

type Statement<'a> = Query<'a, Sqlite, SqliteArguments>;

impl SqliteStore {
    /// The lease that a statement finds or changes, if there is one.
    async fn one(&self, statement: Statement<'_>) -> Result<Option<Lease>, StoreError> {
        let mut db = self.db.lock().await;
        let row = statement.fetch_optional(&mut *db).await.map_err(failed)?;
        row.as_ref().map(lease).transpose().map_err(failed)
    }

    /// All of them.
    async fn all(&self, statement: Statement<'_>) -> Result<Vec<Lease>, StoreError> {
        let mut db = self.db.lock().await;
        let rows = statement.fetch_all(&mut *db).await.map_err(failed)?;
        rows.iter()
            .map(lease)
            .collect::<Result<_, _>>()
            .map_err(failed)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(
        &self,
        user: &str,
        builder_type: &str,
        machine: &MachineId,
        now: SystemTime,
    ) -> Result<Lease, StoreError> {
        let create = sqlx::query(CREATE)
            .bind(format!("{USER_PREFIX}{user}-{builder_type}-"))
            .bind(user)
            .bind(builder_type)
            .bind(&machine.host_type)
            .bind(&machine.hostname)
            .bind(to_millis(now))
            .bind(to_millis(now + LEASE_TIME));
        let created = self.one(create).await?;
        created.ok_or_else(|| failed(sqlx::Error::RowNotFound))
    }

    async fn get(&self, name: &str, now: SystemTime) -> Result<Option<Lease>, StoreError> {
        let get = "SELECT * FROM leases WHERE name = ? AND expires > ?";
        self.one(sqlx::query(get).bind(name).bind(to_millis(now)))
            .await
    }

    async fn of_machine(
        &self,
        machine: &MachineId,
        now: SystemTime,
    ) -> Result<Option<Lease>, StoreError> {
        let get = "SELECT * FROM leases WHERE host_type = ? AND hostname = ? AND expires > ?";
        let get = sqlx::query(get)
            .bind(&machine.host_type)
            .bind(&machine.hostname);
        self.one(get.bind(to_millis(now))).await
    }

    async fn list(&self, now: SystemTime) -> Result<Vec<Lease>, StoreError> {
        let list = "SELECT * FROM leases WHERE expires > ? ORDER BY name";
        self.all(sqlx::query(list).bind(to_millis(now))).await
    }

    async fn renew(&self, name: &str, now: SystemTime) -> Result<Option<Lease>, StoreError> {
        let renew = "UPDATE leases SET expires = max(expires, ?) WHERE name = ? AND expires > ? RETURNING *";
        let renew = sqlx::query(renew).bind(to_millis(now + LEASE_TIME));
        self.one(renew.bind(name).bind(to_millis(now))).await
    }

    async fn remove(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let remove = "DELETE FROM leases WHERE name = ? RETURNING *";
        self.one(sqlx::query(remove).bind(name)).await
    }

    async fn sweep(&self, now: SystemTime) -> Result<Vec<Lease>, StoreError> {
        let sweep = "DELETE FROM leases WHERE expires <= ? RETURNING *";
        self.all(sqlx::query(sweep).bind(to_millis(now))).await
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It cannot be made.
    #[error("it cannot be opened")]
    File(#[from] io::Error),
    /// Another process has it open.
    #[error("another coordinator uses it; stop that one, or give this one a data_dir of its own")]
    InUse,
    /// A later version wrote it.
    #[error("a newer coordinator wrote it (version {0} of its tables, this one knows 1)")]
    Newer(i64),
    /// It is damaged, or no file of SQLite.
    #[error("it cannot be read; with the file moved away all leases have ended")]
    Sqlite(#[source] sqlx::Error),
}

impl From<sqlx::Error> for OpenError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let code: Option<u32> = code.and_then(|code| code.parse().ok());
        if code.is_some_and(|code| code & PRIMARY_CODE == SQLITE_BUSY) {
            return Self::InUse;
        }
        Self::Sqlite(error)
    }
}

/// Users are told that it failed, the log also why.
fn failed(error: sqlx::Error) -> StoreError {
    if let sqlx::Error::Database(error) = &error
        && error.kind() == ErrorKind::UniqueViolation
    {
        return StoreError::Leased;
    }
    error!(%error, "leases cannot be read or written");
    StoreError::Failed(Box::new(error))
}

fn lease(row: &SqliteRow) -> Result<Lease, sqlx::Error> {
    Ok(Lease {
        name: row.try_get("name")?,
        user: row.try_get("user")?,
        builder_type: row.try_get("builder_type")?,
        machine: MachineId {
            host_type: row.try_get("host_type")?,
            hostname: row.try_get("hostname")?,
        },
        created: from_millis(row.try_get("created")?),
        expires: from_millis(row.try_get("expires")?),
    })
}

fn to_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn from_millis(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// Times are milliseconds since 1970. A machine has one lease at most.
const SCHEMA: &str = "
    CREATE TABLE leases (
        name TEXT NOT NULL PRIMARY KEY,
        user TEXT NOT NULL,
        builder_type TEXT NOT NULL,
        host_type TEXT NOT NULL,
        hostname TEXT NOT NULL,
        created INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        UNIQUE (host_type, hostname)
    ) STRICT;
    PRAGMA user_version = 1;
";

/// The lowest number that makes a name nobody has, and the lease under it.
const CREATE: &str = "
    INSERT INTO leases (name, user, builder_type, host_type, hostname, created, expires)
    VALUES (
        ?1 || (
            WITH RECURSIVE numbers (n) AS (
                SELECT 0 UNION ALL
                SELECT n + 1 FROM numbers WHERE EXISTS (SELECT 1 FROM leases WHERE name = ?1 || n)
            )
            SELECT max(n) FROM numbers
        ),
        ?2, ?3, ?4, ?5, ?6, ?7
    )
    RETURNING *
";

/// How long a process that has just been killed may take to let go of the file.
const BUSY_TIME: Duration = Duration::from_secs(5);
/// What is left of a result code without its extension, <https://sqlite.org/rescode.html#pve>.
const PRIMARY_CODE: u32 = 0xff;
/// <https://sqlite.org/rescode.html#busy>
const SQLITE_BUSY: u32 = 5;
