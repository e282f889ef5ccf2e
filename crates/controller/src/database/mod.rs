//! What the controller stores, and the only SQL.
//!
//! One connection writes, a few read: SQLite has one writer anyway, and so
//! nobody waits on a lock that another task of ours holds. The dialect is kept
//! to what PostgreSQL understands as well.

use std::path::Path;
use std::time::Duration;

use domain::fault::{Code, Fault};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Sqlite, Transaction};
use time::OffsetDateTime;
use uuid::Uuid;

pub mod audit;
pub mod clouds;
pub mod events;
pub mod failover;
pub mod heritage;
pub mod hosts;
pub mod inventory;
pub mod jobs;
pub mod lookup;
pub mod policies;
pub mod protections;
pub mod reports;
pub mod sites;
pub mod tokens;
pub mod verifications;

static MIGRATIONS: Migrator = sqlx::migrate!("src/database/migrations");

/// How long to wait for another process, such as `admin-token`.
const BUSY_LIMIT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// Why a query gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The database failed.
    #[error("the database failed")]
    Failed(#[from] sqlx::Error),
    /// A row holds what this version does not understand.
    #[error("the database holds {what} that makes no sense: {cause}")]
    Nonsense {
        /// What it is.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// Something else of that name is there.
    #[error("the name is taken")]
    NameTaken,
    /// What the operator named is not there, or not the only one.
    #[error(transparent)]
    Lookup(#[from] lookup::LookupError),
    /// Something still belongs to it.
    #[error("it still has {0}")]
    StillInUse(String),
}

/// What database calls return.
pub type Result<T, E = DatabaseError> = std::result::Result<T, E>;

impl Database {
    /// Opens the database, making or upgrading it if need be.
    ///
    /// # Errors
    /// [`Code::DatabaseUnusable`].
    pub async fn open(file: &Path) -> Result<Self, Fault> {
        let unusable = |cause: String, advice: &str| {
            Fault::new(
                Code::DatabaseUnusable,
                format!("open the database {}", file.display()),
                cause,
                advice,
            )
        };
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What was answered must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_LIMIT);
        let failed = |error: sqlx::Error| {
            unusable(
                error.to_string(),
                "Check the disk and the file's rights; if it is damaged, restore it from a backup.",
            )
        };
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        MIGRATIONS.run(&writer).await.map_err(|error| match error {
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => unusable(
                error.to_string(),
                "The database was made by another version of Lifeboat; run that one or a newer one.",
            ),
            error => unusable(
                error.to_string(),
                "Check the disk; if the file is damaged, restore it from a backup.",
            ),
        })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(failed)?;
        Ok(Self { writer, readers })
    }

    /// Begins to write.
    ///
    /// SQLite rolls back by itself when the disk is full, and the library then
    /// still counts the transaction as open and the connection as unusable; so
    /// a connection that cannot begin is replaced, once.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        match self.writer.begin_with(BEGIN).await {
            Ok(transaction) => Ok(transaction),
            Err(error) => {
                tracing::warn!(%error, "cannot begin to write; trying with a new connection");
                self.writer.acquire().await?.close().await?;
                Ok(self.writer.begin_with(BEGIN).await?)
            }
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn check(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    /// Closes the database, so that its files are left in order.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Microseconds since 1970, which is how times are stored.
fn microseconds(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

fn time_of(microseconds: i64) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(microseconds) * 1000)
        .map_err(|error| nonsense("a time", &error))
}

fn optional_time(microseconds: Option<i64>) -> Result<Option<OffsetDateTime>> {
    microseconds.map(time_of).transpose()
}

fn uuid_of(text: &str) -> Result<Uuid> {
    text.parse().map_err(|error| nonsense("an id", &error))
}

fn nonsense(what: &'static str, cause: &dyn std::fmt::Display) -> DatabaseError {
    DatabaseError::Nonsense { what, cause: cause.to_string() }
}

/// A unique key that is violated is a name that is taken.
fn name_taken(error: sqlx::Error) -> DatabaseError {
    match &error {
        sqlx::Error::Database(database) if database.is_unique_violation() => {
            DatabaseError::NameTaken
        }
        _ => error.into(),
    }
}

async fn count(connection: &mut SqliteConnection, query: &'static str, id: Uuid) -> Result<u32> {
    Ok(sqlx::query_scalar::<_, u32>(query).bind(id.to_string()).fetch_one(connection).await?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A database in a folder that lives as long as the test wants it.
    pub(crate) async fn database() -> (tempfile::TempDir, Database) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("test.db")).await.unwrap();
        (folder, database)
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused() {
        let (folder, database) = database().await;
        sqlx::query("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'later', TRUE, x'00', 0)")
            .execute(&database.writer)
            .await
            .unwrap();
        database.close().await;
        let fault = Database::open(&folder.path().join("test.db")).await.unwrap_err();
        assert_eq!(fault.code, Code::DatabaseUnusable);
        assert!(fault.advice.contains("another version"), "{fault}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("test.db");
        let text = "this is not a database, and it is long enough to be read as one ".repeat(20);
        std::fs::write(&file, &text).unwrap();
        let fault = Database::open(&file).await.unwrap_err();
        assert_eq!(fault.code, Code::DatabaseUnusable);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}
