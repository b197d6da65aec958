//! Pearson's correlation, as scipy's `pearsonr` computes it.

use super::{Metric, MetricError, Scored, check_finite, check_lengths};

/// Pearson's correlation of a score with the right one. Not defined where either is constant, where scipy gives NaN.
#[derive(Clone, Debug)]
pub struct Pearson {
    truth: Vec<f64>,
    predicted: Vec<f64>,
}

impl Pearson {
    /// From the right scores and the predicted ones.
    ///
    /// # Errors
    /// There is no example, not one prediction for each, or a score is not finite.
    pub fn new(truth: &[f64], predicted: &[f64]) -> Result<Self, MetricError> {
        check_lengths(Metric::Pearson, truth.len(), predicted.len())?;
        check_finite(Metric::Pearson, truth)?;
        check_finite(Metric::Pearson, predicted)?;
        Ok(Self { truth: scaled(truth), predicted: scaled(predicted) })
    }
}

/// Numbers times a power of two, so that neither their sum nor their squares overflow; this rounds nothing.
fn scaled(numbers: &[f64]) -> Vec<f64> {
    let largest = numbers.iter().fold(0f64, |largest, number| largest.max(number.abs()));
    let (_, exponent) = libm::frexp(largest);
    numbers.iter().map(|&number| libm::ldexp(number, -exponent)).collect()
}

impl Scored for Pearson {
    fn metric(&self) -> Metric {
        Metric::Pearson
    }

    fn examples(&self) -> usize {
        self.truth.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        correlation(&self.truth, &self.predicted, draws)
    }
}

/// Pearson's correlation over a draw; `None` where `x` or `y` is constant in it.
pub(super) fn correlation(x: &[f64], y: &[f64], draws: &[u32]) -> Option<f64> {
    let (x, y) = (Centred::new(x, draws)?, Centred::new(y, draws)?);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (index, &draw) in draws.iter().enumerate() {
        let (a, b, weight) = (x.at(index), y.at(index), f64::from(draw));
        xx += weight * a * a;
        yy += weight * b * b;
        xy += weight * a * b;
    }
    Some((xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0))
}

/// Numbers less their mean, in units of the largest distance to it.
struct Centred<'a> {
    numbers: &'a [f64],
    mean: f64,
    reach: f64,
}

impl<'a> Centred<'a> {
    /// `None` where all that is drawn is equal, or nothing is.
    fn new(numbers: &'a [f64], draws: &[u32]) -> Option<Self> {
        assert_eq!(numbers.len(), draws.len(), "a draw counts every example");
        let (mut sum, mut drawn, mut low, mut high) = (0.0, 0u64, f64::INFINITY, f64::NEG_INFINITY);
        for (&number, &draw) in numbers.iter().zip(draws).filter(|(_, draw)| **draw > 0) {
            sum += number * f64::from(draw);
            drawn += u64::from(draw);
            (low, high) = (low.min(number), high.max(number));
        }
        let mean = sum / drawn as f64;
        (low < high).then(|| Self { numbers, mean, reach: (mean - low).max(high - mean) })
    }

    fn at(&self, index: usize) -> f64 {
        (self.numbers[index] - self.mean) / self.reach
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_scores_have_no_correlation() {
        let constant = Pearson::new(&[1.0, 2.0, 3.0], &[0.3, 0.3, 0.3]).expect("three scores");
        assert_eq!(constant.point(), None);
        let varied = Pearson::new(&[1.0, 2.0, 3.0], &[0.1, 0.2, 0.9]).expect("three scores");
        assert!(varied.point().is_some());
        assert_eq!(varied.value(&[0, 3, 0]), None);
        assert_eq!(varied.value(&[0, 0, 0]), None);
    }

    #[test]
    fn no_magnitude_overflows() {
        for scale in [f64::MAX, 1.0, f64::MIN_POSITIVE, 5e-324] {
            let scores = [0.0, scale, -scale];
            let found = Pearson::new(&scores, &[0.0, 1.0, -1.0]).expect("three scores").point();
            assert!(found.is_some_and(|value| (value - 1.0).abs() < 1e-12), "{scale}: {found:?}");
        }
    }
}
