//! The printer: one line per node, constants inlined as operands.

use std::fmt;

use crate::{CrossAttention, Graph, Node, NodeId, Op, PositionScores};

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, node) in self.iter() {
            if matches!(node.op, Op::Constant(_)) {
                continue;
            }
            let operands: Vec<String> = node.inputs.iter().map(|&input| self.operand(input)).collect();
            writeln!(f, "{id} = {}({}) -> {}  # {}", attributes(&node.op), operands.join(", "), node.fact, node.name)?;
        }
        for (name, id) in self.outputs() {
            writeln!(f, "output {name} = {id}")?;
        }
        Ok(())
    }
}

impl Graph {
    fn operand(&self, id: NodeId) -> String {
        let node: &Node = self.node(id);
        if let Op::Constant(_) = node.op { format!("{}: {}", node.name, node.fact) } else { id.to_string() }
    }
}

/// The op's name with those attributes that are not shapes.
fn attributes(op: &Op) -> String {
    let name = op.name();
    match op {
        Op::Input { .. }
        | Op::Constant(_)
        | Op::Embedding
        | Op::Dequantize
        | Op::MatMul
        | Op::Softmax
        | Op::Select
        | Op::Where
        | Op::ToFloat
        | Op::Expand { .. }
        | Op::Iota { .. }
        | Op::Pad
        | Op::Pack
        | Op::Reshape { .. } => name.to_owned(),
        Op::Positions { offset, padding: None } => format!("{name}[+{offset}]"),
        Op::Positions { offset, padding: Some(padding) } => format!("{name}[+{offset}, padding {padding}]"),
        Op::ShiftRight { first } => first.map_or_else(|| name.to_owned(), |first| format!("{name}[{first}]")),
        Op::Linear { bias, activation, residual }
        | Op::QuantizedLinear { bits: _, range: _, bias, activation, residual } => {
            let mut parts = Vec::new();
            if let Op::QuantizedLinear { bits, range, .. } = op {
                parts.push(format!("{bits} bits"));
                parts.extend(range.map(|[low, high]| format!("{low} to {high}")));
            }
            if *bias {
                parts.push("bias".to_owned());
            }
            parts.extend(activation.map(|activation| format!("{activation:?}")));
            if *residual {
                parts.push("residual".to_owned());
            }
            format!("{name}[{}]", parts.join(", "))
        }
        Op::GroupQuantizedLinear { bits, group, zero_points, bias, activation, residual } => {
            let mut parts = vec![format!("{bits} bits by {group}")];
            let flags = [(*zero_points, "zero points"), (*bias, "bias")];
            parts.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()));
            parts.extend(activation.map(|activation| format!("{activation:?}")));
            if *residual {
                parts.push("residual".to_owned());
            }
            format!("{name}[{}]", parts.join(", "))
        }
        Op::LayerNorm { epsilon, residual } | Op::RmsNorm { epsilon, residual } => {
            format!("{name}[{epsilon:e}{}]", if *residual { ", residual" } else { "" })
        }
        Op::HeadNorm { heads, epsilon } => format!("{name}[{heads}, {epsilon:e}]"),
        Op::Activation(activation) => format!("{activation:?}"),
        Op::Gate { activation } => format!("{name}[{activation:?}]"),
        Op::Attention(attention) => {
            let causal = if attention.causal { ", causal" } else { "" };
            let window = attention.window.map(|window| format!(", window {window}")).unwrap_or_default();
            let cap = attention.soft_cap.map(|cap| format!(", cap {cap}")).unwrap_or_default();
            let position = match attention.position {
                PositionScores::None => "",
                PositionScores::Bias => ", bias",
                PositionScores::Disentangled { position_to_content: false, .. } => ", c2p",
                PositionScores::Disentangled { content_to_position: false, .. } => ", p2c",
                PositionScores::Disentangled { .. } => ", c2p, p2c",
            };
            let cache = attention.cache.map(|slot| format!(", cache {slot}")).unwrap_or_default();
            let (heads, kv_heads, width) = (attention.heads, attention.kv_heads, attention.head_dim);
            format!("{name}[{heads}/{kv_heads}x{width}{cap}{causal}{window}{position}{cache}]")
        }
        Op::CrossAttention(CrossAttention { heads, head_dim, slot, .. }) => {
            format!("{name}[{heads}x{head_dim}, cache {slot}]")
        }
        Op::GroupedLinear { groups } => format!("{name}[{groups}]"),
        Op::Rotary { heads, head_dim, interleaved } => {
            format!("{name}[{heads}x{head_dim}{}]", if *interleaved { ", interleaved" } else { "" })
        }
        Op::Pool(pooling) => format!("{name}[{pooling:?}]"),
        Op::L2Normalize { epsilon } => format!("{name}[{epsilon:e}]"),
        Op::Unary(unary) => format!("{unary:?}"),
        Op::Binary(binary) => format!("{binary:?}"),
        Op::Transpose { perm } => format!("{name}{perm:?}"),
        Op::Slice { axis, start, end } => format!("{name}[{axis}: {start}..{end}]"),
        Op::Concat { axis } | Op::Gather { axis } | Op::GatherElements { axis } | Op::CumSum { axis } => {
            format!("{name}[{axis}]")
        }
        Op::Reduce { reduction, axes } => format!("{reduction:?}{axes:?}"),
    }
}
