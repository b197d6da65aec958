//! Looking elements up.

use centuple_graph::{Binary, Op, Reduction};
use centuple_tensor::Dim;

use super::Importer;
use super::attributes::Call;
use super::dims::{self, volume};
use super::elementwise::Arithmetic;
use super::ops::Table;
use super::problem::{Result, problem};
use super::quantized::Quantized;
use super::value::{Dims, Value};
use crate::file::{Constant, Element};

pub(super) const OPS: Table = &[
    ("Gather", gather),
    ("GatherElements", gather_elements),
    ("GatherND", gather_nd),
    ("ScatterND", scatter_nd),
    ("ScatterElements", scatter_elements),
    ("OneHot", one_hot),
    ("Trilu", trilu),
    ("EyeLike", eye_like),
    ("Compress", compress),
];

fn gather(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let (x, indices) = (call.operand(0)?.clone(), importer.settled(call.operand(1)?)?);
    if let Value::Marked(marked) = &x {
        return Ok(vec![importer.last_of(marked, &indices, call.int("axis", 0))?]);
    }
    let axis = dims::axis(call.int("axis", 0), importer.shape(&x).len())?;
    if let Value::Node(node, _) = indices {
        importer.looked_up(&x, node, axis)?;
        if let Value::Constant(table) = &x
            && matches!(table.element, Element::U8 | Element::I8)
        {
            return Ok(vec![Value::Quantized(Quantized::Rows { table: table.clone(), indices: node, axis })]);
        }
    }
    if let Value::Quantized(Quantized::Weight(_)) = &x {
        let table = importer.settled(&x)?;
        return Ok(vec![importer.gather(&table, &indices, axis)?]);
    }
    Ok(vec![importer.gather(&x, &indices, axis)?])
}

impl Importer<'_> {
    /// Several indices, the last dimension of `indices`, as one into the flattened `shape`. The first `batch` dimensions
    /// of both belong together.
    fn flat_place(&mut self, indices: &Value, shape: &[Dim], batch: usize) -> Result<Value> {
        let mut outer = self.shape(indices);
        let last = outer.len().saturating_sub(1);
        outer.pop();
        let mut place: Option<Value> = None;
        for (axis, size) in shape.iter().enumerate() {
            let part = if axis < batch {
                let mut column = vec![Dim::from(1); outer.len()];
                column[axis] = size.clone();
                let places = self.places(&Dim::default(), size, 1)?;
                self.reshape(&Value::Node(places, Element::Int), &column)?
            } else {
                let at = Dim::from(axis - batch);
                let part = self.slice(indices, last, &at, &Dim::from(1), 1)?;
                let part = self.reshape(&part, &outer)?;
                self.counted_from_start(part, size)?
            };
            place = Some(match place {
                None => part,
                Some(place) => {
                    let size = self.sized(Dims::scalar(size.clone()))?;
                    let scaled = self.combine(Arithmetic::Mul, &place, &size)?;
                    self.combine(Arithmetic::Add, &scaled, &part)?
                }
            });
        }
        place.ok_or_else(|| problem("it has no indices"))
    }

    /// Indices that are known to count from the end, counted from the start.
    fn counted_from_start(&mut self, indices: Value, size: &Dim) -> Result<Value> {
        match &indices {
            Value::Constant(known) if known.integers().is_some_and(|known| known.iter().all(|&index| index < 0)) => {
                let size = self.sized(Dims::scalar(size.clone()))?;
                self.combine(Arithmetic::Add, &indices, &size)
            }
            Value::Constant(_)
            | Value::Transposed(_)
            | Value::Dims(_)
            | Value::Node(..)
            | Value::Quantized(_)
            | Value::Marked(_) => Ok(indices),
        }
    }

    /// Remembers the sizes of the tables of ids, and whether a table is long enough.
    pub(super) fn looked_up(&mut self, table: &Value, indices: centuple_graph::NodeId, axis: usize) -> Result<()> {
        let Some(rows) = self.shape(table).get(axis).and_then(Dim::constant) else { return Ok(()) };
        let smaller = |known: Option<usize>| Some(known.map_or(rows, |known| known.min(rows)));
        if self.tables.ids == Some(indices) {
            self.tables.vocabulary = smaller(self.tables.vocabulary);
        }
        if self.tables.types == Some(indices) {
            self.tables.token_types = smaller(self.tables.token_types);
        }
        Ok(())
    }
}

