//! What agents tell of replication: the last report of each side, the points,
//! and the worst RPO of each minute.

use domain::id::{HostId, ProtectionId};
use domain::protection::Newest;
use serde::de::DeserializeOwned;
use sqlx::{FromRow, SqliteConnection};
use std::collections::{BTreeMap, HashMap};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire::replication::{
    Duties, Hold, ImportReport, ImportStage, KeepingReport, Phase, PointMark, Replication,
    ShippingReport, points_told,
};

use super::{
    Database, Result, failover, microseconds, nonsense, protections, time_of, uuid_of,
    verifications,
};

/// Version of the reports as they are stored: that of protocol 2.
pub(super) const FORMAT: u16 = 1;
/// For so long the history of RPO is kept.
pub const HISTORY_KEPT: Duration = Duration::days(30);
/// What was known before is only compared with if it is no older: in a longer
/// silence points came that nobody told of.
const COMPARED_WITHIN: Duration = Duration::seconds(60);

/// A document of the format that this version writes.
pub(super) fn read<T: DeserializeOwned>(
    format: Option<u16>,
    document: Option<String>,
    what: &'static str,
) -> Result<Option<T>> {
    match (format, document) {
        (Some(FORMAT), Some(document)) => {
            serde_json::from_str(&document).map(Some).map_err(|error| nonsense(what, &error))
        }
        (Some(format), Some(_)) => {
            Err(nonsense(what, &format_args!("format {format} is not known")))
        }
        _ => Ok(None),
    }
}

/// How old the newest point was, over some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RpoFigures {
    /// At its worst, in milliseconds.
    pub worst_ms: Option<u64>,
    /// In 99 of 100 minutes it was no worse, in milliseconds.
    pub p99_ms: Option<u64>,
    /// In so many minutes it was measured.
    pub minutes: u32,
}

/// What a report is held against.
#[derive(Debug, FromRow)]
struct Expected {
    id: String,
    machine_name: String,
    source_host_id: String,
    target_host_id: String,
    resynchronise: Option<String>,
    verify: Option<String>,
    import_wish: Option<String>,
    offline_wish: Option<String>,
    disabling_us: Option<i64>,
    source_ended: bool,
    target_ended: bool,
    newest: Option<u32>,
    newest_us: Option<i64>,
    received_us: Option<i64>,
}

