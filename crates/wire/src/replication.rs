//! What the controller wants of an agent in replication, and what the agent
//! tells of it: from protocol version 2 on.
//!
//! Both are *states*, sent whole: an agent that missed ten of them has missed
//! nothing once it has the last. The agent keeps its [`Duties`] on disk and goes
//! on with them while the controller is away. One-time wishes (a verification, a
//! resynchronisation) travel inside as ids that are answered once.

use domain::calendar;
use domain::id::{HostId, MachineUuid, ProtectionId};
use domain::protection;
use domain::units;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::data::Sealed;
use crate::heritage::Heritage;
use crate::message::Refused;

/// Version of the form in which an agent keeps its duties.
pub const DUTIES_FORMAT: u16 = 1;

/// All that an agent is to do; what is not in it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Duties {
    /// Machines of this host whose changes go elsewhere.
    pub shipping: Vec<Shipping>,
    /// Machines whose recovery points are kept here.
    pub keeping: Vec<Keeping>,
    /// Whose the protected machines of this host are; a machine that is not
    /// listed must not be started now, nor stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ownership: Vec<Ownership>,
    /// What another controller must know to go on with all of this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heritage: Vec<Heritage>,
}

/// A machine whose changes are captured and shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipping {
    /// The protection.
    #[serde(with = "plain::protection")]
    pub protection: ProtectionId,
    /// The hypervisor's UUID of the machine.
    #[serde(with = "plain::machine")]
    pub machine: MachineUuid,
    /// Its name, for messages.
    pub name: String,
    /// The host that keeps its points.
    #[serde(with = "plain::host")]
    pub target: HostId,
    /// That host's name, for messages.
    pub target_name: String,
    /// Where its agent listens for peers, `HOST:PORT`; none while it never
    /// connected.
    pub target_address: Option<String>,
    /// A writer with a greater one takes over.
    pub generation: u64,
    /// Disks that are left out, by the hypervisor's names such as `vdb`.
    pub excluded_disks: Vec<String>,
    /// How.
    pub policy: ShippingPolicy,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Not before this instant: the initial replication waits for it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub not_before: Option<OffsetDateTime>,
    /// Resynchronise once, whatever the change record says.
    pub resynchronise: Option<Uuid>,
    /// Compare source and replica once.
    pub verify: Option<Uuid>,
    /// The first copy is carried, and does not go over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<OfflineCopy>,
}

/// A first copy that is carried in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineCopy {
    /// What was wished for; another copy has another one.
    pub wish: Uuid,
    /// Where, on the host that is told of it.
    pub folder: String,
}

/// The part of a policy that the source's side needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippingPolicy {
    /// Seconds from one point to the next, from 5 on.
    pub every_seconds: u32,
    /// Seconds from one app-consistent point to the next; none of these
    /// without.
    pub app_consistent_seconds: Option<u32>,
    /// Seconds that the guest's file systems may stay frozen for one.
    pub freeze_seconds: u32,
    /// How data travels and is kept.
    pub compression: Compression,
    /// At most so many bytes a second.
    pub bytes_per_second: Option<u64>,
    /// Other limits in some hours; the first that holds counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calendar: Vec<BandwidthRule>,
    /// Resynchronisations wait for one of these hours; for none without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resynchronise_in: Vec<Window>,
}

/// Another bandwidth limit in some hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BandwidthRule {
    /// The hours.
    pub window: Window,
    /// Bytes a second; no limit without.
    pub bytes_per_second: Option<u64>,
}

/// The same hours on some days of the week, by the local time of the host that
/// ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Bit 0 is Monday.
    pub days: u8,
    /// Minute of the day on which it opens.
    pub from_minute: u16,
    /// For so many minutes, up to a whole day.
    pub minutes: u16,
}

impl From<calendar::Window> for Window {
    fn from(window: calendar::Window) -> Self {
        let (days, from_minute, minutes) = window.parts();
        Self { days, from_minute, minutes }
    }
}

