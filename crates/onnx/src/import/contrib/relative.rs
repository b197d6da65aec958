//! Biases by distance.

use centuple_graph::{Binary, Op, Unary};
use centuple_tensor::Dim;

use super::super::Importer;
use super::super::attributes::Call;
use super::super::ops::Table;
use super::super::problem::{Result, problem};
use super::super::value::Value;
use crate::file::Element;

pub(super) const OPS: Table = &[("RelativePositionBias", relative_position_bias)];

/// T5's bias: operands are the table `[buckets, heads]`, which lies column by column, and the lengths of queries and keys; `[1, heads, S, T]`.
fn relative_position_bias(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let table = call.operand(0)?.clone();
    let shape = importer.shape(&table);
    let [buckets, heads] = shape.as_slice() else { return Err(problem("a table that is no matrix")) };
    let buckets = buckets.constant().ok_or_else(|| problem("a table whose size is not fixed"))?;
    let table = importer.reshape(&table, &[heads.clone(), Dim::from(buckets)])?;
    let table = importer.transpose(&table, &[1, 0])?;
    let table = importer.settled(&table)?;
    let length = |index: usize| -> Result<Dim> {
        let dims = importer.known(call.operand(index)?)?;
        dims.into_iter().next().ok_or_else(|| problem("an empty length"))
    };
    let (queries, keys) = (length(1)?, length(2)?);
    let both_ways = call.int("is_bidirectional", 0) != 0;
    let side = if both_ways { buckets / 2 } else { buckets } as f32;
    let (exact, furthest) = ((side / 2.0).floor(), call.int("max_distance", 128) as f32);

    let down = importer.places(&Dim::default(), &queries, 1)?;
    let down = importer.reshape_node(down, &[queries, Dim::from(1)])?;
    let across = importer.places(&Dim::default(), &keys, 1)?;
    let ahead = importer.binary(Binary::Sub, across, down)?;
    let (distance, offset) = if both_ways {
        let zero = importer.scalar(0.0)?;
        let is_ahead = importer.binary(Binary::Less, zero, ahead)?;
        (importer.unary(Unary::Abs, ahead)?, Some(importer.with_number(Binary::Mul, is_ahead, side)?))
    } else {
        let behind = importer.with_number(Binary::Min, ahead, 0.0)?;
        (importer.unary(Unary::Neg, behind)?, None)
    };
    let ratio = importer.with_number(Binary::Div, distance, exact)?;
    // Distances below the logarithmic ones are not looked up there.
    let ratio = importer.with_number(Binary::Max, ratio, 1.0)?;
    let logarithm = importer.logarithm(ratio)?;
    let far = importer.with_number(Binary::Div, logarithm, (furthest / exact).ln())?;
    let far = importer.with_number(Binary::Mul, far, side - exact)?;
    let far = importer.unary(Unary::Trunc, far)?;
    let far = importer.with_number(Binary::Add, far, exact)?;
    let far = importer.with_number(Binary::Min, far, side - 1.0)?;
    let limit = importer.scalar(exact)?;
    let near = importer.binary(Binary::Less, distance, limit)?;
    let mut bucket = importer.push(Op::Where, &[near, distance, far])?;
    if let Some(offset) = offset {
        bucket = importer.binary(Binary::Add, bucket, offset)?;
    }
    let rows = importer.gather(&table, &Value::Node(bucket, Element::Int), 0)?;
    let rows = importer.transpose(&rows, &[2, 0, 1])?;
    let mut shape = importer.shape(&rows);
    shape.insert(0, Dim::from(1));
    Ok(vec![importer.reshape(&rows, &shape)?])
}
