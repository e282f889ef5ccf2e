//! How many items of a long list are given at once.

const DEFAULT: u32 = 100;
const MOST: u32 = 10_000;

/// As many as were asked for, within bounds: 100 when nobody said, 10000 at the
/// most.
pub(super) fn limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(DEFAULT).min(MOST)
}
