//! A site: a place with power, a libvirt and machines.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::Mutex;

use crate::Acceleration;
use crate::image::Image;
use crate::libvirt::{self, Daemons, Network};
use crate::machine::{Guest, GuestSpec};
use crate::place::Place;
use crate::root::Root;
use crate::run::wait_for;
use crate::wan::Wan;

/// Which of the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SiteName {
    /// Where production usually runs first.
    East,
    /// Where it is recovered to.
    West,
    /// A second host of west, with a libvirt of its own; only where a story
    /// [asks for it](crate::Lab::annex).
    Annex,
}

impl SiteName {
    /// The site over there.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::East => Self::West,
            Self::West | Self::Annex => Self::East,
        }
    }

    /// Gateway of the site's `default` network, a /24.
    #[must_use]
    pub fn default_gateway(self) -> Ipv4Addr {
        match self {
            Self::East => Ipv4Addr::new(10, 86, 10, 1),
            Self::West => Ipv4Addr::new(10, 86, 20, 1),
            Self::Annex => Ipv4Addr::new(10, 86, 30, 1),
        }
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::East => "east",
            Self::West => "west",
            Self::Annex => "annex",
        })
    }
}

/// One of the sites. Cheap to clone; all clones are the same site.
///
/// It is a [`Place`] too: programs run in it.
#[derive(Debug, Clone)]
pub struct Site(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: SiteName,
    place: Arc<Place>,
    wan: Arc<Wan>,
    root: Arc<Root>,
    image: Image,
    acceleration: Acceleration,
    daemons: Mutex<Option<Daemons>>,
}

impl Deref for Site {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.0.place
    }
}

impl Site {
    pub(crate) fn new(
        name: SiteName,
        place: Arc<Place>,
        root: &Arc<Root>,
        wan: &Arc<Wan>,
        image: Image,
        acceleration: Acceleration,
    ) -> Self {
        Self(Arc::new(Inner {
            name,
            place,
            wan: wan.clone(),
            root: root.clone(),
            image,
            acceleration,
            daemons: Mutex::new(None),
        }))
    }

    /// Which of them it is.
    #[must_use]
    pub fn site_name(&self) -> SiteName {
        self.0.name
    }

    /// Its address on the WAN.
    #[must_use]
    pub fn wan_address(&self) -> Ipv4Addr {
        self.0.wan.address(self.0.name)
    }

    pub(crate) fn image(&self) -> &Image {
        &self.0.image
    }

    pub(crate) fn acceleration(&self) -> Acceleration {
        self.0.acceleration
    }

    /// Makes the site for the first time: configuration, network, pool.
    pub(crate) async fn found(&self) -> Result<()> {
        libvirt::configure(self)?;
        self.0.image.install(self)?;
        self.power_on().await?;
        let default = Network::nat("default", self.0.name.default_gateway());
        self.add_network(&default).await?;
        self.add_pool("default", "/var/lib/libvirt/images").await
    }

    /// Switches the site on: its first process, its line to the WAN, its
    /// libvirt. Machines stay off, as they are not set to start by themselves.
    ///
    /// # Errors
    /// When something does not come up within bounds. No mistake when the site
    /// has power.
    pub async fn power_on(&self) -> Result<()> {
        let mut daemons = self.0.daemons.lock().await;
        if self.has_power() {
            return Ok(());
        }
        let context = || format!("power on {}", self.0.name);
        self.start(&libvirt::FOLDERS).await?;
        self.0.root.note(self).with_context(context)?;
        self.0.wan.plug(self.0.name).await.with_context(context)?;
        *daemons = Some(libvirt::start(self).await.with_context(context)?);
        Ok(())
    }

    /// Cuts the power: everything that runs at the site is gone at once, with
    /// all that was only in its memory. What was written to files stays, since
    /// the host's kernel keeps running.
    ///
    /// # Errors
    /// When something is still there after 15 seconds.
    pub async fn cut_power(&self) -> Result<()> {
        let mut daemons = self.0.daemons.lock().await;
        let context = || format!("cut the power of {}", self.0.name);
        self.kill().await.with_context(context)?;
        *daemons = None;
        Ok(())
    }

