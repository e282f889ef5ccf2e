//! Making a machine of a point.

use std::path::Path;

use domain::fault::{Code, Fault};
use domain::machine::{Nic, NicAttachment};
use wire::command::{Answer, NicWish, Purpose, Recovery};

use super::Recoveries;
use super::borrow::Borrowed;
use super::folder::{Folder, has_room};
use super::point::{self, Facts, unfit};
use super::record::{Earlier, Origin, Record, RecordedDisk, RecordedKeeper, Stage};
use crate::capture::Owner;
use crate::hypervisor::libvirt::xml::behind;
use crate::hypervisor::libvirt::xml::machine::{Aspects, parse};
use crate::hypervisor::libvirt::xml::recovered::{Host, Wish, identity, recover, stands_below};
use crate::hypervisor::libvirt::{Operator, Power};

impl Recoveries {
    /// Defines a machine of a point; it does not run yet. May be repeated.
    ///
    /// # Errors
    /// When it cannot be made; what was begun is taken away by
    /// [`discard`](Self::discard).
    pub async fn define(&self, wish: &Recovery) -> Result<Answer, Fault> {
        let _turn = self.turn(wish.id).await;
        let doing = format!("make a machine of point {}", wish.point);
        if let Some(record) = self.0.records.read(wish.id)? {
            if !record.answers(wish) || record.stage == Stage::Discarding {
                return Err(Fault::new(
                    Code::MachineInTheWay,
                    doing,
                    format!(
                        "recovery {} is machine {} of point {} already, or is being discarded",
                        wish.id, record.name, record.point
                    ),
                    "Discard it first.",
                ));
            }
            if record.stage != Stage::Making && self.is_defined(&doing, &record).await? {
                if record.stage == Stage::Defined {
                    self.serve(&record).await?;
                }
                return Ok(Answer::Defined { remarks: record.remarks });
            }
        }
        // Kept from now on, before it is looked for.
        let pins = self.0.keepers.pins();
        if wish.keeper.is_none() {
            pins.pin(wish.id, wish.protection, wish.point);
        }
        let prepared = self.prepare(&doing, wish).await;
        let (record, configuration) = match prepared {
            Ok(prepared) => prepared,
            Err(fault) => {
                if self.0.records.read(wish.id)?.is_none() {
                    pins.unpin(wish.id);
                }
                return Err(fault);
            }
        };
        let remarks = self.make(&doing, record, &configuration).await?;
        Ok(Answer::Defined { remarks })
    }

    /// Whether the hypervisor has the machine, and it is this recovery's.
    pub(super) async fn is_defined(&self, doing: &str, record: &Record) -> Result<bool, Fault> {
        let machine = record.machine();
        let ask = move |operator: &Operator| operator.inactive_xml(machine);
        let xml = self.0.operating.ask(doing, ask).await?;
        Ok(xml.is_some_and(|xml| stands_below(&xml, &record.folder).unwrap_or(false)))
    }

    /// Looks whether it can be made, and writes down that it is being made; what
    /// the point tells of the machine.
    async fn prepare(&self, doing: &str, wish: &Recovery) -> Result<(Record, String), Fault> {
        let folder = self.0.folder.join(wish.id.to_string());
        let (origin, facts) = match &wish.keeper {
            None => {
                let (protection, point) = (wish.protection, wish.point);
                let (store, facts) = point::find(&self.0.keepers, doing, protection, point).await?;
                (Origin::Here(store), facts)
            }
            Some(lender) => {
                let keeper = RecordedKeeper::from(lender);
                let borrowed = Borrowed { keeper: keeper.clone(), recovery: wish.id };
                let passport = self.0.passport.borrow().clone();
                (Origin::Lent(keeper), borrowed.facts(&passport).await?)
            }
        };
        let told = facts.targets(doing)?;
        let Facts { configuration, disks } = facts;
        let itself = identity(&configuration).map_err(|error| unfit(doing, &error))?;
        let own = match &wish.purpose {
            Purpose::Production => itself,
            Purpose::Test { name, uuid } => (name.clone(), *uuid),
        };
        self.networks_are_there(doing, wish).await?;
        let wish = &self.with_same_networks(doing, wish, &configuration).await?;
        has_room(&self.0.folder)?;
        let disks = told.into_iter().zip(disks);
        let disks = disks.map(|(target, size)| RecordedDisk { target, size }).collect();
        let mut record = Record::of(wish, own, origin, folder, disks);
        record.starts_with_host = record.production && behind::starts_with_host(&configuration);
        let known = self.0.records.read(wish.id)?.and_then(|known| known.earlier);
        record.earlier = match self.in_its_place(doing, &record).await? {
            Some(earlier) => Some(earlier),
            None => known,
        };
        self.0.records.keep(&record)?;
        Ok((record, configuration))
    }

