//! Spearman's rank correlation, ties by their average rank, as scipy's `spearmanr` computes it.
//!
//! Values are sorted once. A draw only changes how many examples stand at each value, so its ranks take one walk over
//! the distinct values.

use super::pearson::correlation;
use super::{Metric, MetricError, Scored, check_finite, check_lengths};

/// Spearman's correlation of a score with the right one. Not defined where either is constant, where scipy gives NaN.
#[derive(Clone, Debug)]
pub struct Spearman {
    truth: Order,
    predicted: Order,
}

impl Spearman {
    /// From the right scores and the predicted ones.
    ///
    /// # Errors
    /// There is no example, not one prediction for each, or a score is not finite.
    pub fn new(truth: &[f64], predicted: &[f64]) -> Result<Self, MetricError> {
        check_lengths(Metric::Spearman, truth.len(), predicted.len())?;
        check_finite(Metric::Spearman, truth)?;
        check_finite(Metric::Spearman, predicted)?;
        Ok(Self { truth: Order::new(truth), predicted: Order::new(predicted) })
    }
}

impl Scored for Spearman {
    fn metric(&self) -> Metric {
        Metric::Spearman
    }

    fn examples(&self) -> usize {
        self.truth.places.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        correlation(&self.truth.ranks(draws), &self.predicted.ranks(draws), draws)
    }
}

/// For each example the place of its value among the distinct values.
#[derive(Clone, Debug)]
struct Order {
    places: Vec<usize>,
    distinct: usize,
}

impl Order {
    fn new(values: &[f64]) -> Self {
        let mut sorted: Vec<usize> = (0..values.len()).collect();
        sorted.sort_by(|&a, &b| values[a].partial_cmp(&values[b]).expect("scores are finite"));
        let (mut places, mut distinct) = (vec![0; values.len()], 0);
        for tied in sorted.chunk_by(|&a, &b| values[a] == values[b]) {
            tied.iter().for_each(|&example| places[example] = distinct);
            distinct += 1;
        }
        Self { places, distinct }
    }

    /// The rank of each example's value in a draw, from 1.
    fn ranks(&self, draws: &[u32]) -> Vec<f64> {
        assert_eq!(self.places.len(), draws.len(), "a draw counts every example");
        let mut tied = vec![0u64; self.distinct];
        self.places.iter().zip(draws).for_each(|(&place, &draw)| tied[place] += u64::from(draw));
        let mut before = 0;
        let rank = |tied: u64| {
            let rank = before as f64 + (tied as f64 + 1.0) / 2.0;
            before += tied;
            rank
        };
        let ranks: Vec<f64> = tied.into_iter().map(rank).collect();
        self.places.iter().map(|&place| ranks[place]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_average_rank() {
        let order = Order::new(&[0.5, -1.0, 0.5, 2.0, -0.0, 0.0]);
        assert_eq!(order.ranks(&[1; 6]), [4.5, 1.0, 4.5, 6.0, 2.5, 2.5]);
        assert_eq!(order.ranks(&[2, 0, 0, 1, 0, 0]), [1.5, 0.5, 1.5, 3.0, 0.5, 0.5]);
    }

    #[test]
    fn constant_scores_have_no_correlation() {
        let constant = Spearman::new(&[1.0, 2.0], &[0.0, -0.0]).expect("two scores");
        assert_eq!(constant.point(), None);
    }
}