    /// Kills libvirtd alone; machines and networks go on.
    ///
    /// # Errors
    /// When it does not run or does not go.
    pub async fn kill_libvirtd(&self) -> Result<()> {
        let mut daemons = self.0.daemons.lock().await;
        let daemons = daemons.as_mut().context("kill libvirtd: the site has no power")?;
        daemons.libvirtd.kill().await
    }

    /// Starts libvirtd again after [`kill_libvirtd`](Self::kill_libvirtd).
    ///
    /// # Errors
    /// When it does not answer within 30 seconds.
    pub async fn start_libvirtd(&self) -> Result<()> {
        let mut daemons = self.0.daemons.lock().await;
        let daemons = daemons.as_mut().context("start libvirtd: the site has no power")?;
        if !daemons.libvirtd.is_running()? {
            daemons.libvirtd = libvirt::start_libvirtd(self).await?;
        }
        Ok(())
    }

    /// Runs `virsh WORDS…` and returns what it printed.
    ///
    /// # Errors
    /// With what virsh said.
    pub async fn virsh(&self, words: &[&str]) -> Result<String> {
        libvirt::virsh(self, words).await
    }

    /// Defines and starts a network, now and whenever the site has power.
    ///
    /// # Errors
    /// With what libvirt said.
    pub async fn add_network(&self, network: &Network) -> Result<()> {
        libvirt::add_network(self, network).await
    }

    /// Defines and starts a storage pool on the folder `inside` the site, now
    /// and whenever the site has power. Only a folder below `/var/lib/libvirt`
    /// or `/var/lib/lifeboat` belongs to this site alone.
    ///
    /// # Errors
    /// With what libvirt said.
    pub async fn add_pool(&self, name: &str, inside: &str) -> Result<()> {
        libvirt::add_pool(self, name, inside).await
    }

    /// Makes the disks of a new machine, defines and starts it, and waits until
    /// its guest agent answers and its boot check is reported.
    ///
    /// # Errors
    /// When a step fails; with the end of the console when the guest does not
    /// come up.
    pub async fn boot(&self, spec: GuestSpec) -> Result<Guest> {
        let guest = self.define(spec).await?;
        guest.start().await?;
        Ok(guest)
    }

    /// Makes the disks of a new machine and defines it.
    ///
    /// # Errors
    /// When a disk cannot be made or libvirt refuses the machine.
    pub async fn define(&self, spec: GuestSpec) -> Result<Guest> {
        let name = spec.name().to_owned();
        let defined = spec.define(self).await;
        defined.with_context(|| format!("define {name} at {}", self.0.name))?;
        Ok(self.guest(&name))
    }

    /// A machine of this site by its name, whoever has defined it; it is not
    /// looked for yet.
    #[must_use]
    pub fn guest(&self, name: &str) -> Guest {
        Guest::new(self.clone(), name)
    }

    /// Names of all machines that are defined or run here.
    ///
    /// # Errors
    /// With what libvirt said.
    pub async fn guests(&self) -> Result<Vec<String>> {
        let list = self.virsh(&["list", "--all", "--name"]).await?;
        Ok(list.split_whitespace().map(str::to_owned).collect())
    }

    /// Waits until `address` answers a ping sent from here.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn reaches(&self, address: Ipv4Addr, limit: Duration) -> Result<()> {
        wait_for(&format!("ping {address} from {}", self.0.name), limit, async || {
            Ok(self.pings(address).await?.then_some(()))
        })
        .await
    }

    /// Whether `address` answers one ping sent from here within a second.
    ///
    /// # Errors
    /// When the ping cannot be sent at all.
    pub async fn pings(&self, address: Ipv4Addr) -> Result<bool> {
        let mut ping = self.command("busybox");
        ping.args(["ping", "-c", "1", "-W", "1", &address.to_string()]).kill_on_drop(true);
        let output = ping.output().await.context("run ping")?;
        Ok(output.status.success())
    }

    /// Lets the site and its daemons live on when this process ends.
    pub(crate) async fn keep_on(&self) -> Result<()> {
        if let Some(daemons) = self.0.daemons.lock().await.take() {
            daemons.libvirtd.keep_running().await;
            daemons.virtlogd.keep_running().await;
        }
        self.keep().await
    }
}
