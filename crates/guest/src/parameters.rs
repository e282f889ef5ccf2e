//! What the kernel command line tells the guest.
//!
//! Words with the prefix `lifeboat.` are ours; the kernel ignores them.

use std::fmt;

const PREFIX: &str = "lifeboat.";

/// What a guest is told at boot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameters {
    /// Name of the machine, and its host name.
    pub name: String,
    /// Data disks to wait for.
    pub disks: u16,
    /// The terminal of the second serial port, without `/dev/`.
    pub port: String,
    /// Interfaces that get an address.
    pub interfaces: Vec<Interface>,
    /// Records per second of the workload; none when it is not to start at boot.
    pub workload: Option<u32>,
    /// The overwrite load; none when it is not to start at boot.
    pub overwrite: Option<Overwrite>,
    /// Whether file systems are checked before they are mounted.
    pub check_filesystems: bool,
}

/// How one interface gets its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its hardware address, lower case with colons.
    pub mac: String,
    /// Where its address comes from.
    pub address: Address,
}

/// Where an interface's address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// From the network.
    Dhcp,
    /// Given.
    Static {
        /// Address with prefix length, as in `10.0.0.5/24`.
        address: String,
        /// Default gateway.
        gateway: Option<String>,
    },
}

/// The random overwrite load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overwrite {
    /// Disk whose region is rewritten.
    pub disk: u16,
    /// Blocks of 4 KiB in the region.
    pub blocks: u32,
    /// Writes per second.
    pub rate: u32,
}

impl Parameters {
    /// Reads a kernel command line. What is not understood is left out: a guest
    /// must come up even where its command line was damaged on the way.
    #[must_use]
    pub fn parse(command_line: &str) -> Self {
        let mut parameters = Self::default();
        for word in command_line.split_whitespace() {
            let Some((key, value)) =
                word.strip_prefix(PREFIX).and_then(|word| word.split_once('='))
            else {
                continue;
            };
            match key {
                "name" => value.clone_into(&mut parameters.name),
                "disks" => parameters.disks = value.parse().unwrap_or(0),
                "port" => value.clone_into(&mut parameters.port),
                "nic" => parameters.interfaces.extend(Interface::parse(value)),
                "workload" => parameters.workload = value.parse().ok(),
                "overwrite" => parameters.overwrite = Overwrite::parse(value),
                "fsck" => parameters.check_filesystems = value == "1",
                _ => {}
            }
        }
        parameters
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}name={} {PREFIX}disks={} {PREFIX}port={} {PREFIX}fsck={}",
            self.name,
            self.disks,
            self.port,
            u8::from(self.check_filesystems)
        )?;
        for interface in &self.interfaces {
            write!(f, " {PREFIX}nic={interface}")?;
        }
        if let Some(rate) = self.workload {
            write!(f, " {PREFIX}workload={rate}")?;
        }
        if let Some(load) = self.overwrite {
            let Overwrite { disk, blocks, rate } = load;
            write!(f, " {PREFIX}overwrite={disk},{blocks},{rate}")?;
        }
        Ok(())
    }
}

impl Interface {
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        let mac = parts.next()?.to_owned();
        let address = match parts.next()? {
            "dhcp" => Address::Dhcp,
            address => Address::Static {
                address: address.to_owned(),
                gateway: parts.next().map(str::to_owned),
            },
        };
        Some(Self { mac, address })
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},", self.mac)?;
        match &self.address {
            Address::Dhcp => write!(f, "dhcp"),
            Address::Static { address, gateway } => {
                write!(f, "{address}")?;
                gateway.iter().try_for_each(|gateway| write!(f, ",{gateway}"))
            }
        }
    }
}

impl Overwrite {
    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        Some(Self {
            disk: parts.next()?.parse().ok()?,
            blocks: parts.next()?.parse().ok().filter(|blocks| *blocks > 0)?,
            rate: parts.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_lab_says_the_guest_hears() {
        let said = Parameters {
            name: "web".into(),
            disks: 2,
            port: "ttyS1".into(),
            interfaces: vec![
                Interface { mac: "52:54:00:00:00:01".into(), address: Address::Dhcp },
                Interface {
                    mac: "52:54:00:00:00:02".into(),
                    address: Address::Static {
                        address: "10.0.0.5/24".into(),
                        gateway: Some("10.0.0.1".into()),
                    },
                },
            ],
            workload: Some(20),
            overwrite: Some(Overwrite { disk: 1, blocks: 64, rate: 5 }),
            check_filesystems: true,
        };
        let line = format!("console=ttyS0 quiet {said} lifeboat.unknown=1 lifeboat.");
        assert_eq!(Parameters::parse(&line), said);
    }
}