fn gather_elements(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let element = importer.element(call.operand(0)?);
    let (mut x, indices) = (importer.node(call.operand(0)?)?, importer.node(call.operand(1)?)?);
    let mut shape = importer.shape_of(x);
    let index_shape = importer.shape_of(indices);
    let axis = dims::axis(call.int("axis", 0), shape.len())?;
    if index_shape.len() != shape.len() {
        return Err(problem("its indices have another number of dimensions"));
    }
    // The indices may cover a part of the other dimensions only.
    for other in (0..shape.len()).filter(|&other| other != axis) {
        if shape[other] != index_shape[other] {
            let part = importer.slice(&Value::Node(x, element), other, &Dim::default(), &index_shape[other], 1)?;
            x = importer.node(&part)?;
        }
    }
    shape = importer.shape_of(x);
    let indices = match call.operand(1)? {
        // Indices that are known to be negative count from the end.
        Value::Constant(known) if known.integers().is_some_and(|known| known.iter().any(|&index| index < 0)) => {
            let size = importer.extent(&shape[axis])?;
            let zero = importer.scalar(0.0)?;
            let negative = importer.binary(Binary::Less, indices, zero)?;
            let more = importer.binary(Binary::Mul, negative, size)?;
            importer.binary(Binary::Add, indices, more)?
        }
        Value::Constant(_)
        | Value::Transposed(_)
        | Value::Dims(_)
        | Value::Node(..)
        | Value::Quantized(_)
        | Value::Marked(_) => indices,
    };
    Ok(vec![Value::Node(importer.push(Op::GatherElements { axis }, &[x, indices])?, element)])
}

/// Looks up by several indices at once, as one index into the flattened dimensions.
fn gather_nd(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?.clone();
    let indices = call.operand(1)?.clone();
    if let Value::Marked(marked) = &indices {
        return Ok(vec![importer.rows_at(marked, &x)?]);
    }
    let (shape, index_shape) = (importer.shape(&x), importer.shape(&indices));
    let Some((depth, outer)) = index_shape.split_last() else { return Err(problem("its indices are one number")) };
    let depth = depth.constant().ok_or_else(|| problem("a number of indices that is not fixed"))?;
    let batch = usize::try_from(call.int("batch_dims", 0)).unwrap_or(usize::MAX);
    if depth == 0 || batch.checked_add(depth).is_none_or(|end| end > shape.len()) || batch > outer.len() {
        return Err(problem("more indices than dimensions"));
    }
    let place = importer.flat_place(&indices, &shape[..batch + depth], batch)?;
    let flat = [&[volume(&shape[..batch + depth])?], &shape[batch + depth..]].concat();
    let flat = importer.reshape(&x, &flat)?;
    Ok(vec![importer.gather(&flat, &place, 0)?])
}

