//! Real processes, really killed.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use replica::{
    geometry::{Cycle, DiskNumber},
    medium::folder::Folder,
    writer::{Writer, WriterOptions},
};

use crate::model;

const CHILD: &str = "REPLICA_TEST_KILL_FOLDER";
const SIZE: u64 = 1 << 20;
const KILLS: u32 = 24;

fn open(folder: &str) -> Writer {
    let medium = Folder::create(folder).unwrap();
    let options = WriterOptions {
        threads: 2,
        segment_bytes: 256 * 1024,
        memory_entries: 200,
        memory_cycles: 4,
        replay_segments: 3,
        reserve_percent: 0,
        ..WriterOptions::new(1)
    };
    Writer::open(Arc::new(medium), options).unwrap()
}

/// What point `cycle` holds: every page tells the newest cycle that wrote it.
fn pages_of(cycle: u32) -> impl Iterator<Item = (u64, u64)> {
    (0..20_u64).map(move |n| ((u64::from(cycle) * 37 + n * 13) % (SIZE / 4096), n))
}

/// The child: seals points for ever, and tells each.
#[test]
fn child_of_the_kill_test() {
    let Ok(folder) = env::var(CHILD) else { return };
    let mut writer = open(&folder);
    loop {
        let cycle = writer.begin(&[SIZE]).unwrap();
        for (page, n) in pages_of(cycle.0) {
            let mut bytes = [n as u8; 4096];
            bytes[..4].copy_from_slice(&cycle.0.to_le_bytes());
            writer.write(DiskNumber(0), page * 4096, &bytes).unwrap();
        }
        writer.seal(model::facts(0)).unwrap();
        println!("\nsealed {}", cycle.0);
        std::io::stdout().flush().unwrap();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn points_survive_a_killed_process() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("machine");
    let folder = folder.to_str().unwrap();
    let mut sealed = 0;
    for kill in 0..KILLS {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "kill::child_of_the_kill_test", "--nocapture"])
            .env(CHILD, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let out = BufReader::new(child.0.stdout.take().unwrap());
        let mut lines = out.lines().map_while(Result::ok);
        let before = sealed;
        for line in lines.by_ref() {
            if let Some(cycle) = line.strip_prefix("sealed ") {
                sealed = cycle.parse().unwrap();
                if sealed >= before + 2 + kill % 5 {
                    break;
                }
            }
        }
        // Somewhere inside the next cycle.
        std::thread::sleep(Duration::from_micros(u64::from(kill) * 137 % 3000));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        for line in lines {
            if let Some(cycle) = line.strip_prefix("sealed ") {
                sealed = cycle.parse().unwrap();
            }
        }
        check(folder, sealed);
    }
    eprintln!("{KILLS} kills, {sealed} cycles");
}

fn check(folder: &str, sealed: u32) {
    let writer = open(folder);
    let store = writer.store();
    let points = store.points();
    let newest = points.last().unwrap().cycle;
    assert!(newest >= Cycle(sealed), "{sealed} was acknowledged, {newest} is there");
    let kept: Vec<u32> = points.iter().map(|point| point.cycle.0).collect();
    let mut expected = vec![(0_u32, 0_u64); (SIZE / 4096) as usize];
    for cycle in &kept {
        pages_of(*cycle).for_each(|(page, n)| expected[page as usize] = (*cycle, n));
    }
    let view = store.view(newest, DiskNumber(0)).unwrap();
    let bytes = view.read_to_vec(0, SIZE).unwrap();
    for (page, (bytes, (cycle, n))) in bytes.chunks(4096).zip(expected).enumerate() {
        assert_eq!(bytes[..4], cycle.to_le_bytes(), "page {page} of {newest}");
        assert_eq!(bytes[4095], n as u8, "page {page} of {newest}");
    }
}