impl Window {
    /// As decisions take it; none if no window is like that.
    #[must_use]
    pub const fn to_domain(self) -> Option<calendar::Window> {
        calendar::Window::new(self.days, self.from_minute, self.minutes)
    }
}

/// How data is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    None,
    /// With little work.
    Fast,
    /// With more work, into less.
    Strong,
}

/// A machine whose points are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeping {
    /// The protection.
    #[serde(with = "plain::protection")]
    pub protection: ProtectionId,
    /// The hypervisor's UUID of the machine.
    #[serde(with = "plain::machine")]
    pub machine: MachineUuid,
    /// Its name, for messages and the store's folder.
    pub name: String,
    /// The only host that may send its changes.
    #[serde(with = "plain::host")]
    pub source: HostId,
    /// What the sender must have at least.
    pub generation: u64,
    /// Which points stay.
    pub retention: Retention,
    /// How what does not come compressed is kept.
    pub compression: Compression,
    /// Take in a first copy that was carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<OfflineCopy>,
}

/// Whose a machine is: the agent of a side that it is not starts it never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// The machine.
    #[serde(with = "plain::machine")]
    pub machine: MachineUuid,
    /// Raised with each change.
    pub epoch: u64,
    /// Whether it is this host's in that epoch.
    pub ours: bool,
    /// Whether its agent starts it, if it is this host's by all that is known there,
    /// when the host was restarted and the controller cannot be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub starts_alone: bool,
}

/// Which points stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// All points of so many hours.
    pub all_hours: u32,
    /// Then, the finest first, one point per slot.
    pub tiers: Vec<RetentionTier>,
    /// App-consistent points stay so many hours longer.
    pub app_extra_hours: u32,
}

/// One point per slot, back to an age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionTier {
    /// Hours of a slot.
    pub slot_hours: u32,
    /// Up to this age in hours.
    pub hours: u32,
}

/// All that an agent has to tell of replication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Replication {
    /// One for each [`Shipping`].
    pub shipping: Vec<ShippingReport>,
    /// One for each [`Keeping`].
    pub keeping: Vec<KeepingReport>,
}

/// How the shipping of a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippingReport {
    /// The protection.
    #[serde(with = "plain::protection")]
    pub protection: ProtectionId,
    /// What it is doing.
    pub phase: Phase,
    /// What keeps it from going on, if anything does; it tries again by itself.
    pub trouble: Option<Trouble>,
    /// What it does less well than the policy asks, in words.
    pub remarks: Vec<String>,
    /// The newest point that is durable at the target.
    pub newest: Option<PointMark>,
    /// Of the copy that is under way, in bytes.
    pub progress: Option<Progress>,
    /// How old the newest durable data was, at its worst and 99 of 100 times,
    /// over the last 24 hours, in milliseconds.
    pub rpo_worst_ms: Option<u64>,
    /// See above.
    pub rpo_p99_ms: Option<u64>,
    /// Since the agent began with this machine.
    pub totals: Totals,
    /// What the last cycle was.
    pub last_cycle: Option<CycleFigures>,
    /// The resynchronisation that was last done or begun.
    pub resynchronised: Option<Uuid>,
    /// The verification that was last finished.
    pub verified: Option<VerifyReport>,
}

/// What the shipping of a machine is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing yet: not due, or not connected for the first time.
    Waiting,
    /// The first copy.
    Initial,
    /// The first copy, into a folder.
    Exporting {
        /// Where.
        folder: String,
    },
    /// The first copy is in a folder, and waits to be taken in at the target.
    Carried {
        /// Where it was written.
        folder: String,
        /// The instant that it is of.
        #[serde(with = "time::serde::rfc3339")]
        instant: OffsetDateTime,
    },
    /// Changes only.
    Steady,
    /// Comparing with the target, because the record of changes is lost or
    /// doubtful.
    Resynchronising {
        /// Why.
        reason: String,
        /// It waits until then for the hours of its policy.
        #[serde(
            default,
            with = "time::serde::rfc3339::option",
            skip_serializing_if = "Option::is_none"
        )]
        held_until: Option<OffsetDateTime>,
    },
    /// An operator paused it.
    Paused,
}

