//! Work that takes long: away from async threads, with progress, and with an
//! end when somebody wants one.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::fault::Fault;
use indicatif::{ProgressBar, ProgressStyle};
use replica::offline_copy::Stopped;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::faults;
use crate::failure::Failure;

/// How long writing work may take to stop. After that it is left behind; what
/// a store makes of that, it proves on every crash.
const STOPPING: Duration = Duration::from_secs(10);

/// Told that work is to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Fails if work is to stop.
    pub(super) fn check(&self) -> Result<(), Stopped> {
        if self.0.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }
}

/// Runs reading work on a thread of its own. When interrupted, it is left
/// behind: there is nothing to clean up.
pub(super) async fn reading<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Failure> {
    tokio::select! {
        done = spawn_blocking(work) => Ok(done.map_err(|error| Fault::internal(doing, &error))??),
        () = interruption() => Err(faults::interrupted(doing).into()),
    }
}

/// Runs writing work on a thread of its own. When interrupted, it is told and
/// waited for.
pub(super) async fn writing<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce(&Stop) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Failure> {
    let interrupted = interruption();
    let stop = Stop::default();
    let told = stop.clone();
    let mut task = spawn_blocking(move || work(&told));
    let done = tokio::select! {
        done = &mut task => Some(done),
        () = interrupted => {
            stop.0.store(true, Ordering::Relaxed);
            timeout(STOPPING, &mut task).await.ok()
        }
    };
    let done = done.ok_or_else(|| faults::interrupted(doing))?;
    Ok(done.map_err(|error| Fault::internal(doing, &error))??)
}

/// Ctrl-c or SIGTERM, from this call on: call it before there is anything to
/// clean up.
pub(super) fn interruption() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            // Without handlers, signals end the process as they always do.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// How far work has come, on a terminal; goes with the value.
#[derive(Debug)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar for people; none for programs.
    pub(super) fn new(what: &str, json: bool) -> Self {
        if json || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let template = "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} to go";
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::new(0).with_message(what.to_owned());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// So far, in bytes.
    pub(super) fn at(&self, done: u64, total: u64) {
        self.0.set_length(total.max(done));
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
