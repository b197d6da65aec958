//! Shape rules: type and shape of an op's result from those of its operands.

use centuple_tensor::{DType, Dim, Shape, Symbol, shape_of};

use crate::{Attention, CrossAttention, Fact, Op, Pooling, PositionScores};

/// Why an op does not fit its operands.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// Too few or too many operands.
    #[error("expected {expected} operands, found {found}")]
    Arity {
        /// Number that the op takes.
        expected: String,
        /// Number that is there.
        found: usize,
    },
    /// An operand has the wrong element type.
    #[error("operand {operand} must be {expected}, not {found}")]
    Type {
        /// Index of the operand.
        operand: usize,
        /// Type that the op takes.
        expected: DType,
        /// Type that is there.
        found: DType,
    },
    /// An operand has the wrong shape.
    #[error("operand {operand} must be {expected}, not {found}")]
    Operand {
        /// Index of the operand.
        operand: usize,
        /// What the op takes.
        expected: String,
        /// The operand's fact.
        found: Fact,
    },
    /// An attribute is out of range.
    #[error("{0}")]
    Attribute(String),
}

type Result<T> = std::result::Result<T, ShapeError>;

/// The operands of one op, with checks that name the operand.
struct Operands<'a>(&'a [&'a Fact]);

impl Operands<'_> {
    fn exactly(&self, expected: usize) -> Result<()> {
        if self.0.len() == expected {
            return Ok(());
        }
        Err(ShapeError::Arity { expected: expected.to_string(), found: self.0.len() })
    }

    fn get(&self, operand: usize) -> Result<&Fact> {
        self.0
            .get(operand)
            .copied()
            .ok_or_else(|| ShapeError::Arity { expected: format!("at least {}", operand + 1), found: self.0.len() })
    }

    fn typed(&self, operand: usize, expected: DType) -> Result<&Fact> {
        let fact = self.get(operand)?;
        if fact.dtype == expected {
            return Ok(fact);
        }
        Err(ShapeError::Type { operand, expected, found: fact.dtype })
    }

    fn float(&self, operand: usize) -> Result<&Shape> {
        Ok(&self.typed(operand, DType::F32)?.shape)
    }

    /// Leading dimensions and the constant last dimension of an f32 operand.
    fn rows(&self, operand: usize) -> Result<(&[Dim], usize)> {
        let shape = self.float(operand)?;
        match shape.split_last().map(|(last, rows)| (rows, last.constant())) {
            Some((rows, Some(columns))) => Ok((rows, columns)),
            _ => Err(self.unfit(operand, "a tensor with a constant last dimension")),
        }
    }

    /// Width of an f32 operand with one row per token.
    fn columns_of_tokens(&self, operand: usize) -> Result<usize> {
        match self.rows(operand)? {
            ([rows], columns) if *rows == Dim::from(Symbol::Tokens) => Ok(columns),
            _ => Err(self.unfit(operand, "[Tokens, H]")),
        }
    }

    fn ids_of_tokens(&self, operand: usize) -> Result<()> {
        if self.typed(operand, DType::I64)?.shape == [Dim::from(Symbol::Tokens)] {
            return Ok(());
        }
        Err(self.unfit(operand, "[Tokens]"))
    }

    fn is(&self, operand: usize, expected: &[Dim]) -> Result<()> {
        if self.float(operand)? == expected {
            return Ok(());
        }
        let dims: Vec<String> = expected.iter().map(ToString::to_string).collect();
        Err(self.unfit(operand, &format!("[{}]", dims.join(", "))))
    }

    fn unfit(&self, operand: usize, expected: &str) -> ShapeError {
        match self.get(operand) {
            Ok(found) => ShapeError::Operand { operand, expected: expected.to_owned(), found: found.clone() },
            Err(error) => error,
        }
    }
}

