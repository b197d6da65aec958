//! Operators on shapes and places.

use centuple_tensor::{DType, Dim, Shape};

use super::Importer;
use super::attributes::Call;
use super::dims::{self, bounded, broadcast, less, multiply, never_negative, of_integer, shown, to_integer, volume};
use super::ops::Table;
use super::problem::{Problem, Result, problem};
use super::value::{Dims, Value};
use crate::file::{Constant, Element, filled};

pub(super) const OPS: Table = &[
    ("Shape", shape),
    ("Size", size),
    ("Reshape", reshape),
    ("Flatten", flatten),
    ("Transpose", transpose),
    ("Squeeze", squeeze),
    ("Unsqueeze", unsqueeze),
    ("Concat", concat),
    ("Split", split),
    ("Slice", slice),
    ("Expand", expand),
    ("Tile", tile),
    ("Range", range),
    ("ConstantOfShape", constant_of_shape),
    ("Pad", pad),
];

/// A number of sizes that is sensible.
const RANK: usize = 16;

fn shape(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let shape = importer.shape(call.operand(0)?);
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let place = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (place(call.int("start", 0)), place(call.int("end", rank)));
    let part = shape.get(start..end).unwrap_or_default().to_vec();
    Ok(vec![importer.sized(Dims::vector(part))?])
}

fn size(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let volume = volume(&importer.shape(call.operand(0)?))?;
    Ok(vec![importer.sized(Dims::scalar(volume))?])
}

fn reshape(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?;
    if let Value::Marked(marked) = x {
        let target = importer.known(call.operand(1)?)?;
        return Ok(vec![importer.grouped(marked, &target)?]);
    }
    let target = importer.known(call.operand(1)?)?;
    let shape = resolved(&importer.shape(x), target, call.int("allowzero", 0) != 0)?;
    Ok(vec![importer.reshape(x, &shape)?])
}

/// A new shape with its 0 (the old size) and -1 (what is left) filled in.
fn resolved(old: &[Dim], mut shape: Vec<Dim>, allow_zero: bool) -> Result<Shape> {
    let mut free = None;
    for (axis, dim) in shape.iter_mut().enumerate() {
        match to_integer(dim) {
            Some(0) if !allow_zero => {
                *dim =
                    old.get(axis).cloned().ok_or_else(|| problem("a 0 in the new shape behind the old one's end"))?;
            }
            Some(-1) if free.is_none() => free = Some(axis),
            Some(value) if value < 0 => return Err(problem("two sizes of the new shape are left open")),
            Some(_) | None => {}
        }
    }
    let Some(free) = free else { return Ok(shape) };
    let rest: Vec<Dim> =
        shape.iter().enumerate().filter(|(axis, _)| *axis != free).map(|(_, dim)| dim.clone()).collect();
    // What both shapes have is left out first, since not every sum can be divided by every other.
    let mut known = rest.clone();
    let mut left = Vec::new();
    for dim in old {
        match known.iter().position(|other| other == dim) {
            Some(place) => drop(known.remove(place)),
            None => left.push(dim.clone()),
        }
    }
    let (have, divisor) = (volume(&left)?, volume(&known)?);
    shape[free] = have
        .divide_exact(&divisor)
        .ok_or_else(|| Problem(format!("a tensor of [{}] has no shape [{}]", shown(old), shown(&shape))))?;
    Ok(shape)
}

fn flatten(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?;
    let shape = importer.shape(x);
    let axis = call.int("axis", 1);
    let rank = i64::try_from(shape.len()).unwrap_or(i64::MAX);
    let at = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let at = usize::try_from(at).ok().filter(|&at| at <= shape.len()).ok_or_else(|| problem("an axis out of range"))?;
    let flat = [volume(&shape[..at])?, volume(&shape[at..])?];
    Ok(vec![importer.reshape(x, &flat)?])
}

fn transpose(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?;
    if let Value::Marked(marked) = x {
        return Ok(vec![marked.turned(call.ints("perm"))?]);
    }
    let rank = importer.shape(x).len();
    let perm = match call.ints("perm") {
        Some(perm) => perm.iter().map(|&axis| dims::axis(axis, rank)).collect::<Result<Vec<usize>>>()?,
        None => (0..rank).rev().collect(),
    };
    Ok(vec![importer.transpose(x, &perm)?])
}

