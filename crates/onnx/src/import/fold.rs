//! Computing on constants, without anything per element but the element.

use bytemuck::Pod;
use centuple_tensor::DType;

use super::problem::{Result, problem};
use crate::file::{Constant, Element, filled};

/// Side of the blocks in which the last two dimensions are copied.
const BLOCK: usize = 32;

/// A view on a constant: the element at an index is at `offset + Σ index·stride` of the source.
#[derive(Debug)]
pub(super) struct View {
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<isize>,
    pub(super) offset: isize,
}

/// Row-major strides.
pub(super) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(isize::try_from(shape[axis]).unwrap_or(isize::MAX));
    }
    strides
}

/// A copy of a view, which must lie inside of the constant.
pub(super) fn copy(x: &Constant, view: &View) -> Result<Constant> {
    if view.shape.iter().all(|&dim| dim > 0) {
        let reach = |sign: isize| {
            let steps =
                view.shape.iter().zip(&view.strides).map(|(&dim, &stride)| (dim as isize - 1).saturating_mul(stride));
            steps.filter(|step| step.signum() == sign).fold(view.offset, isize::saturating_add)
        };
        let length = isize::try_from(x.len()).unwrap_or(isize::MAX);
        if reach(-1) < 0 || reach(1) >= length {
            return Err(problem("an index outside of the tensor"));
        }
    }
    let dtype = x.element.storage();
    let tensor = match dtype {
        DType::F32 => copied(dtype, x.tensor.as_f32()?, view)?,
        DType::I64 => copied(dtype, x.tensor.as_i64()?, view)?,
        DType::I8 => copied(dtype, x.tensor.as_i8()?, view)?,
        DType::F16 | DType::BF16 => return Err(problem("a constant of an unexpected type")),
    };
    Ok(Constant::new(x.element, tensor).named(x.name.clone()))
}

fn copied<T: Pod>(dtype: DType, source: &[T], view: &View) -> Result<centuple_tensor::Tensor> {
    Ok(filled(dtype, &view.shape, |out: &mut [T]| {
        if !out.is_empty() {
            gather(source, out, &view.shape, &view.strides, view.offset);
        }
    })?)
}

/// Recursion over the dimensions; the last two in blocks.
fn gather<T: Pod>(source: &[T], out: &mut [T], shape: &[usize], strides: &[isize], offset: isize) {
    match (shape, strides) {
        ([], _) | (_, []) => out[0] = source[offset as usize],
        ([columns], [stride]) => row(source, &mut out[..*columns], *stride, offset),
        ([rows, columns], [down, across]) if across.abs() > 1 => {
            for first in (0..*rows).step_by(BLOCK) {
                for column in (0..*columns).step_by(BLOCK) {
                    for index in first..(first + BLOCK).min(*rows) {
                        let start = offset + index as isize * down + column as isize * across;
                        let end = (column + BLOCK).min(*columns);
                        row(source, &mut out[index * columns + column..index * columns + end], *across, start);
                    }
                }
            }
        }
        ([_, inner @ ..], [stride, steps @ ..]) => {
            let size: usize = inner.iter().product();
            for (index, part) in out.chunks_exact_mut(size.max(1)).enumerate() {
                gather(source, part, inner, steps, offset + index as isize * stride);
            }
        }
    }
}

fn row<T: Pod>(source: &[T], out: &mut [T], stride: isize, offset: isize) {
    let start = offset as usize;
    match stride {
        1 => out.copy_from_slice(&source[start..start + out.len()]),
        0 => out.fill(source[start]),
        _ => {
            for (index, out) in out.iter_mut().enumerate() {
                *out = source[(offset + index as isize * stride) as usize];
            }
        }
    }
}

/// The constant broadcast to a shape.
pub(super) fn expand(x: &Constant, shape: &[usize]) -> Result<Constant> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let skip = shape.len().checked_sub(x.shape().len()).ok_or_else(|| problem("a shape with too few dimensions"))?;
    let own = strides(x.shape());
    let mut steps = vec![0; shape.len()];
    for (axis, (&dim, stride)) in x.shape().iter().zip(own).enumerate() {
        if dim != 1 {
            if dim != shape[skip + axis] {
                return Err(problem("shapes that don't broadcast"));
            }
            steps[skip + axis] = stride;
        }
    }
    copy(x, &View { shape: shape.to_vec(), strides: steps, offset: 0 })
}

/// `x` at the indices along `axis`.
pub(super) fn gather_rows(x: &Constant, indices: &[i64], index_shape: &[usize], axis: usize) -> Result<Constant> {
    let rows = x.shape()[axis];
    let outer: usize = x.shape()[..axis].iter().product();
    let inner: usize = x.shape()[axis + 1..].iter().product();
    let row = |&index: &i64| {
        let index = if index < 0 { index.saturating_add(i64::try_from(rows).unwrap_or(i64::MAX)) } else { index };
        usize::try_from(index)
            .ok()
            .filter(|&index| index < rows)
            .ok_or_else(|| problem("an index outside of the tensor"))
    };
    let picked = indices.iter().map(row).collect::<Result<Vec<usize>>>()?;
    let shape = [&x.shape()[..axis], index_shape, &x.shape()[axis + 1..]].concat();
    let place = Rows { outer, rows, inner };
    let dtype = x.element.storage();
    let tensor = match dtype {
        DType::F32 => {
            filled(dtype, &shape, |out: &mut [f32]| place.pick(x.tensor.as_f32().unwrap_or_default(), out, &picked))
        }
        DType::I64 => {
            filled(dtype, &shape, |out: &mut [i64]| place.pick(x.tensor.as_i64().unwrap_or_default(), out, &picked))
        }
        DType::F16 | DType::BF16 | DType::I8 => {
            filled(dtype, &shape, |out: &mut [i8]| place.pick(x.tensor.as_i8().unwrap_or_default(), out, &picked))
        }
    };
    Ok(Constant::new(x.element, tensor?).named(x.name.clone()))
}