/// What keeps replication from going on, as an operator reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What it is.
    #[serde(flatten)]
    pub fault: Refused,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

impl Trouble {
    /// Out of a fault: the same trouble as `before` if it has the same code, else
    /// since `now`.
    #[must_use]
    pub fn of(fault: Refused, before: Option<&Self>, now: OffsetDateTime) -> Self {
        let same = before.filter(|before| before.fault.code == fault.code);
        Self { since: same.map_or(now, |same| same.since), fault }
    }
}

impl From<&Trouble> for protection::Trouble {
    fn from(told: &Trouble) -> Self {
        Self {
            code: told.fault.code.clone(),
            cause: format!("cannot {}: {}", told.fault.doing, told.fault.cause),
            advice: told.fault.advice.clone(),
            since: told.since,
        }
    }
}

impl From<PointMark> for protection::Newest {
    fn from(point: PointMark) -> Self {
        Self { point: point.point, instant: point.instant }
    }
}

impl From<&ShippingReport> for protection::Shipping {
    fn from(report: &ShippingReport) -> Self {
        let carried = |folder: &String| protection::Carried { folder: folder.clone() };
        Self {
            phase: match &report.phase {
                Phase::Waiting => protection::Phase::Waiting,
                Phase::Initial => protection::Phase::Initial,
                Phase::Steady => protection::Phase::Steady,
                Phase::Exporting { folder } => protection::Phase::Exporting(carried(folder)),
                Phase::Carried { folder, .. } => protection::Phase::Carried(carried(folder)),
                Phase::Resynchronising { reason, held_until } => {
                    protection::Phase::Resynchronising(protection::Comparison {
                        reason: reason.clone(),
                        held_until: *held_until,
                    })
                }
                Phase::Paused => protection::Phase::Paused,
            },
            trouble: report.trouble.as_ref().map(Into::into),
            remarks: report.remarks.clone(),
            newest: report.newest.map(Into::into),
        }
    }
}

/// A recovery point, by what people tell it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointMark {
    /// Its number in the store.
    pub point: u32,
    /// When the disks were held still, by the source's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub instant: OffsetDateTime,
    /// Whether applications had written everything down.
    pub app_consistent: bool,
    /// Bytes that it took when it arrived.
    pub stored_bytes: u64,
    /// What holds it, whatever the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// What holds a point until an operator lets it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// An operator.
    Operator,
    /// That its host had it when it was lost, and may never have sent it.
    Lost,
}

impl PointMark {
    /// Of a point as its keeper tells of it.
    #[must_use]
    pub fn of(point: &Sealed) -> Self {
        let Sealed { point, instant, app_consistent, stored_bytes } = *point;
        let instant = units::instant(instant);
        Self { point, instant, app_consistent, stored_bytes, hold: None }
    }
}

/// Of all points, the oldest first, those that are told in reports: the newest,
/// and of what is held as much as there is room for.
#[must_use]
pub fn points_told(mut points: Vec<PointMark>) -> Vec<PointMark> {
    let mut surplus = points.len().saturating_sub(POINTS_TOLD);
    points.retain(|point| {
        let goes = surplus > 0 && point.hold.is_none();
        surplus -= usize::from(goes);
        !goes
    });
    points.drain(..surplus);
    points
}

/// How far a copy is, or a cycle that takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes of the disks, or of what changed on them, that are at the target or
    /// need not go.
    pub done: u64,
    /// Of so many.
    pub total: u64,
    /// At the pace so far, the rest takes so many seconds; none while there is
    /// no telling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// Sums, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Totals {
    /// Read from the disks.
    pub read: u64,
    /// Sent, as it went over the wire.
    pub sent: u64,
    /// Points sealed.
    pub points: u64,
}

