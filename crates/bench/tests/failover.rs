//! The benchmark of failover without a lab. What it measures in one takes
//! minutes, and is rehearsed by `cargo xtask bench failover --quick`.

use std::process::Command;

const FIGURES: [&str; 9] = [
    "rto_1gib",
    "rto_1tib",
    "planned_downtime",
    "view_read_sequential",
    "view_read_random",
    "hydrated_read_sequential",
    "hydrated_read_random",
    "hydration_rate",
    "reverse_bytes",
];

#[test]
fn each_figure_is_skipped_aloud_where_there_is_no_lab() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lifeboat-bench"))
        .args(["failover", "--quick", "--folder"])
        .arg(folder.path())
        .env("LIFEBOAT_LAB_FAILOVER", "/nowhere")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stdout);
    for figure in FIGURES {
        assert!(told.contains(&format!("{figure}: SKIPPED")), "{figure} is missing in {told}");
    }
}
