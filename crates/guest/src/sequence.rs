//! The promise over all disks together, and how it is checked.
//!
//! Record *N* lies on disk *N mod disks*, and is written only after record
//! *N − 1* is durable. So at every instant, on every crash-consistent copy of
//! all disks, there are exactly the records 1 to some *last*, and at most the
//! beginning of *last + 1*. Whatever differs from that was lost, damaged, or
//! copied at two different instants.

use std::io::{self, ErrorKind, Read};

use crate::record::{NotARecord, Record, SIZE};
use crate::report::Fault;

/// What one disk holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskScan {
    /// Whole records in a row from the start of the file.
    pub whole: u64,
    /// Number of the last whole record; 0 when there is none.
    pub last: u64,
    /// Bytes behind the last whole record that are no record.
    pub torn_bytes: u64,
    /// What breaks the promise on this disk alone.
    pub faults: Vec<Fault>,
}

/// Number of the record that stands at `index` (from 0) on `disk`.
#[must_use]
pub fn number_at(index: u64, disk: u16, disks: u16) -> u64 {
    let first = if disk == 0 { disks } else { disk };
    u64::from(first) + index * u64::from(disks)
}

/// Reads the records of one disk from its first byte.
///
/// # Errors
/// Only when reading fails; whatever is wrong with the bytes is a finding.
pub fn scan(mut file: impl Read, disk: u16, disks: u16) -> io::Result<DiskScan> {
    let mut found = DiskScan::default();
    let mut pending: Vec<(u64, NotARecord)> = Vec::new();
    let mut slot = [0; SIZE];
    for index in 0.. {
        let length = read_full(&mut file, &mut slot)?;
        if length == 0 {
            break;
        }
        match Record::decode(&slot[..length]) {
            Err(reason) => {
                pending.push((index, reason));
                found.torn_bytes += length as u64;
            }
            Ok(record) => {
                let expected = number_at(index, disk, disks);
                let damaged = pending.drain(..).map(|(index, reason)| Fault::Damaged {
                    disk,
                    number: number_at(index, disk, disks),
                    what: reason.to_string(),
                });
                found.faults.extend(damaged);
                found.torn_bytes = 0;
                if (record.number, record.disk, record.disks) == (expected, disk, disks) {
                    found.whole += 1;
                    found.last = record.number;
                } else {
                    found.faults.push(Fault::OutOfPlace { disk, expected, found: record.number });
                }
            }
        }
    }
    // One record may be in flight when the power goes. More cannot be.
    for (index, reason) in pending.into_iter().skip(1) {
        found.faults.push(Fault::Damaged {
            disk,
            number: number_at(index, disk, disks),
            what: reason.to_string(),
        });
    }
    Ok(found)
}

/// The last record of the sequence, and what contradicts it across disks.
///
/// `scans` are those of all disks in order.
#[must_use]
pub fn compare(scans: &[DiskScan]) -> (u64, Vec<Fault>) {
    let disks = u16::try_from(scans.len()).expect("a guest has few disks");
    let last = scans.iter().map(|scan| scan.last).max().unwrap_or(0);
    let mut faults = Vec::new();
    for (scan, disk) in scans.iter().zip(0..) {
        let expected = last_on(disk, disks, last);
        if scan.last < expected {
            faults.push(Fault::Behind { disk, last: scan.last, expected, newest: last });
        } else if scan.torn_bytes > 0 && number_at(scan.whole, disk, disks) > last + 1 {
            faults.push(Fault::Ahead {
                disk,
                started: number_at(scan.whole, disk, disks),
                newest: last,
            });
        }
    }
    (last, faults)
}

/// The greatest number up to `last` that belongs on `disk`; 0 when none does.
fn last_on(disk: u16, disks: u16, last: u64) -> u64 {
    let (disk, disks) = (u64::from(disk), u64::from(disks));
    let back = (last % disks + disks - disk) % disks;
    last.saturating_sub(back)
}