/// Axes: an attribute before opset 13, an operand since.
fn axes(importer: &Importer, call: &Call, rank: usize) -> Result<Option<Vec<usize>>> {
    let axes = match (call.ints("axes"), call.optional(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(operand)) => importer.integers(operand)?,
        (None, None) => return Ok(None),
    };
    let mut axes = axes.iter().map(|&axis| dims::axis(axis, rank)).collect::<Result<Vec<usize>>>()?;
    axes.sort_unstable();
    if axes.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(problem("an axis is named twice"));
    }
    Ok(Some(axes))
}

fn squeeze(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?;
    let shape = importer.shape(x);
    let one = Dim::from(1);
    let axes = match axes(importer, call, shape.len())? {
        Some(axes) => axes,
        None => (0..shape.len()).filter(|&axis| shape[axis] == one).collect(),
    };
    if let Some(&wrong) = axes.iter().find(|&&axis| shape[axis] != one) {
        return Err(Problem(format!("dimension {wrong} of [{}] is not 1", shown(&shape))));
    }
    let kept: Shape =
        shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim).collect();
    Ok(vec![importer.reshape(x, &kept)?])
}

fn unsqueeze(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?;
    let shape = importer.shape(x);
    let count = match (call.ints("axes"), call.optional(1)) {
        (Some(axes), _) => axes.len(),
        (None, Some(operand)) => importer.known(operand)?.len(),
        (None, None) => 0,
    };
    if shape.len() + count > RANK {
        return Err(problem("too many dimensions"));
    }
    let axes = axes(importer, call, shape.len() + count)?.ok_or_else(|| problem("no axes are given"))?;
    let mut old = shape.into_iter();
    let new: Shape = (0..old.len() + count)
        .filter_map(|axis| if axes.contains(&axis) { Some(Dim::from(1)) } else { old.next() })
        .collect();
    Ok(vec![importer.reshape(x, &new)?])
}

fn concat(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let values: Vec<Value> = call.all()?.into_iter().cloned().collect();
    let first = values.first().ok_or_else(|| problem("nothing to join"))?;
    let axis = dims::axis(call.int("axis", 0), importer.shape(first).len())?;
    Ok(vec![importer.concat(&values, axis)?])
}

fn split(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?.clone();
    let shape = importer.shape(&x);
    let axis = dims::axis(call.int("axis", 0), shape.len())?;
    let sizes = match (call.ints("split"), call.optional(1)) {
        (Some(sizes), _) => sizes.iter().map(|&size| of_integer(size)).collect(),
        (None, Some(operand)) => importer.known(operand)?,
        (None, None) => {
            let parts = usize::try_from(call.int("num_outputs", call.results as i64)).unwrap_or(0).max(1);
            let size = shape[axis].constant().ok_or_else(|| problem("a split of a size that is not fixed"))?;
            let part = size.div_ceil(parts);
            (0..parts).map(|index| Dim::from(part.min(size.saturating_sub(index.saturating_mul(part))))).collect()
        }
    };
    if sizes.len() != call.results {
        return Err(problem("there are more or fewer parts than results"));
    }
    let mut start = Dim::default();
    let mut parts = Vec::with_capacity(sizes.len());
    for size in sizes {
        parts.push(importer.slice(&x, axis, &start, &size, 1)?);
        start = bounded(start + size)?;
    }
    if start != shape[axis] {
        return Err(problem("the parts are more or less than the whole"));
    }
    Ok(parts)
}

fn slice(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let mut x = call.operand(0)?.clone();
    let starts = importer.known(call.operand(1)?)?;
    let ends = importer.known(call.operand(2)?)?;
    let rank = importer.shape(&x).len();
    let axes = match call.optional(3) {
        Some(axes) => importer.integers(axes)?,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match call.optional(4) {
        Some(steps) => importer.integers(steps)?,
        None => vec![1; starts.len()],
    };
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(problem("starts, ends, axes and steps are not as many"));
    }
    for (((start, end), axis), step) in starts.iter().zip(&ends).zip(axes).zip(steps) {
        let axis = dims::axis(axis, rank)?;
        let size = importer.shape(&x)[axis].clone();
        let (start, count) = places(&size, start, end, step)?;
        x = importer.slice(&x, axis, &start, &count, step)?;
    }
    Ok(vec![x])
}

