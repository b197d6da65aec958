//! Leader clustering (Hartigan 1975) of a stream of vectors.

use crate::error::NeighbourError;
use crate::index::Index;
use crate::sketch::{Sketcher, most_bits_apart};
use crate::vectors::Vectors;

/// Leaders whose exact similarity is asked for, at most.
const CANDIDATES: usize = 32;
/// Similarities are told in steps of 1 / this: 16-bit floats change a cosine by less than half of one.
const STEPS: f32 = 1000.0;

/// Vectors that no earlier one resembles.
///
/// Memory is about 420 bytes for each, whatever their length; disk takes 8 bytes and 2 for each number.
pub struct Leaders {
    threshold: f32,
    dimension: usize,
    /// Most bits in which the sketch of a candidate may differ.
    bits: f32,
    sketcher: Sketcher,
    index: Index,
    vectors: Vectors,
    unit: Vec<f32>,
}

/// What becomes of a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// It is a leader.
    Leader,
    /// It resembles an earlier leader.
    Joined {
        /// The label of the leader.
        leader: u64,
        /// Cosine of the two, rounded to three decimals; at least the threshold.
        similarity: f32,
    },
}

impl Leaders {
    /// None yet. Vectors of `dimension` numbers join a leader from a cosine of `threshold` on, above 0 and at most 1; both
    /// are compared in steps of 0.001.
    ///
    /// # Errors
    /// The threshold or the dimension makes no sense, or there can be no temporary file.
    pub fn new(dimension: usize, threshold: f32) -> Result<Leaders, NeighbourError> {
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(NeighbourError::Threshold(threshold));
        }
        if dimension == 0 {
            return Err(NeighbourError::NoDimensions);
        }
        let threshold = rounded(threshold);
        Ok(Leaders {
            threshold,
            dimension,
            bits: most_bits_apart(threshold - 0.5 / STEPS),
            sketcher: Sketcher::new(dimension),
            index: Index::new()?,
            vectors: Vectors::new(dimension)?,
            unit: vec![0.0; dimension],
        })
    }

    /// Finds the place of a vector of any length but zero; if it becomes a leader, `label` is its name.
    ///
    /// The nearest leader may be missed, more rarely the nearer it is; a leader that is too far away is never joined.
    /// A vector of zeros resembles nothing.
    ///
    /// # Errors
    /// The vector has another length or a number that is not finite; the temporary file or the index failed.
    pub fn place(&mut self, label: u64, vector: &[f32]) -> Result<Place, NeighbourError> {
        self.normalise(vector)?;
        let sketch = self.sketcher.sketch(&self.unit);
        let mut best: Option<(f32, u64, u64)> = None;
        for (number, bits) in self.index.nearest(&sketch, CANDIDATES)? {
            if bits > self.bits {
                break;
            }
            let (leader, cosine) = self.vectors.compare(number, &self.unit)?;
            let similarity = rounded(cosine);
            let nearer =
                |(known, earlier, _): (f32, u64, u64)| similarity > known || (similarity == known && number < earlier);
            if similarity >= self.threshold && best.is_none_or(nearer) {
                best = Some((similarity, number, leader));
            }
        }
        if let Some((similarity, _, leader)) = best {
            return Ok(Place::Joined { leader, similarity });
        }
        self.index.push(&sketch)?;
        self.vectors.push(label, &self.unit)?;
        Ok(Place::Leader)
    }

    fn normalise(&mut self, vector: &[f32]) -> Result<(), NeighbourError> {
        if vector.len() != self.dimension {
            return Err(NeighbourError::Length { found: vector.len(), expected: self.dimension });
        }
        if !vector.iter().all(|number| number.is_finite()) {
            return Err(NeighbourError::NotFinite);
        }
        let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
        let scale = if length > 0.0 { length.recip() } else { 0.0 };
        let scaled = vector.iter().map(|number| (f64::from(*number) * scale) as f32);
        self.unit.iter_mut().zip(scaled).for_each(|(slot, number)| *slot = number);
        Ok(())
    }
}

/// A cosine in steps of 0.001.
fn rounded(cosine: f32) -> f32 {
    ((cosine * STEPS).round() / STEPS).min(1.0)
}