/// The fact of `op` applied to operands with the given facts.
pub(crate) fn infer(op: &Op, facts: &[&Fact]) -> Result<Fact> {
    let operands = Operands(facts);
    let float = |shape: Shape| Fact { dtype: DType::F32, shape };
    let shape = match op {
        Op::Input { dtype, shape } => {
            operands.exactly(0)?;
            return Ok(Fact { dtype: *dtype, shape: shape.clone() });
        }
        Op::Constant(tensor) => {
            operands.exactly(0)?;
            return Ok(Fact { dtype: tensor.dtype(), shape: shape_of(tensor.shape()) });
        }
        Op::Positions { offset: _, padding } => {
            operands.exactly(usize::from(padding.is_some()))?;
            if padding.is_some() {
                operands.ids_of_tokens(0)?;
            }
            return Ok(Fact { dtype: DType::I64, shape: vec![Symbol::Tokens.into()] });
        }
        Op::ShiftRight { first: _ } => {
            operands.exactly(1)?;
            operands.ids_of_tokens(0)?;
            return Ok(Fact { dtype: DType::I64, shape: vec![Symbol::Tokens.into()] });
        }
        Op::Embedding => embedding(&operands)?,
        Op::Linear { bias, activation: _, residual } => linear(&operands, *bias, *residual)?,
        Op::QuantizedLinear { bits, range, bias, activation: _, residual } => {
            quantized_linear(&operands, *bits, *range, *bias, *residual)?
        }
        Op::GroupQuantizedLinear { bits, group, zero_points, bias, activation: _, residual } => {
            group_quantized_linear(&operands, (*bits, *group), *zero_points, *bias, *residual)?
        }
        Op::GroupedLinear { groups } => grouped_linear(&operands, *groups)?,
        Op::Rotary { heads, head_dim, interleaved: _ } => rotary(&operands, *heads, *head_dim)?,
        Op::Dequantize => {
            operands.exactly(2)?;
            let shape = operands.typed(0, DType::I8)?.shape.clone();
            let Some(rows) = shape.first().filter(|_| shape.len() == 2) else {
                return Err(operands.unfit(0, "[V, H]"));
            };
            operands.is(1, std::slice::from_ref(rows))?;
            shape
        }
        Op::LayerNorm { epsilon: _, residual } => norm(&operands, *residual, 2)?,
        Op::RmsNorm { epsilon: _, residual } => norm(&operands, *residual, 1)?,
        Op::HeadNorm { heads, epsilon: _ } => {
            operands.exactly(2)?;
            let (_, width) = operands.rows(0)?;
            if *heads == 0 || !width.is_multiple_of(*heads) {
                return Err(operands.unfit(0, &format!("a multiple of {heads} columns")));
            }
            operands.is(1, &[(width / heads).into()])?;
            operands.float(0)?.clone()
        }
        Op::Gate { activation: _ } => {
            operands.exactly(2)?;
            operands.rows(0)?;
            let shape = operands.float(0)?.clone();
            operands.is(1, &shape)?;
            shape
        }
        Op::Activation(_) | Op::Unary(_) | Op::Softmax | Op::L2Normalize { .. } => {
            operands.exactly(1)?;
            operands.float(0)?.clone()
        }
        Op::Attention(attention) => attend(&operands, attention)?,
        Op::CrossAttention(attention) => cross_attend(&operands, attention)?,
        Op::Pool(pooling) => {
            let reads_ids = matches!(pooling, Pooling::LastEqual(_));
            operands.exactly(1 + usize::from(reads_ids))?;
            if reads_ids {
                operands.ids_of_tokens(1)?;
            }
            vec![Symbol::Sequences.into(), operands.columns_of_tokens(0)?.into()]
        }
        Op::Select => {
            operands.exactly(1)?;
            vec![Symbol::Selected.into(), operands.columns_of_tokens(0)?.into()]
        }
        Op::Binary(_) => {
            operands.exactly(2)?;
            broadcast(&operands, 1, operands.float(0)?)?
        }
        Op::Where => {
            operands.exactly(3)?;
            let condition = operands.float(0)?;
            let both = broadcast(&operands, 1, condition)?;
            broadcast(&operands, 2, &both)?
        }
        Op::MatMul => matmul(&operands)?,
        Op::Transpose { perm } => transpose(&operands, perm)?,
        Op::Reshape { shape } => {
            operands.exactly(1)?;
            if volume(operands.float(0)?) != volume(shape) {
                return Err(operands.unfit(0, &format!("of the volume {}", volume(shape))));
            }
            shape.clone()
        }
        Op::Slice { axis, start, end } => slice(&operands, *axis, *start, *end)?,
        Op::Concat { axis } => concat(&operands, *axis)?,
        Op::Gather { axis } => {
            operands.exactly(2)?;
            let indices = match operands.get(1)?.dtype {
                DType::F32 => operands.float(1)?,
                DType::F16 | DType::BF16 | DType::I8 | DType::I64 => &operands.typed(1, DType::I64)?.shape,
            };
            let x = operands.float(0)?;
            check_axis(x, *axis)?;
            [&x[..*axis], indices, &x[axis + 1..]].concat()
        }
        Op::Reduce { reduction: _, axes } => {
            operands.exactly(1)?;
            let mut shape = operands.float(0)?.clone();
            for &axis in axes {
                check_axis(&shape, axis)?;
                shape[axis] = Dim::from(1);
            }
            shape
        }
        Op::ToFloat => {
            operands.exactly(1)?;
            operands.get(0)?.shape.clone()
        }
        Op::GatherElements { axis } => gather_elements(&operands, *axis)?,
        Op::CumSum { axis } => {
            operands.exactly(1)?;
            let shape = operands.float(0)?;
            check_axis(shape, *axis)?;
            shape.clone()
        }
        Op::Expand { shape } => {
            operands.exactly(1)?;
            if broadcast_dims(operands.float(0)?, shape).as_ref() != Some(shape) {
                let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
                return Err(operands.unfit(0, &format!("a shape that broadcasts to [{}]", dims.join(", "))));
            }
            shape.clone()
        }
        Op::Iota { size } => {
            operands.exactly(0)?;
            vec![size.clone()]
        }
        Op::Pad => {
            operands.exactly(1)?;
            match operands.float(0)?.split_first() {
                Some((rows, rest)) if *rows == Dim::from(Symbol::Tokens) => [padded().as_slice(), rest].concat(),
                _ => return Err(operands.unfit(0, "[Tokens, ...]")),
            }
        }
        Op::Pack => {
            operands.exactly(1)?;
            match operands.float(0)?.strip_prefix(&padded()) {
                Some(rest) => [&[Symbol::Tokens.into()], rest].concat(),
                None => return Err(operands.unfit(0, "[Sequences, Sequence, ...]")),
            }
        }
    };
    Ok(float(shape))
}

