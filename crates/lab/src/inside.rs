//! What the lab and the first process of a place say to one another.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Set in the environment of a process that enters: its standard input is a
/// socket that it obeys.
pub const CONTROLLED: &str = "LIFEBOAT_LAB_CONTROLLED";
/// Tells a first process to live on when the lab's process ends.
pub const KEEP: u8 = b'D';
/// Tells the process that entered to kill its command.
pub const KILL: u8 = b'K';
/// Tells the process that entered to ask its command to end.
pub const TERMINATE: u8 = b'T';
/// What a first process says when the place can be entered.
pub const READY: &str = "ready";

/// How a place is to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    /// Its host name.
    pub name: String,
    /// Files and folders of its own, each with the path that it covers inside,
    /// in the order in which they are bound.
    pub binds: Vec<(PathBuf, PathBuf)>,
}

/// When process `pid` started, in clock ticks since the machine booted; none
/// when there is no such process or it only waits to be reaped. With the id it
/// names one process for as long as the machine runs.
#[must_use]
pub fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from its end.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_start() {
        let own = std::process::id();
        assert!(start_of(own).is_some());
        assert_eq!(start_of(own), start_of(own));
        assert_eq!(start_of(u32::MAX), None);
    }
}