impl Database {
    /// Keeps what an agent told of replication; what it has no business to tell
    /// of is passed over. `sent` is what the agent was last told to do on the
    /// connection that the report came by. Tells whether anybody's duties
    /// changed by it: an answered wish is none any more. RPO is measured only
    /// of points whose label, by the source's clock, can be compared with ours.
    ///
    /// # Errors
    /// When the database fails; nothing is changed then.
    pub async fn apply_replication(
        &self,
        host: HostId,
        report: Replication,
        sent: Option<&Duties>,
        in_time: impl Fn(HostId, OffsetDateTime) -> bool,
        now: OffsetDateTime,
    ) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let expected: Vec<Expected> = sqlx::query_as(
            "SELECT p.id, p.machine_name, p.source_host_id, p.target_host_id, p.resynchronise,
                    p.verify, p.import_wish, p.offline_wish, p.disabling_us, p.source_ended,
                    p.target_ended,
                    (SELECT MAX(t.point) FROM points t WHERE t.protection_id = p.id) AS newest,
                    (SELECT t.instant_us FROM points t WHERE t.protection_id = p.id
                     ORDER BY t.point DESC LIMIT 1) AS newest_us,
                    CASE WHEN COALESCE(s.received_us, 0) > COALESCE(k.received_us, 0)
                         THEN s.received_us ELSE k.received_us END AS received_us
             FROM protections p
             LEFT JOIN shipping_reports s ON s.protection_id = p.id
             LEFT JOIN keeping_reports k ON k.protection_id = p.id
             WHERE p.source_host_id = $1 OR p.target_host_id = $1",
        )
        .bind(host.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        let Replication { shipping, keeping } = report;
        let mut shipping: BTreeMap<ProtectionId, ShippingReport> =
            shipping.into_iter().map(|report| (report.protection, report)).collect();
        let mut keeping: BTreeMap<ProtectionId, KeepingReport> =
            keeping.into_iter().map(|report| (report.protection, report)).collect();
        let mut duties_changed = false;
        for mut row in expected {
            let id = ProtectionId::new(uuid_of(&row.id)?);
            let is_source = row.source_host_id == host.to_string();
            let shipped = shipping.remove(&id).filter(|_| is_source);
            let kept = keeping.remove(&id).filter(|_| row.target_host_id == host.to_string());
            if row.disabling_us.is_some() {
                let told = sent.is_some_and(|duties| !lists(duties, id));
                row.source_ended |= told && is_source && shipped.is_none();
                row.target_ended |= told && !is_source && kept.is_none();
                note_ended(&mut transaction, id, &row, now).await?;
                continue;
            }
            let kept_before = newest_kept(row.newest, row.newest_us)?;
            let before = newest(&mut transaction, id, kept_before).await?;
            if let Some(report) = shipped {
                duties_changed |= apply_shipping(&mut transaction, &row, report, now).await?;
            }
            if let Some(report) = kept {
                duties_changed |= apply_keeping(&mut transaction, id, &row, report, now).await?;
            }
            let source = HostId::new(uuid_of(&row.source_host_id)?);
            let in_time = |label| in_time(source, label);
            measure(&mut transaction, id, before, &row, in_time, now).await?;
        }
        transaction.commit().await?;
        Ok(duties_changed)
    }

    /// Measures the RPO of these protections now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn measure_rpo(
        &self,
        newest: &[(ProtectionId, OffsetDateTime)],
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        for (protection, newest) in newest {
            note_rpo(&mut transaction, *protection, now - *newest, now).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Drops the history that is older than it is kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prune_history(&self, now: OffsetDateTime) -> Result<()> {
        sqlx::query("DELETE FROM rpo_history WHERE minute < $1")
            .bind(minute(now - HISTORY_KEPT))
            .execute(&self.writer)
            .await?;
        let mut connection = self.writer.acquire().await?;
        super::events::prune(&mut connection, now).await?;
        drop(connection);
        self.prune_verifications(now).await
    }

    /// How old the newest point of a protection was, since then.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rpo_figures(
        &self,
        protection: ProtectionId,
        since: OffsetDateTime,
    ) -> Result<RpoFigures> {
        let (worst, minutes): (Option<i64>, u32) = sqlx::query_as(
            "SELECT MAX(worst_ms), COUNT(*) FROM rpo_history
             WHERE protection_id = $1 AND minute >= $2",
        )
        .bind(protection.to_string())
        .bind(minute(since))
        .fetch_one(&self.readers)
        .await?;
        let p99: Option<(i64,)> = sqlx::query_as(
            "SELECT worst_ms FROM rpo_history WHERE protection_id = $1 AND minute >= $2
             ORDER BY worst_ms DESC LIMIT 1 OFFSET $3",
        )
        .bind(protection.to_string())
        .bind(minute(since))
        .bind(minutes / 100)
        .fetch_optional(&self.readers)
        .await?;
        let positive = |ms: i64| u64::try_from(ms).unwrap_or_default();
        Ok(RpoFigures {
            worst_ms: worst.map(positive),
            p99_ms: p99.map(|(ms,)| positive(ms)),
            minutes,
        })
    }