/// A tensor with some of its elements replaced: each place takes the last update that names it, or what was there.
fn scatter_nd(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    if call.text("reduction").is_some_and(|reduction| reduction != "none") {
        return Err(problem("updates that are added to what is there"));
    }
    let (x, indices, updates) = (call.operand(0)?.clone(), call.operand(1)?.clone(), call.operand(2)?.clone());
    let element = importer.element(&x);
    let (shape, index_shape) = (importer.shape(&x), importer.shape(&indices));
    let Some((depth, outer)) = index_shape.split_last() else { return Err(problem("its indices are one number")) };
    let depth = depth.constant().filter(|depth| (1..=shape.len()).contains(depth));
    let depth = depth.ok_or_else(|| problem("a number of indices that is not fixed, or more than dimensions"))?;
    let (rows, changes) = (volume(&shape[..depth])?, volume(outer)?);
    let places = importer.flat_place(&indices, &shape[..depth], 0)?;
    let places = importer.node(&places)?;
    let places = importer.reshape_node(places, &[Dim::from(1), changes.clone()])?;

    // Rows of the table are the old ones, then the updates; the highest that means a place is the one for it.
    let inner = &shape[depth..];
    let old = importer.node(&x)?;
    let old = importer.reshape_node(old, &[std::slice::from_ref(&rows), inner].concat())?;
    let new = importer.node(&updates)?;
    let new = importer.reshape_node(new, &[std::slice::from_ref(&changes), inner].concat())?;
    let table = importer.push(Op::Concat { axis: 0 }, &[old, new])?;
    let own = importer.places(&Dim::default(), &rows, 1)?;
    let own = importer.reshape_node(own, &[rows.clone(), Dim::from(1)])?;
    let meant = importer.binary(Binary::Equal, places, own)?;
    let behind = importer.places(&rows, &changes, 1)?;
    let behind = importer.binary(Binary::Mul, meant, behind)?;
    let candidates = importer.push(Op::Concat { axis: 1 }, &[own, behind])?;
    let row = importer.reduce_node(Reduction::Max, candidates, &[1], true)?;
    let result = importer.push(Op::Gather { axis: 0 }, &[table, row])?;
    Ok(vec![Value::Node(importer.reshape_node(result, &shape)?, element)])
}

/// The same along one axis, an index for each update.
fn scatter_elements(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    if call.text("reduction").is_some_and(|reduction| reduction != "none") {
        return Err(problem("updates that are added to what is there"));
    }
    let element = importer.element(call.operand(0)?);
    let rank = importer.shape(call.operand(0)?).len();
    let axis = dims::axis(call.int("axis", 0), rank)?;
    // The axis comes last.
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(axis, rank - 1);
    let mut turned = Vec::with_capacity(3);
    for operand in 0..3 {
        let operand = importer.settled(call.operand(operand)?)?;
        let operand = importer.transpose(&operand, &perm)?;
        turned.push(importer.settled(&operand)?);
    }
    let [x, indices, updates] = turned.as_slice() else { return Err(problem("an operand is missing")) };
    let (shape, index_shape) = (importer.shape(x), importer.shape(indices));
    let (Some((size, outer)), Some((changes, index_outer))) = (shape.split_last(), index_shape.split_last()) else {
        return Err(problem("it replaces a number"));
    };
    if outer != index_outer || importer.shape(updates) != index_shape {
        return Err(problem("updates of a part of the other dimensions"));
    }
    let one = [Dim::from(1)];
    let indices = importer.counted_from_start(indices.clone(), size)?;
    let indices = importer.node(&indices)?;
    let indices = importer.reshape_node(indices, &[outer, &one, std::slice::from_ref(changes)].concat())?;
    let own = importer.places(&Dim::default(), size, 1)?;
    let own = importer.reshape_node(own, &[size.clone(), Dim::from(1)])?;
    let meant = importer.binary(Binary::Equal, indices, own)?;
    let behind = importer.places(size, changes, 1)?;
    let behind = importer.binary(Binary::Mul, meant, behind)?;
    let own = importer.expand_node(own, &[outer, std::slice::from_ref(size), &one].concat())?;
    let candidates = importer.push(Op::Concat { axis: rank }, &[own, behind])?;
    let row = importer.reduce_node(Reduction::Max, candidates, &[rank], true)?;
    let (x, updates) = (importer.node(x)?, importer.node(updates)?);
    let table = importer.push(Op::Concat { axis: rank - 1 }, &[x, updates])?;
    let result = importer.push(Op::GatherElements { axis: rank - 1 }, &[table, row])?;
    Ok(vec![Value::Node(importer.transpose_node(result, &perm)?, element)])
}

