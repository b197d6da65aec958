//! Launches of kernels: the one place that knows the order of their arguments and the size of their grids.

use crate::specialisation::{Activation, KEYS, Kernel, ROWS_PER_BLOCK, Specialisation, TILES};

/// An address in a device's memory; 0 where an operand is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer(pub u64);

impl Pointer {
    /// No operand.
    pub const NULL: Pointer = Pointer(0);

    /// The address `bytes` further on.
    pub fn at(self, bytes: usize) -> Pointer {
        Pointer(self.0 + bytes as u64)
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// An address.
    Pointer(Pointer),
    /// A number.
    Int(i32),
    /// A number.
    Float(f32),
}

/// A kernel with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The kernel.
    pub kernel: Kernel,
    /// Blocks in both directions.
    pub grid: [u32; 2],
    /// In the order of the kernel's parameters.
    pub arguments: Vec<Argument>,
}

/// The buffers of a batch that all kernels share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchPointers {
    /// `[4]` i32: tokens, sequences, attention blocks, 0.
    pub header: Pointer,
    /// `[sequences + 1]` i32: the first row of each sequence, and the number of rows.
    pub offsets: Pointer,
    /// `[attention blocks, 2]` i32: sequence, and first query within it.
    pub blocks: Pointer,
    /// `[sequences]` i32: tokens of each that pooling leaves out.
    pub pool_from: Pointer,
}

/// Codes of a quantised matrix of activations, `[tokens, width]` u8, and what they mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodePointers {
    /// `[tokens, width]` u8.
    pub codes: Pointer,
    /// `[tokens]` f32.
    pub scales: Pointer,
    /// `[tokens]` i32.
    pub zero_points: Pointer,
}

/// Operands of [`Specialisation::Norm`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NormOperands {
    /// `[tokens, hidden]`, or null.
    pub x: Pointer,
    /// Tables `[rows, hidden]` and ids `[tokens]` i32 whose rows are added; null for none.
    pub tables: [(Pointer, Pointer); 3],
    /// `[tokens, hidden]`, or null.
    pub residual: Pointer,
    /// `[hidden]` f32; null where nothing is normalised.
    pub gamma: Pointer,
    /// `[hidden]` f32.
    pub beta: Pointer,
    /// Added to the variance.
    pub epsilon: f32,
    /// `[tokens, hidden]`: the result.
    pub y: Pointer,
    /// `[hidden]` f32: what each column is multiplied by before it is quantised.
    pub factor: Pointer,
    /// The result's codes.
    pub codes: CodePointers,
}

/// Operands of [`Specialisation::Gemm`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GemmOperands {
    /// `[tokens, k]`, or null where there are codes.
    pub x: Pointer,
    /// The codes of x.
    pub codes: CodePointers,
    /// `[n, k]` of x's type, of i8 where x is codes.
    pub weight: Pointer,
    /// `[n]` f32: what a weight's codes are multiplied by.
    pub weight_scales: Pointer,
    /// `[n]` i32: the sums of the weight's codes.
    pub weight_sums: Pointer,
    /// `[n]` f32, or null.
    pub bias: Pointer,
    /// `[tokens, n]`, or null.
    pub residual: Pointer,
    /// `[tokens, n]`.
    pub y: Pointer,
    /// Columns of the result, a multiple of 8.
    pub n: usize,
    /// Depth, a multiple of 16 bytes.
    pub k: usize,
}

/// Columns of a matrix: the address of the first one, and the elements from row to row, a multiple of 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The first element.
    pub first: Pointer,
    /// Elements of a row of the matrix.
    pub stride: usize,
}

/// Operands of [`Specialisation::Attention`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AttentionOperands {
    /// `[tokens, heads · head_dim]`.
    pub q: Columns,
    /// `[tokens, heads / group · head_dim]`.
    pub k: Columns,
    /// `[tokens, heads / group · head_dim]`.
    pub v: Columns,
    /// `[tokens, heads · head_dim]`.
    pub y: Columns,
    /// Query heads.
    pub heads: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Factor on the scores, without log2(e).
    pub scale: f32,
}

/// Operands of [`Specialisation::Dense`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseOperands {
    /// `[rows, k]`.
    pub x: Pointer,
    /// `[n, k]`.
    pub weight: Pointer,
    /// `[n]` f32, or null.
    pub bias: Pointer,
    /// `[rows, n]` f32.
    pub y: Pointer,
    /// Whether there is a row for each sequence, else one for each token.
    pub per_sequence: bool,
    /// Columns of the result.
    pub n: usize,
    /// Depth, a multiple of 8.
    pub k: usize,
    /// Applied to the sums.
    pub activation: Activation,
}

/// What a bucket's grids hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capacity {
    /// Tokens.
    pub tokens: usize,
    /// Sequences.
    pub sequences: usize,
}

impl Capacity {
    /// The most attention blocks of `queries` queries that such a batch can have.
    pub fn attention_blocks(self, queries: usize) -> usize {
        self.tokens / queries + self.sequences
    }
}

fn int(value: usize) -> Argument {
    // Sizes of a model are far below this limit; a larger one would come out as an absurd grid and not as a wrong result.
    Argument::Int(i32::try_from(value).unwrap_or(i32::MAX))
}

fn blocks(count: usize, per_block: usize) -> u32 {
    u32::try_from(count.div_ceil(per_block)).unwrap_or(u32::MAX)
}