    /// The newest point that a target last told of.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_point(&self, protection: ProtectionId) -> Result<Option<PointMark>> {
        let row: Option<PointRow> = sqlx::query_as(
            "SELECT point, instant_us, app_consistent, stored_bytes, hold FROM points
             WHERE protection_id = $1 ORDER BY point DESC LIMIT 1",
        )
        .bind(protection.to_string())
        .fetch_optional(&self.readers)
        .await?;
        row.map(point).transpose()
    }

    /// The points that a target last told of, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn points(&self, protection: ProtectionId) -> Result<Vec<PointMark>> {
        let rows: Vec<PointRow> = sqlx::query_as(
            "SELECT point, instant_us, app_consistent, stored_bytes, hold FROM points
             WHERE protection_id = $1 ORDER BY point DESC",
        )
        .bind(protection.to_string())
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(point).collect()
    }

    /// The points of all protections that something holds, the oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn held_points(&self) -> Result<HashMap<Uuid, Vec<(u32, Hold)>>> {
        let rows: Vec<(String, u32, String)> = sqlx::query_as(
            "SELECT protection_id, point, hold FROM points WHERE hold IS NOT NULL ORDER BY point",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut held: HashMap<Uuid, Vec<(u32, Hold)>> = HashMap::new();
        for (protection, point, hold) in rows {
            held.entry(uuid_of(&protection)?).or_default().push((point, hold_of(&hold)?));
        }
        Ok(held)
    }
}

/// A point's number, instant, whether it is app-consistent, its bytes, and what
/// holds it.
type PointRow = (u32, i64, bool, i64, Option<String>);

fn point((point, instant, app_consistent, stored, hold): PointRow) -> Result<PointMark> {
    Ok(PointMark {
        point,
        instant: time_of(instant)?,
        app_consistent,
        stored_bytes: u64::try_from(stored).unwrap_or_default(),
        hold: hold.as_deref().map(hold_of).transpose()?,
    })
}

fn hold_of(word: &str) -> Result<Hold> {
    match word {
        "operator" => Ok(Hold::Operator),
        "lost" => Ok(Hold::Lost),
        other => Err(nonsense("what holds a point", &other)),
    }
}

const fn hold_word(hold: Hold) -> &'static str {
    match hold {
        Hold::Operator => "operator",
        Hold::Lost => "lost",
    }
}

fn lists(duties: &Duties, protection: ProtectionId) -> bool {
    duties.shipping.iter().any(|duty| duty.protection == protection)
        || duties.keeping.iter().any(|duty| duty.protection == protection)
}

/// A side has ended what is to end; with the other, the protection is gone.
async fn note_ended(
    connection: &mut SqliteConnection,
    id: ProtectionId,
    row: &Expected,
    now: OffsetDateTime,
) -> Result<()> {
    if row.source_ended && row.target_ended {
        let detail = "both agents have ended it".to_owned();
        return protections::forget(connection, id, &row.machine_name, "controller", detail, now)
            .await;
    }
    sqlx::query("UPDATE protections SET source_ended = $2, target_ended = $3 WHERE id = $1")
        .bind(id.to_string())
        .bind(row.source_ended)
        .bind(row.target_ended)
        .execute(connection)
        .await?;
    Ok(())
}

