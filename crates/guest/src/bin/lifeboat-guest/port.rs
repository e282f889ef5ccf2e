//! Writes lines to the second serial port.

use std::fs::OpenOptions;
use std::io::Write as _;

use guest::port::Line;

use crate::init;

/// Says `line` to the outside. A guest without the port says it on the console.
pub fn say(line: &Line) {
    let port = init::parameters().map(|parameters| parameters.port).unwrap_or_default();
    let opened = OpenOptions::new().write(true).open(format!("/dev/{port}"));
    // One write call, so that lines of several programs do not mix.
    let said = opened.and_then(|mut port| port.write_all(format!("{line}\n").as_bytes()));
    if said.is_err() || matches!(line, Line::Failed(_)) {
        eprintln!("guest: {line}");
    }
}
