//! Cosines to a baseline's vectors: for data without labels, how far embeddings move.

use super::mean::mean;
use super::{Metric, MetricError, Scored, check_finite, check_lengths};

/// Cosine of two vectors of one length, summed in f64. Zero vectors are like each other and like nothing else.
///
/// NaN where a vector holds NaN or infinity.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (a_square, b_square) = (dot(a, a), dot(b, b));
    match (a_square == 0.0, b_square == 0.0) {
        (true, true) => 1.0,
        (true, false) | (false, true) => 0.0,
        (false, false) => (dot(a, b) / (a_square.sqrt() * b_square.sqrt())).clamp(-1.0, 1.0),
    }
}

/// Mean cosine to the baseline's vectors.
#[derive(Clone, Debug)]
pub struct MeanCosine(Vec<f64>);

impl MeanCosine {
    /// From one cosine per example.
    ///
    /// # Errors
    /// There is no example, or a cosine is not finite.
    pub fn new(cosines: &[f64]) -> Result<Self, MetricError> {
        checked(Metric::MeanCosine, cosines).map(Self)
    }
}

/// Smallest cosine to a vector of the baseline. Its interval says little: no resample can be worse than the worst
/// example.
#[derive(Clone, Debug)]
pub struct WorstCosine(Vec<f64>);

impl WorstCosine {
    /// From one cosine per example.
    ///
    /// # Errors
    /// There is no example, or a cosine is not finite.
    pub fn new(cosines: &[f64]) -> Result<Self, MetricError> {
        checked(Metric::WorstCosine, cosines).map(Self)
    }
}

fn checked(metric: Metric, cosines: &[f64]) -> Result<Vec<f64>, MetricError> {
    check_lengths(metric, cosines.len(), cosines.len())?;
    check_finite(metric, cosines)?;
    Ok(cosines.to_vec())
}

impl Scored for MeanCosine {
    fn metric(&self) -> Metric {
        Metric::MeanCosine
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        mean(&self.0, draws)
    }
}

impl Scored for WorstCosine {
    fn metric(&self) -> Metric {
        Metric::WorstCosine
    }

    fn examples(&self) -> usize {
        self.0.len()
    }

    fn value(&self, draws: &[u32]) -> Option<f64> {
        assert_eq!(self.0.len(), draws.len(), "a draw counts every example");
        let drawn = self.0.iter().zip(draws).filter(|(_, draw)| **draw > 0);
        drawn.map(|(cosine, _)| *cosine).min_by(f64::total_cmp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_of_special_vectors() {
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
        assert_eq!(cosine(&[1.0, 0.0], &[-2.0, 0.0]), -1.0);
        assert_eq!(cosine(&[0.0], &[0.0]), 1.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
        assert_eq!(cosine(&[1e30], &[1e30]), 1.0);
        assert!(cosine(&[f32::NAN], &[1.0]).is_nan());
        assert!(cosine(&[f32::INFINITY], &[1.0]).is_nan());
    }

    #[test]
    fn the_worst_is_the_worst_that_is_drawn() {
        let worst = WorstCosine::new(&[0.9, 0.5, 0.7]).expect("three cosines");
        assert_eq!(worst.point(), Some(0.5));
        assert_eq!(worst.value(&[2, 0, 1]), Some(0.7));
        assert_eq!(worst.value(&[0, 0, 0]), None);
    }
}