/// First place and number of the elements from `start` up to `end` in steps, as NumPy counts them.
fn places(size: &Dim, start: &Dim, end: &Dim, step: i64) -> Result<(Dim, Dim)> {
    if step == 0 {
        return Err(problem("a step of 0"));
    }
    let (zero, one) = (Dim::default(), Dim::from(1));
    let last = size.clone() - one.clone();
    let (start, end) = if step > 0 {
        (clamped(size, start, &zero, size)?, clamped(size, end, &zero, size)?)
    } else {
        let before = zero.clone() - one.clone();
        let end = if to_integer(end).is_some_and(|end| end < -i64::from(i32::MAX)) {
            before
        } else {
            clamped(size, end, &before, &last)?
        };
        (clamped(size, start, &zero, &last)?, end)
    };
    let way = if step > 0 { end - start.clone() } else { start.clone() - end };
    let stride = step.unsigned_abs();
    let count = match (to_integer(&way), stride) {
        (Some(way), _) if way <= 0 => zero,
        (Some(way), _) => Dim::from((way as u64).div_ceil(stride) as usize),
        (None, 1) if never_negative(&way) => way,
        (None, _) => return Err(Problem(format!("a slice of {way} elements in steps of {step}"))),
    };
    Ok((start, count))
}

/// A place counted from the end if it is negative, between `low` and `high`.
fn clamped(size: &Dim, place: &Dim, low: &Dim, high: &Dim) -> Result<Dim> {
    if let Some(place) = to_integer(place) {
        // Exporters write "to the end" as a large number.
        if place >= i64::from(i32::MAX) {
            return Ok(high.clone());
        }
        if place <= -i64::from(i32::MAX) {
            return Ok(low.clone());
        }
    }
    let place = if less(place, &Dim::default()) == Some(true) { size.clone() + place.clone() } else { place.clone() };
    if less(&place, low) == Some(true) {
        return Ok(low.clone());
    }
    if less(high, &place) == Some(true) || place == *high {
        return Ok(high.clone());
    }
    // A table of fixed length, cut to the texts' length: longer ones than it has room for are refused later.
    let in_table = high.constant().is_some()
        && dims::longest(std::slice::from_ref(&place), size.constant().unwrap_or(0) + 1).is_some();
    if in_table || less(high, &place) == Some(false) && (never_negative(&place) || place == *low) {
        return Ok(place);
    }
    Err(Problem(format!("the place {place} in a dimension of {size}")))
}

fn expand(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?;
    let target = importer.known(call.operand(1)?)?;
    let shape = broadcast(&importer.shape(x), &target)?;
    Ok(vec![importer.expand(x, &shape)?])
}

fn tile(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?;
    let repeats = importer.known(call.operand(1)?)?;
    let shape = importer.shape(x);
    if repeats.len() != shape.len() {
        return Err(problem("there is not one repeat for each dimension"));
    }
    let one = Dim::from(1);
    if repeats.iter().all(|repeat| *repeat == one) {
        return Ok(vec![x.clone()]);
    }
    let (mut apart, mut wide, mut joined) = (Vec::new(), Vec::new(), Vec::new());
    for (dim, repeat) in shape.iter().zip(&repeats) {
        apart.extend([one.clone(), dim.clone()]);
        wide.extend([repeat.clone(), dim.clone()]);
        joined.push(multiply(dim, repeat)?);
    }
    let x = importer.reshape(x, &apart)?;
    let x = importer.expand(&x, &wide)?;
    Ok(vec![importer.reshape(&x, &joined)?])
}

fn range(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let element = importer.element(call.operand(0)?);
    if let [Value::Constant(start), Value::Constant(limit), Value::Constant(delta)] = call.all()?.as_slice() {
        return Ok(vec![fixed_range(importer, [start, limit, delta])?.into()]);
    }
    let scalar = |index| -> Result<Dim> {
        let dims = importer.known(call.operand(index)?)?;
        dims.into_iter().next().ok_or_else(|| problem("an empty operand"))
    };
    let (start, limit, delta) = (scalar(0)?, scalar(1)?, scalar(2)?);
    let step = to_integer(&delta).filter(|&step| step != 0).ok_or_else(|| problem("a step that is not fixed"))?;
    let way = if step > 0 { limit - start.clone() } else { start.clone() - limit };
    let count = way
        .divide_exact(&Dim::from(step.unsigned_abs() as usize))
        .filter(never_negative)
        .ok_or_else(|| Problem(format!("a range over {way} in steps of {step}")))?;
    Ok(vec![Value::Node(importer.places(&start, &count, step)?, element)])
}

