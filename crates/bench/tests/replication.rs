//! The benchmark of replication runs, and tells what was agreed. Speeds are no
//! promise here.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_quick_run_tells_what_a_cycle_sends_and_leaves_nothing() {
    if Command::new("qemu-nbd").arg("--version").output().is_err() {
        eprintln!("skipped: qemu-nbd is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lifeboat-bench"))
        .args(["replication", "--quick", "--json", "--only", "cycle_bytes", "--folder"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["figure"], "cycle_bytes");
    for key in ["value", "unit", "opponent", "ratio", "goal", "better"] {
        assert!(line.get(key).is_some(), "{key} is missing in {line}");
    }
    // Each round sends something, and not the whole disk.
    let sent = line["value"].as_f64().unwrap();
    assert!((0.01..20.0).contains(&sent), "{line}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_figure_that_cannot_be_had_is_skipped_aloud() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lifeboat-bench"))
        .args(["replication", "--quick", "--only", "guest_iops", "--folder"])
        .arg(folder.path())
        .env("LIFEBOAT_LAB_IOPS", "/nowhere")
        .output()
        .unwrap();
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("guest_iops: SKIPPED"), "{told}");
}
