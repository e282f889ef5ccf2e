//! Bytes that are the same in every run.

/// Numbers that look random (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Noise(u64);

impl Noise {
    /// The sequence of this seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from 0 to below 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A rank below `end`; rank n comes up about as often as 1 ÷ n (Zipf with
    /// exponent 0.99, by its continuous inverse).
    pub(crate) fn ranked(&mut self, end: u64) -> u64 {
        const FLATNESS: f64 = 0.01;
        let reach = (end as f64).powf(FLATNESS) - 1.0;
        let rank = (self.fraction() * reach + 1.0).powf(1.0 / FLATNESS);
        (rank as u64).saturating_sub(1).min(end - 1)
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }
}

/// Bytes that belong to `number` alone and compress to almost nothing: for
/// stores where not the bytes count but how many there are.
pub(crate) fn pattern(bytes: &mut [u8], number: u64) {
    // Never zero, which would be stored as such.
    let word = (number + 1).to_le_bytes();
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&word[..chunk.len()]));
}

/// The `number`th of `count` places in an order without any: each once.
/// `count` is below 2⁴⁰.
pub(crate) fn scattered(number: u64, count: u64) -> u64 {
    // A prime, and so coprime to every count that is no multiple of it.
    const STRIDE: u128 = 1_000_000_007 * 9973;
    ((u128::from(number) * STRIDE + 12_345) % u128::from(count)) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn scattered_places_are_each_taken_once() {
        let places: BTreeSet<u64> = (0..5000).map(|n| scattered(n, 5000)).collect();
        assert_eq!((places.len(), places.last()), (5000, Some(&4999)));
    }

    #[test]
    fn low_ranks_come_up_most() {
        let mut noise = Noise::new(1);
        let ranks: Vec<u64> = (0..10_000).map(|_| noise.ranked(1 << 18)).collect();
        let low = ranks.iter().filter(|rank| **rank < 1 << 9).count();
        assert!((4000..7000).contains(&low), "{low}");
    }
}
