//! Moving elements about: the same for constants, sizes and nodes.

use centuple_graph::{Binary, NodeId, Op};
use centuple_tensor::{Dim, Shape};

use super::dims::{constants, longest, multiply, never_negative, of_integer, shown, to_integer, volume};
use super::problem::{Problem, Result, problem};
use super::quantized::Quantized;
use super::value::{Dims, Value};
use super::{Importer, fold};
use crate::file::{Constant, Element};

impl Importer<'_> {
    /// A value without the forms that only matrix products look at.
    pub(super) fn settled(&mut self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::Transposed(constant) => Value::Constant(self.transposed(constant)?),
            Value::Quantized(Quantized::Weight(weight)) => Value::Constant(self.dequantized(weight)?),
            Value::Quantized(Quantized::Codes { .. } | Quantized::Rounded { .. }) => value.clone(),
            Value::Quantized(quantized) => Value::Node(self.quantized_node(quantized)?, Element::Float),
            Value::Marked(_) | Value::Constant(_) | Value::Dims(_) | Value::Node(..) => value.clone(),
        })
    }

    /// Applies something that only moves elements; codes stay codes.
    fn moved(
        &mut self,
        value: &Value,
        constant: impl FnOnce(&mut Self, &Constant) -> Result<Constant>,
        sizes: impl FnOnce(&Dims) -> Result<Dims>,
        node: impl FnOnce(&mut Self, NodeId) -> Result<NodeId>,
    ) -> Result<Value> {
        Ok(match self.settled(value)? {
            Value::Constant(x) => Value::Constant(constant(self, &x)?),
            Value::Dims(dims) => self.sized(sizes(&dims)?)?,
            Value::Node(x, element) => Value::Node(node(self, x)?, element),
            Value::Quantized(Quantized::Codes { x, origin }) => {
                Value::Quantized(Quantized::Codes { x: node(self, x)?, origin })
            }
            Value::Quantized(Quantized::Rounded { x, range }) => {
                Value::Quantized(Quantized::Rounded { x: node(self, x)?, range })
            }
            Value::Quantized(_) | Value::Transposed(_) | Value::Marked(_) => {
                return Err(problem("codes are moved in an unknown way"));
            }
        })
    }

    /// The same elements under another shape.
    pub(super) fn reshape(&mut self, value: &Value, shape: &[Dim]) -> Result<Value> {
        if self.shape(value) == shape {
            return Ok(value.clone());
        }
        let fits = |own: &[Dim]| -> Result<()> {
            if volume(own)? == volume(shape)? {
                return Ok(());
            }
            Err(Problem(format!("[{}] is no shape for a tensor of [{}]", shown(shape), shown(own))))
        };
        fits(&self.shape(value))?;
        let Some(fixed) = constants(shape) else {
            let node = self.node(value)?;
            return Ok(Value::Node(self.reshape_node(node, shape)?, self.element(value)));
        };
        self.moved(
            value,
            |_, x| Ok(x.reshaped(&fixed)?),
            |dims| Ok(Dims { shape: fixed.clone(), ..dims.clone() }),
            |this, x| this.reshape_node(x, shape),
        )
    }

    /// Output dimension `i` is dimension `perm[i]`.
    pub(super) fn transpose(&mut self, value: &Value, perm: &[usize]) -> Result<Value> {
        let mut sorted = perm.to_vec();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..self.shape(value).len()) {
            return Err(Problem(format!("{perm:?} is no permutation of its dimensions")));
        }
        if perm.iter().copied().eq(0..perm.len()) {
            return Ok(value.clone());
        }
        if perm == [1, 0] {
            match value {
                Value::Constant(constant) => return Ok(Value::Transposed(constant.clone())),
                Value::Transposed(constant) => return Ok(Value::Constant(constant.clone())),
                Value::Quantized(Quantized::Weight(weight)) => {
                    return Ok(Value::Quantized(Quantized::Weight(weight.transposed())));
                }
                Value::Dims(_) | Value::Node(..) | Value::Quantized(_) | Value::Marked(_) => {}
            }
        }
        self.moved(
            value,
            |this, x| {
                this.reserve(x.shape(), x.element)?;
                let own = fold::strides(x.shape());
                let shape = perm.iter().map(|&axis| x.shape()[axis]).collect();
                let strides = perm.iter().map(|&axis| own[axis]).collect();
                fold::copy(x, &fold::View { shape, strides, offset: 0 })
            },
            |dims| {
                let own = fold::strides(&dims.shape);
                let shape: Vec<usize> = perm.iter().map(|&axis| dims.shape[axis]).collect();
                let strides: Vec<isize> = perm.iter().map(|&axis| own[axis]).collect();
                Ok(rearranged(dims, shape, &strides, 0))
            },
            |this, x| this.transpose_node(x, perm),
        )
    }

    /// Broadcasting to exactly this shape.
    pub(super) fn expand(&mut self, value: &Value, shape: &[Dim]) -> Result<Value> {
        if self.shape(value) == shape {
            return Ok(value.clone());
        }
        /// Larger constants stay small and are expanded by the graph.
        const SMALL: usize = 1 << 16;
        let fixed = constants(shape);
        let count = fixed.iter().flatten().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        let Some(fixed) = fixed.filter(|_| count.is_some_and(|count| count <= SMALL)) else {
            let node = self.node(value)?;
            return Ok(Value::Node(self.expand_node(node, shape)?, self.element(value)));
        };
        self.moved(
            value,
            |this, x| {
                this.reserve(&fixed, x.element)?;
                fold::expand(x, &fixed)
            },
            |dims| {
                let skip = fixed.len().checked_sub(dims.shape.len()).ok_or_else(|| problem("too few dimensions"))?;
                let own = fold::strides(&dims.shape);
                let mut strides = vec![0; fixed.len()];
                for (axis, (&dim, stride)) in dims.shape.iter().zip(own).enumerate() {
                    match dim {
                        1 => {}
                        _ if dim == fixed[skip + axis] => strides[skip + axis] = stride,
                        _ => return Err(problem("shapes that don't broadcast")),
                    }
                }
                Ok(rearranged(dims, fixed.clone(), &strides, 0))
            },
            |this, x| this.expand_node(x, shape),
        )
    }

    /// `x` at known or computed indices along `axis`.
    pub(super) fn gather(&mut self, x: &Value, indices: &Value, axis: usize) -> Result<Value> {
        let shape = self.shape(x);
        let size = shape.get(axis).cloned().ok_or_else(|| problem("an axis that the tensor lacks"))?;
        if let Value::Constant(known) = indices {
            let rows = known.integers().ok_or_else(|| problem("indices that are no integers"))?;
            let index_shape = known.shape().to_vec();
            if let Some(size) = size.constant() {
                return self.gather_fixed(x, &rows, &index_shape, axis, size);
            }
            // Of a size that is only known with a batch.
            if rows.iter().all(|&row| row >= 0) {
                let (node, element) = (self.node(x)?, self.element(x));
                let indices = self.graph.constant(format!("{}.indices", self.name), known.tensor_of_indices()?)?;
                return Ok(Value::Node(self.push(Op::Gather { axis }, &[node, indices])?, element));
            }
            let places = rows.iter().map(|&row| {
                let row_dim = super::dims::of_integer(row);
                if row < 0 { size.clone() + row_dim } else { row_dim }
            });
            let places = Dims { shape: index_shape, elements: places.collect(), element: Element::Int };
            return self.gather(x, &Value::Dims(places), axis);
        }
        let (node, element) = (self.node(x)?, self.element(x));
        let picked = self.node(indices)?;
        Ok(Value::Node(self.push(Op::Gather { axis }, &[node, picked])?, element))
    }

    fn gather_fixed(
        &mut self,
        x: &Value,
        rows: &[i64],
        index_shape: &[usize],
        axis: usize,
        size: usize,
    ) -> Result<Value> {
        let count = i64::try_from(size).unwrap_or(i64::MAX);
        let place = |&row: &i64| if row < 0 { row.saturating_add(count) } else { row };
        let rows: Vec<i64> = rows.iter().map(place).collect();
        if let Some(&wrong) = rows.iter().find(|row| !(0..count).contains(row)) {
            return Err(Problem(format!("the index {wrong} of a dimension of {size}")));
        }
        self.moved(
            x,
            |this, x| {
                this.reserve(&[rows.len(), x.len() / size.max(1)], x.element)?;
                fold::gather_rows(x, &rows, index_shape, axis)
            },
            |dims| {
                let inner: usize = dims.shape[axis + 1..].iter().product();
                let outer: usize = dims.shape[..axis].iter().product();
                let mut elements = Vec::new();
                for block in 0..outer {
                    for &row in &rows {
                        let start = (block * size + row as usize) * inner;
                        elements.extend(dims.elements.iter().skip(start).take(inner).cloned());
                    }
                }
                let shape = [&dims.shape[..axis], index_shape, &dims.shape[axis + 1..]].concat();
                Ok(Dims { shape, elements, element: dims.element })
            },
            |this, x| {
                let run = rows.windows(2).all(|pair| pair[1] == pair[0] + 1);
                if let (true, [first, ..], [_]) = (run, rows.as_slice(), index_shape) {
                    let start = *first as usize;
                    return this.push(Op::Slice { axis, start, end: start + rows.len() }, &[x]);
                }
                let name = format!("{}.indices", this.name);
                let tensor = Constant::of_integers(index_shape, &rows)?.tensor;
                let indices = this.graph.constant(name, tensor)?;
                this.push(Op::Gather { axis }, &[x, indices])
            },
        )
    }

    /// Elements `start`, `start + step`, ... along `axis`; `count` of them.
    pub(super) fn slice(&mut self, x: &Value, axis: usize, start: &Dim, count: &Dim, step: i64) -> Result<Value> {
        let shape = self.shape(x);
        if !never_negative(count) {
            return Err(Problem(format!("a slice of {count} elements")));
        }
        if step == 1 && to_integer(start) == Some(0) && shape.get(axis) == Some(count) {
            return Ok(x.clone());
        }
        let fixed = (to_integer(start), count.constant(), shape[axis].constant());
        if let (Some(start), Some(count), Some(size)) = fixed {
            if count > size {
                return Err(problem("a slice that is larger than its tensor"));
            }
            if count == 0 || step != 1 || !matches!(x, Value::Node(..)) {
                let rows: Vec<i64> = (0..count as i64).map(|index| start + index * step).collect();
                return self.gather_fixed(x, &rows, &[count], axis, size);
            }
        }
        if let (Some(start), Some(count), Some(_)) = fixed {
            let (node, element) = (self.node(x)?, self.element(x));
            let start = usize::try_from(start).map_err(|_| problem("a slice that starts before its tensor"))?;
            return Ok(Value::Node(self.push(Op::Slice { axis, start, end: start + count }, &[node])?, element));
        }
        if let Some(size) = shape[axis].constant() {
            let last = start.clone() + multiply(&(count.clone() - Dim::from(1)), &of_integer(step))?;
            let longest = longest(&[start.clone(), last], size);
            self.limit(longest.ok_or_else(|| Problem(format!("a slice of {count} elements of {size}")))?);
        }
        let places = self.places(start, count, step)?;
        let (node, element) = (self.node(x)?, self.element(x));
        Ok(Value::Node(self.push(Op::Gather { axis }, &[node, places])?, element))
    }

    /// `[count]`: `start`, `start + step`, ...
    pub(super) fn places(&mut self, start: &Dim, count: &Dim, step: i64) -> Result<NodeId> {
        let mut places = self.push(Op::Iota { size: count.clone() }, &[])?;
        if step != 1 {
            places = self.with_number(Binary::Mul, places, step as f32)?;
        }
        if to_integer(start) != Some(0) {
            let first = self.extent(start)?;
            places = self.binary(Binary::Add, places, first)?;
        }
        Ok(places)
    }

    /// Values behind each other along `axis`.
    pub(super) fn concat(&mut self, values: &[Value], axis: usize) -> Result<Value> {
        let [first, rest @ ..] = values else { return Err(problem("nothing to join")) };
        let shape = self.shape(first);
        let without = |shape: &Shape| -> Vec<Dim> {
            shape.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, dim)| dim.clone()).collect()
        };
        for other in rest {
            let other = self.shape(other);
            if other.len() != shape.len() || without(&other) != without(&shape) {
                return Err(Problem(format!("[{}] and [{}] can't be joined", shown(&shape), shown(&other))));
            }
        }
        let values = values.iter().map(|value| self.settled(value)).collect::<Result<Vec<Value>>>()?;
        let constant =
            |value: &Value| if let Value::Constant(constant) = value { Some(constant.clone()) } else { None };
        if let Some(parts) = values.iter().map(constant).collect::<Option<Vec<Constant>>>() {
            let same = parts.iter().all(|part| part.element == parts[0].element);
            let count = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.len()));
            if same {
                self.reserve(&[count.unwrap_or(usize::MAX)], parts[0].element)?;
                return Ok(Value::Constant(fold::concat(&parts, axis)?));
            }
        }
        if let Some(parts) = values.iter().map(|value| self.dims(value)).collect::<Option<Vec<Dims>>>()
            && axis == 0
        {
            let mut shape = parts[0].shape.clone();
            shape[0] = parts.iter().map(|part| part.shape[0]).sum();
            let element = parts[0].element;
            let elements = parts.into_iter().flat_map(|part| part.elements).collect();
            return self.sized(Dims { shape, elements, element });
        }
        let element = self.element(first);
        let mut nodes = Vec::with_capacity(values.len());
        for value in &values {
            if self.shape(value).get(axis).is_none_or(|dim| dim.constant() != Some(0)) {
                nodes.push(self.node(value)?);
            }
        }
        match nodes.as_slice() {
            [] => Ok(first.clone()),
            [one] => Ok(Value::Node(*one, element)),
            _ => Ok(Value::Node(self.push(Op::Concat { axis }, &nodes)?, element)),
        }
    }
}

impl Constant {
    /// Integers as the indices of a gather.
    fn tensor_of_indices(&self) -> Result<centuple_tensor::Tensor> {
        let values = self.integers().ok_or_else(|| problem("indices that are no integers"))?;
        Ok(Constant::of_integers(self.shape(), &values)?.tensor)
    }
}

/// A view on sizes; there are few of them.
fn rearranged(dims: &Dims, shape: Vec<usize>, strides: &[isize], offset: isize) -> Dims {
    let count: usize = shape.iter().product();
    let mut index = vec![0usize; shape.len()];
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let place = index.iter().zip(strides).fold(offset, |place, (&index, &stride)| place + index as isize * stride);
        elements.extend(usize::try_from(place).ok().and_then(|place| dims.elements.get(place)).cloned());
        for (index, &size) in index.iter_mut().zip(&shape).rev() {
            *index += 1;
            if *index < size {
                break;
            }
            *index = 0;
        }
    }
    Dims { shape, elements, element: dims.element }
}
