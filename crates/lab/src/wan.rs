//! The network between the sites, and what can happen to it.
//!
//! A bridge in the third place; each site is a port of it. A cut takes nothing
//! down that a site could see: the port simply no longer forwards, as when a
//! line is cut somewhere along its way.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::place::Place;
use crate::run::{run, wait_for};
use crate::site::SiteName;

/// The interface that each site has on the WAN.
pub const INTERFACE: &str = "wan0";
const BRIDGE: &str = "wan";
/// How long the kernel may take to clear a line away.
const LINE_GONE: Duration = Duration::from_secs(10);

/// The network between the sites and the third place.
#[derive(Debug)]
pub struct Wan {
    third: Arc<Place>,
    /// East, west, annex.
    sites: [Arc<Place>; 3],
    lines: Mutex<[Line; 3]>,
}

/// What is wrong with the line of one site. It stays so over a power cut.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    cut: bool,
    /// Bytes per second.
    rate: Option<u64>,
}

impl Wan {
    pub(crate) fn new(third: Arc<Place>, sites: [Arc<Place>; 3]) -> Self {
        let lines = Mutex::new([Line::default(); 3]);
        Self { third, sites, lines }
    }

    /// Address of a site on the WAN.
    #[must_use]
    pub fn address(&self, site: SiteName) -> Ipv4Addr {
        match site {
            SiteName::East => Ipv4Addr::new(10, 86, 0, 2),
            SiteName::West => Ipv4Addr::new(10, 86, 0, 3),
            SiteName::Annex => Ipv4Addr::new(10, 86, 0, 4),
        }
    }

