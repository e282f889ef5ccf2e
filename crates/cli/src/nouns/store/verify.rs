//! `lifeboat store verify`.

use domain::fault::{Code, Fault};
use replica::error::Damage;
use replica::store::Store;
use replica::verify::{Report, Thoroughness, at_most};
use serde::Serialize;
use time::OffsetDateTime;

use domain::units::{ByteCount, milliseconds};

use super::faults;
use super::long::{self, Bar};
use super::place::{Opened, Place};
use super::views::count;
use crate::failure::Failure;
use crate::output::{self, inner_table};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine
    machine: Option<String>,
    /// Look at one record out of N only; each time at others
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Read at most so many bytes a second, such as 50M
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    rate: Option<u64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct ReportView {
    machine: String,
    whole: bool,
    records: u64,
    bytes: u64,
    damaged: u64,
    /// At most a thousand of them.
    damages: Vec<DamageView>,
    /// Files that cannot be read at all.
    files: Vec<String>,
    /// Acknowledged records that are missing at the end of the store.
    lost_records: Option<String>,
}

/// Bytes that are not what was written.
#[derive(Debug, Serialize)]
pub(super) struct DamageView {
    pub(super) disk: u16,
    pub(super) start: u64,
    pub(super) length: u64,
    first_point: Option<u32>,
    last_point: Option<u32>,
    place: String,
    reason: String,
}

impl From<&Damage> for DamageView {
    fn from(damage: &Damage) -> Self {
        Self {
            disk: damage.disk.0,
            start: damage.range.start,
            length: damage.range.end - damage.range.start,
            first_point: damage.points.map(|(first, _)| first.0),
            last_point: damage.points.map(|(_, last)| last.0),
            place: damage.place.clone(),
            reason: damage.why.clone(),
        }
    }
}

impl DamageView {
    pub(super) const COLUMNS: [&'static str; 6] =
        ["DISK", "FROM BYTE", "LENGTH", "POINTS", "PLACE", "REASON"];

    pub(super) fn row(&self) -> Vec<String> {
        let points = match (self.first_point, self.last_point) {
            (Some(first), Some(last)) if first == last => first.to_string(),
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => "-".into(),
        };
        vec![
            self.disk.to_string(),
            self.start.to_string(),
            self.length.to_string(),
            points,
            self.place.clone(),
            self.reason.clone(),
        ]
    }
}

pub(super) async fn run(place: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let machine = place.open(arguments.machine.as_deref())?;
    let doing = format!("verify {}", machine.told());
    let thoroughness = match arguments.sample {
        // Seconds differ from run to run, and so do the records that are looked at.
        Some(of) => Thoroughness::Sample {
            of,
            round: (milliseconds(OffsetDateTime::now_utc()) / 1000) as u32,
        },
        None => Thoroughness::All,
    };
    let bar = Bar::new(&machine.folder.name, place.json);
    let (store, rate, told) = (machine.store.clone(), arguments.rate, doing.clone());
    let report =
        long::reading(&doing, move || look(&store, &told, thoroughness, rate, &bar)).await?;
    let lost = machine.store.damage();
    show(place, &machine, &report, lost);
    match report.is_whole() && lost.is_none() {
        true => Ok(()),
        false => Err(damaged(doing, &machine, &report, lost).into()),
    }
}

/// Verifies on this thread.
pub(super) fn look(
    store: &Store,
    doing: &str,
    thoroughness: Thoroughness,
    rate: Option<u64>,
    bar: &Bar,
) -> Result<Report, Fault> {
    let usage = store.usage();
    let parts = match thoroughness {
        Thoroughness::All => 1,
        Thoroughness::Sample { of, .. } => u64::from(of.max(1)),
    };
    let total = usage.data.saturating_sub(usage.dead) / parts;
    let mut wait = at_most(rate.unwrap_or(u64::MAX));
    let mut done = 0;
    let report = store.verify(thoroughness, |bytes| {
        done += bytes;
        bar.at(done, total);
        wait(bytes);
    });
    report.map_err(|error| faults::store(doing, &error))
}

fn show(place: &Place, machine: &Opened, report: &Report, lost: Option<&str>) {
    let view = ReportView {
        machine: machine.folder.name.clone(),
        whole: report.is_whole() && lost.is_none(),
        records: report.records,
        bytes: report.bytes,
        damaged: report.damaged,
        damages: report.damages.iter().map(DamageView::from).collect(),
        files: report.files.clone(),
        lost_records: lost.map(str::to_owned),
    };
    let mut fields = vec![
        ("Machine", view.machine.clone()),
        ("State", if view.whole { "whole" } else { "damaged" }.into()),
        ("Proved", format!("{}, {}", records(view.records), ByteCount::new(view.bytes))),
    ];
    if view.damaged > 0 {
        fields.push(("Damaged", records(view.damaged)));
        let rows = view.damages.iter().map(DamageView::row).collect();
        fields.push(("Where", inner_table(&DamageView::COLUMNS, rows)));
    }
    if !view.files.is_empty() {
        fields.push(("Files", view.files.join("\n")));
    }
    if let Some(lost) = &view.lost_records {
        fields.push(("Lost", lost.clone()));
    }
    output::item(place.json, &view, &fields);
}

fn damaged(doing: String, machine: &Opened, report: &Report, lost: Option<&str>) -> Fault {
    let mut causes: Vec<String> = Vec::new();
    match (report.damages.first(), report.damaged) {
        (Some(first), 1) => causes.push(first.to_string()),
        (Some(first), many) => causes.push(format!("{first}, and {} more", many - 1)),
        (None, _) => {}
    }
    causes.extend(report.files.iter().take(3).cloned());
    causes.extend(lost.map(|lost| format!("acknowledged records are lost: {lost}")));
    let name = &machine.folder.name;
    let advice = match lost {
        // Such a store is not written to any more, so nothing can be mended.
        Some(_) => format!(
            "The points that are listed can be exported: lifeboat store export {name} POINT FOLDER"
        ),
        None => format!(
            "Points that do not need it are whole. Mend it from a store that has the bytes: lifeboat store repair {name} --from OTHERSTORE"
        ),
    };
    Fault::new(Code::StoreDamaged, doing, causes.join("; "), advice)
}

/// So many records.
pub(super) fn records(number: u64) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), "record")
}

/// A number of bytes: 1000, 64K, 50M, 1G, in binary units.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of bytes, such as 50M");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        "G" | "GIB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn rates_have_units() {
        let read = ["1", "64K", "50m", "2GiB"].map(|text| bytes(text).unwrap());
        assert_eq!(read, [1, 65536, 50 << 20, 2 << 30]);
        for wrong in ["", "M", "0", "-1", "1.5M", "1T", "99999999999G"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
