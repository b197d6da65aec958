//! Constants of a graph as a device has them.

use centuple_graph::{Graph, Node, NodeId, Op};
use centuple_tensor::Tensor;

use crate::contract::Codes;
use crate::error::{CudaError, Result};
use crate::plan::unsupported;
use crate::specialisation::Format;

/// The tensor of a constant.
pub(super) fn constant(graph: &Graph, id: NodeId) -> Result<&Tensor> {
    let name = &graph.node(id).name;
    graph.constant_of(id).ok_or_else(|| CudaError::Unsupported(format!("`{name}`, a weight that is no constant")))
}

fn readable(graph: &Graph, id: NodeId) -> impl Fn(centuple_tensor::TensorError) -> CudaError {
    move |error| CudaError::Unsupported(format!("the weight `{}`: {error}", graph.node(id).name))
}

/// The f32 elements of a constant, or of a table that is stored as codes.
pub(super) fn floats(graph: &Graph, id: NodeId) -> Result<Vec<f32>> {
    let node = graph.node(id);
    if node.op != Op::Dequantize {
        return Ok(constant(graph, id)?.to_f32().map_err(readable(graph, id))?.into_owned());
    }
    let (codes, scales) = (constant(graph, node.inputs[0])?, constant(graph, node.inputs[1])?);
    let (codes, scales) = (codes.as_i8().map_err(readable(graph, id))?, scales.as_f32().map_err(readable(graph, id))?);
    let columns = codes.len() / scales.len().max(1);
    let rows = codes.chunks(columns.max(1)).zip(scales);
    Ok(rows.flat_map(|(row, scale)| row.iter().map(move |&code| f32::from(code) * scale)).collect())
}

/// The bytes of floats in 16 bits.
pub(super) fn stored(format: Format, name: &str, floats: &[f32]) -> Result<Vec<u8>> {
    let narrowed = format.narrowed(floats);
    if let Some(at) = narrowed.iter().position(|&bits| !format.widen(bits).is_finite()) {
        let wider = if format == Format::F16 { "; bf16 has the range of f32" } else { "" };
        return unsupported(format!("`{name}` in {format:?}: {} is not finite in it{wider}", floats[at]));
    }
    Ok(narrowed.iter().flat_map(|bits| bits.to_le_bytes()).collect())
}

/// The bytes of floats as they are.
pub(super) fn wide(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The bytes of whole numbers below `limit` as i32.
pub(super) fn indices(graph: &Graph, id: NodeId, limit: usize) -> Result<Vec<u8>> {
    let numbers = constant(graph, id)?.as_i64().map_err(readable(graph, id))?;
    let inside =
        |number: &i64| i32::try_from(*number).ok().filter(|&number| (0..limit as i64).contains(&number.into()));
    let Some(numbers) = numbers.iter().map(inside).collect::<Option<Vec<i32>>>() else {
        return unsupported(format!("`{}`, whose numbers are not all below {limit}", graph.node(id).name));
    };
    Ok(numbers.into_iter().flat_map(i32::to_le_bytes).collect())
}

/// The bytes of codes `[n, k]`, and those of the sums of their rows.
pub(super) fn codes(graph: &Graph, id: NodeId, k: usize) -> Result<[Vec<u8>; 2]> {
    let codes = constant(graph, id)?.as_i8().map_err(readable(graph, id))?;
    let sums = codes.chunks(k.max(1)).map(|row| row.iter().map(|&code| i32::from(code)).sum::<i32>());
    Ok([codes.iter().map(|code| code.cast_unsigned()).collect(), sums.flat_map(i32::to_le_bytes).collect()])
}

/// The weight `[n, k]` that the codes of an [`Op::QuantizedLinear`] stand for: `code · scale · factor`.
pub(super) fn quantised_weight(graph: &Graph, node: &Node) -> Result<Vec<f32>> {
    let [codes, scales, factor] = [node.inputs[1], node.inputs[2], node.inputs[3]];
    let (scales, factor) = (floats(graph, scales)?, floats(graph, factor)?);
    let codes = constant(graph, codes)?.as_i8().map_err(readable(graph, codes))?;
    let rows = codes.chunks(factor.len().max(1)).zip(&scales);
    Ok(rows
        .flat_map(|(row, scale)| row.iter().zip(&factor).map(move |(&code, x)| f32::from(code) * scale * x))
        .collect())
}

/// The weight `[n, k]` that the codes of an [`Op::GroupQuantizedLinear`] stand for: `(code - zero point) · scale`.
pub(super) fn group_weight(graph: &Graph, node: &Node, group: usize, zero_points: bool) -> Result<Vec<f32>> {
    let integers = |id: NodeId| constant(graph, id)?.as_i8().map_err(readable(graph, id));
    let (codes, scales) = (constant(graph, node.inputs[1])?, floats(graph, node.inputs[2])?);
    let zero_points = if zero_points { Some(integers(node.inputs[3])?) } else { None };
    let k = codes.shape().last().copied().unwrap_or(0).max(1);
    let groups = k.div_ceil(group.max(1));
    let mut weight = Vec::with_capacity(codes.len());
    for (row, codes) in integers(node.inputs[1])?.chunks(k).enumerate() {
        for (index, codes) in codes.chunks(group.max(1)).enumerate() {
            let at = row * groups + index;
            let zero_point = zero_points.map_or(0, |zero_points| i16::from(zero_points[at]));
            weight.extend(codes.iter().map(|&code| f32::from(i16::from(code) - zero_point) * scales[at]));
        }
    }
    Ok(weight)
}

/// The bytes of a weight's e4m3 codes `[n, k]`, and those of what their rows are multiplied by, times a factor.
pub(super) fn e4m3_codes(graph: &Graph, id: NodeId, k: usize, factor: f32) -> Result<[Vec<u8>; 2]> {
    let weight = floats(graph, id)?;
    if let Some(x) = weight.iter().find(|x| !x.is_finite()) {
        return unsupported(format!("`{}` in fp8: it has {x}", graph.node(id).name));
    }
    let Codes { codes, scales, .. } = Codes::e4m3(&weight, k);
    Ok([codes, scales.iter().flat_map(|scale| (scale * factor).to_le_bytes()).collect()])
}
