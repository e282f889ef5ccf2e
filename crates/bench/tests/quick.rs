//! The benchmark runs, and tells what was agreed. Speeds are no promise here.

use std::process::Command;

use serde_json::Value;

const FIGURES: [&str; 4] =
    ["partial_writes", "view_open", "point_creation", "database_room_with_first"];

#[test]
fn a_quick_run_tells_each_figure_with_all_keys_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lifeboat-bench"))
        .args(["replica", "--quick", "--json", "--folder"])
        .arg(folder.path())
        .arg("--only")
        .args(FIGURES)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines.iter().map(|line| line["figure"].as_str().unwrap()).collect();
    assert_eq!(names, FIGURES);
    for line in &lines {
        for key in ["figure", "value", "unit", "opponent", "ratio", "goal", "better"] {
            assert!(line.get(key).is_some(), "{key} is missing in {line}");
        }
        assert!(line["value"].is_f64() && line["unit"].is_string(), "{line}");
        assert_eq!(line["opponent"].is_null(), line["ratio"].is_null(), "{line}");
        assert!(["higher", "lower"].contains(&line["better"].as_str().unwrap()), "{line}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_unknown_figure_is_refused_by_naming_those_there_are() {
    let output = Command::new(env!("CARGO_BIN_EXE_lifeboat-bench"))
        .args(["replica", "--only", "nonsense"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("view_open"));
}
