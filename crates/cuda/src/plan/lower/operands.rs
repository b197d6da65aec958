//! Constants of a graph as a device has them.

use centuple_graph::{Graph, NodeId, Op};
use centuple_tensor::Tensor;

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
        return unsupported(format!("`{name}` in {format:?}: {} is not finite in it; try the other one", floats[at]));
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

/// The f32 elements that codes `[n, k]` with a scale per row, and a factor per column, stand for.
pub(super) fn dequantised(graph: &Graph, [codes, scales, factor]: [NodeId; 3]) -> Result<Vec<f32>> {
    let (scales, factor) = (floats(graph, scales)?, floats(graph, factor)?);
    let codes = constant(graph, codes)?.as_i8().map_err(readable(graph, codes))?;
    let rows = codes.chunks(factor.len().max(1)).zip(scales);
    Ok(rows
        .flat_map(|(row, scale)| row.iter().zip(&factor).map(move |(&code, factor)| f32::from(code) * scale * factor))
        .collect())
}

/// The f32 elements that codes `[n, k]` stand for, with scales and zero points `[n, groups]` for groups along the depth.
pub(super) fn dequantised_groups(
    graph: &Graph,
    [codes, scales]: [NodeId; 2],
    zero_points: Option<NodeId>,
    k: usize,
    group: usize,
) -> Result<Vec<f32>> {
    let scales = floats(graph, scales)?;
    let zero_points = match zero_points {
        Some(id) => constant(graph, id)?.as_i8().map_err(readable(graph, id))?.to_vec(),
        None => vec![0; scales.len()],
    };
    let codes = constant(graph, codes)?.as_i8().map_err(readable(graph, codes))?;
    let groups = codes.chunks(k.max(1)).flat_map(|row| row.chunks(group.max(1)));
    let groups = groups.zip(scales.iter().zip(&zero_points));
    Ok(groups
        .flat_map(|(codes, (&scale, &zero_point))| {
            codes.iter().map(move |&code| (f32::from(code) - f32::from(zero_point)) * scale)
        })
        .collect())
}

/// The bytes of codes `[n, k]`, and those of the sums of their rows.
pub(super) fn codes(graph: &Graph, id: NodeId, k: usize) -> Result<[Vec<u8>; 2]> {
    let codes = constant(graph, id)?.as_i8().map_err(readable(graph, id))?;
    let sums = codes.chunks(k.max(1)).map(|row| row.iter().map(|&code| i32::from(code)).sum::<i32>());
    Ok([codes.iter().map(|code| code.cast_unsigned()).collect(), sums.flat_map(i32::to_le_bytes).collect()])
}
