//! The lines on the second serial port.
//!
//! The port ends in a file at the site, so what the guest acknowledged is known
//! after the guest, its host or the whole site is gone.

use std::fmt;

use crate::report::Report;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The guest's first process runs.
    Booted,
    /// The check that runs before the workload goes on.
    Checked(Report),
    /// All that boot starts has been started.
    Ready,
    /// Record with this number, and all before it, are durable.
    Acknowledged(u64),
    /// Write with this number of the overwrite load is durable.
    Overwritten(u64),
    /// The guest unmounted everything and turns itself off or restarts.
    Stopped,
    /// Something in the guest went wrong.
    Failed(String),
}

impl Line {
    /// Reads one line; none when it is not one of ours, or torn.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches(['\r', '\n']);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "booted" => Self::Booted,
            "ready" => Self::Ready,
            "stopped" => Self::Stopped,
            "ack" => Self::Acknowledged(rest.parse().ok()?),
            "wrote" => Self::Overwritten(rest.parse().ok()?),
            "checked" => Self::Checked(serde_json::from_str(rest).ok()?),
            "failed" => Self::Failed(rest.to_owned()),
            _ => return None,
        })
    }

    /// Reads all whole lines of a port's file. The last one counts only when
    /// its end was written: `ack 12` may be the beginning of `ack 123`.
    pub fn parse_all(text: &str) -> impl DoubleEndedIterator<Item = Self> {
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().filter_map(Self::parse)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Booted => write!(f, "booted"),
            Self::Ready => write!(f, "ready"),
            Self::Stopped => write!(f, "stopped"),
            Self::Acknowledged(number) => write!(f, "ack {number}"),
            Self::Overwritten(number) => write!(f, "wrote {number}"),
            Self::Checked(report) => {
                let json = serde_json::to_string(report).map_err(|_| fmt::Error)?;
                write!(f, "checked {json}")
            }
            Self::Failed(what) => write!(f, "failed {}", what.replace(['\r', '\n'], " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let report = Report {
            machine: "web".into(),
            last: 3,
            disks: vec![],
            faults: vec![crate::report::Fault::Missing { disk: 1 }],
        };
        for line in [
            Line::Booted,
            Line::Checked(report),
            Line::Ready,
            Line::Acknowledged(17),
            Line::Overwritten(4),
            Line::Stopped,
            Line::Failed("no disk at all".into()),
        ] {
            assert_eq!(Line::parse(&format!("{line}\r\n")), Some(line));
        }
    }

    #[test]
    fn a_line_without_end_does_not_count() {
        let heard: Vec<_> = Line::parse_all("ack 1\r\n[  1.2] noise\nack 2\nack 3").collect();
        assert_eq!(heard, [Line::Acknowledged(1), Line::Acknowledged(2)]);
    }
}
