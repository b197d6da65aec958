//! `Activation(a) · b` → one `Gate`; two linear layers of one value that feed it → one `Linear` and slices of its columns.
//!
//! The slices become views of the merged result when the graph is lowered; nothing is copied. Runs before
//! `linear_activation`, which would put the activation into the first layer.

use centuple_graph::{Binary, Graph, GraphError, Node, NodeId, Op};

use crate::joined::Joined;
use crate::rewrite::{Outcome, Rewrite, rewrite};

pub(crate) fn run(graph: &Graph) -> Result<Outcome, GraphError> {
    let mut joined = Joined::default();
    rewrite(graph, |state, _, node| {
        let (Op::Binary(Binary::Mul), &[a, b]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
        for (active, factor) in [(a, b), (b, a)] {
            let source = state.old.node(active);
            let Op::Activation(activation) = source.op else { continue };
            let columns = node.fact.shape.last().and_then(|dim| dim.constant());
            if source.fact != state.old.node(factor).fact || columns.is_none() {
                state.refuse(node, "the product broadcasts, or the number of columns depends on the batch");
                continue;
            }
            if !state.has_one_use(active) {
                state.refuse(node, "the activation before it has other readers");
                continue;
            }
            let operands = [source.inputs[0], factor];
            let inputs = match merged(state, &mut joined, node, operands)? {
                Some(slices) => slices,
                None => operands.map(|operand| state.image(operand)),
            };
            return state.new.push(node.name.clone(), Op::Gate { activation }, &inputs).map(Some);
        }
        Ok(None)
    })
}

/// The operands as columns of one linear layer, where both are layers of one value for this gate alone.
fn merged(
    state: &mut Rewrite,
    joined: &mut Joined,
    node: &Node,
    operands: [NodeId; 2],
) -> Result<Option<[NodeId; 2]>, GraphError> {
    let old = state.old;
    let layers = operands.map(|operand| old.node(operand));
    let Op::Linear { bias, activation: None, residual: false } = layers[0].op else { return Ok(None) };
    let alike = layers[0].op == layers[1].op && layers[0].inputs[0] == layers[1].inputs[0];
    if !alike || operands[0] == operands[1] || !operands.iter().all(|&operand| state.has_one_use(operand)) {
        return Ok(None);
    }
    let Some(weight) = joined.operand(old, &layers, 1) else {
        state.refuse(node, "the weight of a layer before it is not an f32 constant");
        return Ok(None);
    };
    let name = format!("{}.gate_up", node.name);
    let mut inputs = vec![state.image(layers[0].inputs[0]), state.new.constant(format!("{name}.weight"), weight)?];
    if bias {
        let Some(bias) = joined.operand(old, &layers, 2) else {
            state.refuse(node, "the bias of a layer before it is not an f32 constant");
            return Ok(None);
        };
        inputs.push(state.new.constant(format!("{name}.bias"), bias)?);
    }
    let merged = state.new.push(name, layers[0].op.clone(), &inputs)?;
    let width = node.fact.shape.last().and_then(|dim| dim.constant()).unwrap_or(0);
    let axis = node.fact.shape.len() - 1;
    let mut slice = |layer: &Node, start: usize| {
        let op = Op::Slice { axis, start, end: start + width };
        state.new.push(layer.name.clone(), op, &[merged])
    };
    Ok(Some([slice(layers[0], 0)?, slice(layers[1], width)?]))
}

#[cfg(test)]
mod tests {
    use centuple_graph::Activation;
    use centuple_tensor::{DType, Symbol, Tensor};

    use super::*;
    use crate::optimize;

    type Error = Box<dyn std::error::Error>;

    /// Two gated units over one value that share their weights, each of them then added up by a layer of its own.
    fn gated() -> Result<Graph, Error> {
        let mut graph = Graph::new();
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 4.into()])?;
        let weights = [0.5, 0.25].map(|value| Tensor::from_f32(&[6, 4], &[value; 24]));
        let weights = weights.into_iter().collect::<Result<Vec<_>, _>>()?;
        let linear = Op::Linear { bias: false, activation: None, residual: false };
        for unit in 0..2 {
            let mut layer = |name: &str, weight: &Tensor| {
                let weight = graph.constant(format!("{name}.{unit}.weight"), weight.clone())?;
                graph.push(format!("{name}.{unit}"), linear.clone(), &[x, weight])
            };
            let (a, b) = (layer("gate", &weights[0])?, layer("up", &weights[1])?);
            let active = graph.push(format!("active.{unit}"), Op::Activation(Activation::Silu), &[a])?;
            let product = graph.push(format!("product.{unit}"), Op::Binary(Binary::Mul), &[active, b])?;
            graph.output(&format!("output.{unit}"), product);
        }
        Ok(graph)
    }

    #[test]
    fn two_layers_become_one_and_shared_weights_stay_shared() -> Result<(), Error> {
        let (optimised, reports) = optimize(&gated()?)?;
        let of = |name: &str| optimised.nodes().iter().filter(|node| node.op.name() == name).count();
        assert_eq!((of("Linear"), of("Gate"), of("Slice"), of("Binary"), of("Activation")), (2, 2, 4, 0, 0));
        let identities: Vec<_> = optimised
            .nodes()
            .iter()
            .filter(|node| matches!(node.op, Op::Linear { .. }))
            .filter_map(|node| optimised.constant_of(node.inputs[1]).map(Tensor::identity))
            .collect();
        assert!(identities.len() == 2 && identities[0] == identities[1]);
        assert!(optimised.nodes().iter().any(|node| node.name == "product.1.gate_up"));
        assert!(reports.iter().any(|report| report.pass == "gate" && report.applied == 2));
        Ok(())
    }

    #[test]
    fn what_others_read_stays() -> Result<(), Error> {
        let mut graph = gated()?;
        let active = graph.iter().find(|(_, node)| node.name == "active.0").map(|(id, _)| id).ok_or("no node")?;
        graph.output("active", active);
        let (_, reports) = optimize(&graph)?;
        let report = reports.iter().find(|report| report.pass == "gate").ok_or("no report")?;
        assert_eq!((report.applied, report.refused[0].node.as_str()), (1, "product.0"));
        Ok(())
    }
}
