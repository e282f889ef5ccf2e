//! What is written down of a recovery: one file each, written before what it
//! tells of is made.

use std::ops::Not;
use std::path::PathBuf;

use domain::fault::{Code, Fault};
use domain::id::{HostId, MachineUuid, ProtectionId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::command::{Lender, NicWish, Purpose, Recovery};

use super::files::{Filed, Files};

/// Version of the file's format.
const FORMAT: u16 = 1;
/// The folder of the files in the agent's state folder.
pub const FOLDER: &str = "recoveries";

/// A recovery, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u16,
    /// Chosen by whoever asked for it.
    pub id: Uuid,
    protection: Uuid,
    /// The point's number.
    pub point: u32,
    /// Whether it stands in the place of the machine; else it is a test.
    pub production: bool,
    /// The name of the machine that is made.
    pub name: String,
    machine: Uuid,
    /// The folder of the machine's points, if this host keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<PathBuf>,
    /// Else the host that does, and has lent this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keeper: Option<RecordedKeeper>,
    /// Its own folder, for disks and sockets.
    pub folder: PathBuf,
    /// Its disks, in order.
    pub disks: Vec<RecordedDisk>,
    /// Networks by MAC address.
    pub nics: Vec<RecordedNic>,
    /// What was defined in its place before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<Earlier>,
    /// Whether the machine started with its host where it was before.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub starts_with_host: bool,
    /// How far it is.
    pub stage: Stage,
    /// What the machine had written when its disks began to be made its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Written>,
    /// When it was last started, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<i64>,
    /// What is otherwise than at the source, in words.
    pub remarks: Vec<String>,
}

/// A disk of the machine that is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedDisk {
    /// The hypervisor's name for it, such as `vda`.
    pub target: String,
    /// Bytes.
    pub size: u64,
}

/// A host that keeps the points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedKeeper {
    host: Uuid,
    /// Its name.
    pub name: String,
    /// Where its agent listens for others.
    pub address: String,
}

impl RecordedKeeper {
    /// The host, as its certificate says.
    #[must_use]
    pub const fn host(&self) -> HostId {
        HostId::new(self.host)
    }
}

/// Where the point is that a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In a folder of this host.
    Here(PathBuf),
    /// With another host.
    Lent(RecordedKeeper),
}

impl From<&Lender> for RecordedKeeper {
    fn from(lender: &Lender) -> Self {
        let Lender { host, name, address } = lender.clone();
        Self { host: host.uuid(), name, address }
    }
}

/// A NIC and its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedNic {
    /// Its MAC address.
    pub mac: String,
    /// The network's name.
    pub network: String,
}

/// A machine's own earlier self on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// libvirt's description of it.
    pub xml: String,
    /// Whether libvirt started it by itself.
    pub autostart: bool,
}

/// What a machine had written, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// What its own files held.
    pub taken: u64,
    /// What QEMU had counted since the machine's start.
    pub counted: u64,
}

/// How far a recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Something of it may be there.
    Making,
    /// It is whole, and needs its point.
    Defined,
    /// Its disks stand for themselves.
    Standing,
    /// Something of it may still be there.
    Discarding,
}

impl Record {
    /// Of a wish, before anything is made.
    pub(super) fn of(
        wish: &Recovery,
        (name, machine): (String, Uuid),
        origin: Origin,
        folder: PathBuf,
        disks: Vec<RecordedDisk>,
    ) -> Self {
        let nics = wish.nics.iter().cloned();
        let (store, keeper) = match origin {
            Origin::Here(store) => (Some(store), None),
            Origin::Lent(keeper) => (None, Some(keeper)),
        };
        Self {
            format: FORMAT,
            id: wish.id,
            protection: wish.protection.uuid(),
            point: wish.point,
            production: wish.purpose == Purpose::Production,
            name,
            machine,
            store,
            keeper,
            folder,
            disks,
            nics: nics.map(|NicWish { mac, network }| RecordedNic { mac, network }).collect(),
            earlier: None,
            starts_with_host: false,
            stage: Stage::Making,
            written: None,
            started: None,
            remarks: Vec::new(),
        }
    }

    /// Whether it is what was wished for.
    pub(super) fn answers(&self, wish: &Recovery) -> bool {
        let same_purpose = match &wish.purpose {
            Purpose::Production => self.production,
            Purpose::Test { name, uuid } => {
                !self.production && (&self.name, &self.machine) == (name, uuid)
            }
        };
        let has = |nic: &NicWish| {
            self.nics.iter().any(|known| (&known.mac, &known.network) == (&nic.mac, &nic.network))
        };
        same_purpose
            && (self.protection, self.point) == (wish.protection.uuid(), wish.point)
            && wish.nics.iter().all(has)
            // Which others there were to be was found when it was made.
            && (wish.same_networks || self.nics.len() == wish.nics.len())
    }