/// Keeps a source's report; tells whether it answers a wish.
async fn apply_shipping(
    connection: &mut SqliteConnection,
    row: &Expected,
    report: ShippingReport,
    now: OffsetDateTime,
) -> Result<bool> {
    let answered = |wish: &Option<String>, answer: Option<Uuid>| {
        wish.is_some() && *wish == answer.map(|answer| answer.to_string())
    };
    let resynchronised = answered(&row.resynchronise, report.resynchronised);
    if resynchronised {
        sqlx::query("UPDATE protections SET resynchronise = NULL WHERE id = $1")
            .bind(&row.id)
            .execute(&mut *connection)
            .await?;
    }
    let verified = answered(&row.verify, report.verified.as_ref().map(|verified| verified.wish));
    if let Some(report) = report.verified.as_ref().filter(|_| verified) {
        verifications::finish(connection, report).await?;
        sqlx::query("UPDATE protections SET verify = NULL WHERE id = $1")
            .bind(&row.id)
            .execute(&mut *connection)
            .await?;
    }
    // There is a point: how the first copy travels has been settled.
    let settled = row.offline_wish.is_some() && report.newest.is_some();
    if settled {
        sqlx::query(
            "UPDATE protections SET offline_wish = NULL, offline_folder = NULL WHERE id = $1",
        )
        .bind(&row.id)
        .execute(&mut *connection)
        .await?;
    }
    let is_steady = report.newest.is_some() && report.phase == Phase::Steady;
    let protected = is_steady && failover::first_point(connection, &row.id).await?;
    sqlx::query(
        "INSERT INTO shipping_reports (protection_id, format, document, received_us)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (protection_id) DO UPDATE SET format = excluded.format,
             document = excluded.document, received_us = excluded.received_us",
    )
    .bind(&row.id)
    .bind(FORMAT)
    .bind(serde_json::to_string(&report).expect("a report is plain"))
    .bind(microseconds(now))
    .execute(connection)
    .await?;
    Ok(resynchronised || verified || settled || protected)
}

/// Keeps a target's report; tells whether it answers a wish.
async fn apply_keeping(
    connection: &mut SqliteConnection,
    id: ProtectionId,
    row: &Expected,
    mut report: KeepingReport,
    now: OffsetDateTime,
) -> Result<bool> {
    let is_over = |import: &&ImportReport| !matches!(import.stage, ImportStage::Reading(_));
    let over = report.import.as_ref().filter(is_over).map(|import| import.wish.to_string());
    let imported = over.is_some() && over == row.import_wish;
    if imported {
        sqlx::query(
            "UPDATE protections SET import_wish = NULL, import_folder = NULL WHERE id = $1",
        )
        .bind(&row.id)
        .execute(&mut *connection)
        .await?;
    }
    // More than agents tell is not kept.
    let points = points_told(std::mem::take(&mut report.points));
    replace_points(connection, id, points).await?;
    sqlx::query(
        "INSERT INTO keeping_reports (protection_id, format, document, received_us)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (protection_id) DO UPDATE SET format = excluded.format,
             document = excluded.document, received_us = excluded.received_us",
    )
    .bind(id.to_string())
    .bind(FORMAT)
    .bind(serde_json::to_string(&report).expect("a report is plain"))
    .bind(microseconds(now))
    .execute(connection)
    .await?;
    Ok(imported)
}

