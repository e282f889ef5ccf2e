//! What a machine says from a moment on.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use guest::port::Line;

use super::Guest;
use crate::run::wait_for;

/// How long a guest may take to come up.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a machine says on its port from a moment on; see [`Guest::listen`].
///
/// Listening costs nothing but looks into a file, whatever the machine does
/// meanwhile: it may be made only later.
#[derive(Debug)]
pub struct Hearing {
    guest: Guest,
    /// Bytes of the port that were there already.
    from: usize,
}

impl Guest {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the file of its port cannot be read.
    pub fn listen(&self) -> Result<Hearing> {
        Ok(Hearing { guest: self.clone(), from: self.port_text()?.len() })
    }
}

impl Hearing {
    /// Waits until it is up: disks checked, loads started, guest agent
    /// answering.
    ///
    /// # Errors
    /// When it is not up within 90 seconds; with the end of its console.
    pub async fn comes_up(&self) -> Result<()> {
        let guest = &self.guest;
        let what = format!("wait until {} is up", guest.name());
        let ready = wait_for(&what, PATIENCE, async || {
            for line in self.lines()? {
                match line {
                    Line::Ready => return Ok(Some(())),
                    Line::Failed(what) => bail!("{} says: {what}", guest.name()),
                    _ => {}
                }
            }
            Ok(None)
        });
        let ready = match ready.await {
            Ok(()) => guest.answers(PATIENCE).await,
            Err(error) => Err(error),
        };
        ready.with_context(|| {
            format!("console of {} ends with:\n{}", guest.name(), guest.console_end())
        })
    }

    /// The newest record that it has acknowledged since; none if it has not.
    ///
    /// # Errors
    /// When the file of its port cannot be read.
    pub fn acknowledged(&self) -> Result<Option<u64>> {
        let newest = self.lines()?.into_iter().rev().find_map(|line| match line {
            Line::Acknowledged(number) => Some(number),
            _ => None,
        });
        Ok(newest)
    }

    /// Whether it has ended in order since: its disks are unmounted.
    ///
    /// # Errors
    /// When the file of its port cannot be read.
    pub fn has_stopped(&self) -> Result<bool> {
        Ok(self.lines()?.contains(&Line::Stopped))
    }

    fn lines(&self) -> Result<Vec<Line>> {
        let text = self.guest.port_text()?;
        Ok(Line::parse_all(text.get(self.from..).unwrap_or_default()).collect())
    }
}