struct Rows {
    outer: usize,
    rows: usize,
    inner: usize,
}

impl Rows {
    fn pick<T: Pod>(&self, source: &[T], out: &mut [T], picked: &[usize]) {
        if self.inner == 0 {
            return;
        }
        let mut targets = out.chunks_exact_mut(self.inner);
        for block in 0..self.outer {
            for &row in picked {
                let start = (block * self.rows + row) * self.inner;
                if let (Some(target), Some(part)) = (targets.next(), source.get(start..start + self.inner)) {
                    target.copy_from_slice(part);
                }
            }
        }
    }
}

/// Constants behind each other along `axis`; shapes have been checked.
pub(super) fn concat(parts: &[Constant], axis: usize) -> Result<Constant> {
    let first = parts.first().ok_or_else(|| problem("nothing to join"))?;
    if parts.iter().any(|part| part.element != first.element) {
        return Err(problem("constants of different types are joined"));
    }
    let mut shape = first.shape().to_vec();
    shape[axis] = parts.iter().map(|part| part.shape()[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let dtype = first.element.storage();
    let width = dtype.size();
    let tensor = match dtype {
        DType::F32 => filled(dtype, &shape, |out: &mut [f32]| join(parts, outer, width, bytemuck::cast_slice_mut(out))),
        DType::I64 => filled(dtype, &shape, |out: &mut [i64]| join(parts, outer, width, bytemuck::cast_slice_mut(out))),
        DType::F16 | DType::BF16 | DType::I8 => {
            filled(dtype, &shape, |out: &mut [i8]| join(parts, outer, width, bytemuck::cast_slice_mut(out)))
        }
    };
    Ok(Constant::new(first.element, tensor?))
}

fn join(parts: &[Constant], outer: usize, width: usize, mut out: &mut [u8]) {
    for block in 0..outer {
        for part in parts {
            let size = part.len() / outer * width;
            let Some(source) = part.tensor.bytes().get(block * size..(block + 1) * size) else { return };
            let Some((target, rest)) = out.split_at_mut_checked(size) else { return };
            target.copy_from_slice(source);
            out = rest;
        }
    }
}

/// A function of every element.
pub(super) fn map(x: &Constant, function: impl Fn(f32) -> f32) -> Result<Constant> {
    let x = x.to_float()?;
    let tensor = filled(DType::F32, x.shape(), |out: &mut [f32]| {
        out.iter_mut().zip(x.floats()).for_each(|(out, &value)| *out = function(value));
    })?;
    Ok(Constant::new(Element::Float, tensor))
}

/// Two operands of a function, and the shape that they broadcast to.
pub(super) struct Pair<'a, T> {
    shape: &'a [usize],
    operands: [&'a [T]; 2],
    strides: [Vec<isize>; 2],
}

impl<'a, T: Copy> Pair<'a, T> {
    /// The elements of two tensors by their shapes; `None` where they don't broadcast to `shape`.
    pub(super) fn new(shape: &'a [usize], operands: [(&'a [T], &[usize]); 2]) -> Option<Pair<'a, T>> {
        let [(a, a_shape), (b, b_shape)] = operands;
        let steps = |own: &[usize]| -> Option<Vec<isize>> {
            let skip = shape.len().checked_sub(own.len())?;
            let mut steps = vec![0; shape.len()];
            for (axis, (&dim, stride)) in own.iter().zip(strides(own)).enumerate() {
                match dim {
                    1 => {}
                    _ if dim == shape[skip + axis] => steps[skip + axis] = stride,
                    _ => return None,
                }
            }
            Some(steps)
        };
        let complete = |data: &[T], own: &[usize]| data.len() == own.iter().product::<usize>();
        let sound = complete(a, a_shape) && complete(b, b_shape);
        sound.then_some(Pair { shape, operands: [a, b], strides: [steps(a_shape)?, steps(b_shape)?] })
    }

    /// Writes the function of every pair of elements.
    pub(super) fn map<R>(&self, out: &mut [R], function: &impl Fn(T, T) -> R) {
        if !out.is_empty() {
            self.part(out, 0, [0, 0], function);
        }
    }

    fn part<R>(&self, out: &mut [R], axis: usize, offsets: [usize; 2], function: &impl Fn(T, T) -> R) {
        let ([a, b], [x, y]) = (self.operands, offsets);
        let step = |side: usize| self.strides[side].get(axis).map_or(0, |&stride| stride as usize);
        let steps = [step(0), step(1)];
        if axis + 1 >= self.shape.len() {
            match steps {
                [1, 0] => out.iter_mut().zip(&a[x..]).for_each(|(out, &value)| *out = function(value, b[y])),
                [0, 1] => out.iter_mut().zip(&b[y..]).for_each(|(out, &value)| *out = function(a[x], value)),
                [0, 0] => out.iter_mut().for_each(|out| *out = function(a[x], b[y])),
                _ => {
                    let pairs = a[x..].iter().zip(&b[y..]);
                    out.iter_mut().zip(pairs).for_each(|(out, (&left, &right))| *out = function(left, right));
                }
            }
            return;
        }
        let size: usize = self.shape[axis + 1..].iter().product();
        for (index, out) in out.chunks_exact_mut(size.max(1)).enumerate() {
            self.part(out, axis + 1, [x + index * steps[0], y + index * steps[1]], function);
        }
    }
}
