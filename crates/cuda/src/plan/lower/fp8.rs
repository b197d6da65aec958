//! Linear layers of 8-bit floats.

use centuple_graph::{self as graph, Node, NodeId, Op};

use super::linear::{activation_of, ending};
use super::operands::e4m3_codes;
use super::{Coding, Lowered, Lowering, width};
use crate::error::Result;
use crate::launch::Rows;
use crate::matmul::sum_factor;
use crate::plan::{Step, WeightId};
use crate::specialisation::Activation;

/// Sizes are multiples of it: what a library takes.
const STEP: usize = 16;

impl Lowering<'_> {
    /// Whether a node is a linear layer that multiplies e4m3 codes.
    pub(super) fn is_fp8(&self, id: NodeId, node: &Node) -> bool {
        let of_tokens = |node: &Node| matches!(width(node), Ok((Rows::Tokens, width)) if width.is_multiple_of(STEP));
        self.fp8
            && matches!(node.op, Op::Linear { .. })
            && of_tokens(node)
            && of_tokens(self.graph.node(node.inputs[0]))
            && self.graph.outputs().iter().all(|(_, output)| *output != id)
            && !matches!(self.nodes.get(node.inputs[0].index()), Some(Lowered::Wide(_)))
    }

    pub(super) fn fp8(
        &mut self,
        id: NodeId,
        node: &Node,
        bias: bool,
        activation: Option<graph::Activation>,
        residual: bool,
    ) -> Result<Lowered> {
        let ((rows, n), (_, k)) = (width(node)?, width(self.graph.node(node.inputs[0]))?);
        let (activation, later) = ending(activation_of(activation)?, residual)?;
        let x = self.matrix(node.inputs[0])?;
        let x = self.coded(x, Coding::E4m3)?;
        let [weight, scales] = self.fp8_weight(node.inputs[1], k)?;
        let residual = if residual { node.inputs.last().copied() } else { None };
        let residual = residual.map(|residual| self.matrix(residual)).transpose()?;
        let y = self.value(rows, n, 2);
        let to = if later.is_none() && self.is_read_as_fp8(id) {
            Some(self.quantisation(y, Coding::E4m3)?.to)
        } else {
            None
        };
        let added = bias.then(|| node.inputs[2]);
        let bias = added.map(|bias| self.wide_weight(bias)).transpose()?;
        let alone = activation == Activation::Identity && residual.is_none() && to.is_none();
        let narrow_bias = added.filter(|_| alone).map(|bias| self.stored_weight(bias)).transpose()?;
        let step = Step::Fp8 { x, weight, scales, bias, narrow_bias, activation, residual, y, n, k, to };
        self.plan.steps.push(step);
        Ok(self.followed(y, later))
    }

    /// Whether all that reads a value multiplies its e4m3 codes.
    fn is_read_as_fp8(&self, id: NodeId) -> bool {
        let multiplies =
            |(reader, node): &(NodeId, &Node)| node.inputs.first() == Some(&id) && self.is_fp8(*reader, node);
        let readers = self.graph.iter().filter(multiplies).count();
        readers > 0 && readers == self.uses[id.index()]
    }

    /// The codes of a weight, and what its rows are multiplied by.
    fn fp8_weight(&mut self, id: NodeId, k: usize) -> Result<[WeightId; 2]> {
        if let Some(known) = self.fp8_weights.get(&id) {
            return Ok(*known);
        }
        let made = e4m3_codes(self.graph, id, k, 1.0 / sum_factor(k))?.map(|bytes| self.weight(bytes));
        self.fp8_weights.insert(id, made);
        Ok(made)
    }
}