    /// The protection whose point it is made of.
    #[must_use]
    pub fn protection(&self) -> ProtectionId {
        ProtectionId::new(self.protection)
    }

    /// The machine that is made.
    #[must_use]
    pub fn machine(&self) -> MachineUuid {
        MachineUuid::new(self.machine)
    }

    /// Where its point is.
    ///
    /// # Errors
    /// When the record does not say.
    pub fn origin(&self) -> Result<Origin, Fault> {
        match (&self.store, &self.keeper) {
            (_, Some(keeper)) => Ok(Origin::Lent(keeper.clone())),
            (Some(store), None) => Ok(Origin::Here(store.clone())),
            (None, None) => Err(Fault::internal(
                format!("find the point of {}", self.name),
                &"its record does not say where that is",
            )),
        }
    }

    /// Targets of its disks, in order.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        self.disks.iter().map(|disk| disk.target.clone()).collect()
    }

    /// Makes sure that it was made to its end, and is not being taken away.
    pub(super) fn must_be_made(&self, doing: &str) -> Result<(), Fault> {
        match self.stage {
            Stage::Defined | Stage::Standing => Ok(()),
            Stage::Making | Stage::Discarding => Err(Fault::new(
                Code::RecoveryUnknown,
                doing,
                "it was not made to its end, or is being discarded",
                "Run the operation anew.",
            )),
        }
    }

    /// Whether a point that this host keeps must stay.
    #[must_use]
    pub fn needs_a_point_here(&self) -> bool {
        self.stage != Stage::Standing && self.keeper.is_none()
    }
}

/// The folder with the records.
pub type Records = Files<Record>;

impl Filed for Record {
    const FORMAT: u16 = FORMAT;

    fn id(&self) -> Uuid {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote; it must be readable for ever.
    const GOLDEN: &str = include_str!("../../tests/golden/recovery-1.json");

    const STANDING: &str = include_str!("../../tests/golden/recovery-1-standing.json");
    const STARTING: &str = include_str!("../../tests/golden/recovery-1-starting.json");
    const LENT: &str = include_str!("../../tests/golden/recovery-1-lent.json");

    #[test]
    fn a_recovery_is_kept_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::in_folder(folder.path().join(FOLDER));
        let standing: Record = serde_json::from_str(STANDING).unwrap();
        assert_eq!(standing.written, Some(Written { taken: 1 << 20, counted: 4 << 20 }));
        assert_eq!(serde_json::to_string_pretty(&standing).unwrap(), STANDING.trim());
        let lent: Record = serde_json::from_str(LENT).unwrap();
        assert!(matches!(lent.origin(), Ok(Origin::Lent(keeper)) if keeper.name == "kvm2"));
        assert!(!lent.needs_a_point_here());
        assert_eq!(serde_json::to_string_pretty(&lent).unwrap(), LENT.trim());
        let starting: Record = serde_json::from_str(STARTING).unwrap();
        assert!(starting.starts_with_host && !lent.starts_with_host);
        assert_eq!(serde_json::to_string_pretty(&starting).unwrap(), STARTING.trim());
        let golden: Record = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(records.all().unwrap(), []);
        records.keep(&golden).unwrap();
        assert_eq!(records.read(golden.id).unwrap(), Some(golden.clone()));
        assert_eq!(records.all().unwrap(), std::slice::from_ref(&golden));
        assert_eq!(serde_json::to_string_pretty(&golden).unwrap(), GOLDEN.trim());
        records.forget(golden.id).unwrap();
        records.forget(golden.id).unwrap();
        assert_eq!(records.read(golden.id).unwrap(), None);
    }

    #[test]
    fn the_same_wish_is_known_again_and_no_other() {
        let wish = Recovery {
            id: Uuid::from_u128(1),
            protection: ProtectionId::new(Uuid::from_u128(2)),
            point: 3,
            purpose: Purpose::Production,
            nics: Vec::new(),
            same_networks: false,
            keeper: None,
        };
        let own = ("web".to_owned(), Uuid::from_u128(4));
        let origin = Origin::Here("/s".into());
        let record = Record::of(&wish, own, origin, "/f".into(), Vec::new());
        assert!(record.answers(&wish));
        assert!(!record.answers(&Recovery { point: 4, ..wish.clone() }));
        let purpose = Purpose::Test { name: "web".into(), uuid: Uuid::from_u128(4) };
        assert!(!record.answers(&Recovery { purpose, ..wish.clone() }));
        let nics = vec![NicWish { mac: "m".into(), network: "n".into() }];
        assert!(!record.answers(&Recovery { nics, ..wish }));
    }
}