fn fixed_range(importer: &mut Importer, [start, limit, delta]: [&Constant; 3]) -> Result<Constant> {
    const MOST: f64 = (1u32 << 24) as f64;
    let number = |constant: &Constant| match constant.integer(0) {
        Some(value) => Some(value as f64),
        None => constant.scalar().map(f64::from),
    };
    let values = (number(start), number(limit), number(delta));
    let (Some(first), Some(limit), Some(step)) = values else { return Err(problem("an operand is no number")) };
    let count = ((limit - first) / step).ceil().max(0.0);
    if count.is_nan() || count > MOST {
        return Err(problem("a range of too many numbers"));
    }
    importer.reserve(&[count as usize], Element::Int)?;
    let values = (0..count as usize).map(|index| first + index as f64 * step);
    if start.element.is_integer() {
        let values: Vec<i64> = values.map(|value| value as i64).collect();
        return Ok(Constant::of_integers(&[values.len()], &values)?);
    }
    let values: Vec<f32> = values.map(|value| value as f32).collect();
    Ok(Constant::of_floats(&[values.len()], &values)?)
}

fn constant_of_shape(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let shape = importer.known(call.operand(0)?)?;
    if shape.iter().any(|dim| !never_negative(dim)) || shape.len() > RANK {
        return Err(Problem(format!("[{}] is no shape", shown(&shape))));
    }
    let value = match call.tensor("value") {
        Some(tensor) => importer.file.constant(tensor)?,
        None => Constant::of_floats(&[1], &[0.0])?,
    };
    if value.len() != 1 {
        return Err(problem("its value has more than one element"));
    }
    let value = Value::Constant(value.reshaped(&[])?);
    Ok(vec![importer.expand(&value, &shape)?])
}

/// Constant padding of constants and nodes; with 0 pads nothing happens.
fn pad(importer: &mut Importer, call: &Call) -> Result<Vec<Value>> {
    let x = call.operand(0)?.clone();
    let pads = importer.known(call.operand(1)?)?;
    let shape = importer.shape(&x);
    let rank = shape.len();
    let axes = match call.optional(3) {
        Some(axes) => {
            importer.integers(axes)?.iter().map(|&axis| dims::axis(axis, rank)).collect::<Result<Vec<_>>>()?
        }
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(problem("there are not two pads for each axis"));
    }
    if call.text("mode").is_some_and(|mode| mode != "constant") {
        return Err(problem("a mode of padding other than constant"));
    }
    let fill = match call.optional(2) {
        Some(Value::Constant(value)) => value.clone(),
        Some(_) => return Err(problem("a padding value that is not fixed")),
        None => Constant::new(importer.element(&x), zero(importer.element(&x))?),
    };
    let fill = Value::Constant(fill.reshaped(&[])?);
    let mut x = x;
    for (place, &axis) in axes.iter().enumerate() {
        let (before, after) = (&pads[place], &pads[place + axes.len()]);
        let mut parts = vec![x.clone()];
        for (pad, front) in [(before, true), (after, false)] {
            if !never_negative(pad) {
                return Err(problem("padding that takes elements away"));
            }
            if *pad != Dim::default() {
                let mut shape = importer.shape(&x);
                shape[axis] = pad.clone();
                let filler = importer.expand(&fill, &shape)?;
                parts.insert(if front { 0 } else { parts.len() }, filler);
            }
        }
        x = if parts.len() == 1 { parts.remove(0) } else { importer.concat(&parts, axis)? };
    }
    Ok(vec![x])
}

fn zero(element: Element) -> Result<centuple_tensor::Tensor> {
    Ok(match element.storage() {
        DType::I64 => filled(DType::I64, &[], |_: &mut [i64]| {})?,
        DType::F32 => filled(DType::F32, &[], |_: &mut [f32]| {})?,
        DType::I8 | DType::F16 | DType::BF16 => filled(DType::I8, &[], |_: &mut [i8]| {})?,
    })
}
