//! What the lab runs inside a place: its first process, and the way in.
//!
//! ```text
//! lifeboat-lab-init start SETUP.json            makes a place and stays its parent
//! lifeboat-lab-init enter PID START -- COMMAND  runs COMMAND in the place of that first process
//! ```
//!
//! A program of its own because entering namespaces safely needs a process
//! with one thread, which a test or an async program never is.

mod birth;
mod enter;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::Signal;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match *words.as_slice() {
        ["start", setup] => birth::start(setup),
        ["init", setup] => birth::init(setup),
        ["enter", pid, start, "--", ref command @ ..] => enter::run(pid, start, command),
        ["leashed", ref command @ ..] => leashed(command),
        _ => Err(anyhow::anyhow!("this program is for the lab's own use")),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lifeboat-lab-init: {error:#}");
            // What a shell says for a command that cannot be run.
            ExitCode::from(127)
        }
    }
}

/// Becomes `command`, which dies when the process that entered dies.
fn leashed(command: &[&str]) -> Result<ExitCode> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("ask to die with the parent")?;
    let [program, arguments @ ..] = command else {
        bail!("no command to run");
    };
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {program}"))
}