    /// With the NICs that are connected to networks of the same name as before.
    async fn with_same_networks(
        &self,
        doing: &str,
        wish: &Recovery,
        configuration: &str,
    ) -> Result<Recovery, Fault> {
        let mut wish = wish.clone();
        if !wish.same_networks {
            return Ok(wish);
        }
        // One that cannot be read was refused before.
        let nics =
            parse(configuration, Aspects::OFF).map(|machine| machine.nics).unwrap_or_default();
        for Nic { mac, attachment, .. } in nics {
            let NicAttachment::Network(network) = attachment else { continue };
            if wish.nics.iter().any(|nic| nic.mac.eq_ignore_ascii_case(&mac)) {
                continue;
            }
            let name = network.clone();
            let ask = move |operator: &Operator| operator.network_is_active(&name);
            if self.0.operating.ask(doing, ask).await? == Some(true) {
                wish.nics.push(NicWish { mac, network });
            }
        }
        Ok(wish)
    }

    async fn networks_are_there(&self, doing: &str, wish: &Recovery) -> Result<(), Fault> {
        for nic in &wish.nics {
            let network = nic.network.clone();
            let ask = move |operator: &Operator| operator.network_is_active(&network);
            let cause = match self.0.operating.ask(doing, ask).await? {
                Some(true) => continue,
                Some(false) => format!("the network {} is not active", nic.network),
                None => format!("there is no network {}", nic.network),
            };
            return Err(Fault::new(
                Code::NetworkMissing,
                doing,
                cause,
                "Define the network on this host or start it (virsh net-start), or map the source's network to another one.",
            ));
        }
        Ok(())
    }

    /// The machine's own earlier self, which it may take the place of.
    async fn in_its_place(&self, doing: &str, record: &Record) -> Result<Option<Earlier>, Fault> {
        let (name, machine) = (record.name.clone(), record.machine());
        let look = move |operator: &Operator| {
            let named = operator.uuid_of(&name)?;
            let xml = operator.inactive_xml(machine)?;
            Ok((named, operator.power(machine)?, xml))
        };
        let (named, power, xml) = self.0.operating.ask(doing, look).await?;
        let taken = |cause: String, advice: &str| {
            Err(Fault::new(Code::MachineInTheWay, doing, cause, advice))
        };
        let uuid = record.machine().to_string();
        if let Some(other) = named.filter(|named| *named != uuid) {
            return taken(
                format!("another machine has the name {}: {other}", record.name),
                "Rename that machine (virsh domrename) or remove it; for a test, choose another name.",
            );
        }
        let Some(xml) = xml else { return Ok(None) };
        if stands_below(&xml, &record.folder).unwrap_or(false) {
            return Ok(None);
        }
        match power {
            _ if !record.production => taken(
                format!("another machine has the UUID {uuid}"),
                "For a test, choose another UUID.",
            ),
            Power::On => taken(
                format!("machine {} runs on this host", record.name),
                "Shut it down first; it is replaced only while it is off.",
            ),
            _ => {
                if self.is_recovered_otherwise(record, &xml)? {
                    return taken(
                        format!("machine {} was recovered here from another point", record.name),
                        "Discard that recovery first.",
                    );
                }
                Ok(Some(Earlier { xml, autostart: false }))
            }
        }
    }

    /// Whether what is defined is another recovery of the same machine.
    fn is_recovered_otherwise(&self, record: &Record, xml: &str) -> Result<bool, Fault> {
        let others = self.0.records.all()?;
        let others = others.into_iter().filter(|other| other.id != record.id);
        let mut others = others.filter(|other| other.stage != Stage::Standing);
        Ok(others.any(|other| stands_below(xml, &other.folder).unwrap_or(false)))
    }

    /// Makes everything, from the beginning.
    async fn make(
        &self,
        doing: &str,
        mut record: Record,
        configuration: &str,
    ) -> Result<Vec<String>, Fault> {
        let folder = Folder::of(&record);
        let look = |operator: &Operator| operator.capabilities();
        let capabilities = self.0.operating.ask(doing, look).await?;
        let owner = capabilities.qemu_user.as_deref().and_then(Owner::parse);
        let host = Host { kvm: capabilities.kvm, machine_types: capabilities.machine_types };
        folder.make(owner)?;
        for disk in &record.disks {
            folder.make_overlay(&disk.target, disk.size, owner).await?;
        }
        let nics: Vec<_> =
            record.nics.iter().map(|nic| (nic.mac.clone(), nic.network.clone())).collect();
        let nvram = folder.nvram().to_string_lossy().into_owned();
        let wish = Wish {
            configuration,
            alias: (!record.production).then(|| (record.name.as_str(), record.machine().uuid())),
            nics: &nics,
            disks: &folder.places(),
            nvram: &nvram,
        };
        let made = recover(&wish, &host, &|path: &Path| path.exists());
        let made = made.map_err(|error| unfit(doing, &error))?;
        if let Some(variables) = &made.variables {
            folder.put_variables(variables, owner)?;
        }
        // Before libvirt can start it.
        self.serve(&record).await?;
        let (xml, machine) = (made.xml, record.machine());
        let autostart = self
            .0
            .operating
            .ask(doing, move |operator| {
                operator.define(&xml)?;
                // Of an earlier self; an agent starts machines, and libvirt none.
                operator.drop_autostart(machine)
            })
            .await?;
        if let Some(earlier) = &mut record.earlier {
            earlier.autostart |= autostart;
        }
        record.remarks = made.remarks;
        record.stage = Stage::Defined;
        self.0.records.keep(&record)?;
        Ok(record.remarks)
    }
}
