//! Epochs and fences: who may run a machine.
//!
//! The controller raises a machine's epoch with each change of the side that may
//! run it, and writes that down before it tells anybody. Then, in this order:
//!
//! 1. the side that may run it no more is **fenced**: its agent writes the epoch
//!    down, makes sure that the machine does not run, and says so; or somebody
//!    vouches that the side is without power ([`Fenced`]);
//! 2. the other side is told that the epoch is its own, and starts the machine.
//!
//! An agent keeps the highest epoch that it saw, and whose it is ([`Known`]). It
//! refuses what carries a lower one ([`heed`]), and what arrives by a connection
//! older than its present one, which nothing here can see: a command is only as
//! good as the connection that it was sent on.
//!
//! An agent whose host was without power starts nothing before it was told whose
//! the epoch is ([`may_start`]). Only the controller can permit; a peer that
//! knows of a higher epoch can forbid. If nobody answers, the policy decides
//! ([`Alone`]), and there is no choice without a price: see there.

use std::fmt;

/// Raised with every change of the side that may run a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a machine that has never been failed over.
    pub const FIRST: Self = Self(1);

    /// An epoch that was stored or sent.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number, for a boundary that stores or sends it.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an agent knows of a machine's epoch. Durable before it is acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Known {
    /// The highest that it saw.
    pub epoch: Epoch,
    /// Whether the agent's side may run the machine in that epoch.
    pub ours: bool,
}

/// What an agent was told when it asked which epoch is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// By the controller, on a connection that is younger than the agent.
    ByController(Known),
    /// By the agent of the other side, which knows of this epoch.
    ByPeer(Epoch),
    /// Nothing: nobody answers.
    Nothing,
}

/// What an agent does with a machine that does not run, if nobody can be asked.
///
/// Consider a site that loses power; somebody vouches for that, and the machine
/// is failed over. Power returns, and the links do not. Its agent cannot know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Alone {
    /// The machine stays down until somebody can be asked. It never runs twice;
    /// but a host that restarts while the controller is away leaves it down.
    #[default]
    StayDown,
    /// The side that last was active starts it. It comes back without anybody;
    /// but in the case above, it runs twice until the links are back.
    StartIfLastActive,
}

/// Whether an agent may start a machine, with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It may.
    Start(&'static str),
    /// It may not.
    StayDown(&'static str),
    /// It may not yet, and asks again.
    AskAgain(&'static str),
}

/// Whether an agent that finds a machine stopped may start it, and what it
/// knows from now on, which it writes down first.
#[must_use]
pub fn may_start(known: Known, told: Told, alone: Alone) -> (Known, Decision) {
    match told {
        Told::ByController(told) if told.epoch < known.epoch => {
            (known, Decision::AskAgain("the controller's epoch is older than what is known here"))
        }
        Told::ByController(told) if told.epoch == known.epoch && told.ours != known.ours => {
            (known, Decision::AskAgain("the controller gives this epoch to another side"))
        }
        Told::ByController(told @ Known { ours: true, .. }) => {
            (told, Decision::Start("the current epoch is this side's"))
        }
        Told::ByController(told) => {
            (told, Decision::StayDown("the current epoch is the other side's"))
        }
        Told::ByPeer(epoch) if epoch > known.epoch => (
            Known { epoch, ours: false },
            Decision::AskAgain("the other side knows of a higher epoch"),
        ),
        Told::ByPeer(_) | Told::Nothing if !known.ours => {
            (known, Decision::StayDown("the last epoch that is known here is the other side's"))
        }
        Told::ByPeer(_) | Told::Nothing => match alone {
            Alone::StayDown => (known, Decision::AskAgain("nobody can say which epoch is current")),
            Alone::StartIfLastActive => {
                (known, Decision::Start("this side last was active, and nobody can be asked"))
            }
        },
    }
}

/// What an agent knows after a command, if it may heed it.
///
/// # Errors
/// What it knows already, when that makes the command a stale one.
pub fn heed(known: Known, command: Known) -> Result<Known, Known> {
    let stale =
        command.epoch < known.epoch || (command.epoch == known.epoch && command.ours != known.ours);
    if stale { Err(known) } else { Ok(command) }
}

/// Why a side does not run the machine, and will not before it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fenced {
    /// Its agent has written this epoch down, and the machine does not run.
    Acknowledged(Epoch),
    /// Somebody says that the side is without power, while its agent was not
    /// connected; after the epoch was raised to this.
    Vouched {
        /// The epoch.
        epoch: Epoch,
        /// Who says so.
        by: String,
    },
}

impl Fenced {
    /// The epoch that the fence is of.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        match self {
            Self::Acknowledged(epoch) | Self::Vouched { epoch, .. } => *epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn known(epoch: u64, ours: bool) -> Known {
        Known { epoch: Epoch::new(epoch), ours }
    }

    #[test]
    fn an_agent_that_returns_starts_only_what_the_current_epoch_gives_it() {
        let told = |epoch, ours| Told::ByController(known(epoch, ours));
        let decide = |of, told, alone| match may_start(of, told, alone) {
            (known, Decision::Start(_)) => format!("{} start", known.epoch),
            (known, Decision::StayDown(_)) => format!("{} stay", known.epoch),
            (known, Decision::AskAgain(_)) => format!("{} ask", known.epoch),
        };
        let alone = [Alone::StayDown, Alone::StartIfLastActive];
        let table = [
            (known(4, true), told(4, true), "4 start, 4 start"),
            (known(4, true), told(5, false), "5 stay, 5 stay"),
            (known(4, false), told(5, true), "5 start, 5 start"),
            // A controller that was restored from an old copy.
            (known(4, true), told(3, true), "4 ask, 4 ask"),
            (known(4, true), told(4, false), "4 ask, 4 ask"),
            (known(4, true), Told::ByPeer(Epoch::new(5)), "5 ask, 5 ask"),
            (known(4, true), Told::ByPeer(Epoch::new(4)), "4 ask, 4 start"),
            (known(4, false), Told::Nothing, "4 stay, 4 stay"),
            (known(4, true), Told::Nothing, "4 ask, 4 start"),
        ];
        for (of, told, expected) in table {
            assert_eq!(alone.map(|alone| decide(of, told, alone)).join(", "), expected, "{told:?}");
        }
    }

    #[test]
    fn a_command_of_an_older_epoch_changes_nothing() {
        assert_eq!(heed(known(4, true), known(5, false)), Ok(known(5, false)));
        assert_eq!(heed(known(4, true), known(4, true)), Ok(known(4, true)));
        assert_eq!(heed(known(4, true), known(3, false)), Err(known(4, true)));
        assert_eq!(heed(known(4, false), known(4, true)), Err(known(4, false)));
    }
}
