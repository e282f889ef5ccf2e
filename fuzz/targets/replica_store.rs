//! A store whose newest segment holds anything behind a good beginning: it
//! opens or says why not, and what it shows can be read or is damage.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use replica::{
    format::record::Consistency,
    geometry::DiskNumber,
    medium::{Medium, simulated::SimulatedMedium},
    pipeline::Compression,
    state::Limits,
    store::Store,
    verify::Thoroughness,
    writer::{SealFacts, Writer, WriterOptions},
};

/// Files of a store that was killed in the middle of a cycle.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let medium = SimulatedMedium::new(1);
    let options = WriterOptions {
        compression: Compression::None,
        threads: 0,
        salt: 1,
        ..WriterOptions::new(1)
    };
    let mut writer = Writer::open(Arc::new(medium.clone()), options).expect("an empty medium");
    for round in 0..3_u8 {
        writer.begin(&[1 << 20]).expect("room");
        writer.write(DiskNumber(0), u64::from(round) * 4096, &[round | 1; 8192]).expect("room");
        let facts = SealFacts {
            instant: 0,
            consistency: Consistency::Crash,
            origin: String::new(),
            configuration: Vec::new(),
        };
        writer.seal(facts).expect("room");
    }
    let files = ["seg", "idx", "man"].map(|folder| medium.list(folder).expect("it runs"));
    let read = |(name, length): (String, u64)| {
        let mut bytes = vec![0; length as usize];
        medium.open(&name).and_then(|file| file.read_at(&mut bytes, 0)).expect("it is there");
        (name, bytes)
    };
    files.into_iter().flatten().map(read).collect()
});

/// Overwrites from `at` on, and mends the checksum of the record there.
fn spoil(bytes: &mut [u8], at: u16, with: &[u8]) {
    let at = usize::from(at) / 16 * 16 % bytes.len().max(1);
    for (to, from) in bytes.iter_mut().skip(at).zip(with) {
        *to = *from;
    }
    let salt = bytes.get(24..28).and_then(|salt| salt.try_into().ok()).map(u32::from_le_bytes);
    let Some((salt, record)) = salt.zip(bytes.get_mut(at..at + 64)) else { return };
    if record.starts_with(b"LBr1") {
        let crc = crc32c::crc32c_append(salt, &record[8..]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

fuzz_target!(|input: (u8, u16, u16, &[u8])| {
    let (which, at, cut, with) = input;
    let medium = SimulatedMedium::new(2);
    let chosen = usize::from(which) % FILES.len();
    for (number, (name, bytes)) in FILES.iter().enumerate() {
        let mut bytes = bytes.clone();
        if number == chosen {
            spoil(&mut bytes, at, with);
            let keep = if cut == 0 { bytes.len() } else { usize::from(cut).min(bytes.len()) };
            bytes.truncate(keep);
        }
        medium.publish(name, &bytes).expect("room");
    }
    if let Ok(store) = Store::open(Arc::new(medium.clone()), Limits::default()) {
        for point in store.points() {
            for (disk, size) in point.disks.iter().enumerate() {
                let Ok(view) = store.view(point.cycle, DiskNumber(disk as u16)) else { continue };
                let _ = view.extents(0, (*size).min(1 << 20));
            }
        }
        let _ = store.verify(Thoroughness::All, |_| {});
    }
    let options = WriterOptions { threads: 0, ..WriterOptions::new(2) };
    let _ = Writer::open(Arc::new(medium), options);
});