/// One cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleFigures {
    /// From the cut to the seal.
    pub took_ms: u64,
    /// Bytes that had changed.
    pub changed: u64,
    /// Bytes on the wire.
    pub sent: u64,
}

/// What comparing source and replica found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The wish that it answers.
    pub wish: Uuid,
    /// The point that was compared; none if it could not be done.
    pub point: Option<PointMark>,
    /// When it was finished.
    #[serde(with = "time::serde::rfc3339")]
    pub finished: OffsetDateTime,
    /// One for each disk.
    pub disks: Vec<VerifiedDisk>,
    /// Why it could not be done.
    pub trouble: Option<Refused>,
}

/// What was found of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedDisk {
    /// The hypervisor's name, such as `vda`.
    pub disk: String,
    /// Bytes of it, all of which were compared by hash.
    pub bytes: u64,
    /// BLAKE3 of the hashes of its blocks of 64 KiB, hexadecimal: the same at
    /// both sides if nothing differs.
    pub digest: String,
    /// Stretches that differ, the first hundred: offset and length in bytes.
    pub differing: Vec<(u64, u64)>,
}

/// How the keeping of a machine's points is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepingReport {
    /// The protection.
    #[serde(with = "plain::protection")]
    pub protection: ProtectionId,
    /// Where the points lie.
    pub folder: String,
    /// As [`points_told`] has them, at most [`POINTS_TOLD`].
    pub points: Vec<PointMark>,
    /// How many there are.
    pub count: u64,
    /// Bytes of the store's files.
    pub used_bytes: u64,
    /// Bytes that are free where it lies.
    pub free_bytes: u64,
    /// What keeps points from arriving or old ones from going.
    pub trouble: Option<Trouble>,
    /// The first copy that is being taken in, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportReport>,
}

/// How far the taking in of a first copy is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// The wish that it answers.
    pub wish: Uuid,
    /// What has become of it.
    #[serde(flatten)]
    pub stage: ImportStage,
}

/// What has become of the taking in of a first copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum ImportStage {
    /// It is under way.
    Reading(Progress),
    /// It is a point.
    Taken,
    /// It could not be done; nothing was changed.
    Failed(Trouble),
}

/// How many points a report lists.
pub const POINTS_TOLD: usize = 500;

/// Typed ids as plain UUIDs.
pub(crate) mod plain {
    macro_rules! plain_id {
        ($module:ident, $id:ty) => {
            pub(crate) mod $module {
                use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
                use uuid::Uuid;

                pub(crate) fn serialize<S: Serializer>(id: &$id, to: S) -> Result<S::Ok, S::Error> {
                    id.uuid().serialize(to)
                }

                pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                    from: D,
                ) -> Result<$id, D::Error> {
                    Uuid::deserialize(from).map(<$id>::new)
                }
            }
        };
    }
    plain_id!(protection, domain::id::ProtectionId);
    plain_id!(machine, domain::id::MachineUuid);
    plain_id!(host, domain::id::HostId);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_points_are_told_before_others_that_are_newer() {
        let point = |number: u32| PointMark {
            point: number,
            instant: OffsetDateTime::UNIX_EPOCH,
            app_consistent: false,
            stored_bytes: 1,
            hold: (number == 7).then_some(Hold::Lost),
        };
        let all: Vec<PointMark> = (1..=POINTS_TOLD as u32 + 20).map(point).collect();
        let told = points_told(all);
        assert_eq!(told.len(), POINTS_TOLD);
        assert_eq!(told.first().map(|first| first.point), Some(7));
        assert_eq!(told.get(1).map(|second| second.point), Some(22));
        let held = |point: PointMark| PointMark { hold: Some(Hold::Operator), ..point };
        let all: Vec<PointMark> = (1..=POINTS_TOLD as u32 + 20).map(point).map(held).collect();
        let told = points_told(all);
        assert_eq!((told.len(), told.first().map(|first| first.point)), (POINTS_TOLD, Some(21)));
        assert_eq!(points_told(vec![point(1), point(7)]).len(), 2);
    }
}