/// The leading dimensions of padded rows.
fn padded() -> [Dim; 2] {
    [Symbol::Sequences.into(), Symbol::Sequence.into()]
}

fn volume(shape: &Shape) -> Dim {
    shape.iter().cloned().fold(Dim::from(1), |product, dim| product * dim)
}

fn check_axis(shape: &Shape, axis: usize) -> Result<()> {
    if axis < shape.len() {
        return Ok(());
    }
    Err(ShapeError::Attribute(format!("axis {axis} of a tensor with {} dimensions", shape.len())))
}

fn embedding(operands: &Operands) -> Result<Shape> {
    if operands.0.is_empty() || !operands.0.len().is_multiple_of(2) {
        return Err(ShapeError::Arity { expected: "pairs of table and ids".to_owned(), found: operands.0.len() });
    }
    let (_, width) = operands.rows(0)?;
    let ids = operands.typed(1, DType::I64)?.shape.clone();
    for table in (0..operands.0.len()).step_by(2) {
        let (rows, columns) = operands.rows(table)?;
        if rows.len() != 1 || columns != width {
            return Err(operands.unfit(table, &format!("[V, {width}]")));
        }
        if operands.typed(table + 1, DType::I64)?.shape != ids {
            return Err(operands.unfit(table + 1, "ids of the shape of the first ones"));
        }
    }
    Ok([ids, vec![width.into()]].concat())
}

fn linear(operands: &Operands, bias: bool, residual: bool) -> Result<Shape> {
    operands.exactly(2 + usize::from(bias) + usize::from(residual))?;
    let (rows, k) = operands.rows(0)?;
    let weight = operands.get(1)?;
    let [n, inner] = weight.shape.as_slice() else { return Err(operands.unfit(1, "[N, K]")) };
    if weight.dtype != DType::F16 {
        operands.float(1)?;
    }
    if inner.constant() != Some(k) {
        return Err(operands.unfit(1, &format!("[N, {k}]")));
    }
    let shape = [rows, std::slice::from_ref(n)].concat();
    if bias {
        operands.is(2, std::slice::from_ref(n))?;
    }
    if residual {
        operands.is(2 + usize::from(bias), &shape)?;
    }
    Ok(shape)
}

