//! Which sketches are nearest: an index of usearch that one thread fills, so that it is the same in each run.

use usearch::{Index as Graph, IndexOptions, MetricKind, ScalarKind, VectorType, b1x8};

use crate::distance;
use crate::error::NeighbourError;
use crate::sketch::{SKETCH_BITS, Sketch};

/// Links of a sketch in each upper layer of the graph; in the lowest it has twice as many.
const CONNECTIVITY: usize = 16;
/// Candidates that are kept while links or neighbours are searched. With 64 one in twenty neighbours is missed.
const EXPANSION: usize = 128;
/// Room that is made at first.
const FIRST_CAPACITY: usize = 1024;

/// Sketches by number.
pub(crate) struct Index {
    graph: Graph,
    count: usize,
    capacity: usize,
}

impl Index {
    /// None yet.
    pub(crate) fn new() -> Result<Index, NeighbourError> {
        let options = IndexOptions {
            dimensions: SKETCH_BITS,
            metric: MetricKind::Hamming,
            quantization: ScalarKind::B1,
            connectivity: CONNECTIVITY,
            expansion_add: EXPANSION,
            expansion_search: EXPANSION,
            multi: false,
        };
        let mut graph = Graph::new(&options).map_err(failed)?;
        b1x8::change_metric(&mut graph, distance::metric()).map_err(failed)?;
        Ok(Index { graph, count: 0, capacity: 0 })
    }

    /// Adds a sketch and returns its number.
    pub(crate) fn push(&mut self, sketch: &Sketch) -> Result<u64, NeighbourError> {
        if self.count == self.capacity {
            // In small steps: the tables that grow are there twice while they are copied.
            self.capacity += (self.capacity / 8).max(FIRST_CAPACITY);
            self.graph.reserve_capacity_and_threads(self.capacity, 1).map_err(failed)?;
        }
        let number = self.count as u64;
        self.graph.add(number, b1x8::from_u8s(sketch)).map_err(failed)?;
        self.count += 1;
        Ok(number)
    }

    /// Numbers and differing bits of the nearest sketches, nearest first; about the nearest, since the search is
    /// approximate.
    pub(crate) fn nearest(&self, sketch: &Sketch, count: usize) -> Result<Vec<(u64, f32)>, NeighbourError> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        let matches = self.graph.search(b1x8::from_u8s(sketch), count).map_err(failed)?;
        Ok(matches.keys.into_iter().zip(matches.distances).collect())
    }
}

fn failed(error: impl std::fmt::Display) -> NeighbourError {
    NeighbourError::Index(error.to_string())
}
