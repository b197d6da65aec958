//! What depends on where a token stands: positions, tables of embeddings, rotations.

use centuple_graph::{Node, NodeId, Op};

use super::emitter::int;
use super::lower::{Exporter, Result};
use super::{MASK, SEQUENCE};
use crate::proto::tensor_proto::DataType;

impl Exporter<'_> {
    /// 0, 1, 2, ... for the tokens of the longest sequence: `[sequence_length]` i64.
    pub(super) fn places(&mut self) -> String {
        self.shared("positions", |exporter| {
            let length = exporter.extent(SEQUENCE);
            let length = exporter.squeeze(&length, &[0]);
            let [zero, one] = [0, 1].map(|value| exporter.emitter.int(value));
            exporter.emitter.node("Range", &[&zero, &length, &one])
        })
    }

    /// Position of the query less that of the key, `[sequence_length, sequence_length]` i64.
    pub(super) fn distances(&mut self) -> String {
        let places = self.places();
        self.shared("distances", |exporter| {
            let (queries, keys) = (exporter.unsqueeze(&places, &[1]), exporter.unsqueeze(&places, &[0]));
            exporter.emitter.node("Sub", &[&queries, &keys])
        })
    }

    /// The last place that isn't padding: `[batch_size, 1]` i64.
    pub(super) fn last_place(&mut self) -> String {
        let places = self.places();
        self.shared("last_position", |exporter| {
            let places = exporter.emitter.node("Mul", &[MASK, &places]);
            exporter.largest(&places, 1, true)
        })
    }

    pub(super) fn positions(&mut self, id: NodeId, node: &Node, offset: i64, padding: Option<i64>) -> String {
        let (Some(padding), Some(&ids)) = (padding, node.inputs.first()) else {
            self.set_same(id);
            let places = self.places();
            return self.shared(&format!("positions_from_{offset}"), |exporter| {
                let places = if offset == 0 {
                    places
                } else {
                    let offset = exporter.emitter.int(offset);
                    exporter.emitter.node("Add", &[&places, &offset])
                };
                exporter.unsqueeze(&places, &[0])
            });
        };
        let ids = self.full(ids);
        let padding = self.emitter.int(padding);
        let is_padding = self.emitter.node("Equal", &[&ids, &padding]);
        let counts = self.emitter.node("Not", &[&is_padding]);
        let counts = self.cast(&counts, DataType::Int64);
        let axis = self.emitter.int(1);
        let sums = self.emitter.node("CumSum", &[&counts, &axis]);
        let positions = self.emitter.node("Mul", &[&sums, &counts]);
        let before = self.emitter.int(offset - 1);
        self.emitter.node("Add", &[&positions, &before])
    }

    pub(super) fn shift_right(&mut self, node: &Node, first: Option<i64>) -> String {
        let ids = node.inputs.first().map_or(String::new(), |&ids| self.full(ids));
        let [zero, last, one] = [0, -1, 1].map(|value| self.emitter.ints(&[value]));
        let others = self.emitter.node("Slice", &[&ids, &zero, &last, &one]);
        let start = match first {
            Some(first) => {
                let own = self.emitter.node("Slice", &[&ids, &zero, &one, &one]);
                let none = self.emitter.node("Sub", &[&own, &own]);
                let first = self.emitter.int(first);
                self.emitter.node("Add", &[&none, &first])
            }
            None => {
                let place = self.last_place();
                self.emitter.with("GatherElements", &[&ids, &place], vec![int("axis", 1)])
            }
        };
        self.emitter.with("Concat", &[&start, &others], vec![int("axis", 1)])
    }

    pub(super) fn embedding(&mut self, node: &Node) -> Result {
        let mut sum: Option<String> = None;
        for pair in node.inputs.chunks_exact(2) {
            let rows = self.look_up(pair[0], pair[1])?;
            sum = Some(match sum {
                Some(sum) => self.emitter.node("Add", &[&sum, &rows]),
                None => rows,
            });
        }
        let sum = sum.ok_or_else(|| self.unsupported(node, "it has no table"))?;
        let by_token = node.inputs.get(1).is_some_and(|&ids| self.by_token(ids) && !self.is_same(ids));
        Ok(if by_token && self.fuses() && !self.looks_up_places() { self.of_unknown_length(&sum) } else { sum })
    }

    /// Whether rows of a table are added by the place of a token.
    fn looks_up_places(&self) -> bool {
        let of_place = |ids: &NodeId| matches!(self.graph.node(*ids).op, Op::Positions { padding: None, .. });
        let embeddings = self.graph.nodes().iter().filter(|node| node.op == Op::Embedding);
        embeddings.flat_map(|node| node.inputs.iter().skip(1).step_by(2)).any(of_place)
    }

    /// The same rows, whose number ONNX Runtime can't derive from the inputs' shapes.
    ///
    /// Where it can, it makes a SkipLayerNormalization of each sum and norm when it loads the file, which takes longer on
    /// CPUs: an eighth of a small encoder's time, a quarter of a quantised one's. The zeros that are added come out of Range, as
    /// those models have it that look up positions; they take no time that could be measured.
    fn of_unknown_length(&mut self, rows: &str) -> String {
        let places = self.places();
        let zeros = self.shared("zeros_by_position", |exporter| {
            let zero = exporter.emitter.int(0);
            let zeros = exporter.emitter.node("Mul", &[&places, &zero]);
            let zeros = exporter.cast(&zeros, DataType::Float);
            exporter.unsqueeze(&zeros, &[0, 2])
        });
        self.emitter.node("Add", &[rows, &zeros])
    }

    /// The rows of a table at the ids.
    fn look_up(&mut self, table: NodeId, ids: NodeId) -> Result {
        let ids = self.value(ids);
        let node = self.graph.node(table);
        let rows =
            |exporter: &mut Self, table: &str| exporter.emitter.with("Gather", &[table, &ids], vec![int("axis", 0)]);
        if let (Op::Dequantize, [codes, scales]) = (&node.op, node.inputs.as_slice()) {
            let (codes, scales) = (self.value(*codes), self.value(*scales));
            return Ok(self.quantized_rows(&codes, &scales, rows));
        }
        if let Some([codes, scales]) = self.quantized_table(table)? {
            return Ok(self.quantized_rows(&codes, &scales, rows));
        }
        let table = self.value(table);
        Ok(rows(self, &table))
    }

    /// Codes of rows times the scale of each row.
    fn quantized_rows(&mut self, codes: &str, scales: &str, rows: impl Fn(&mut Self, &str) -> String) -> String {
        let (codes, scales) = (rows(self, codes), rows(self, scales));
        let codes = self.cast(&codes, DataType::Float);
        let scales = self.unsqueeze(&scales, &[-1]);
        self.emitter.node("Mul", &[&codes, &scales])
    }

    pub(super) fn rotary(&mut self, node: &Node, [heads, head_dim]: [usize; 2], interleaved: bool) -> Result {
        let &[x, positions, table] = node.inputs.as_slice() else {
            return Err(self.unsupported(node, "it lacks an operand"));
        };
        let columns = self.graph.node(table).fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(0);
        if let Some(rotated) = self.fused_rotary(x, [positions, table], [heads, head_dim, columns], interleaved)? {
            return Ok(rotated);
        }
        let [cosines, sines] = self.angles(positions, table, columns, interleaved);
        let x = self.full(x);
        let by_head = self.reshaped(&x, &[0, 0, heads as i64, head_dim as i64]);
        let rest = head_dim - columns.min(head_dim);
        let (turned, rest) = if rest == 0 {
            (by_head, None)
        } else {
            let mut parts = self.split(&by_head, &[columns, rest]);
            let rest = parts.pop();
            (parts.pop().unwrap_or_default(), rest)
        };
        let half = columns / 2;
        let pairs = if interleaved {
            let pairs = self.reshaped(&turned, &[0, 0, heads as i64, half as i64, 2]);
            self.split(&pairs, &[1, 1])
        } else {
            self.split(&turned, &[half, half])
        };
        let [a, b] = [0, 1].map(|part| pairs.get(part).cloned().unwrap_or_default());
        let product = |exporter: &mut Self, x: &str, y: &str| exporter.emitter.node("Mul", &[x, y]);
        let [a_cosine, b_sine] = [product(self, &a, &cosines), product(self, &b, &sines)];
        let [b_cosine, a_sine] = [product(self, &b, &cosines), product(self, &a, &sines)];
        let first = self.emitter.node("Sub", &[&a_cosine, &b_sine]);
        let second = self.emitter.node("Add", &[&b_cosine, &a_sine]);
        let mut parts = vec![first, second];
        if interleaved {
            let pairs = self.emitter.with("Concat", &[&parts[0], &parts[1]], vec![int("axis", -1)]);
            parts = vec![self.reshaped(&pairs, &[0, 0, heads as i64, columns as i64])];
        }
        parts.extend(rest);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let whole = if let [one] = parts.as_slice() {
            (*one).to_owned()
        } else {
            self.emitter.with("Concat", &parts, vec![int("axis", -1)])
        };
        Ok(self.reshaped(&whole, &[0, 0, (heads * head_dim) as i64]))
    }

    /// Cosines and sines of the positions, `[1 or batch_size, sequence_length, 1, pairs]`, with a last 1 where pairs are
    /// neighbours.
    fn angles(&mut self, positions: NodeId, table: NodeId, columns: usize, interleaved: bool) -> [String; 2] {
        let (positions, table) = (self.value(positions), self.value(table));
        let what = format!("{table}.at.{positions}{}", if interleaved { ".interleaved" } else { "" });
        [("cosines", 0), ("sines", 1)].map(|(name, part)| {
            self.shared(&format!("{what}.{name}"), |exporter| {
                let both = exporter.shared(&what, |exporter| {
                    exporter.emitter.with("Gather", &[&table, &positions], vec![int("axis", 0)])
                });
                let half = (columns / 2) as i64;
                let [start, end, axes] =
                    [part * half, (part + 1) * half, -1].map(|value| exporter.emitter.ints(&[value]));
                let angles = exporter.emitter.node("Slice", &[&both, &start, &end, &axes]);
                exporter.unsqueeze(&angles, if interleaved { &[2, 4] } else { &[2] })
            })
        })
    }

    /// Parts of the last dimension.
    pub(super) fn split(&mut self, x: &str, parts: &[usize]) -> Vec<String> {
        let sizes: Vec<i64> = parts.iter().map(|&part| part as i64).collect();
        let sizes = self.emitter.ints(&sizes);
        self.emitter.several("", "Split", &[x, &sizes], parts.len(), vec![int("axis", -1)])
    }
}