/// Whether activations of an [`Op::QuantizedLinear`] may have a range `[low, high]`: it has a size and includes 0.
pub fn is_range([low, high]: [f32; 2]) -> bool {
    low <= 0.0 && high >= 0.0 && (high - low).is_normal()
}

fn quantized_linear(
    operands: &Operands,
    bits: u8,
    range: Option<[f32; 2]>,
    bias: bool,
    residual: bool,
) -> Result<Shape> {
    operands.exactly(4 + usize::from(bias) + usize::from(residual))?;
    if !matches!(bits, 7 | 8 | 12) {
        return Err(ShapeError::Attribute(format!("activations of {bits} bits; 7, 8 and 12 are supported")));
    }
    if let Some([low, high]) = range.filter(|range| !is_range(*range)) {
        return Err(ShapeError::Attribute(format!(
            "activations from {low} to {high}; a range has a size and includes 0"
        )));
    }
    let (rows, k) = operands.rows(0)?;
    let codes = &operands.typed(1, DType::I8)?.shape;
    let [n, inner] = codes.as_slice() else { return Err(operands.unfit(1, "[N, K]")) };
    if inner.constant() != Some(k) {
        return Err(operands.unfit(1, &format!("[N, {k}]")));
    }
    operands.is(2, std::slice::from_ref(n))?;
    operands.is(3, &[k.into()])?;
    let shape = [rows, std::slice::from_ref(n)].concat();
    if bias {
        operands.is(4, std::slice::from_ref(n))?;
    }
    if residual {
        operands.is(4 + usize::from(bias), &shape)?;
    }
    Ok(shape)
}

/// The longest group of [`Op::GroupQuantizedLinear`], whose sums are exact as f32.
const MAX_GROUP: usize = 8192;

fn group_quantized_linear(
    operands: &Operands,
    (bits, group): (u8, usize),
    zero_points: bool,
    bias: bool,
    residual: bool,
) -> Result<Shape> {
    let rest = 3 + usize::from(zero_points);
    operands.exactly(rest + usize::from(bias) + usize::from(residual))?;
    if bits != 4 {
        return Err(ShapeError::Attribute(format!("weights of {bits} bits in groups; 4 are supported")));
    }
    if group == 0 || group > MAX_GROUP || !group.is_multiple_of(8) {
        return Err(ShapeError::Attribute(format!(
            "groups of {group}; multiples of 8 up to {MAX_GROUP} are supported"
        )));
    }
    let (rows, k) = operands.rows(0)?;
    let codes = &operands.typed(1, DType::I8)?.shape;
    let [n, inner] = codes.as_slice() else { return Err(operands.unfit(1, "[N, K]")) };
    if inner.constant() != Some(k) {
        return Err(operands.unfit(1, &format!("[N, {k}]")));
    }
    let groups = [n.clone(), k.div_ceil(group).into()];
    operands.is(2, &groups)?;
    if zero_points && operands.typed(3, DType::I8)?.shape != groups {
        return Err(operands.unfit(3, &format!("[N, {}]", k.div_ceil(group))));
    }
    let shape = [rows, std::slice::from_ref(n)].concat();
    if bias {
        operands.is(rest, std::slice::from_ref(n))?;
    }
    if residual {
        operands.is(rest + usize::from(bias), &shape)?;
    }
    Ok(shape)
}

/// A normalisation of rows with `parameters` vectors behind its operands.
fn norm(operands: &Operands, residual: bool, parameters: usize) -> Result<Shape> {
    let first = 1 + usize::from(residual);
    operands.exactly(first + parameters)?;
    let (_, columns) = operands.rows(0)?;
    let shape = operands.float(0)?.clone();
    if residual {
        operands.is(1, &shape)?;
    }
    for parameter in first..first + parameters {
        operands.is(parameter, &[columns.into()])?;
    }
    Ok(shape)
}

