//! Reductions, and sums along a dimension.

use centuple_graph::{Binary, NodeId, Op, Reduction, Unary};
use centuple_tensor::Dim;

use super::Importer;
use super::attributes::Call;
use super::dims::{self, multiply};
use super::ops::Table;
use super::problem::{Result, problem};
use super::value::{Dims, Value};
use crate::file::Element;

pub(super) const OPS: Table = &[
    ("ReduceSum", |i, c| i.reduction(c, Kind::Sum)),
    ("ReduceMean", |i, c| i.reduction(c, Kind::Mean)),
    ("ReduceMax", |i, c| i.reduction(c, Kind::Max)),
    ("ReduceMin", |i, c| i.reduction(c, Kind::Min)),
    ("ReduceProd", |i, c| i.reduction(c, Kind::Product)),
    ("ReduceL1", |i, c| i.reduction(c, Kind::L1)),
    ("ReduceL2", |i, c| i.reduction(c, Kind::L2)),
    ("ReduceSumSquare", |i, c| i.reduction(c, Kind::SumSquare)),
    ("ReduceLogSum", |i, c| i.reduction(c, Kind::LogSum)),
    ("ReduceLogSumExp", |i, c| i.reduction(c, Kind::LogSumExp)),
    ("GlobalAveragePool", global_average),
    ("CumSum", cum_sum),
    ("ArgMax", |i, c| i.arg(c, false)),
    ("ArgMin", |i, c| i.arg(c, true)),
    ("LpNormalization", lp_normalization),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Sum,
    Mean,
    Max,
    Min,
    Product,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

impl Importer<'_> {
    fn reduction(&mut self, call: &Call, kind: Kind) -> Result<Vec<Value>> {
        let x = self.settled(call.operand(0)?)?;
        let rank = self.shape(&x).len();
        let given = match (call.ints("axes"), call.optional(1)) {
            (Some(axes), _) => axes.to_vec(),
            (None, Some(axes)) => self.integers(axes)?,
            (None, None) => Vec::new(),
        };
        let mut axes = given.iter().map(|&axis| dims::axis(axis, rank)).collect::<Result<Vec<usize>>>()?;
        axes.sort_unstable();
        axes.dedup();
        if axes.is_empty() {
            if call.int("noop_with_empty_axes", 0) != 0 {
                return Ok(vec![x]);
            }
            axes = (0..rank).collect();
        }
        let keep = call.int("keepdims", 1) != 0;
        if let Some(result) = self.reduce_dims(&x, kind, &axes, keep)? {
            return Ok(vec![result]);
        }
        let element = self.element(&x);
        let x = self.node(&x)?;
        let node = self.reduce(kind, x, &axes, !keep)?;
        Ok(vec![Value::Node(node, if element == Element::Bool { Element::Int } else { element })])
    }

    /// All of a list of sizes.
    fn reduce_dims(&mut self, x: &Value, kind: Kind, axes: &[usize], keep: bool) -> Result<Option<Value>> {
        let Some(sizes) = self.dims(x).filter(|sizes| sizes.shape.len() == axes.len()) else { return Ok(None) };
        let all = match kind {
            Kind::Sum => sizes.elements.iter().cloned().fold(Dim::default(), |sum, dim| sum + dim),
            Kind::Product => sizes.elements.iter().try_fold(Dim::from(1), |product, dim| multiply(&product, dim))?,
            Kind::Max | Kind::Min if sizes.elements.len() == 1 => sizes.elements[0].clone(),
            Kind::Max
            | Kind::Min
            | Kind::Mean
            | Kind::L1
            | Kind::L2
            | Kind::SumSquare
            | Kind::LogSum
            | Kind::LogSumExp => return Ok(None),
        };
        let shape = if keep { vec![1; sizes.shape.len()] } else { Vec::new() };
        self.sized(Dims { shape, elements: vec![all], element: sizes.element }).map(Some)
    }

    fn reduce(&mut self, kind: Kind, x: NodeId, axes: &[usize], drop: bool) -> Result<NodeId> {
        let (sum, mean, max) = (Reduction::Sum, Reduction::Mean, Reduction::Max);
        match kind {
            Kind::Sum => self.reduce_node(sum, x, axes, drop),
            Kind::Mean => self.reduce_node(mean, x, axes, drop),
            Kind::Max => self.reduce_node(max, x, axes, drop),
            Kind::Min => {
                let negated = self.unary(Unary::Neg, x)?;
                let largest = self.reduce_node(max, negated, axes, drop)?;
                self.unary(Unary::Neg, largest)
            }
            Kind::Product => Err(problem("a product of numbers that depend on the texts")),
            Kind::L1 => {
                let sizes = self.unary(Unary::Abs, x)?;
                self.reduce_node(sum, sizes, axes, drop)
            }
            Kind::L2 => {
                let squares = self.binary(Binary::Mul, x, x)?;
                let total = self.reduce_node(sum, squares, axes, drop)?;
                self.unary(Unary::Sqrt, total)
            }
            Kind::SumSquare => {
                let squares = self.binary(Binary::Mul, x, x)?;
                self.reduce_node(sum, squares, axes, drop)
            }
            Kind::LogSum => {
                let total = self.reduce_node(sum, x, axes, drop)?;
                self.unary(Unary::Log, total)
            }
            Kind::LogSumExp => {
                let largest = self.reduce_node(max, x, axes, false)?;
                let moved = self.binary(Binary::Sub, x, largest)?;
                let powers = self.unary(Unary::Exp, moved)?;
                let total = self.reduce_node(sum, powers, axes, false)?;
                let logarithm = self.unary(Unary::Log, total)?;
                let result = self.binary(Binary::Add, logarithm, largest)?;
                if !drop {
                    return Ok(result);
                }
                let shape = self.shape_of(result);
                let kept = shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
                let kept: Vec<Dim> = kept.map(|(_, dim)| dim).collect();
                self.reshape_node(result, &kept)
            }
        }
    }

    /// The place of the largest number: the first one, or the last where `select_last_index` says so.
    fn arg(&mut self, call: &Call, smallest: bool) -> Result<Vec<Value>> {
        let mut x = self.node(call.operand(0)?)?;
        let shape = self.shape_of(x);
        let axis = dims::axis(call.int("axis", 0), shape.len())?;
        if smallest {
            x = self.unary(Unary::Neg, x)?;
        }
        let largest = self.reduce_node(Reduction::Max, x, &[axis], false)?;
        let is_largest = self.binary(Binary::Equal, x, largest)?;
        // Places count down from the end for the first one, so that the largest of them is it.
        let last = call.int("select_last_index", 0) != 0;
        let size = shape[axis].clone();
        let places = if last { self.places(&Dim::from(1), &size, 1)? } else { self.places(&size, &size, -1)? };
        let mut column = vec![Dim::from(1); shape.len()];
        column[axis] = size.clone();
        let places = self.reshape_node(places, &column)?;
        let marked = self.binary(Binary::Mul, is_largest, places)?;
        let best = self.reduce_node(Reduction::Max, marked, &[axis], call.int("keepdims", 1) == 0)?;
        let place = if last {
            self.with_number(Binary::Sub, best, 1.0)?
        } else {
            let size = self.extent(&size)?;
            let size = self.reshape_node(size, &[])?;
            self.binary(Binary::Sub, size, best)?
        };
        Ok(vec![Value::Node(place, Element::Int)])
    }
}

