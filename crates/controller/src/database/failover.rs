//! Where protected machines stand in a failover, and their epochs.

use domain::failover::{
    Change, Epoch, Event, Kind, Origin, Phase, Return, Side, Standing, State, Tests, apply,
};
use domain::id::{HostId, ProtectionId};
use domain::protection;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use time::OffsetDateTime;
use uuid::Uuid;
use wire::heritage::{Document, Heritage};

use super::protections::{self, Protection};
use super::{Database, DatabaseError, Result, audit, nonsense};

/// Version of [`StateDocument`].
const FORMAT: u16 = 1;

/// Where a machine stands beyond being replicated, as it is stored, format 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
enum StateDocument {
    FailingOver { kind: StoredKind, phase: StoredPhase },
    AwaitingCompletion,
    Returning { fenced: bool },
    CommitPending { kind: StoredKind, change: StoredChange },
    Committed,
    ReverseReplicating,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredKind {
    Planned,
    Unplanned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredPhase {
    BeforeFence,
    Fencing,
    LastSync,
    Starting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredChange {
    None,
    Point,
    Commit,
}

macro_rules! alike {
    ($stored:ty = $domain:ty { $($name:ident),+ }) => {
        impl From<$domain> for $stored {
            fn from(value: $domain) -> Self {
                match value { $(<$domain>::$name => Self::$name),+ }
            }
        }
        impl From<$stored> for $domain {
            fn from(value: $stored) -> Self {
                match value { $(<$stored>::$name => Self::$name),+ }
            }
        }
    };
}
alike!(StoredKind = Kind { Planned, Unplanned });
alike!(StoredPhase = Phase { BeforeFence, Fencing, LastSync, Starting });
alike!(StoredChange = Change { None, Point, Commit });

impl StateDocument {
    /// None of what follows from reports.
    fn of(state: State) -> Option<Self> {
        Some(match state {
            State::Enabling
            | State::InitialReplication
            | State::Protected
            | State::Disabling { .. } => return None,
            State::FailingOver { kind, phase, .. } => {
                Self::FailingOver { kind: kind.into(), phase: phase.into() }
            }
            State::AwaitingCompletion { .. } => Self::AwaitingCompletion,
            State::Returning { phase, .. } => Self::Returning { fenced: phase == Return::Starting },
            State::CommitPending { kind, change, .. } => {
                Self::CommitPending { kind: kind.into(), change: change.into() }
            }
            State::Committed => Self::Committed,
            State::ReverseReplicating => Self::ReverseReplicating,
        })
    }

    /// Failovers begin from protected; from committed only with cloud providers.
    fn state(self) -> State {
        let from = Origin::Protected;
        match self {
            Self::FailingOver { kind, phase } => {
                State::FailingOver { kind: kind.into(), phase: phase.into(), from }
            }
            Self::AwaitingCompletion => State::AwaitingCompletion { from },
            Self::Returning { fenced } => {
                let phase = if fenced { Return::Starting } else { Return::Fencing };
                State::Returning { phase, from }
            }
            Self::CommitPending { kind, change } => {
                State::CommitPending { kind: kind.into(), change: change.into(), from }
            }
            Self::Committed => State::Committed,
            Self::ReverseReplicating => State::ReverseReplicating,
        }
    }
}

/// Where a machine stands, as another controller may read it; none of what
/// follows from reports.
pub(super) fn document(state: State) -> Option<Document> {
    let document = StateDocument::of(state)?;
    let document = serde_json::to_string(&document).expect("a state is plain");
    Some(Document { format: FORMAT, document })
}

/// Where a machine stood that another controller tells of.
///
/// # Errors
/// It makes no sense here.
pub fn standing_of(heritage: &Heritage) -> Result<Standing> {
    let (format, document) = match &heritage.state {
        Some(Document { format, document }) => (Some(*format), Some(document.clone())),
        None => (None, None),
    };
    let epoch = i64::try_from(heritage.epoch).map_err(|error| nonsense("an epoch", &error))?;
    let read = Failover::read(epoch, heritage.reversed, (format, document), None, (false, true))?;
    Ok(Standing {
        source: read.source(),
        epoch: read.epoch,
        state: read.state.unwrap_or(State::Protected),
        tests: Tests::default(),
    })
}

/// What is stored of a machine's failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// The current epoch.
    pub epoch: Epoch,
    /// Whether the source is where the machine was not when it was protected.
    pub reversed: bool,
    /// Where it stands, beyond being replicated.
    pub state: Option<State>,
    /// What the machine was made of at the target.
    pub recovery: Option<Uuid>,
    /// Whether shipping waits until a job lets it go on.
    pub held: bool,
    /// Whether the side that the machine was last failed over from may have what
    /// never arrived: unless it is known that the failover was planned.
    pub unsent: bool,
}

impl Failover {
    pub(super) fn read(
        epoch: i64,
        reversed: bool,
        document: (Option<u16>, Option<String>),
        recovery: Option<Uuid>,
        (held, unsent): (bool, bool),
    ) -> Result<Self> {
        let epoch = u64::try_from(epoch).map_err(|error| nonsense("an epoch", &error))?;
        let state = match document {
            (Some(FORMAT), Some(document)) => {
                let stored: StateDocument = serde_json::from_str(&document)
                    .map_err(|error| nonsense("where a failover stands", &error))?;
                Some(stored.state())
            }
            (Some(format), Some(_)) => {
                let cause = format_args!("format {format} is not known");
                return Err(nonsense("where a failover stands", &cause));
            }
            _ => None,
        };
        Ok(Self { epoch: Epoch::new(epoch), reversed, state, recovery, held, unsent })
    }

    /// Whether changes are shipped: not once the source is fenced for good.
    #[must_use]
    pub const fn ships(&self) -> bool {
        if self.held {
            return false;
        }
        match self.state {
            None | Some(State::AwaitingCompletion { .. } | State::ReverseReplicating) => true,
            Some(State::FailingOver { kind, phase, .. }) => matches!(
                (kind, phase),
                (_, Phase::BeforeFence) | (Kind::Planned, Phase::Fencing | Phase::LastSync)
            ),
            Some(_) => false,
        }
    }

    /// Which side the source is.
    #[must_use]
    pub const fn source(&self) -> Side {
        if self.reversed { Side::Away } else { Side::Home }
    }
}

impl Protection {
    /// Where the machine stands. `tests` are those that are open now, which only
    /// their jobs know.
    #[must_use]
    pub fn standing(&self, tests: Tests) -> Standing {
        let source = self.failover.source();
        let state = match (self.disabling, self.failover.state) {
            (Some(_), state) => {
                let before = state.unwrap_or(State::Protected);
                let standing =
                    Standing { source, epoch: self.failover.epoch, state: before, tests };
                State::Disabling { active: standing.active() }
            }
            (None, Some(state)) => state,
            (None, None) => match (self.newest(), &self.shipping) {
                (Some(_), _) => State::Protected,
                (None, Some(_)) => State::InitialReplication,
                (None, None) => State::Enabling,
            },
        };
        Standing { source, epoch: self.failover.epoch, state, tests }
    }
}

/// What changes together with a machine's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Nothing.
    Nothing,
    /// What it was made of at the target.
    Recovery(Option<Uuid>),
    /// It is made at this host, and not at its target.
    Compute(HostId),
    /// The direction turns: this host keeps the points from now on; the source, if
    /// none is named.
    Turn(Option<HostId>),
}

impl Database {
    /// Lets shipping go on that waited for a job. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn let_go(&self, id: ProtectionId) -> Result<()> {
        sqlx::query("UPDATE protections SET held = FALSE WHERE id = $1")
            .bind(id.to_string())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Has something happen to a protected machine; where it stands then.
    /// Durable on return.
    ///
    /// # Errors
    /// [`Refused`](HappenError::Refused) when it cannot happen now, which changes
    /// nothing; or the database fails.
    pub async fn happen(
        &self,
        id: ProtectionId,
        event: &Event,
        tests: Tests,
        along: Along,
        by: (&str, OffsetDateTime),
    ) -> Result<Standing, HappenError> {
        let (actor, now) = by;
        let protection = self.protection(&id.to_string()).await?;
        let before = protection.standing(tests);
        let replication = replication_of(&protection);
        let route = domain::failover::Route::SITES;
        let after = apply(&before, event, &replication, route)
            .map_err(|refusal| HappenError::Refused(Box::new(refusal)))?;
        let mut transaction = self.begin().await?;
        // Another task may have been quicker.
        let changed = keep(&mut transaction, &protection, &after, along, now).await?;
        if !changed {
            return Err(DatabaseError::Nonsense {
                what: "where a failover stands",
                cause: "two jobs changed it at once".into(),
            }
            .into());
        }
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "failover",
            subject: protection.machine_name.clone(),
            detail: format!("{}; epoch {}", after.state.name(), after.epoch),
        };
        audit::write(&mut transaction, deed, now).await?;
        transaction.commit().await.map_err(DatabaseError::from)?;
        Ok(after)
    }
}