fn grouped_linear(operands: &Operands, groups: usize) -> Result<Shape> {
    operands.exactly(2)?;
    let (rows, columns) = operands.rows(0)?;
    let [count, n, k] = operands.float(1)?.as_slice() else { return Err(operands.unfit(1, "[groups, N, K]")) };
    let depth = k.constant().and_then(|k| k.checked_mul(groups));
    if count.constant() != Some(groups) || depth != Some(columns) {
        return Err(operands.unfit(1, &format!("[{groups}, N, K] with {groups}·K = {columns}")));
    }
    Ok([rows, &[n.clone() * count.clone()]].concat())
}

fn rotary(operands: &Operands, heads: usize, head_dim: usize) -> Result<Shape> {
    operands.exactly(3)?;
    let (rows, columns) = operands.rows(0)?;
    if head_dim == 0 || heads.checked_mul(head_dim) != Some(columns) {
        return Err(operands.unfit(0, &format!("[..., {heads}·{head_dim}]")));
    }
    if operands.typed(1, DType::I64)?.shape != rows {
        return Err(operands.unfit(1, "one position for each row"));
    }
    let (positions, width) = operands.rows(2)?;
    if positions.len() != 1 || width == 0 || width > head_dim || !width.is_multiple_of(2) {
        return Err(operands.unfit(2, &format!("[P, R] with an even R from 2 to {head_dim}")));
    }
    Ok(operands.float(0)?.clone())
}

fn attend(operands: &Operands, attention: &Attention) -> Result<Shape> {
    let Attention { heads, kv_heads, head_dim, .. } = *attention;
    position_scores(operands, attention)?;
    if kv_heads == 0 || head_dim == 0 || heads % kv_heads != 0 {
        return Err(ShapeError::Attribute(format!(
            "{heads} heads of width {head_dim} over {kv_heads} key/value heads"
        )));
    }
    if attention.soft_cap.is_some_and(|cap| !(cap > 0.0 && attention.position == PositionScores::None)) {
        return Err(ShapeError::Attribute(
            "a cap of scores that is not positive, or with scores by position".to_owned(),
        ));
    }
    let tokens = Dim::from(Symbol::Tokens);
    let shape = vec![tokens.clone(), Dim::from(heads) * Dim::from(head_dim)];
    operands.is(0, &shape)?;
    let keys = [tokens, Dim::from(kv_heads) * Dim::from(head_dim)];
    operands.is(1, &keys)?;
    operands.is(2, &keys)?;
    Ok(shape)
}

fn cross_attend(operands: &Operands, attention: &CrossAttention) -> Result<Shape> {
    let CrossAttention { heads, head_dim, .. } = *attention;
    operands.exactly(1)?;
    if heads == 0 || head_dim == 0 {
        return Err(ShapeError::Attribute(format!("{heads} heads of width {head_dim}")));
    }
    let shape = vec![Dim::from(Symbol::Tokens), Dim::from(heads) * Dim::from(head_dim)];
    operands.is(0, &shape)?;
    Ok(shape)
}

/// Checks the operands that the positions ask for.
fn position_scores(operands: &Operands, attention: &Attention) -> Result<()> {
    let heads = attention.heads;
    let distances = |operand: usize, dim: Option<&Dim>| match dim.and_then(Dim::constant) {
        Some(count) if count % 2 == 1 => Ok(()),
        _ => Err(operands.unfit(operand, "over an odd number of distances, from -D to D")),
    };
    match attention.position {
        PositionScores::None => operands.exactly(3),
        PositionScores::Bias => {
            operands.exactly(4)?;
            let shape = operands.float(3)?;
            if shape.len() != 2 || shape[0].constant() != Some(heads) {
                return Err(operands.unfit(3, &format!("[{heads}, 2D + 1]")));
            }
            distances(3, shape.last())
        }
        PositionScores::Disentangled { content_to_position, position_to_content } => {
            let tables = usize::from(content_to_position) + usize::from(position_to_content);
            if tables == 0 {
                return Err(ShapeError::Attribute("disentangled attention without either of its terms".to_owned()));
            }
            if position_to_content && attention.cache.is_some() {
                return Err(ShapeError::Attribute("position-to-content scores of keys in a cache".to_owned()));
            }
            operands.exactly(4 + tables)?;
            let (rows, columns) = operands.rows(3)?;
            if rows != [Dim::from(Symbol::Tokens)] || columns == 0 || !columns.is_multiple_of(heads.max(1)) {
                return Err(operands.unfit(3, &format!("[Tokens, {heads}·B]")));
            }
            for operand in 4..3 + tables {
                operands.is(operand, operands.float(3)?)?;
            }
            let buckets = 3 + tables;
            let shape = &operands.typed(buckets, DType::I64)?.shape;
            if shape.len() != 1 {
                return Err(operands.unfit(buckets, "[2D + 1]"));
            }
            distances(buckets, shape.last())
        }
    }
}

