//! Pooling: one row per sequence, by the mask.

use centuple_graph::{Node, Pooling};

use super::MASK;
use super::emitter::int;
use super::lower::{Exporter, Result};
use crate::proto::tensor_proto::DataType;

impl Exporter<'_> {
    pub(super) fn pool(&mut self, node: &Node, pooling: Pooling) -> Result {
        let Some(&x) = node.inputs.first() else { return Err(self.unsupported(node, "it lacks its operand")) };
        let x = self.full(x);
        Ok(match pooling {
            Pooling::Cls => {
                let first = self.emitter.int(0);
                self.emitter.with("Gather", &[&x, &first], vec![int("axis", 1)])
            }
            Pooling::Mean => {
                let mask = self.rows_mask();
                self.weighted_mean(&x, &mask)
            }
            Pooling::WeightedMean => {
                let (mask, places) = (self.rows_mask(), self.places());
                let one = self.emitter.int(1);
                let weights = self.emitter.node("Add", &[&places, &one]);
                let weights = self.cast(&weights, DataType::Float);
                let weights = self.unsqueeze(&weights, &[0, 2]);
                let weights = self.emitter.node("Mul", &[&mask, &weights]);
                self.weighted_mean(&x, &weights)
            }
            Pooling::MeanSqrtLength => {
                let mask = self.rows_mask();
                let sum = self.weighted_sum(&x, &mask);
                let count = self.weight(&mask);
                let root = self.emitter.node("Sqrt", &[&count]);
                self.emitter.node("Div", &[&sum, &root])
            }
            Pooling::Max => {
                let is_token = self.cast(MASK, DataType::Bool);
                let is_token = self.unsqueeze(&is_token, &[2]);
                let least = self.emitter.float(f32::MIN);
                let rows = self.emitter.node("Where", &[&is_token, &x, &least]);
                self.largest(&rows, 1, false)
            }
            Pooling::LastToken => {
                let last = self.last_place();
                self.row(&x, &last)
            }
            Pooling::LastEqual(id) => {
                let ids = node.inputs.get(1).map_or(String::new(), |&ids| self.full(ids));
                let last = self.last_equal(&ids, id);
                self.row(&x, &last)
            }
        })
    }

    /// The mask as a factor of rows, `[batch_size, sequence_length, 1]` f32.
    pub(super) fn rows_mask(&mut self) -> String {
        self.shared("rows_mask", |exporter| {
            let mask = exporter.cast(MASK, DataType::Float);
            exporter.unsqueeze(&mask, &[2])
        })
    }

    fn weighted_sum(&mut self, x: &str, weights: &str) -> String {
        let rows = self.emitter.node("Mul", &[x, weights]);
        self.sum(&rows, &[1], false)
    }

    /// The sum of weights, never 0: `[batch_size, 1]`.
    fn weight(&mut self, weights: &str) -> String {
        let sum = self.sum(weights, &[1], false);
        let least = self.emitter.float(1e-9);
        self.emitter.node("Clip", &[&sum, &least])
    }

    fn weighted_mean(&mut self, x: &str, weights: &str) -> String {
        let (sum, weight) = (self.weighted_sum(x, weights), self.weight(weights));
        self.emitter.node("Div", &[&sum, &weight])
    }

    /// Each sequence's row at a place `[batch_size, 1]`.
    fn row(&mut self, x: &str, place: &str) -> String {
        self.emitter.with("GatherND", &[x, place], vec![int("batch_dims", 1)])
    }

    /// The last place of an id, or of all tokens where there is none.
    fn last_equal(&mut self, ids: &str, id: i64) -> String {
        let (places, last) = (self.places(), self.last_place());
        let id = self.emitter.int(id);
        let equal = self.emitter.node("Equal", &[ids, &id]);
        let is_token = self.cast(MASK, DataType::Bool);
        let counts = self.emitter.node("And", &[&equal, &is_token]);
        let none = self.emitter.int(-1);
        let places = self.emitter.node("Where", &[&counts, &places, &none]);
        let found = self.largest(&places, 1, true);
        let missing = self.emitter.node("Equal", &[&found, &none]);
        self.emitter.node("Where", &[&missing, &last, &found])
    }
}
