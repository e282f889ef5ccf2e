//! Many machines at once: `rpo_p99`.
//!
//! All machines are due at the same instant, each cycle: the worst that can
//! happen to a pair of hosts. Just before a point is durable, what the target
//! has is as old as it gets: these ages are what is counted, one per point.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use domain::units::milliseconds;
use time::OffsetDateTime;
use tokio::{
    runtime::Runtime,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::{
    Bench, Group,
    machine::{Bitmaps, Disk, Simulated},
    scale::Scale,
    target::{Shipper, Target, machine},
};
use crate::{
    figure::{Better, Figure},
    image::Image,
    pairing::Samples,
};

pub(super) const GROUP: Group = Group {
    figures: &["rpo_p99"],
    image: |scale| scale.disk,
    // The disks and their stores.
    room: |scale| scale.machines * scale.small_disk * 5 / 2 + (64 << 20),
    measure,
};

/// A machine and whoever ships it.
struct Protected {
    disk: Arc<Disk>,
    shipper: Shipper<Simulated>,
}

fn measure(bench: &mut Bench) -> Result<()> {
    let image = bench.image()?;
    let (place, scale) = (&bench.workplace, bench.scale);
    let runtime = Runtime::new()?;
    let bitmaps = runtime.block_on(Bitmaps::serve(place))?;
    let target = Target::start(place, scale.machines)?;
    let mut disks = Vec::new();
    for number in 0..scale.machines {
        disks.push(Disk::make(place, &format!("machine-{number}"), &image, scale.small_disk)?);
    }
    let mut machines = Vec::new();
    for (number, disk) in (0..).zip(&disks) {
        let simulated = Simulated::new(machine(number), disk, &bitmaps);
        let shipper = runtime.block_on(async {
            let shipper = target.meet(number, simulated).await?;
            shipper.point().await?;
            anyhow::Ok(shipper)
        });
        let shipper = shipper.with_context(|| format!("copy machine {number}"))?;
        machines.push(Protected { disk: Arc::clone(disk), shipper });
    }
    eprintln!("   {} machines are copied", scale.machines);

    let cycles = runtime.block_on(async {
        let begin = Instant::now() + Duration::from_millis(200);
        let mut tasks = JoinSet::new();
        for machine in machines {
            tasks.spawn(cycles(machine, image.clone(), scale, begin));
        }
        let mut all = Cycles::default();
        while let Some(done) = tasks.join_next().await {
            let done = done.context("ship a machine")??;
            all.ages.extend(done.ages);
            all.took.extend(done.took);
        }
        anyhow::Ok(all)
    })?;
    target.stop(place)?;
    for disk in disks {
        disk.remove()?;
    }
    let ages = sorted(cycles.ages);
    let took = sorted(cycles.took);
    let p99 = Samples::of([ages[(ages.len() * 99).div_ceil(100) - 1]]);
    bench.tell(
        Figure::new("rpo_p99", "s", Better::Lower, &p99)
            // Twice the interval, which is 60 s at full scale.
            .goal(2.0 * scale.every as f64)
            .note(format!(
                "{} machines of {} MiB, {} blocks of 64 KiB changed every {} s, all due at once; \
                 {} points: worst {:.1} s; a round took {:.2} s in the middle and {:.2} s at worst",
                scale.machines,
                scale.small_disk >> 20,
                scale.small_changes,
                scale.every,
                ages.len(),
                ages[ages.len() - 1],
                took[took.len() / 2],
                took[took.len() - 1],
            )),
    )
}

/// Of each point that counts: how old the one before it was when it came, and
/// how long its round took, in seconds.
#[derive(Default)]
struct Cycles {
    ages: Vec<f64>,
    took: Vec<f64>,
}

/// The schedule is a task's: the next round is due an interval after the last
/// one began.
async fn cycles(machine: Protected, image: Image, scale: Scale, begin: Instant) -> Result<Cycles> {
    let Protected { disk, shipper } = machine;
    let image = Arc::new(image);
    let mut cycles = Cycles::default();
    let mut due = begin;
    let mut before: Option<i64> = None;
    // The first point follows upon a copy that was made at some other time.
    for _ in 0..=scale.cycles {
        let (guest, content) = (Arc::clone(&disk), Arc::clone(&image));
        spawn_blocking(move || guest.overwrite(&content, scale.small_changes)).await??;
        sleep_until(due).await;
        let begun = Instant::now();
        let (point, _) = shipper.point().await?;
        if let Some(before) = before.replace(point.instant) {
            cycles.ages.push((milliseconds(OffsetDateTime::now_utc()) - before) as f64 / 1e3);
            cycles.took.push(begun.elapsed().as_secs_f64());
        }
        due = begun + Duration::from_secs(scale.every);
    }
    Ok(cycles)
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}