fn read_full(file: &mut impl Read, slot: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < slot.len() {
        match file.read(&mut slot[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The files of `disks` disks after `last` records.
    fn written(disks: u16, last: u64) -> Vec<Vec<u8>> {
        let mut files = vec![Vec::new(); usize::from(disks)];
        for number in 1..=last {
            let disk = (number % u64::from(disks)) as u16;
            let record = Record { number, disk, disks, written_at: number };
            files[usize::from(disk)].extend(record.encode());
        }
        files
    }

    fn check(files: &[Vec<u8>]) -> (u64, Vec<Fault>) {
        let disks = files.len() as u16;
        let scans: Vec<_> = files
            .iter()
            .zip(0..)
            .map(|(file, disk)| scan(&file[..], disk, disks).unwrap())
            .collect();
        let (last, across) = compare(&scans);
        let mut faults: Vec<_> = scans.into_iter().flat_map(|scan| scan.faults).collect();
        faults.extend(across);
        (last, faults)
    }

    #[test]
    fn a_disk_from_an_older_instant_is_found() {
        let mut files = written(2, 10);
        files[0] = written(2, 6)[0].clone();
        let (last, faults) = check(&files);
        assert_eq!(last, 9);
        assert_eq!(faults, [Fault::Behind { disk: 0, last: 6, expected: 8, newest: 9 }]);
    }

    #[test]
    fn a_torn_record_ahead_of_its_turn_is_found() {
        let mut files = written(3, 9);
        // Disk 2's next is number 11, while 10 was never finished.
        files[2].extend([1; 40]);
        assert_eq!(check(&files).1, [Fault::Ahead { disk: 2, started: 11, newest: 9 }]);
    }

    #[test]
    fn an_emptied_file_is_found() {
        let mut files = written(1, 5);
        assert_eq!(check(&files), (5, vec![]));
        files[0].splice(..SIZE, [0; SIZE]);
        assert_eq!(
            check(&files).1,
            [Fault::Damaged { disk: 0, number: 1, what: "zeroes in place of a record".into() }]
        );
    }

    proptest! {
        #[test]
        fn every_prefix_is_clean(disks in 1u16..5, last in 0u64..40) {
            prop_assert_eq!(check(&written(disks, last)), (last, vec![]));
        }

        #[test]
        fn the_record_in_flight_may_be_torn(disks in 1u16..5, last in 0u64..40, kept in 1usize..SIZE) {
            let mut files = written(disks, last);
            let disk = ((last + 1) % u64::from(disks)) as usize;
            let torn = &written(disks, last + 1)[disk];
            let from = files[disk].len();
            files[disk].extend(&torn[from..from + kept]);
            prop_assert_eq!(check(&files), (last, vec![]));
        }

        #[test]
        fn a_flipped_bit_before_the_last_record_is_found(
            disks in 1u16..5, last in 5u64..40, pick: u64, bit in 0..SIZE * 8,
        ) {
            let mut files = written(disks, last);
            // Any record but the newest: that one may be torn.
            let number = pick % (last - 1) + 1;
            let disk = (number % u64::from(disks)) as usize;
            let index = (0..).find(|i| number_at(*i, disk as u16, disks) == number).unwrap() as usize;
            files[disk][index * SIZE + bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!check(&files).1.is_empty());
        }

        #[test]
        fn a_missing_record_is_found(disks in 1u16..5, last in 5u64..40, pick: u64) {
            let mut files = written(disks, last);
            let number = pick % (last - 1) + 1;
            let disk = (number % u64::from(disks)) as usize;
            let index = (0..).find(|i| number_at(*i, disk as u16, disks) == number).unwrap() as usize;
            files[disk].drain(index * SIZE..(index + 1) * SIZE);
            prop_assert!(!check(&files).1.is_empty());
        }

        #[test]
        fn any_bytes_can_be_scanned(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let found = scan(&bytes[..], 0, 1).unwrap();
            prop_assert_eq!(found.whole, 0);
            prop_assert_eq!(found.torn_bytes, bytes.len() as u64);
        }
    }
}
