//! What no compiler checks.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::metadata::root;

/// A file this long holds two ideas.
const LINES_MAX: usize = 1000;
/// Words of unfinished work; an issue's number beside them makes them a plan.
const UNFINISHED: &[&str] =
    &["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}", "todo\u{21}(", "unimplemented\u{21}("];

pub(crate) fn check() -> Result<()> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "*.rs",
            "*.md",
            "*.toml",
            "*.sql",
        ])
        .current_dir(root())
        .output()
        .context("list the files")?;
    let mut wrong = Vec::new();
    let mut longest = Vec::new();
    for name in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(text) = fs::read_to_string(root().join(name)) else { continue };
        let lines = text.lines().count();
        if name.ends_with(".rs") {
            longest.push((lines, name.to_owned()));
        }
        if name.ends_with(".rs") && lines > LINES_MAX {
            wrong.push(format!("{name} has {lines} lines; more than {LINES_MAX} hold two ideas"));
        }
        for (number, line) in text.lines().enumerate() {
            let unfinished = UNFINISHED.iter().any(|word| line.contains(word));
            if unfinished && !line.contains("issue ") {
                wrong.push(format!("{name}:{}: unfinished, without an issue's number", number + 1));
            }
        }
    }
    longest.sort_unstable_by(|a, b| b.cmp(a));
    for (lines, name) in longest.iter().take(3) {
        println!("  {lines:>5} lines  {name}");
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}
