//! Comparing a point with the cut that it was made of, block by block, by hash:
//! what the keeper has against what stands on the source's disks.

use domain::fault::{Code, Fault};
use futures::StreamExt as _;
use futures::stream;
use replica::format::Digest;
use replica::geometry::BLOCK;
use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use uuid::Uuid;
use wire::data::{DIGESTS_MAX, Sealed};
use wire::replication::{PointMark, Progress, VerifiedDisk, VerifyReport};

use super::backlog::Backlog;
use super::copy::leaf;
use super::fault::of_capture;
use super::proved::Proved;
use super::sender::Sender;
use crate::capture::{Cut, CutDisk};

/// Blocks that are compared together.
const BLOCKS: u64 = 4096;
/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;
/// Stretches that are told.
const TOLD: usize = 100;

const _: () = assert!(BLOCKS <= DIGESTS_MAX, "asked for at once");

/// Compares all disks of a cut with the point; never fails, but tells.
pub(super) async fn verify(
    wish: Uuid,
    cut: &Cut,
    point: &Sealed,
    sender: &mut Sender,
    progress: &(dyn Fn(Progress) + Sync),
) -> VerifyReport {
    let total = cut.disks.iter().map(|disk| disk.size).sum();
    let backlog = Backlog::new(0, total, progress);
    let mut disks = Vec::new();
    let mut trouble = None;
    for (number, disk) in (0_u16..).zip(&cut.disks) {
        let mut step = |bytes| backlog.pass(bytes);
        match compare(number, disk, sender, &mut step).await {
            Ok(verified) => disks.push(verified),
            Err(fault) => {
                trouble = Some(fault.into());
                break;
            }
        }
    }
    let point = Some(PointMark::of(point));
    VerifyReport { wish, point, finished: OffsetDateTime::now_utc(), disks, trouble }
}

/// Compares what of a cut is not known to be the same in its point: how far it came.
/// With a moment up to which, only what was never compared, and some of that in any
/// case: what changes all the time is left to the end.
///
/// # Errors
/// [`Code::ReplicaDiffers`], or why they could not be compared.
pub(super) async fn prove(
    machine: &str,
    cut: &Cut,
    mut proved: Proved,
    until: Option<Instant>,
    sender: &mut Sender,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Proved, Fault> {
    let doing = || format!("compare machine {machine} with its replica");
    let disks = || (0_u16..).zip(&cut.disks);
    let again = until.is_none();
    let blocks =
        |(number, _)| proved.stretches(number, BLOCKS, again).into_iter().map(|(_, count)| count);
    let backlog = Backlog::new(0, disks().flat_map(blocks).sum::<u64>() * BLOCK, progress);
    let mut compared = 0;
    for (number, disk) in disks() {
        for (first, count) in proved.stretches(number, BLOCKS, again) {
            if compared > 0 && until.is_some_and(|until| Instant::now() >= until) {
                return Ok(proved);
            }
            compared += count;
            let pairs = both((number, disk), (first, count), sender).await.map_err(|fault| {
                Fault::new(Code::NotVerified, doing(), fault.cause, fault.advice)
            })?;
            let mut pairs = (first..).zip(pairs);
            if let Some((block, _)) = pairs.find(|(_, (ours, theirs))| ours != theirs) {
                let cause =
                    format!("disk {} differs in the block at {}", disk.target, block * BLOCK);
                let advice =
                    "Resynchronise it: lifeboat protected resynchronise. Then run it again.";
                return Err(Fault::new(Code::ReplicaDiffers, doing(), cause, advice));
            }
            proved.was_compared(number, (first, count));
            backlog.pass(count * BLOCK);
        }
    }
    Ok(proved)
}

/// The report of a verification that did not come about.
pub(super) fn failed(wish: Uuid, fault: Fault) -> VerifyReport {
    VerifyReport {
        wish,
        point: None,
        finished: OffsetDateTime::now_utc(),
        disks: Vec::new(),
        trouble: Some(fault.into()),
    }
}

async fn compare(
    number: u16,
    disk: &CutDisk,
    sender: &mut Sender,
    done: &mut (dyn FnMut(u64) + Send),
) -> Result<VerifiedDisk, Fault> {
    let mut hasher = blake3::Hasher::new();
    let mut differing: Vec<(u64, u64)> = Vec::new();
    let blocks = disk.size.div_ceil(BLOCK);
    let mut first = 0;
    while first < blocks {
        let count = BLOCKS.min(blocks - first);
        let pairs = both((number, disk), (first, count), sender).await?;
        for (block, (ours, theirs)) in (first..).zip(pairs) {
            hasher.update(&ours.0);
            if ours == theirs {
                continue;
            }
            let start = block * BLOCK;
            let length = BLOCK.min(disk.size - start);
            let room = differing.len() < TOLD;
            match differing.last_mut() {
                Some((at, so_far)) if *at + *so_far == start => *so_far += length,
                _ if room => differing.push((start, length)),
                _ => {}
            }
        }
        first += count;
        done((count * BLOCK).min(disk.size));
    }
    Ok(VerifiedDisk {
        disk: disk.target.clone(),
        bytes: disk.size,
        digest: hasher.finalize().to_hex().to_string(),
        differing,
    })
}

/// Digests of a stretch of blocks, the source's and the replica's.
async fn both(
    (number, disk): (u16, &CutDisk),
    (first, count): (u64, u64),
    sender: &mut Sender,
) -> Result<impl Iterator<Item = (Digest, Digest)> + use<>, Fault> {
    let theirs = sender.digests(number, 0, vec![(first, count)]).await?;
    let ours = digests_of(disk, first, count).await?;
    Ok(ours.into_iter().zip(theirs))
}

/// Digests of the source's blocks, read afresh.
async fn digests_of(disk: &CutDisk, first: u64, count: u64) -> Result<Vec<Digest>, Fault> {
    let start = first * BLOCK;
    let end = (start + count * BLOCK).min(disk.size);
    let most = u64::from(disk.reader.max_length()).min(PIECE) / BLOCK * BLOCK;
    if most == 0 {
        return Err(Fault::new(
            Code::CaptureFailed,
            format!("read disk {}", disk.target),
            "it is served in pieces that are too small",
            "This is a defect; please report it.",
        ));
    }
    let places = (start..end).step_by(most as usize);
    let mut work = stream::iter(places)
        .map(|at| async move {
            let length = most.min(end - at) as u32;
            let bytes = disk.reader.read(at, length).await.map_err(of_capture)?;
            let digests = spawn_blocking(move || {
                bytes.chunks(BLOCK as usize).map(|block| leaf(block, 0)).collect::<Vec<_>>()
            });
            digests.await.map_err(|error| Fault::internal("hash a disk", &error))
        })
        .buffered(4);
    let mut digests = Vec::with_capacity(count as usize);
    while let Some(some) = work.next().await {
        digests.extend(some?);
    }
    Ok(digests)
}