impl Launch {
    /// [`Specialisation::Norm`].
    pub fn norm(kernel: Kernel, capacity: Capacity, batch: &BatchPointers, operands: &NormOperands) -> Launch {
        let [table0, table1, table2] = operands.tables;
        let CodePointers { codes, scales, zero_points } = operands.codes;
        let mut arguments = pointers(&[operands.x, table0.0, table1.0, table2.0, table0.1, table1.1, table2.1]);
        arguments.extend(pointers(&[operands.residual, operands.gamma, operands.beta]));
        arguments.push(Argument::Float(operands.epsilon));
        arguments.extend(pointers(&[operands.y, operands.factor, codes, scales, zero_points, batch.header]));
        Launch { kernel, grid: [blocks(capacity.tokens, ROWS_PER_BLOCK), 1], arguments }
    }

    /// [`Specialisation::Quantise`] of `x [tokens, width]`.
    pub fn quantise(
        kernel: Kernel,
        capacity: Capacity,
        batch: &BatchPointers,
        [x, factor]: [Pointer; 2],
        to: CodePointers,
        width: usize,
    ) -> Launch {
        let mut arguments = pointers(&[x, factor, to.codes, to.scales, to.zero_points, batch.header]);
        arguments.push(int(width));
        Launch { kernel, grid: [blocks(capacity.tokens, ROWS_PER_BLOCK), 1], arguments }
    }

    /// [`Specialisation::Gemm`].
    pub fn gemm(kernel: Kernel, capacity: Capacity, batch: &BatchPointers, operands: &GemmOperands) -> Launch {
        let GemmOperands { x, codes, weight, weight_scales, weight_sums, bias, residual, y, n, k } = *operands;
        let (tile, x) = match kernel.specialisation {
            Specialisation::Gemm { tile, codes: true, .. } => (TILES[tile], codes.codes),
            Specialisation::Gemm { tile, codes: false, .. } => (TILES[tile], x),
            Specialisation::Norm { .. }
            | Specialisation::Quantise { .. }
            | Specialisation::Attention { .. }
            | Specialisation::Pool(_)
            | Specialisation::Dense { .. }
            | Specialisation::Widen => (TILES[0], x),
        };
        let mut arguments = pointers(&[x, weight, bias, residual, y, codes.scales, codes.zero_points]);
        arguments.extend(pointers(&[weight_scales, weight_sums, batch.header]));
        arguments.extend([int(n), int(k)]);
        Launch { kernel, grid: [blocks(n, tile.columns), blocks(capacity.tokens, tile.rows)], arguments }
    }

    /// [`Specialisation::Attention`].
    pub fn attention(
        kernel: Kernel,
        capacity: Capacity,
        batch: &BatchPointers,
        operands: &AttentionOperands,
    ) -> Launch {
        let AttentionOperands { q, k, v, y, heads, group, scale } = *operands;
        let mut arguments = pointers(&[q.first, k.first, v.first, y.first]);
        arguments.extend([q.stride, k.stride, v.stride, y.stride, group].map(int));
        arguments.extend(pointers(&[batch.header, batch.offsets, batch.blocks]));
        arguments.push(Argument::Float(scale * std::f32::consts::LOG2_E));
        let queries = kernel.specialisation.threads() / 2;
        Launch { kernel, grid: [blocks(capacity.attention_blocks(queries), 1), blocks(heads, 1)], arguments }
    }

    /// [`Specialisation::Pool`] of `x [tokens, width]` to `y [sequences, width]`, whose rows are divided by their length
    /// or by `normalise`, whichever is more.
    pub fn pool(
        kernel: Kernel,
        capacity: Capacity,
        batch: &BatchPointers,
        [x, y]: [Pointer; 2],
        width: usize,
        normalise: Option<f32>,
    ) -> Launch {
        let mut arguments = pointers(&[x, batch.offsets, batch.pool_from, y, batch.header]);
        arguments.extend([int(width), int(usize::from(normalise.is_some()))]);
        arguments.push(Argument::Float(normalise.unwrap_or(0.0)));
        Launch { kernel, grid: [blocks(capacity.sequences, 1), 1], arguments }
    }

    /// [`Specialisation::Dense`].
    pub fn dense(kernel: Kernel, capacity: Capacity, batch: &BatchPointers, operands: &DenseOperands) -> Launch {
        let DenseOperands { x, weight, bias, y, per_sequence, n, k, activation } = *operands;
        let mut arguments = pointers(&[x, weight, bias, y, batch.header]);
        arguments.extend([int(usize::from(per_sequence)), int(n), int(k), int(activation as usize)]);
        let rows = if per_sequence { capacity.sequences } else { capacity.tokens };
        Launch { kernel, grid: [blocks(n, ROWS_PER_BLOCK), blocks(rows, 1)], arguments }
    }

    /// [`Specialisation::Widen`] of `x [tokens, width]`.
    pub fn widen(
        kernel: Kernel,
        capacity: Capacity,
        batch: &BatchPointers,
        [x, y]: [Pointer; 2],
        width: usize,
    ) -> Launch {
        let mut arguments = pointers(&[x, y, batch.header]);
        arguments.push(int(width));
        Launch { kernel, grid: [blocks(capacity.tokens, ROWS_PER_BLOCK), 1], arguments }
    }
}

fn pointers(pointers: &[Pointer]) -> Vec<Argument> {
    pointers.iter().copied().map(Argument::Pointer).collect()
}

/// The attention blocks of sequences of these lengths: pairs of sequence and first query.
pub fn attention_blocks(lengths: &[usize], queries: usize) -> Vec<[usize; 2]> {
    let of = |(sequence, &length): (usize, &usize)| (0..length).step_by(queries).map(move |first| [sequence, first]);
    lengths.iter().enumerate().flat_map(of).collect()
}

const _: () = assert!(KEYS.is_multiple_of(16));
