//! Runs tools and waits for conditions, always within bounds.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

/// How long any tool may take unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a tool to its end and returns what it printed.
///
/// # Errors
/// When it cannot be run, takes longer than a minute, or fails; with what it
/// printed as error.
pub async fn run(command: &mut Command, what: &str) -> Result<String> {
    run_within(PATIENCE, command, what).await
}

/// As [`run`], within `limit`.
pub(crate) async fn run_within(
    limit: Duration,
    command: &mut Command,
    what: &str,
) -> Result<String> {
    command.kill_on_drop(true).stdin(Stdio::null());
    let output = match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.with_context(|| format!("{what}: run {}", shown(command)))?,
        Err(_) => bail!("{what}: {} took longer than {limit:?}", shown(command)),
    };
    require_success(&output, || format!("{what}: {}", shown(command)))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn require_success(output: &Output, what: impl Fn() -> String) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    bail!("{}: {}: {}", what(), output.status, error.trim())
}

/// Waits until `look` yields something.
///
/// # Errors
/// What `look` fails with, or that it took longer than `limit`.
pub async fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let give_up = Instant::now() + limit;
    let mut pause = Duration::from_millis(20);
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > give_up {
            bail!("{what}: not within {limit:?}");
        }
        tokio::time::sleep(pause).await;
        // Whoever looks starts programs, and guests need the processors too.
        pause = (pause * 5 / 4).min(Duration::from_millis(200));
    }
}

fn shown(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    // The way into a place says nothing to a reader.
    if let Some(inner) = words.iter().position(|word| word == "--") {
        words.drain(..=inner);
    }
    words.join(" ")
}