/// The common shape of `shape` and the operand, aligned at the last dimension.
fn broadcast(operands: &Operands, operand: usize, shape: &Shape) -> Result<Shape> {
    let other = operands.float(operand)?;
    broadcast_dims(shape, other)
        .ok_or_else(|| operands.unfit(operand, "a shape that broadcasts with the other operands"))
}

fn broadcast_dims(a: &[Dim], b: &[Dim]) -> Option<Shape> {
    let one = Dim::from(1);
    let length = a.len().max(b.len());
    let dim = |shape: &[Dim], index: usize| {
        (index + shape.len()).checked_sub(length).and_then(|at| shape.get(at)).cloned().unwrap_or_else(|| one.clone())
    };
    (0..length)
        .map(|index| match (dim(a, index), dim(b, index)) {
            (x, y) if x == y => Some(x),
            (x, y) if x == one => Some(y),
            (x, y) if y == one => Some(x),
            _ => None,
        })
        .collect()
}

fn matmul(operands: &Operands) -> Result<Shape> {
    operands.exactly(2)?;
    let ([a_batch @ .., m, k], [b_batch @ .., inner, n]) =
        (operands.float(0)?.as_slice(), operands.float(1)?.as_slice())
    else {
        return Err(operands.unfit(0, "[..., M, K] and [..., K, N]"));
    };
    if k != inner {
        return Err(operands.unfit(1, &format!("[..., {k}, N]")));
    }
    let mut shape = broadcast_dims(a_batch, b_batch)
        .ok_or_else(|| operands.unfit(1, "leading dimensions that broadcast with the first operand's"))?;
    shape.extend([m.clone(), n.clone()]);
    Ok(shape)
}

fn transpose(operands: &Operands, perm: &[usize]) -> Result<Shape> {
    operands.exactly(1)?;
    let shape = operands.float(0)?;
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..shape.len()) {
        return Err(ShapeError::Attribute(format!("{perm:?} is no permutation of {} dimensions", shape.len())));
    }
    Ok(perm.iter().map(|&axis| shape[axis].clone()).collect())
}

fn slice(operands: &Operands, axis: usize, start: usize, end: usize) -> Result<Shape> {
    operands.exactly(1)?;
    let mut shape = operands.float(0)?.clone();
    check_axis(&shape, axis)?;
    match shape[axis].constant() {
        Some(size) if start <= end && end <= size => shape[axis] = Dim::from(end - start),
        _ => return Err(ShapeError::Attribute(format!("slice {start}..{end} of the dimension {}", shape[axis]))),
    }
    Ok(shape)
}

fn gather_elements(operands: &Operands, axis: usize) -> Result<Shape> {
    operands.exactly(2)?;
    let (mut x, indices) = (operands.float(0)?.clone(), operands.float(1)?.clone());
    check_axis(&x, axis)?;
    check_axis(&indices, axis)?;
    x[axis] = indices[axis].clone();
    if x != indices {
        return Err(operands.unfit(1, "of the first operand's shape but for the axis"));
    }
    Ok(indices)
}

