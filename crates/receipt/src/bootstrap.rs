//! Intervals by the percentile bootstrap (Efron 1979): draw as many examples as there are, with replacement, many
//! times, and see where the metric falls.
//!
//! Draws come from a seeded generator of this crate and sums run in one order, so an interval is the same on every
//! machine.

use serde::{Deserialize, Serialize};

use crate::metrics::{Metric, Scored};

/// The share of resamples between the ends of an interval.
const LEVEL: f64 = 0.95;
/// The largest share of resamples without a value.
const UNDEFINED: f64 = 0.1;

/// How intervals are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The number of resamples.
    pub resamples: u32,
    /// Where the draws begin.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 1000, seed: 0 }
    }
}

/// A metric with its 95 % interval; plain values, not points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The metric over every example once.
    pub value: f64,
    /// The lower end: the 2.5th percentile of the resamples.
    pub low: f64,
    /// The upper end: the 97.5th percentile.
    pub high: f64,
}

/// What a candidate differs from its baseline on the same examples, with the 95 % interval; plain values, not points.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// The candidate's metric less the baseline's, over every example once.
    pub difference: f64,
    /// The lower end: the 2.5th percentile of the resamples' differences.
    pub low: f64,
    /// The upper end: the 97.5th percentile.
    pub high: f64,
    /// The number of resamples.
    pub resamples: u32,
    /// Where the draws began.
    pub seed: u64,
}

/// Why there is no interval.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BootstrapError {
    /// The metric has no value on the examples.
    #[error("{metric} is not defined on these {examples} examples: all scores are equal, or nothing was predicted")]
    Undefined {
        /// The metric.
        metric: Metric,
        /// The number of examples.
        examples: usize,
    },
    /// The metric has a value on the examples, but on too few resamples.
    #[error(
        "{metric} is not defined on {undefined} of {resamples} resamples of {examples} examples; \
         use more examples, or more varied ones"
    )]
    TooFew {
        /// The metric.
        metric: Metric,
        /// The number of examples.
        examples: usize,
        /// Resamples without a value.
        undefined: usize,
        /// All resamples.
        resamples: u32,
    },
    /// Two systems were not scored by the same metric on the same examples.
    #[error(
        "{candidate} on {candidate_examples} examples cannot be compared with {baseline} on {baseline_examples}; \
         score both systems by one metric on the same examples"
    )]
    Different {
        /// The baseline's metric.
        baseline: Metric,
        /// The baseline's number of examples.
        baseline_examples: usize,
        /// The candidate's metric.
        candidate: Metric,
        /// The candidate's number of examples.
        candidate_examples: usize,
    },
    /// No resample was asked for.
    #[error("an interval needs at least one resample")]
    NoResamples,
}

impl Bootstrap {
    /// A metric and its interval.
    ///
    /// Resamples on which the metric is not defined are left out.
    ///
    /// # Errors
    /// The metric is not defined on the examples, or not on more than a tenth of the resamples.
    pub fn estimate(&self, scored: &dyn Scored) -> Result<Estimate, BootstrapError> {
        let (value, low, high) = self.interval(scored, |draws| scored.value(draws))?;
        Ok(Estimate { value, low, high })
    }

    /// How much a candidate differs from a baseline, with the interval of that difference. Each resample draws the
    /// same examples for both, so what is hard for both cancels out.
    ///
    /// # Errors
    /// Those of [`Bootstrap::estimate`], or the two are of different metrics or numbers of examples.
    pub fn paired(&self, baseline: &dyn Scored, candidate: &dyn Scored) -> Result<Paired, BootstrapError> {
        let key = |scored: &dyn Scored| (scored.metric(), scored.examples());
        if key(baseline) != key(candidate) {
            return Err(BootstrapError::Different {
                baseline: baseline.metric(),
                baseline_examples: baseline.examples(),
                candidate: candidate.metric(),
                candidate_examples: candidate.examples(),
            });
        }
        let difference = |draws: &[u32]| Some(candidate.value(draws)? - baseline.value(draws)?);
        let (difference, low, high) = self.interval(baseline, difference)?;
        Ok(Paired { difference, low, high, resamples: self.resamples, seed: self.seed })
    }

    /// A statistic over all examples, and the ends of its interval.
    fn interval(
        &self,
        scored: &dyn Scored,
        statistic: impl Fn(&[u32]) -> Option<f64>,
    ) -> Result<(f64, f64, f64), BootstrapError> {
        let (metric, examples, resamples) = (scored.metric(), scored.examples(), self.resamples);
        if resamples == 0 {
            return Err(BootstrapError::NoResamples);
        }
        let value = statistic(&vec![1; examples]).ok_or(BootstrapError::Undefined { metric, examples })?;
        let mut random = Random(self.seed);
        let mut draws = vec![0; examples];
        let one = |_| {
            random.draw(&mut draws);
            statistic(&draws)
        };
        let mut values: Vec<f64> = (0..resamples).filter_map(one).collect();
        let undefined = resamples as usize - values.len();
        if undefined as f64 > UNDEFINED * f64::from(resamples) {
            return Err(BootstrapError::TooFew { metric, examples, undefined, resamples });
        }
        values.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - LEVEL) / 2.0;
        Ok((value, quantile(&values, tail), quantile(&values, 1.0 - tail)))
    }
}

/// A quantile of sorted values, between neighbours by linear interpolation (numpy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() - 1) as f64 * share;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A whole number below `limit`, by the high half of a product; some numbers are likelier by `limit / 2^64`.
    fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    /// Draws as many examples as there are, with replacement; counts how often each comes.
    fn draw(&mut self, draws: &mut [u32]) {
        draws.fill(0);
        for _ in 0..draws.len() {
            draws[self.below(draws.len())] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Accuracy, ExactMatch, Pearson};

    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = Random(0);
        assert_eq!([random.bits(), random.bits()], [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        assert_eq!(quantile(&[1.0], 0.3), 1.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }

    #[test]
    fn what_has_no_interval() {
        let bootstrap = Bootstrap::default();
        let constant = Pearson::new(&[1.0, 1.0], &[1.0, 2.0]).expect("two scores");
        let error = bootstrap.estimate(&constant).expect_err("nothing varies");
        assert_eq!(error, BootstrapError::Undefined { metric: Metric::Pearson, examples: 2 });
        // Half of all draws of two examples hold one of them twice.
        let two = Pearson::new(&[1.0, 2.0], &[1.0, 2.0]).expect("two scores");
        let error = bootstrap.estimate(&two).expect_err("two examples are too few");
        assert!(matches!(error, BootstrapError::TooFew { undefined: 400..600, .. }), "{error}");
        let accuracy = Accuracy::new(&[1, 0], &[1, 1]).expect("two labels");
        let other = ExactMatch::new(&[vec!["a"], vec!["b"]], &["a", "a"]).expect("two answers");
        assert!(bootstrap.paired(&accuracy, &other).is_err());
        let longer = Accuracy::new(&[1, 0, 1], &[1, 1, 1]).expect("three labels");
        assert!(bootstrap.paired(&accuracy, &longer).is_err());
        let none = Bootstrap { resamples: 0, seed: 0 };
        assert_eq!(none.estimate(&accuracy), Err(BootstrapError::NoResamples));
    }
}
