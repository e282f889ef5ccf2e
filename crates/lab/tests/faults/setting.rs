//! A machine at east that writes all the time, protected to west.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::protection::{HealthLevel, HealthReason, Protection};
use lab::product::{Deployment, Points};
use lab::{Guest, GuestSpec, Lab, Size as _, guest, wait_for};

pub const SOON: Duration = Duration::from_secs(60);
/// Disks with records.
pub const DISKS: u16 = 2;

pub struct Setting<'lab> {
    pub lab: &'lab Lab,
    pub product: Deployment<'lab>,
    pub points: Points,
    pub web: Guest,
}

/// What runs in these stories: two disks with records, and a region of 2 MiB on
/// the second that is overwritten all the time.
pub fn machine() -> GuestSpec {
    guest("web").disk(64.mib()).disk(32.mib()).workload(50).overwrite(1, 512, 50)
}

impl<'lab> Setting<'lab> {
    /// Protects the machine with a point each five seconds, `more` said of the
    /// policy, and waits for its first points.
    pub async fn start(lab: &'lab Lab, web: GuestSpec, more: &[&str]) -> Result<Self> {
        let (product, web) = tokio::try_join!(Deployment::start(lab), lab.east().boot(web))?;
        let points = Points::at(lab.west());
        let setting = Self { lab, product, points, web };
        let controller = &setting.product.controller;
        wait_for("see the machine", SOON, async || {
            Ok((!controller.machines().await?.is_empty()).then_some(()))
        })
        .await?;
        let policy = ["policy", "create", "fast", "--every", "5s"];
        controller.say(&[&policy[..], more].concat()).await?;
        controller.say(&["protect", "web", "--to", "west", "--policy", "fast"]).await?;
        wait_for("the first points", SOON, async || Ok((setting.newest()? >= 2).then_some(())))
            .await?;
        setting.is_well().await?;
        Ok(setting)
    }

    /// The number of the newest point.
    pub fn newest(&self) -> Result<u64> {
        self.points.newest(self.web.name())
    }

    pub async fn protection(&self) -> Result<Protection> {
        self.product.controller.protection(self.web.name()).await
    }

    /// Waits for a point that was begun after this instant: it has what the
    /// guest was told is durable by now. The point.
    pub async fn goes_on(&self, after: &str) -> Result<u64> {
        self.points.go_on(&self.web, DISKS, after).await
    }

    /// Waits until its health has a reason that says this.
    pub async fn says(&self, words: &str) -> Result<HealthReason> {
        self.health(&format!("health to say {words:?}"), |protection| {
            let reasons = protection.health.reasons.iter();
            reasons.clone().find(|reason| reason.reason.contains(words)).cloned()
        })
        .await
    }

    pub async fn is_well(&self) -> Result<()> {
        self.health("web to be well", |protection| {
            (protection.health.level == HealthLevel::Normal).then_some(())
        })
        .await
    }

    async fn health<T>(&self, what: &str, pick: impl Fn(&Protection) -> Option<T>) -> Result<T> {
        let mut last = None;
        let found = wait_for(what, SOON, async || {
            let protection = self.protection().await?;
            let found = pick(&protection);
            last = Some(protection);
            Ok(found)
        })
        .await;
        found.with_context(|| format!("{last:#?}"))
    }

    /// All points that there are, each a state of the machine, in the order in
    /// which the machine had them.
    pub fn every_point_is_a_state(&self) -> Result<()> {
        let mut before = 0;
        for point in self.points.of(self.web.name())? {
            let last = self.points.is_a_state(self.web.name(), point, DISKS)?;
            ensure!(last >= before, "point {point} has {last} records, one before had {before}");
            before = last;
        }
        Ok(())
    }

    /// The guest has never been held, and no write of it has failed.
    pub async fn guest_noticed_nothing(&self) -> Result<()> {
        let state = self.lab.east().virsh(&["domstate", "--reason", self.web.name()]).await?;
        ensure!(state.trim() == "running (booted)", "the machine is {state}");
        let errors = self.lab.east().virsh(&["domblkerror", self.web.name()]).await?;
        ensure!(errors.contains("No errors found"), "{errors}");
        self.guest_is_well().await
    }

    /// No write of it has failed.
    pub async fn guest_is_well(&self) -> Result<()> {
        let console = self.web.console()?;
        let complaint = console.lines().find(|line| line.contains("I/O error"));
        ensure!(complaint.is_none(), "{complaint:?}");
        let report = self.web.check().await?;
        ensure!(report.is_clean(), "{report}");
        Ok(())
    }

    /// What is sent from here on, in bytes.
    pub async fn sent(&self) -> Result<u64> {
        let totals = self.protection().await?.totals;
        Ok(totals.context("totals of the source")?.sent_bytes)
    }

    /// Nothing was compared or copied anew so far.
    pub fn never_resynchronised(&self) -> Result<()> {
        let log = self.product.east.log()?;
        ensure!(!log.contains("resynchronising"), "it was resynchronised:\n{log}");
        Ok(())
    }

    pub async fn end(self) -> Result<()> {
        self.guest_noticed_nothing().await?;
        self.product.stop().await
    }
}
