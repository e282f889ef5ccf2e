//! Which function does what.

use std::time::Duration;

use domain::fault::Fault;
use wire::command::{Answer, Command, Work};
use wire::replication::{Hold, Progress};

use super::{Perform, points, source, weigh};
use crate::capture::CaptureSettings;
use crate::epochs::Epochs;
use crate::hypervisor::operating::Operating;
use crate::keep::Keepers;
use crate::recover::Recoveries;
use crate::recover::loans::Loans;
use crate::ship::Wishes;

/// What commands are done with.
#[derive(Clone)]
pub struct Means {
    /// libvirt's URI.
    pub hypervisor: String,
    /// How machines are captured.
    pub capture: CaptureSettings,
    /// The way to the hypervisor.
    pub operating: Operating,
    /// Whose machines are.
    pub epochs: Epochs,
    /// Machines of points.
    pub recoveries: Recoveries,
    /// Points that machines at other hosts are made of.
    pub loans: Loans,
    /// Points that are kept.
    pub keepers: Keepers,
    /// Points that are wished for.
    pub wishes: Wishes,
}

impl Perform for Means {
    async fn perform(
        &self,
        command: &Command,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Answer, Fault> {
        let recoveries = &self.recoveries;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        match &command.work {
            Work::ListPoints { protection } => points::list(self, *protection).await,
            Work::Synchronise { protection, compare } => {
                points::synchronise(self, *protection, *compare, progress).await
            }
            Work::ShutDown { machine, within_seconds, force } => {
                source::shut_down(self, *machine, seconds(*within_seconds), *force).await
            }
            Work::Fence { machine, epoch } => source::fence(self, *machine, *epoch).await,
            Work::Start { machine, epoch } => source::start(self, *machine, *epoch).await,
            Work::Define(recovery) => recoveries.define(recovery).await,
            Work::StartRecovered { recovery, epoch } => recoveries.start(*recovery, *epoch).await,
            Work::AwaitLife { recovery, within_seconds } => {
                recoveries.await_life(*recovery, seconds(*within_seconds)).await
            }
            Work::StopRecovered { recovery } => recoveries.stop(*recovery).await,
            Work::Discard { recovery } => recoveries.discard(*recovery).await,
            Work::Hydrate { recovery, bytes_per_second } => {
                recoveries.hydrate(*recovery, *bytes_per_second, progress).await
            }
            Work::AdoptDisks { protection, machine, lost } => {
                let hold = lost.then_some(Hold::Lost);
                points::adopt(self, *protection, *machine, hold, progress).await
            }
            Work::Weigh { machine, recovery } => weigh::weigh(self, *machine, *recovery).await,
            Work::DropPoints { recovery } => recoveries.drop_points(*recovery).await,
            Work::HoldPoint { protection, point, hold } => {
                points::hold(self, *protection, *point, *hold).await
            }
            Work::Lend(loan) => self.loans.lend(*loan).await,
            Work::EndLoan { recovery, drop_points } => {
                self.loans.end(*recovery, *drop_points).await
            }
        }
    }
}

/// The work's name, for the log.
pub(super) const fn name(work: &Work) -> &'static str {
    match work {
        Work::ListPoints { .. } => "list points",
        Work::Synchronise { .. } => "synchronise",
        Work::ShutDown { .. } => "shut down",
        Work::Fence { .. } => "fence",
        Work::Start { .. } => "start",
        Work::Define(_) => "define from a point",
        Work::StartRecovered { .. } => "start the recovered",
        Work::AwaitLife { .. } => "await life",
        Work::StopRecovered { .. } => "stop the recovered",
        Work::Discard { .. } => "discard",
        Work::Hydrate { .. } => "hydrate",
        Work::AdoptDisks { .. } => "adopt disks",
        Work::Weigh { .. } => "weigh disks",
        Work::DropPoints { .. } => "drop points",
        Work::HoldPoint { hold: Some(_), .. } => "hold a point",
        Work::HoldPoint { hold: None, .. } => "let a point go",
        Work::Lend(_) => "lend a point",
        Work::EndLoan { .. } => "end a loan",
    }
}