/// Makes a protection's points exactly these; writes only what changed.
async fn replace_points(
    connection: &mut SqliteConnection,
    id: ProtectionId,
    points: Vec<PointMark>,
) -> Result<()> {
    type Row = (i64, i64, bool, i64, Option<String>);
    let existing: Vec<Row> = sqlx::query_as(
        "SELECT point, instant_us, app_consistent, stored_bytes, hold FROM points
         WHERE protection_id = $1",
    )
    .bind(id.to_string())
    .fetch_all(&mut *connection)
    .await?;
    let mut existing: BTreeMap<i64, Row> = existing.into_iter().map(|row| (row.0, row)).collect();
    for point in points {
        let stored = i64::try_from(point.stored_bytes).unwrap_or(i64::MAX);
        let hold = point.hold.map(|hold| hold_word(hold).to_owned());
        let (number, instant) = (i64::from(point.point), microseconds(point.instant));
        let row = (number, instant, point.app_consistent, stored, hold);
        if existing.remove(&row.0).as_ref() == Some(&row) {
            continue;
        }
        sqlx::query(
            "INSERT INTO points
                 (protection_id, point, instant_us, app_consistent, stored_bytes, hold)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (protection_id, point) DO UPDATE SET instant_us = excluded.instant_us,
                 app_consistent = excluded.app_consistent, stored_bytes = excluded.stored_bytes,
                 hold = excluded.hold",
        )
        .bind(id.to_string())
        .bind(row.0)
        .bind(row.1)
        .bind(row.2)
        .bind(row.3)
        .bind(row.4)
        .execute(&mut *connection)
        .await?;
    }
    for gone in existing.into_keys() {
        sqlx::query("DELETE FROM points WHERE protection_id = $1 AND point = $2")
            .bind(id.to_string())
            .bind(gone)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The instant of the newest point, by whichever side knows a newer one.
async fn newest(
    connection: &mut SqliteConnection,
    id: ProtectionId,
    kept: Option<Newest>,
) -> Result<Option<OffsetDateTime>> {
    let stored: Option<(u16, String)> =
        sqlx::query_as("SELECT format, document FROM shipping_reports WHERE protection_id = $1")
            .bind(id.to_string())
            .fetch_optional(connection)
            .await?;
    let (format, document) = stored.unzip();
    let report: Option<ShippingReport> = read(format, document, "a shipping report")?;
    let shipped = report.and_then(|report| report.newest).map(Into::into);
    Ok(shipped.max(kept).map(|newest| newest.instant))
}

/// Out of two columns, of the newest point that a target keeps.
pub(super) fn newest_kept(point: Option<u32>, instant_us: Option<i64>) -> Result<Option<Newest>> {
    let instant = super::optional_time(instant_us)?;
    Ok(point.zip(instant).map(|(point, instant)| Newest { point, instant }))
}

/// Measures the RPO after a report. It is at its worst just before a new point
/// is known, so what was the newest until now counts.
async fn measure(
    connection: &mut SqliteConnection,
    id: ProtectionId,
    before: Option<OffsetDateTime>,
    row: &Expected,
    in_time: impl Fn(OffsetDateTime) -> bool,
    now: OffsetDateTime,
) -> Result<()> {
    let known = match super::optional_time(row.received_us)? {
        Some(received) if now - received <= COMPARED_WITHIN => before,
        _ => None,
    };
    let counts = match known {
        Some(before) => Some(before),
        None => {
            let kept: Option<(u32, i64)> = sqlx::query_as(
                "SELECT point, instant_us FROM points WHERE protection_id = $1
                 ORDER BY point DESC LIMIT 1",
            )
            .bind(id.to_string())
            .fetch_optional(&mut *connection)
            .await?;
            let (point, instant_us) = kept.unzip();
            newest(connection, id, newest_kept(point, instant_us)?).await?
        }
    };
    match counts.filter(|label| in_time(*label)) {
        Some(instant) => note_rpo(connection, id, now - instant, now).await,
        None => Ok(()),
    }
}

async fn note_rpo(
    connection: &mut SqliteConnection,
    id: ProtectionId,
    rpo: Duration,
    now: OffsetDateTime,
) -> Result<()> {
    let rpo = i64::try_from(rpo.whole_milliseconds()).unwrap_or(i64::MAX).max(0);
    sqlx::query(
        "INSERT INTO rpo_history (protection_id, minute, worst_ms) VALUES ($1, $2, $3)
         ON CONFLICT (protection_id, minute) DO UPDATE SET worst_ms = excluded.worst_ms
         WHERE excluded.worst_ms > rpo_history.worst_ms",
    )
    .bind(id.to_string())
    .bind(minute(now))
    .bind(rpo)
    .execute(connection)
    .await?;
    Ok(())
}

/// Minutes since 1970.
fn minute(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().div_euclid(60)
}

#[cfg(test)]
mod tests {
    use super::super::protections::{NewProtection, Protection, Wish};
    use super::super::tests::database;
    use super::*;
    use domain::id::MachineUuid;
    use wire::replication::OfflineCopy;
    use wire::replication::Totals;

    const EAST: Uuid = Uuid::from_u128(1);
    const WEST: Uuid = Uuid::from_u128(2);
    const WEB: ProtectionId = ProtectionId::new(Uuid::from_u128(9));

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
    }

    async fn protect(database: &Database, now: OffsetDateTime) -> Protection {
        let reference = |id, name: &str| api::Reference { id, name: name.into() };
        let policy = database.policy("default").await.unwrap();
        let new = NewProtection {
            id: WEB,
            machine: MachineUuid::new(Uuid::from_u128(7)),
            machine_name: "web",
            source: &reference(EAST, "kvm1"),
            target: &reference(WEST, "kvm2"),
            policy: &reference(policy.id.uuid(), "default"),
            excluded: &[],
            not_before: None,
            offline_folder: Some("/mnt/usb"),
        };
        database.create_protection(new, "admin", now).await.unwrap();
        database.protection("web").await.unwrap()
    }

    /// A database with two hosts, of which the first's machine is protected.
    async fn stage() -> (tempfile::TempDir, Database) {
        let (folder, database) = database().await;
        sqlx::query("INSERT INTO sites (id, name, kind, description, created_us) VALUES ('00000000-0000-0000-0000-000000000005', 'lab', 'managed', '', 0)")
            .execute(&database.writer)
            .await
            .unwrap();
        for (id, name) in [(EAST, "kvm1"), (WEST, "kvm2")] {
            sqlx::query("INSERT INTO hosts (id, site_id, name, enrolled_us, certificate_serial, certificate_expires_us) VALUES ($1, '00000000-0000-0000-0000-000000000005', $2, 0, '', 0)")
                .bind(id.to_string())
                .bind(name)
                .execute(&database.writer)
                .await
                .unwrap();
        }
        protect(&database, at(0)).await;
        (folder, database)
    }

    fn point(number: u32, seconds: i64) -> PointMark {
        PointMark {
            point: number,
            instant: at(seconds),
            app_consistent: false,
            stored_bytes: 1,
            hold: None,
        }
    }

    fn shipped(newest: PointMark) -> Replication {
        let report = ShippingReport {
            protection: WEB,
            phase: Phase::Steady,
            trouble: None,
            remarks: vec![],
            newest: Some(newest),
            progress: None,
            rpo_worst_ms: None,
            rpo_p99_ms: None,
            totals: Totals::default(),
            last_cycle: None,
            resynchronised: None,
            verified: None,
        };
        Replication { shipping: vec![report], keeping: vec![] }
    }

    fn kept(points: Vec<PointMark>) -> Replication {
        let report = KeepingReport {
            protection: WEB,
            folder: "/store/web".into(),
            count: points.len() as u64,
            points,
            used_bytes: 1,
            free_bytes: 2,
            trouble: None,
            import: None,
        };
        Replication { shipping: vec![], keeping: vec![report] }
    }

    #[tokio::test]
    async fn a_first_copy_is_carried_until_there_is_a_point_and_taken_in_once() {
        let (_folder, database) = stage().await;
        let web = database.protection("web").await.unwrap();
        assert_eq!(web.offline.as_ref().map(|copy| copy.folder.as_str()), Some("/mnt/usb"));
        let copy = OfflineCopy { wish: Uuid::from_u128(77), folder: "/mnt/disk".into() };
        let wish = protections::Wish::ImportCopy(copy.clone());
        database.wish(&web, wish, "admin", at(1)).await.unwrap();
        let tell = async |stage| {
            let mut report = kept(vec![]);
            report.keeping[0].import = Some(ImportReport { wish: copy.wish, stage });
            database
                .apply_replication(HostId::new(WEST), report, None, |_, _| true, at(2))
                .await
                .unwrap()
        };
        assert!(
            !tell(ImportStage::Reading(wire::replication::Progress {
                done: 1,
                total: 2,
                seconds_left: None
            }))
            .await
        );
        assert_eq!(database.protection("web").await.unwrap().import, Some(copy.clone()));
        assert!(tell(ImportStage::Taken).await, "the agent need not be told again");
        assert_eq!(database.protection("web").await.unwrap().import, None);
        let told = shipped(point(1, 10));
        assert!(
            database
                .apply_replication(HostId::new(EAST), told, None, |_, _| true, at(12))
                .await
                .unwrap()
        );
        assert_eq!(database.protection("web").await.unwrap().offline, None);
    }

    #[tokio::test]
    async fn rpo_is_at_its_worst_before_a_point_and_a_silence_is_not_measured() {
        let (_folder, database) = stage().await;
        let east = HostId::new(EAST);
        let tell = async |newest, now| {
            database
                .apply_replication(east, shipped(newest), None, |_, _| true, at(now))
                .await
                .unwrap();
            database.rpo_figures(WEB, at(now - 86_400)).await.unwrap()
        };
        // The first point is two seconds old when it is known.
        let figures = tell(point(1, 10), 12).await;
        assert_eq!((figures.worst_ms, figures.minutes), (Some(2000), 1));
        // Until the second is known, the first was the newest.
        let figures = tell(point(2, 40), 43).await;
        assert_eq!((figures.worst_ms, figures.p99_ms), (Some(33_000), Some(33_000)));
        // An hour of silence: what came in it nobody told.
        let figures = tell(point(99, 3640), 3643).await;
        assert_eq!((figures.worst_ms, figures.minutes), (Some(33_000), 2));
        database.measure_rpo(&[(WEB, at(3640))], at(3700)).await.unwrap();
        let figures = database.rpo_figures(WEB, at(0)).await.unwrap();
        assert_eq!((figures.worst_ms, figures.minutes), (Some(60_000), 3));
        assert_eq!(database.rpo_figures(WEB, at(3600)).await.unwrap().minutes, 2);
        database.prune_history(at(3600) + HISTORY_KEPT).await.unwrap();
        assert_eq!(database.rpo_figures(WEB, at(0)).await.unwrap().minutes, 2);
    }

    #[tokio::test]
    async fn points_are_those_that_the_target_told_last_and_nobody_else() {
        let (_folder, database) = stage().await;
        let west = HostId::new(WEST);
        let tell = async |host, points| {
            database
                .apply_replication(host, kept(points), None, |_, _| true, at(100))
                .await
                .unwrap();
            let points = database.points(WEB).await.unwrap();
            points.iter().map(|point| point.point).collect::<Vec<_>>()
        };
        assert_eq!(tell(west, vec![point(1, 10), point(2, 40)]).await, [2, 1]);
        assert_eq!(tell(west, vec![point(2, 40), point(3, 70)]).await, [3, 2]);
        assert_eq!(tell(HostId::new(EAST), vec![]).await, [3, 2], "the source keeps none");
        let stored = database.protection("web").await.unwrap();
        assert_eq!(stored.newest(), Some(at(70)));
        assert_eq!(stored.keeping.unwrap().0.points, [], "they are rows");
    }

    #[tokio::test]
    async fn a_protection_ends_when_both_agents_were_told_and_tell_of_it_no_more() {
        let (_folder, database) = stage().await;
        let stored = database.protection("web").await.unwrap();
        database.wish(&stored, Wish::Disable, "admin", at(1)).await.unwrap();
        let tell = async |host, sent: Option<&Duties>| {
            let report = Replication::default();
            database
                .apply_replication(HostId::new(host), report, sent, |_, _| true, at(2))
                .await
                .unwrap();
            database.protections().await.unwrap().len()
        };
        let none = Duties::default();
        assert_eq!(tell(WEST, Some(&none)).await, 1);
        assert_eq!(tell(EAST, None).await, 1, "it was not told yet");
        assert_eq!(tell(EAST, Some(&none)).await, 0);
        // Another one overtakes the writers of the former, even at the same time.
        let again = protect(&database, at(0)).await;
        assert!(again.generation > stored.generation);
        let twice = database.protection(&Uuid::from_u128(7).to_string()).await.unwrap();
        assert_eq!(twice, again, "by the machine's UUID");
    }
}
