//! Looks at everything the loads wrote and says what is wrong.

use anyhow::{Context as _, Result};
use guest::parameters::Parameters;
use guest::report::{DiskReport, Fault, Filesystem, Report};
use guest::sequence;

use crate::disks::{self, Found};
use crate::{init, overwrite, service, workload};

/// Prints a report of the disks as they are now.
pub fn print() -> Result<()> {
    let parameters = init::parameters()?;
    let found = Found {
        disks: disks::mounted()?.into_iter().map(|disk| (disk, Filesystem::Unchecked)).collect(),
        faults: Vec::new(),
    };
    // Loads wait while the disks are read, so the report is of one instant.
    let quiet = service::quiet()?;
    let report = look(&parameters, &found);
    drop(quiet);
    println!("{}", serde_json::to_string(&report).context("write the report")?);
    Ok(())
}

/// Reports on the disks that were `found`.
pub fn look(parameters: &Parameters, found: &Found) -> Report {
    let mut report = Report {
        machine: parameters.name.clone(),
        last: 0,
        disks: Vec::new(),
        faults: found.faults.clone(),
    };
    let there = |disk| found.disks.iter().any(|(number, _)| *number == disk);
    let missing = (0..parameters.disks).filter(|disk| !there(*disk));
    report.faults.extend(missing.map(|disk| Fault::Missing { disk }));

    let count = u16::try_from(found.disks.len()).unwrap_or(u16::MAX);
    let scans = match workload::scan(count.max(parameters.disks)) {
        Ok(scans) => scans,
        Err(error) => {
            let what = format!("{error:#}");
            report.faults.push(Fault::Unreadable { disk: 0, what });
            return report;
        }
    };
    for (disk, filesystem) in &found.disks {
        let (disk, filesystem) = (*disk, *filesystem);
        if filesystem == Filesystem::Broken {
            let what = "its own check failed; the console has the details".to_owned();
            report.faults.push(Fault::Filesystem { disk, what });
        }
        let overwrites = match overwrite::check(disk) {
            Ok(checked) => {
                let (newest, faults) = checked.unwrap_or_default();
                report.faults.extend(faults);
                newest
            }
            Err(error) => {
                let what = format!("{error:#}");
                report.faults.push(Fault::Unreadable { disk, what });
                0
            }
        };
        let scan = scans.get(usize::from(disk)).cloned().unwrap_or_default();
        report.disks.push(DiskReport {
            disk,
            records: scan.whole,
            last: scan.last,
            torn_bytes: scan.torn_bytes,
            overwrites,
            filesystem,
        });
    }
    report.faults.extend(scans.iter().flat_map(|scan| scan.faults.clone()));
    let (last, across) = sequence::compare(&scans);
    report.last = last;
    report.faults.extend(across);
    report
}