    /// Address of the third place on the WAN.
    #[must_use]
    pub fn third_place_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 86, 0, 1)
    }

    /// Makes the bridge.
    pub(crate) async fn build(&self) -> Result<()> {
        let address = format!("{}/24", self.third_place_address());
        // One of its own: else it has that of a port, and another one when the site of
        // that port loses its power, which the others learn up to 45 s later.
        let mac = hardware_address(self.third_place_address());
        let bridge = ["link", "add", BRIDGE, "address", &mac, "type", "bridge"];
        self.ip(&[&bridge[..], &["forward_delay", "0"]].concat()).await?;
        self.ip(&["address", "add", &address, "dev", BRIDGE]).await?;
        self.ip(&["link", "set", BRIDGE, "up"]).await
    }

    /// Removes a line that the kernel has not cleared away yet after a power
    /// cut. It may do so at any moment, so that it fails to be removed here.
    async fn unplug_leftover(&self, port: &str) -> Result<()> {
        wait_for("the old line to be gone", LINE_GONE, async || {
            let mut look = self.third.command("ip");
            let look = look.args(["link", "show", "dev", port]).output().await;
            if !look.context("look for an old line")?.status.success() {
                return Ok(Some(()));
            }
            // The next look tells.
            let _ = self.ip(&["link", "delete", "dev", port]).await;
            Ok(None)
        })
        .await
    }

    /// Connects a site that has come up. Its line is as it was before.
    pub(crate) async fn plug(&self, name: SiteName) -> Result<()> {
        let site = &self.sites[name as usize];
        let port = port(name);
        self.unplug_leftover(&port).await?;
        // Made where both ends belong, so that the host never sees either.
        // The same each time: the others remember it.
        let mac = hardware_address(self.address(name));
        let mut add = Command::new("ip");
        add.args(["link", "add", "name", INTERFACE, "address", &mac])
            .args(["netns", &site.first().pid.to_string()])
            .args(["type", "veth", "peer", "name", &port])
            .args(["netns", &self.third.first().pid.to_string()]);
        run(&mut add, "connect to the WAN").await?;
        self.ip(&["link", "set", &port, "master", BRIDGE, "up"]).await?;
        let address = format!("{}/24", self.address(name));
        let inside = [
            vec!["address", "add", &address, "dev", INTERFACE],
            vec!["link", "set", INTERFACE, "up"],
        ];
        for words in inside {
            run(site.command("ip").args(words), "connect to the WAN").await?;
        }
        let line = self.line(name, |_| {});
        if line.cut {
            self.set_cut(name, true).await?;
        }
        if let Some(rate) = line.rate {
            self.set_rate(name, Some(rate)).await?;
        }
        Ok(())
    }

    /// Loses every packet from and to the site, silently.
    ///
    /// # Errors
    /// When `bridge` fails. A site without power finds its line so later.
    pub async fn cut(&self, site: SiteName) -> Result<()> {
        self.line(site, |line| line.cut = true);
        self.set_cut(site, true).await
    }

    /// Ends a [`cut`](Self::cut).
    ///
    /// # Errors
    /// When `bridge` fails. A site without power finds its line so later.
    pub async fn restore(&self, site: SiteName) -> Result<()> {
        self.line(site, |line| line.cut = false);
        self.set_cut(site, false).await
    }

    /// Cuts the site's line and restores it in turn, each half a `period`, for
    /// `duration`; then it is restored.
    ///
    /// # Errors
    /// As [`cut`](Self::cut).
    pub async fn flap(&self, site: SiteName, period: Duration, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.cut(site).await?;
            tokio::time::sleep(period / 2).await;
            self.restore(site).await?;
            tokio::time::sleep(period / 2).await;
        }
        Ok(())
    }

    /// Limits the site's line to `bytes_per_second`, each direction by itself.
    ///
    /// # Errors
    /// When the rate is 0 or `tc` fails. A site without power finds its line so
    /// later.
    pub async fn shape(&self, site: SiteName, bytes_per_second: u64) -> Result<()> {
        if bytes_per_second == 0 {
            bail!("a line with no bytes per second is a cut line");
        }
        self.line(site, |line| line.rate = Some(bytes_per_second));
        self.set_rate(site, Some(bytes_per_second)).await
    }

    /// Ends a [`shape`](Self::shape).
    ///
    /// # Errors
    /// When `tc` fails.
    pub async fn unshape(&self, site: SiteName) -> Result<()> {
        self.line(site, |line| line.rate = None);
        self.set_rate(site, None).await
    }

    async fn set_cut(&self, site: SiteName, cut: bool) -> Result<()> {
        if !self.sites[site as usize].has_power() {
            return Ok(());
        }
        // States of a bridge port, linux/if_bridge.h: 0 is disabled, 3 forwarding.
        let state = if cut { "0" } else { "3" };
        let mut set = self.third.command("bridge");
        set.args(["link", "set", "dev", &port(site), "state", state]);
        run(&mut set, "cut or restore a line").await.map(drop)
    }

    fn line(&self, site: SiteName, change: impl FnOnce(&mut Line)) -> Line {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = &mut lines[site as usize];
        change(line);
        *line
    }

    async fn set_rate(&self, name: SiteName, rate: Option<u64>) -> Result<()> {
        if !self.sites[name as usize].has_power() {
            return Ok(());
        }
        let port = port(name);
        for (place, device) in
            [(&self.third, port.as_str()), (&self.sites[name as usize], INTERFACE)]
        {
            let mut tc = place.command("tc");
            let Some(rate) = rate else {
                // Without a queue of ours there is nothing to delete.
                let listed =
                    run(tc.args(["qdisc", "show", "dev", device]), "look at a line").await?;
                if listed.contains("tbf") {
                    let mut tc = place.command("tc");
                    tc.args(["qdisc", "delete", "dev", device, "root"]);
                    run(&mut tc, "end the limit of a line").await?;
                }
                continue;
            };
            // A burst of 50 ms, but never less than one large packet.
            let burst = (rate / 20).clamp(16 << 10, 1 << 20);
            tc.args(["qdisc", "replace", "dev", device, "root", "tbf", "rate"])
                .arg(format!("{}bit", rate.saturating_mul(8)))
                .args(["burst", &format!("{burst}b"), "latency", "300ms"]);
            run(&mut tc, "limit a line").await?;
        }
        Ok(())
    }

    /// Bytes that the site has sent over its line since it has power, with all
    /// headers.
    ///
    /// # Errors
    /// When the site has no power.
    pub async fn sent(&self, site: SiteName) -> Result<u64> {
        let mut ip = self.sites[site as usize].command("ip");
        let told = run(ip.args(["-s", "-j", "link", "show", "dev", INTERFACE]), "look at a line");
        let told: serde_json::Value = serde_json::from_str(&told.await?).context("read it")?;
        told[0]["stats64"]["tx"]["bytes"].as_u64().context("find what a line has sent")
    }

    async fn ip(&self, words: &[&str]) -> Result<()> {
        let ran = run(self.third.command("ip").args(words), "arrange the WAN").await;
        ran.map(drop).context("in the third place")
    }
}

fn hardware_address(address: Ipv4Addr) -> String {
    let [.., last] = address.octets();
    format!("02:00:0a:56:00:{last:02x}")
}

fn port(site: SiteName) -> String {
    format!("wan-{site}")
}