fn concat(operands: &Operands, axis: usize) -> Result<Shape> {
    let mut shape = operands.float(0)?.clone();
    check_axis(&shape, axis)?;
    for operand in 1..operands.0.len() {
        let mut other = operands.float(operand)?.clone();
        check_axis(&other, axis)?;
        let size = std::mem::replace(&mut other[axis], shape[axis].clone());
        if other != shape {
            return Err(operands.unfit(operand, "of the first operand's shape but for the joined dimension"));
        }
        shape[axis] = shape[axis].clone() + size;
    }
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(dtype: DType, shape: &[Dim]) -> Fact {
        Fact { dtype, shape: shape.to_vec() }
    }

    fn tokens(columns: usize) -> Fact {
        fact(DType::F32, &[Symbol::Tokens.into(), columns.into()])
    }

    fn inferred(op: &Op, facts: &[Fact]) -> Result<Fact> {
        infer(op, &facts.iter().collect::<Vec<_>>())
    }

    #[test]
    fn position_scores_ask_for_their_operands() {
        let attention = |position, cache| {
            let (heads, kv_heads, head_dim, scale, causal, window) = (2, 1, 4, 0.5, true, Some(3));
            Op::Attention(Attention {
                heads,
                kv_heads,
                head_dim,
                scale,
                soft_cap: None,
                causal,
                window,
                position,
                cache,
            })
        };
        let qkv = [tokens(8), tokens(4), tokens(4)];
        let fits = |position, cache, more: &[Fact]| {
            inferred(&attention(position, cache), &[&qkv, more].concat()).is_ok_and(|fact| fact == tokens(8))
        };
        let table = |rows: usize, distances: usize| fact(DType::F32, &[rows.into(), distances.into()]);
        assert!(fits(PositionScores::None, Some(0), &[]) && !fits(PositionScores::None, None, &[tokens(8)]));
        assert!(fits(PositionScores::Bias, Some(0), &[table(2, 7)]));
        for wrong in [table(2, 6), table(1, 7), tokens(7)] {
            assert!(!fits(PositionScores::Bias, None, &[wrong]));
        }
        let terms = |c2p, p2c| PositionScores::Disentangled { content_to_position: c2p, position_to_content: p2c };
        let buckets = |distances: usize| fact(DType::I64, &[distances.into()]);
        assert!(fits(terms(true, true), None, &[tokens(12), tokens(12), buckets(9)]));
        assert!(fits(terms(false, true), None, &[tokens(12), buckets(9)]));
        assert!(fits(terms(true, false), Some(0), &[tokens(12), buckets(9)]));
        assert!(!fits(terms(true, true), Some(0), &[tokens(12), tokens(12), buckets(9)]));
        assert!(!fits(terms(true, true), None, &[tokens(12), tokens(10), buckets(9)]));
        assert!(!fits(terms(true, false), None, &[tokens(11), buckets(9)]));
        assert!(!fits(terms(true, false), None, &[tokens(12), buckets(8)]));
        assert!(!fits(terms(true, false), None, &[tokens(12), table(1, 9)]));
        assert!(!fits(terms(false, false), None, &[buckets(9)]));
    }

    #[test]
    fn groups_and_rotations_ask_for_their_columns() {
        let weight = |shape: [usize; 3]| fact(DType::F32, &shape.map(Dim::from));
        let grouped = |groups, shape| inferred(&Op::GroupedLinear { groups }, &[tokens(12), weight(shape)]);
        assert!(grouped(3, [3, 5, 4]).is_ok_and(|fact| fact == tokens(15)));
        assert!(grouped(3, [3, 5, 3]).is_err() && grouped(2, [3, 5, 4]).is_err() && grouped(0, [0, 5, 4]).is_err());
        let positions = fact(DType::I64, &[Symbol::Tokens.into()]);
        let rotary = |heads, head_dim, columns: usize| {
            let table = fact(DType::F32, &[9.into(), columns.into()]);
            inferred(&Op::Rotary { heads, head_dim, interleaved: false }, &[tokens(12), positions.clone(), table])
        };
        assert!(rotary(3, 4, 2).is_ok_and(|fact| fact == tokens(12)));
        for (heads, head_dim, columns) in [(3, 4, 6), (3, 4, 3), (3, 4, 0), (2, 4, 2), (0, 0, 2)] {
            assert!(rotary(heads, head_dim, columns).is_err(), "{heads} {head_dim} {columns}");
        }
    }
}
