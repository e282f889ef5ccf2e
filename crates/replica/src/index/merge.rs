//! Merging runs, so that a read asks few of them. Data is not touched.
//!
//! Only neighbours are merged: of one cycle, the later run counts.

use super::{Index, run::RunWriter};
use crate::{
    error::StoreResult,
    format::manifest::RunFacts,
    geometry::{BlockKey, Cycle},
    medium::Medium,
    overlay,
};

/// As many neighbours of one level become one of the next.
const FAN: usize = 8;

/// Decides which runs to merge next: a range in the list from the oldest on,
/// and the level of what they become.
pub(crate) fn choose(runs: &[RunFacts]) -> Option<(std::ops::Range<usize>, u8)> {
    let mut best = None;
    let mut before = u8::MAX;
    for (start, first) in runs.iter().enumerate() {
        let begins = first.level != before && first.staged.is_none();
        before = first.level;
        if !begins {
            continue;
        }
        let rest = runs.get(start..).unwrap_or_default();
        let neighbours =
            rest.iter().take_while(|run| run.level <= first.level && run.staged.is_none());
        let (length, peers) = neighbours.fold((0, 0), |(length, peers), run| {
            (length + 1, peers + usize::from(run.level == first.level))
        });
        if peers >= FAN {
            // Later in the list is younger and smaller: cheaper, and it is
            // what reads suffer from.
            best = Some((start..start + length, first.level.saturating_add(1)));
        }
    }
    best
}

/// What a merge keeps and whether anything lies below it.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// Points that are kept, in order.
    pub(crate) kept: Vec<Cycle>,
    /// Whether the oldest run takes part.
    pub(crate) bottom: bool,
}

/// Writes the merge of all of `inputs`.
pub(crate) fn merge(
    medium: &dyn Medium,
    inputs: &Index,
    terms: &Terms,
    mut out: RunWriter,
) -> StoreResult<Option<RunFacts>> {
    let mut scan = inputs.scan(BlockKey(0), BlockKey(u64::MAX))?;
    let mut versions = Vec::new();
    while scan.next(&mut versions)?.is_some() {
        overlay::trim(&mut versions, &terms.kept);
        if terms.bottom {
            overlay::drop_bottom_zeroes(&mut versions);
        }
        for entry in versions.iter().filter(|entry| entry.mask != 0) {
            out.push(entry)?;
        }
    }
    out.finish(medium)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(levels: &[u8]) -> String {
        let runs: Vec<_> = levels
            .iter()
            .map(|level| RunFacts {
                id: 0,
                generation: 0,
                level: level % 100,
                staged: (*level >= 100).then_some(Cycle(9)),
                oldest: Cycle(0),
                newest: Cycle(0),
                entries: 1,
            })
            .collect();
        choose(&runs).map_or("none".into(), |(range, level)| format!("{range:?} to {level}"))
    }

    #[test]
    fn eight_neighbours_become_one() {
        assert_eq!(chosen(&[0; 7]), "none");
        assert_eq!(chosen(&[0; 8]), "0..8 to 1");
        assert_eq!(chosen(&[2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), "3..11 to 1");
        assert_eq!(chosen(&[1, 1, 1, 1, 1, 1, 1, 1, 0, 0]), "0..10 to 2");
        assert_eq!(chosen(&[0, 0, 0, 0, 100, 0, 0, 0, 0]), "none", "staged runs wait");
    }
}
