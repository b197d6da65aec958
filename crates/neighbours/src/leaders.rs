//! Leader clustering (Hartigan 1975) of a stream of vectors, with members that attract too.
//!
//! Each vector is compared with the nearest earlier ones, leaders or not: of several versions of a text, the second and the
//! third often resemble each other more than the first. So that no chain of them leads elsewhere, who joins must also
//! resemble the leader, if less.

use crate::error::NeighbourError;
use crate::index::Index;
use crate::sketch::{Sketcher, most_bits_apart};
use crate::vectors::{Cluster, Vectors};

/// How much less than the threshold the cosine with the leader may be.
const DRIFT: f32 = 0.15;
/// Earlier vectors whose exact similarity is asked for, at most.
const CANDIDATES: usize = 32;
/// Similarities are told in steps of 1 / this: 16-bit floats change a cosine by less than half of one.
const STEPS: f32 = 1000.0;

/// Clusters of the vectors so far.
///
/// Memory is about 420 bytes for each vector, whatever its length; disk takes 16 bytes and 2 for each number.
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
    /// It resembles an earlier vector.
    Joined {
        /// The label of that vector's leader.
        leader: u64,
        /// Cosine with that vector, rounded to three decimals; at least the threshold.
        similarity: f32,
    },
}

impl Leaders {
    /// None yet. Vectors of `dimension` numbers join the cluster of an earlier one from a cosine of `threshold` on, above 0
    /// and at most 1; both are compared in steps of 0.001.
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
    /// The nearest vector may be missed, more rarely the nearer it is; one that is too far away is never joined.
    /// A vector of zeros resembles nothing.
    ///
    /// # Errors
    /// The vector has another length or a number that is not finite; the temporary file or the index failed.
    pub fn place(&mut self, label: u64, vector: &[f32]) -> Result<Place, NeighbourError> {
        self.normalise(vector)?;
        let sketch = self.sketcher.sketch(&self.unit);
        let mut best: Option<(f32, u64, Cluster)> = None;
        for (number, bits) in self.index.nearest(&sketch, CANDIDATES)? {
            if bits > self.bits {
                break;
            }
            let (cluster, cosine) = self.vectors.compare(number, &self.unit)?;
            let similarity = rounded(cosine);
            let nearer =
                |(known, earlier, _): (f32, u64, _)| similarity > known || (similarity == known && number < earlier);
            if similarity >= self.threshold && best.is_none_or(nearer) && self.resembles_leader(number, cluster)? {
                best = Some((similarity, number, cluster));
            }
        }
        let number = self.index.push(&sketch)?;
        let (place, cluster) = match best {
            Some((similarity, _, cluster)) => (Place::Joined { leader: cluster.label, similarity }, cluster),
            None => (Place::Leader, Cluster { label, leader: number }),
        };
        self.vectors.push(cluster, &self.unit)?;
        Ok(place)
    }

    /// Whether the vector in hand is near enough to the leader of the vector `number` to join its cluster.
    fn resembles_leader(&mut self, number: u64, cluster: Cluster) -> Result<bool, NeighbourError> {
        if cluster.leader == number {
            return Ok(true);
        }
        let (_, cosine) = self.vectors.compare(cluster.leader, &self.unit)?;
        Ok(rounded(cosine) >= rounded(self.threshold - DRIFT))
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