fn one_hot(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let indices = importer.node(call.operand(0)?)?;
    let depth = importer.known(call.operand(1)?)?;
    let depth = depth.into_iter().next().ok_or_else(|| problem("no depth is given"))?;
    let element = importer.element(call.operand(2)?);
    let shape = importer.shape_of(indices);
    let axis = dims::axis(call.int("axis", -1), shape.len() + 1)?;
    let mut with_axis = shape.clone();
    with_axis.insert(axis, Dim::from(1));
    let indices = importer.reshape_node(indices, &with_axis)?;
    let mut column = vec![Dim::from(1); shape.len() + 1];
    column[axis] = depth.clone();
    let places = importer.places(&Dim::default(), &depth, 1)?;
    let places = importer.reshape_node(places, &column)?;
    let size = importer.extent(&depth)?;
    let zero = importer.scalar(0.0)?;
    let negative = importer.binary(Binary::Less, indices, zero)?;
    let more = importer.binary(Binary::Mul, negative, size)?;
    let indices = importer.binary(Binary::Add, indices, more)?;
    let hot = importer.binary(Binary::Equal, indices, places)?;
    let values = call.operand(2)?.clone();
    let [off, on] = [0, 1].map(|index| Constant::of_integers(&[], &[index]));
    let off = importer.gather(&values, &Value::Constant(off?), 0)?;
    let on = importer.gather(&values, &Value::Constant(on?), 0)?;
    let (off, on) = (importer.node(&off)?, importer.node(&on)?);
    Ok(vec![Value::Node(importer.push(Op::Where, &[hot, on, off])?, element)])
}

/// The triangle above or below a diagonal.
fn trilu(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let element = importer.element(call.operand(0)?);
    let x = importer.node(call.operand(0)?)?;
    let shape = importer.shape_of(x);
    let [.., rows, columns] = shape.as_slice() else { return Err(problem("it needs a matrix")) };
    let diagonal = match call.optional(1) {
        None => Dim::default(),
        Some(value) => importer.known(value)?.into_iter().next().unwrap_or_default(),
    };
    let down = importer.places(&diagonal, rows, 1)?;
    let down = importer.reshape_node(down, &[rows.clone(), Dim::from(1)])?;
    let across = importer.places(&Dim::default(), columns, 1)?;
    let outside = if call.int("upper", 1) != 0 {
        importer.binary(Binary::Less, across, down)?
    } else {
        importer.binary(Binary::Less, down, across)?
    };
    let zero = importer.scalar(0.0)?;
    Ok(vec![Value::Node(importer.push(Op::Where, &[outside, zero, x])?, element)])
}

fn eye_like(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let shape = importer.shape(call.operand(0)?);
    let [rows, columns] = shape.as_slice() else { return Err(problem("it needs a matrix")) };
    let down = importer.places(&dims::of_integer(call.int("k", 0)), rows, 1)?;
    let down = importer.reshape_node(down, &[rows.clone(), Dim::from(1)])?;
    let across = importer.places(&Dim::default(), columns, 1)?;
    Ok(vec![Value::Node(importer.binary(Binary::Equal, down, across)?, importer.element(call.operand(0)?))])
}

/// Elements by a condition that is known.
fn compress(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut x = call.operand(0)?.clone();
    let Value::Constant(condition) = call.operand(1)? else {
        return Err(problem("a condition that depends on the texts"));
    };
    let axis = if call.has("axis") {
        dims::axis(call.int("axis", 0), importer.shape(&x).len())?
    } else {
        let flat = volume(&importer.shape(&x))?;
        x = importer.reshape(&x, &[flat])?;
        0
    };
    let chosen = condition.integers().unwrap_or_default();
    let places: Vec<i64> =
        chosen.iter().zip(0i64..).filter(|(chosen, _)| **chosen != 0).map(|(_, place)| place).collect();
    let indices = Constant::of_integers(&[places.len()], &places)?;
    Ok(vec![importer.gather(&x, &Value::Constant(indices), axis)?])
}