fn global_average(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let axes: Vec<usize> = (2..importer.shape_of(x).len()).collect();
    Ok(vec![Value::Node(importer.reduce(Kind::Mean, x, &axes, false)?, Element::Float)])
}

fn cum_sum(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let element = importer.element(call.operand(0)?);
    let x = importer.node(call.operand(0)?)?;
    let axis = importer.integers(call.operand(1)?)?;
    let axis = axis.first().copied().ok_or_else(|| problem("no axis is given"))?;
    let axis = dims::axis(axis, importer.shape_of(x).len())?;
    let mut sum = importer.push(Op::CumSum { axis }, &[x])?;
    let (exclusive, reverse) = (call.int("exclusive", 0) != 0, call.int("reverse", 0) != 0);
    if reverse {
        let total = importer.reduce_node(Reduction::Sum, x, &[axis], false)?;
        sum = importer.binary(Binary::Sub, total, sum)?;
    }
    // Backwards the difference to the total lacks the element itself, forwards the sum has it.
    if exclusive != reverse {
        let function = if reverse { Binary::Add } else { Binary::Sub };
        sum = importer.binary(function, sum, x)?;
    }
    Ok(vec![Value::Node(sum, if element == Element::Float { element } else { Element::Int })])
}

fn lp_normalization(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = importer.node(call.operand(0)?)?;
    let axis = dims::axis(call.int("axis", -1), importer.shape_of(x).len())?;
    let kind = if call.int("p", 2) == 1 { Kind::L1 } else { Kind::L2 };
    let norm = importer.reduce(kind, x, &[axis], false)?;
    Ok(vec![Value::Node(importer.binary(Binary::Div, x, norm)?, Element::Float)])
}