/// Why something did not happen to a machine.
#[derive(Debug, thiserror::Error)]
pub enum HappenError {
    /// It cannot happen now.
    #[error("{}", .0.reason)]
    Refused(Box<domain::failover::Refusal>),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// How replication goes on, by what the source tells: what ails the target is
/// found when a failover asks it.
#[must_use]
pub fn replication_of(protection: &Protection) -> protection::Replication {
    let shipping = protection.shipping.as_ref().map(|(report, _)| report.into());
    protection::replication_by(protection.paused, shipping.as_ref(), None)
}

/// Keeps where a machine stands, unless that has changed since it was read.
async fn keep(
    connection: &mut SqliteConnection,
    before: &Protection,
    after: &Standing,
    along: Along,
    now: OffsetDateTime,
) -> Result<bool> {
    let id = before.id.to_string();
    let text = |state| document(state).map(|document| document.document);
    let (known, next) = (before.failover.state.and_then(text), text(after.state));
    let changed = sqlx::query(
        "UPDATE protections SET epoch = $2, failover_format = $3, failover = $4
         WHERE id = $1 AND epoch = $5 AND failover IS NOT DISTINCT FROM $6",
    )
    .bind(&id)
    .bind(i64::try_from(after.epoch.number()).unwrap_or(i64::MAX))
    .bind(next.as_ref().map(|_| FORMAT))
    .bind(next)
    .bind(i64::try_from(before.failover.epoch.number()).unwrap_or(i64::MAX))
    .bind(known)
    .execute(&mut *connection)
    .await?;
    if let State::CommitPending { kind, .. } = after.state {
        sqlx::query("UPDATE protections SET unsent = $2 WHERE id = $1")
            .bind(&id)
            .bind(kind == Kind::Unplanned)
            .execute(&mut *connection)
            .await?;
    }
    match along {
        Along::Nothing => {}
        Along::Recovery(recovery) => {
            sqlx::query("UPDATE protections SET recovery = $2 WHERE id = $1")
                .bind(&id)
                .bind(recovery.map(|recovery| recovery.to_string()))
                .execute(&mut *connection)
                .await?;
        }
        Along::Compute(host) => compute_at(connection, before, host).await?,
        Along::Turn(to) => turn(connection, before, to, now).await?,
    }
    if before.compute.is_some() && after.state == State::Protected {
        compute_at(connection, before, before.target).await?;
    }
    Ok(changed.rows_affected() == 1)
}

/// The machine is made at this host from now on; where it was or may have been made
/// before, it stays fenced.
async fn compute_at(
    connection: &mut SqliteConnection,
    before: &Protection,
    host: HostId,
) -> Result<()> {
    // Nobody was told anything before the fence.
    let is_untouched =
        matches!(before.failover.state, Some(State::FailingOver { phase: Phase::BeforeFence, .. }));
    let left = before.compute.filter(|left| *left != host && !is_untouched);
    let known = before.former_hosts.iter().copied().filter(|known| Some(*known) != left);
    sqlx::query("UPDATE protections SET compute_host_id = $2, former_hosts = $3 WHERE id = $1")
        .bind(before.id.to_string())
        .bind((host != before.target).then(|| host.to_string()))
        .bind(ids(known.chain(left)))
        .execute(connection)
        .await?;
    Ok(())
}

/// Ids of hosts as they are stored.
pub(super) fn ids(hosts: impl IntoIterator<Item = HostId>) -> String {
    let ids: Vec<Uuid> = hosts.into_iter().map(HostId::uuid).collect();
    serde_json::to_string(&ids).expect("ids are plain")
}

/// Turns the direction: what both sides told is of the other direction.
async fn turn(
    connection: &mut SqliteConnection,
    before: &Protection,
    to: Option<HostId>,
    now: OffsetDateTime,
) -> Result<()> {
    let id = before.id.to_string();
    let to = to.unwrap_or(before.source);
    let from = before.away();
    // What the machine leaves behind where it was must never start there.
    let left = before.former_hosts.iter().copied().chain([before.source, before.target]);
    let former = ids(left.filter(|host| ![to, from].contains(host)));
    let generation = protections::next_generation(connection, before.machine, now).await?;
    sqlx::query(
        "UPDATE protections SET source_host_id = $2, target_host_id = $3, generation = $4,
             reversed = $5, held = TRUE, recovery = NULL, resynchronise = NULL, verify = NULL,
             former_hosts = $6, compute_host_id = NULL
         WHERE id = $1",
    )
    .bind(&id)
    .bind(from.to_string())
    .bind(to.to_string())
    .bind(generation)
    .bind(!before.failover.reversed)
    .bind(former)
    .execute(&mut *connection)
    .await?;
    for forgotten in [
        "DELETE FROM shipping_reports WHERE protection_id = $1",
        "DELETE FROM keeping_reports WHERE protection_id = $1",
        "DELETE FROM points WHERE protection_id = $1",
    ] {
        sqlx::query(forgotten).bind(&id).execute(&mut *connection).await?;
    }
    Ok(())
}

/// A first point of the reverse direction is durable: the machine is protected.
pub(super) async fn first_point(connection: &mut SqliteConnection, id: &str) -> Result<bool> {
    let reversing = StateDocument::ReverseReplicating;
    let changed = sqlx::query(
        "UPDATE protections SET failover_format = NULL, failover = NULL
         WHERE id = $1 AND failover = $2 AND NOT held",
    )
    .bind(id)
    .bind(serde_json::to_string(&reversing).expect("a state is plain"))
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// The host on a side of a protection that runs the machine, if the side does.
#[must_use]
pub fn host_at(protection: &Protection, side: Side) -> HostId {
    if side == protection.failover.source() { protection.source } else { protection.away() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_that_is_stored_comes_back() {
        let from = Origin::Protected;
        let kinds = [Kind::Planned, Kind::Unplanned];
        let phases = [Phase::BeforeFence, Phase::Fencing, Phase::LastSync, Phase::Starting];
        let mut states = vec![
            State::AwaitingCompletion { from },
            State::Returning { phase: Return::Fencing, from },
            State::Returning { phase: Return::Starting, from },
            State::Committed,
            State::ReverseReplicating,
        ];
        for kind in kinds {
            states.extend(phases.map(|phase| State::FailingOver { kind, phase, from }));
            let changes = [Change::None, Change::Point, Change::Commit];
            states.extend(changes.map(|change| State::CommitPending { kind, change, from }));
        }
        for state in states {
            let text = serde_json::to_string(&StateDocument::of(state).unwrap()).unwrap();
            let read = Failover::read(3, true, (Some(FORMAT), Some(text)), None, (false, true));
            let read = read.unwrap();
            assert_eq!((read.state, read.source()), (Some(state), Side::Away));
        }
        let golden = r#"{"state":"failing_over","kind":"planned","phase":"last_sync"}"#;
        let read = |format| {
            let document = (Some(format), Some(golden.into()));
            Failover::read(1, false, document, None, (false, false))
        };
        let (kind, phase) = (Kind::Planned, Phase::LastSync);
        assert_eq!(read(1).unwrap().state, Some(State::FailingOver { kind, phase, from }));
        assert!(read(2).is_err());
    }
}
