//! Scores by distance, looked up in buckets (Raffel et al. 2019, arXiv:1910.10683).

use centuple_graph::NodeId;
use centuple_tensor::Tensor;

use crate::ModelError;
use crate::builder::Builder;

/// A table of scores by bucket of the distance, the same in every layer.
pub(crate) struct RelativeBias {
    /// Name of the table `[buckets, heads]`, without `.weight`.
    pub(crate) name: String,
    pub(crate) buckets: usize,
    /// Distances from here on share the last bucket.
    pub(crate) max_distance: usize,
    pub(crate) heads: usize,
    /// Whether only keys behind the query are seen, which have all buckets then.
    pub(crate) causal: bool,
}

impl RelativeBias {
    /// Appends the table by distance, `[heads, 2 · max_distance + 1]`: query position less key position.
    pub(crate) fn build(&self, builder: &mut Builder) -> Result<NodeId, ModelError> {
        let table = builder.tensor(&format!("{}.weight", self.name), &[self.buckets, self.heads])?;
        let table = table.as_f32()?;
        let distances = 2 * self.max_distance + 1;
        let mut by_distance = Vec::with_capacity(self.heads * distances);
        for head in 0..self.heads {
            for distance in 0..distances {
                let ahead = distance < self.max_distance;
                let bucket = self.bucket(distance.abs_diff(self.max_distance), ahead);
                by_distance.push(table[bucket * self.heads + head]);
            }
        }
        builder
            .constant(&format!("{}.by_distance", self.name), Tensor::from_f32(&[self.heads, distances], &by_distance)?)
    }

    /// The bucket of a key that is `distance` positions ahead of the query or behind it. Half of the buckets of a side
    /// are one distance wide, the others grow with its logarithm, in f32 as PyTorch computes it.
    fn bucket(&self, distance: usize, ahead: bool) -> usize {
        let of_side = if self.causal { self.buckets } else { self.buckets / 2 };
        let exact = of_side / 2;
        let bucket = if distance < exact {
            distance
        } else {
            let growth = (distance as f32 / exact as f32).ln() / (self.max_distance as f64 / exact as f64).ln() as f32;
            (exact + (growth * (of_side - exact) as f32) as usize).min(of_side - 1)
        };
        match (ahead, self.causal) {
            (true, true) => 0,
            (true, false) => of_side + bucket,
            (false, _) => bucket,
        }
    }
}
