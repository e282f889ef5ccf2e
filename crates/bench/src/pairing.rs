//! Taking turns, so that what disturbs one contender disturbs the others too.

use anyhow::{Context as _, Result};

/// What a contender measured, one value per round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// These values, of which there is at least one.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        Self(values.into_iter().collect())
    }

    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            even if even.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }

    /// The least and the greatest.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, greatest)
    }

    /// How many there are.
    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }
}

/// Somebody who can be measured again and again.
pub(crate) struct Contender<'a> {
    name: &'a str,
    run: Box<dyn FnMut(usize) -> Result<f64> + 'a>,
}

impl<'a> Contender<'a> {
    /// `run` is given the number of the round and returns what it measured.
    pub(crate) fn new(name: &'a str, run: impl FnMut(usize) -> Result<f64> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Lets each contender run once per round, in an order that turns with every
/// round. What each measured, in the order in which they were given.
pub(crate) fn in_turn<const N: usize>(
    rounds: usize,
    mut contenders: [Contender<'_>; N],
) -> Result<[Samples; N]> {
    let mut samples: [Samples; N] = std::array::from_fn(|_| Samples::default());
    for round in 0..rounds {
        for turn in 0..N {
            let at = (turn + round) % N;
            let Contender { name, run } = &mut contenders[at];
            let value = run(round).with_context(|| format!("round {round} of {name}"))?;
            eprintln!("   round {}: {name}: {value:.4}", round + 1);
            samples[at].0.push(value);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn everybody_is_first_once() {
        let order = RefCell::new(String::new());
        let contender = |name: &'static str| {
            let order = &order;
            Contender::new(name, move |round| {
                order.borrow_mut().push_str(name);
                Ok(round as f64)
            })
        };
        let [a, _] = in_turn(3, [contender("a"), contender("b")]).unwrap();
        assert_eq!(order.borrow().as_str(), "abbaab");
        assert_eq!((a.median(), a.spread(), a.rounds()), (1.0, (0.0, 2.0), 3));
        assert_eq!(Samples::of([4.0, 1.0]).median(), 2.5);
    }
}
