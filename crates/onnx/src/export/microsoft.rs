//! The operators of ONNX Runtime for transformers, where its CPU provider has them and they are not slower than what they
//! stand for. SkipLayerNormalization is: a sum and LayerNormalization take about an eighth less of a small encoder's time.

use centuple_graph::{Attention, Node, NodeId, Op, PositionScores};
use centuple_tensor::{DType, Tensor};

use super::emitter::{Content, float, int};
use super::lower::{Exporter, Result};
use super::{MASK, Weights};
use crate::proto::tensor_proto::DataType;

impl Exporter<'_> {
    /// Attention as one operator; `None` where none computes the same.
    pub(super) fn fused_attention(
        &mut self,
        [q, k, v]: [NodeId; 3],
        scores: &[NodeId],
        attention: &Attention,
    ) -> Result<Option<String>> {
        let disentangled = matches!(attention.position, PositionScores::Disentangled { .. });
        if disentangled || attention.heads != attention.kv_heads || attention.soft_cap.is_some() {
            return Ok(None);
        }
        let mask = self.shared("mask_as_int32", |exporter| exporter.cast(MASK, DataType::Int32));
        let bias = match (attention.position, scores) {
            (PositionScores::Bias, &[table]) => self.bias(table),
            (PositionScores::None | PositionScores::Bias | PositionScores::Disentangled { .. }, _) => String::new(),
        };
        let bias = self.with_window(bias, attention.window, attention.causal);
        let attributes = || {
            vec![
                int("num_heads", attention.heads as i64),
                float("scale", attention.scale),
                float("mask_filter_value", f32::MIN),
            ]
        };
        if let Some((x, weight, projection_bias)) = self.joined([q, k, v])? {
            let operands = [&x, &weight, &projection_bias, &mask, "", &bias];
            return Ok(Some(self.emitter.fused("Attention", &operands, attributes())));
        }
        let [q, k, v] = [q, k, v].map(|id| self.full(id));
        let operands = [&q, &k, &v, "", &mask, &bias];
        Ok(Some(self.emitter.fused("MultiHeadAttention", &operands, attributes())))
    }

    /// Scores by distance with those of hidden pairs, `[1, heads or 1, sequence_length, sequence_length]`.
    fn with_window(&mut self, bias: String, window: Option<usize>, causal: bool) -> String {
        let Some(near) = self.near(causal, window) else { return bias };
        let hidden = self.shared(&format!("{near}.hidden"), |exporter| {
            let hidden = exporter.hidden_where_not(&near);
            exporter.unsqueeze(&hidden, &[0, 1])
        });
        if bias.is_empty() {
            return hidden;
        }
        self.shared(&format!("{bias}.{hidden}"), |exporter| exporter.emitter.node("Add", &[&bias, &hidden]))
    }

    /// The value that all three are projections of, with the joined weights `[K, 3N]` and biases `[3N]`.
    fn joined(&mut self, projections: [NodeId; 3]) -> Result<Option<(String, String, String)>> {
        if !matches!(self.options.weights, Weights::Float) {
            return Ok(None);
        }
        let nodes = projections.map(|id| self.graph.node(id));
        let plain = |node: &&Node| matches!(node.op, Op::Linear { activation: None, residual: false, .. });
        let of_one = nodes.iter().all(|node| node.inputs.first() == nodes[0].inputs.first());
        let weights: Vec<&Tensor> =
            nodes.iter().filter_map(|node| self.graph.constant_of(*node.inputs.get(1)?)).collect();
        let alike = |tensor: &&Tensor| tensor.dtype() == DType::F32 && tensor.shape() == weights[0].shape();
        if !nodes.iter().all(plain) || !of_one || weights.len() != 3 || !weights.iter().all(alike) {
            return Ok(None);
        }
        let Some(&x) = nodes[0].inputs.first() else { return Ok(None) };
        let rows = weights[0].shape().first().copied().unwrap_or(0);
        let mut biases = Vec::with_capacity(3 * rows);
        for node in nodes {
            match node.inputs.get(2).map(|&bias| self.graph.constant_of(bias)) {
                Some(Some(bias)) => biases.extend_from_slice(bias.as_f32()?),
                Some(None) => return Ok(None),
                None => biases.resize(biases.len() + rows, 0.0),
            }
        }
        let name = self.emitter.scope.clone();
        let weight =
            self.emitter.joined(&format!("{name}.qkv.weight_transposed"), weights.into_iter().cloned().collect());
        let bytes = biases.iter().flat_map(|value| value.to_le_bytes()).collect();
        let content = Content::Computed { data_type: DataType::Float, dims: vec![biases.len()], bytes };
        let bias = self.emitter.fresh(&format!("{name}.qkv.bias"), content);
        Ok(Some((self.full(x), weight, bias)))
    }

    /// Rotation as one operator, where positions count from 0.
    pub(super) fn fused_rotary(
        &mut self,
        x: NodeId,
        [positions, table]: [NodeId; 2],
        [heads, head_dim, columns]: [usize; 3],
        interleaved: bool,
    ) -> Result<Option<String>> {
        let from_zero = self.graph.node(positions).op == Op::Positions { offset: 0, padding: None };
        let Some(tensor) = self.graph.constant_of(table).filter(|tensor| tensor.dtype() == DType::F32) else {
            return Ok(None);
        };
        if !self.fuses() || !from_zero || columns != head_dim || columns < 2 {
            return Ok(None);
        }
        let name = self.value(table);
        let rows = tensor.as_f32()?;
        let caches = ["cosines", "sines"].map(|part| {
            let half = columns / 2;
            let start = if part == "cosines" { 0 } else { half };
            self.shared(&format!("{name}.{part}"), |exporter| {
                let values = rows.chunks_exact(columns).flat_map(|row| row.iter().skip(start).take(half));
                let bytes = values.flat_map(|value| value.to_le_bytes()).collect();
                let dims = vec![rows.len() / columns, half];
                let content = Content::Computed { data_type: DataType::Float, dims, bytes };
                exporter.emitter.fresh(&format!("{name}.{part}"), content)
            })
        });
        let start = self.emitter.ints(&[0]);
        let x = self.full(x);
        let attributes = vec![int("num_heads", heads as i64), int("interleaved", interleaved.into())];
        Ok(Some(self.emitter.fused("RotaryEmbedding", &[&x, &start, &caches[0], &caches[1]], attributes)))
    }
}
