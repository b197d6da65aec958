//! Launches of kernels: the one place that knows the order of their arguments and the size of their grids.

#[cfg(doc)]
use crate::specialisation::Specialisation;
use crate::specialisation::{Activation, KEYS, Kernel, ROWS_PER_BLOCK};

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
    /// An address of weights, which the kernel may read while the one before it still runs.
    Weight(Pointer),
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
    /// `[4]` i32: tokens, sequences, attention blocks, selected tokens.
    pub header: Pointer,
    /// `[sequences + 1]` i32: the first row of each sequence, and the number of rows.
    pub offsets: Pointer,
    /// `[attention blocks, 2]` i32: sequence, and first query within it.
    pub blocks: Pointer,
    /// `[sequences]` i32: tokens of each that pooling leaves out.
    pub pool_from: Pointer,
    /// `[selected tokens]` i32: their rows.
    pub selected: Pointer,
    /// Where keys and values are; null without a cache.
    pub cache: CachePointers,
    /// Where those are that an encoder has left; null without one.
    pub sources: CachePointers,
}

/// The part of a batch that says where keys and values lie in the pages of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachePointers {
    /// `[sequences]` i32: tokens that came before those of the batch. Of a source: how many more tokens than those of the batch it
    /// has, or less.
    pub pasts: Pointer,
    /// `[sequences]` i32: where the pages of each begin in `pages`.
    pub first_pages: Pointer,
    /// i32: pages in order of position.
    pub pages: Pointer,
    /// `[tokens]` i32: the row of each token in keys and values; null of sources, to which nothing is written.
    pub places: Pointer,
}

/// What a matrix has a row for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Each token.
    Tokens,
    /// Each sequence.
    Sequences,
    /// Each selected token.
    Selected,
}

/// Rows of a batch: where a kernel reads how many there are, and how many its grid has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// An i32.
    pub count: Pointer,
    /// The most that there are.
    pub most: usize,
}

impl BatchPointers {
    /// Rows of a kind in batches of a capacity.
    pub fn extent(&self, rows: Rows, capacity: Capacity) -> Extent {
        let (word, most) = match rows {
            Rows::Tokens => (0, capacity.tokens),
            Rows::Sequences => (1, capacity.sequences),
            Rows::Selected => (3, capacity.tokens),
        };
        Extent { count: self.header.at(word * size_of::<i32>()), most }
    }

    /// Where the number of attention blocks is.
    fn block_count(&self) -> Pointer {
        self.header.at(2 * size_of::<i32>())
    }
}

/// Codes of a quantised matrix of activations, `[tokens, width]` bytes, and what they mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodePointers {
    /// `[tokens, width]` u8.
    pub codes: Pointer,
    /// `[tokens]` f32.
    pub scales: Pointer,
    /// `[tokens]` i32; null for floats.
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
    /// What the sum of these is multiplied by.
    pub scale: f32,
    /// `[hidden]` f32; null where nothing is normalised.
    pub gamma: Pointer,
    /// `[hidden]` f32; null for a norm by the root mean square.
    pub beta: Pointer,
    /// Added to the variance.
    pub epsilon: f32,
    /// Columns, a multiple of 8.
    pub hidden: usize,
    /// `[tokens, hidden]`: the result.
    pub y: Pointer,
    /// How the result becomes integers.
    pub integers: IntegerOperands,
    /// The result's codes.
    pub codes: CodePointers,
}

/// How rows become integers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IntegerOperands {
    /// `[width]` f32: what each column is multiplied by; null where codes are floats.
    pub factor: Pointer,
    /// The least and greatest value of all rows; the same number twice where each row has its own.
    pub range: [f32; 2],
}

impl IntegerOperands {
    fn arguments(self) -> [Argument; 3] {
        let [low, high] = self.range.map(Argument::Float);
        [Argument::Pointer(self.factor), low, high]
    }
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
    /// Columns of the result, a multiple of 8 where it is not f32.
    pub n: usize,
    /// Depth, a multiple of 16 bytes.
    pub k: usize,
}

/// Operands of [`Specialisation::GroupedGemm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupedGemmOperands {
    /// `[tokens, groups · k]`.
    pub x: Columns,
    /// `[groups, n, k]`.
    pub weight: Pointer,
    /// `[tokens, groups · n]`.
    pub y: Pointer,
    /// Number of groups.
    pub groups: usize,
    /// Columns of the result of a group, an even number.
    pub n: usize,
    /// Depth, a multiple of 8.
    pub k: usize,
}

/// Operands of [`Specialisation::Epilogue`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpilogueOperands {
    /// `[tokens, n]`: sums, and the results where those are no codes.
    pub y: Pointer,
    /// `[tokens]` f32.
    pub x_scales: Pointer,
    /// `[n]` f32.
    pub weight_scales: Pointer,
    /// `[n]` f32, or null.
    pub bias: Pointer,
    /// `[tokens, n]`, or null.
    pub residual: Pointer,
    /// The codes of the results, or null.
    pub codes: CodePointers,
    /// Columns, a multiple of 8.
    pub n: usize,
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
    /// Columns of a head, a multiple of 8.
    pub head_dim: usize,
    /// Factor on the scores, without log2(e).
    pub scale: f32,
    /// Scores `s` become `cap · tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// Whether a query sees no key behind its own.
    pub causal: bool,
    /// How many keys a query sees on either side of its own.
    pub window: Option<usize>,
    /// What the distance from key to query adds to the scores.
    pub distances: Distances,
    /// What contents and distance add to the products of queries and keys.
    pub content: ContentScores,
}

/// What the distance `i - j` from a key at `j` to a query at `i` adds to a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distances {
    /// `[heads, 2 · farthest + 1]` f32, times log2(e); null for nothing.
    pub table: Pointer,
    /// The farthest distance that has a value of its own.
    pub farthest: usize,
}

/// What the contents of a query at `i`, or of a key at `j`, add to their product by the distance `i - j`. It has a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentScores {
    /// `[tokens, heads · buckets]` by the query's token, or null.
    pub by_query: Pointer,
    /// `[tokens, heads · buckets]` by the key's token, or null.
    pub by_key: Pointer,
    /// Buckets of a head.
    pub buckets: usize,
    /// `[2 · farthest + 1]` i32: the bucket of each distance; null for no such scores.
    pub bucket_of: Pointer,
    /// The farthest distance that has an entry of its own.
    pub farthest: usize,
}

/// Operands of [`Specialisation::Rotary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotaryOperands {
    /// `[rows, heads · head_dim]`.
    pub x: Columns,
    /// `[rows]` i32.
    pub positions: Pointer,
    /// `[positions, rotated]` f32: cosines, then sines.
    pub table: Pointer,
    /// `[rows, heads · head_dim]`.
    pub y: Pointer,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head, a multiple of 4.
    pub head_dim: usize,
    /// Columns of a head that are rotated, a multiple of 4.
    pub rotated: usize,
}

/// Operands of [`Specialisation::HeadNorm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadNormOperands {
    /// `[rows, heads · head_dim]`.
    pub x: Columns,
    /// `[head_dim]` f32.
    pub gamma: Pointer,
    /// `[rows, heads · head_dim]`.
    pub y: Pointer,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Operands of [`Specialisation::WideNorm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WideNormOperands {
    /// `[rows, width]` f32.
    pub x: Pointer,
    /// `[width]` f32.
    pub gamma: Pointer,
    /// `[width]` f32; null for a norm by the root mean square.
    pub beta: Pointer,
    /// `[rows, width]` f32.
    pub y: Pointer,
    /// Columns.
    pub width: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Operands of [`Specialisation::Dense`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseOperands {
    /// `[rows, k]` f32.
    pub x: Pointer,
    /// `[n, k]`.
    pub weight: Pointer,
    /// `[n]` f32, or null.
    pub bias: Pointer,
    /// `[rows, n]` f32.
    pub y: Pointer,
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
    /// A kernel whose warps have a row each.
    fn row_wise(kernel: Kernel, rows: Extent, arguments: Vec<Argument>) -> Launch {
        Launch { kernel, grid: [blocks(rows.most, ROWS_PER_BLOCK), 1], arguments }
    }

    /// [`Specialisation::Norm`].
    pub fn norm(kernel: Kernel, rows: Extent, operands: &NormOperands) -> Launch {
        let [table0, table1, table2] = operands.tables;
        let CodePointers { codes, scales, zero_points } = operands.codes;
        let mut arguments = pointers(&[operands.x, table0.0, table1.0, table2.0, table0.1, table1.1, table2.1]);
        arguments.extend(pointers(&[operands.residual, operands.gamma, operands.beta]));
        arguments.extend([operands.epsilon, operands.scale].map(Argument::Float));
        arguments.push(Argument::Pointer(operands.y));
        arguments.extend(operands.integers.arguments());
        arguments.extend(pointers(&[codes, scales, zero_points, rows.count]));
        arguments.push(int(operands.hidden));
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::Quantise`] of `x [rows, width]`.
    pub fn quantise(
        kernel: Kernel,
        rows: Extent,
        x: Pointer,
        integers: IntegerOperands,
        to: CodePointers,
        width: usize,
    ) -> Launch {
        let mut arguments = vec![Argument::Pointer(x)];
        arguments.extend(integers.arguments());
        arguments.extend(pointers(&[to.codes, to.scales, to.zero_points, rows.count]));
        arguments.push(int(width));
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::Gemm`].
    pub fn gemm(kernel: Kernel, rows: Extent, operands: &GemmOperands) -> Launch {
        Launch::product(kernel, rows, operands, 1, [operands.k, operands.n])
    }

    /// [`Specialisation::GroupedGemm`].
    pub fn grouped_gemm(kernel: Kernel, rows: Extent, operands: &GroupedGemmOperands) -> Launch {
        let GroupedGemmOperands { x, weight, y, groups, n, k } = *operands;
        let operands = GemmOperands { x: x.first, weight, y, n, k, ..GemmOperands::default() };
        Launch::product(kernel, rows, &operands, groups, [x.stride, groups * n])
    }

    fn product(kernel: Kernel, rows: Extent, operands: &GemmOperands, groups: usize, strides: [usize; 2]) -> Launch {
        let GemmOperands { x, codes, weight, weight_scales, weight_sums, bias, residual, y, n, k } = *operands;
        let x = if x == Pointer::NULL { codes.codes } else { x };
        let tile = kernel.tile();
        let mut arguments = vec![Argument::Pointer(x), Argument::Weight(weight)];
        arguments.extend(pointers(&[bias, residual, y, codes.scales, codes.zero_points]));
        arguments.extend(pointers(&[weight_scales, weight_sums, rows.count]));
        arguments.extend([n, k].into_iter().chain(strides).map(int));
        let columns = blocks(n, tile.columns).saturating_mul(blocks(groups, 1));
        Launch { kernel, grid: [columns, blocks(rows.most, tile.rows)], arguments }
    }

    /// [`Specialisation::Epilogue`].
    pub fn epilogue(kernel: Kernel, rows: Extent, operands: &EpilogueOperands) -> Launch {
        let EpilogueOperands { y, x_scales, weight_scales, bias, residual, codes, n } = *operands;
        let mut arguments = pointers(&[y, x_scales, weight_scales, bias, residual]);
        arguments.extend(pointers(&[codes.codes, codes.scales, rows.count]));
        arguments.push(int(n));
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::Attention`].
    pub fn attention(
        kernel: Kernel,
        capacity: Capacity,
        batch: &BatchPointers,
        operands: &AttentionOperands,
    ) -> Launch {
        let AttentionOperands {
            q,
            k,
            v,
            y,
            heads,
            group,
            head_dim,
            scale,
            soft_cap,
            causal,
            window,
            distances,
            content,
        } = *operands;
        let mut arguments = pointers(&[q.first, k.first, v.first, y.first]);
        arguments.extend([q.stride, k.stride, v.stride, y.stride, head_dim, group].map(int));
        arguments.extend(pointers(&[batch.block_count(), batch.offsets, batch.blocks]));
        arguments
            .extend([scale, soft_cap.unwrap_or(0.0)].map(|factor| Argument::Float(factor * std::f32::consts::LOG2_E)));
        arguments.extend([int(usize::from(causal)), window.map_or(Argument::Int(-1), int)]);
        arguments.extend([Argument::Pointer(distances.table), int(distances.farthest.max(content.farthest))]);
        arguments.extend(pointers(&[content.by_query, content.by_key]));
        arguments.extend([heads * content.buckets, content.buckets].map(int));
        arguments.extend(pointers(&[content.bucket_of, batch.cache.pasts, batch.cache.first_pages, batch.cache.pages]));
        let queries = kernel.threads() / 2;
        Launch { kernel, grid: [blocks(capacity.attention_blocks(queries), 1), blocks(heads, 1)], arguments }
    }

    /// [`Specialisation::Pool`] of `x [tokens, width]` to `y [sequences, width]`, whose rows are divided by their length
    /// or by `normalise`, whichever is more. `from [sequences]` i32 is the first token that counts, or the only one.
    pub fn pool(
        kernel: Kernel,
        capacity: Capacity,
        batch: &BatchPointers,
        [x, from, y]: [Pointer; 3],
        width: usize,
        normalise: Option<f32>,
    ) -> Launch {
        let sequences = batch.extent(Rows::Sequences, capacity);
        let mut arguments = pointers(&[x, batch.offsets, from, y, sequences.count]);
        arguments.extend([int(width), int(usize::from(normalise.is_some()))]);
        arguments.push(Argument::Float(normalise.unwrap_or(0.0)));
        Launch { kernel, grid: [blocks(sequences.most, 1), 1], arguments }
    }

    /// [`Specialisation::Dense`].
    pub fn dense(kernel: Kernel, rows: Extent, operands: &DenseOperands) -> Launch {
        let DenseOperands { x, weight, bias, y, n, k, activation } = *operands;
        let mut arguments = pointers(&[x, weight, bias, y, rows.count]);
        arguments.extend([int(n), int(k), int(activation as usize)]);
        Launch { kernel, grid: [blocks(n, ROWS_PER_BLOCK), blocks(rows.most, 1)], arguments }
    }

    /// [`Specialisation::Append`] of `keys` and `values` `[tokens, width]` to those of a cache, `[places, width]`.
    pub fn append(
        kernel: Kernel,
        capacity: Capacity,
        batch: &BatchPointers,
        [keys, values]: [Columns; 2],
        to: [Pointer; 2],
        width: usize,
    ) -> Launch {
        let tokens = batch.extent(Rows::Tokens, capacity);
        let mut arguments = Vec::with_capacity(9);
        for Columns { first, stride } in [keys, values] {
            arguments.extend([Argument::Pointer(first), int(stride)]);
        }
        arguments.extend(pointers(&[batch.cache.places, to[0], to[1], tokens.count]));
        arguments.push(int(width));
        Launch::row_wise(kernel, tokens, arguments)
    }

    /// [`Specialisation::Widen`] of `x [rows, width]`.
    pub fn widen(kernel: Kernel, rows: Extent, [x, y]: [Pointer; 2], width: usize) -> Launch {
        let mut arguments = pointers(&[x, y, rows.count]);
        arguments.push(int(width));
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::WideNorm`].
    pub fn wide_norm(kernel: Kernel, rows: Extent, operands: &WideNormOperands) -> Launch {
        let WideNormOperands { x, gamma, beta, y, width, epsilon } = *operands;
        let mut arguments = pointers(&[x, gamma, beta, y, rows.count]);
        arguments.extend([int(width), Argument::Float(epsilon)]);
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::HeadNorm`].
    pub fn head_norm(kernel: Kernel, rows: Extent, operands: &HeadNormOperands) -> Launch {
        let HeadNormOperands { x, gamma, y, heads, head_dim, epsilon } = *operands;
        let mut arguments = vec![Argument::Pointer(x.first), int(x.stride)];
        arguments.extend(pointers(&[gamma, y, rows.count]));
        arguments.extend([int(heads), int(head_dim), Argument::Float(epsilon)]);
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::Gate`]: `y [rows, width] = activation(a) · b`, or of `a` alone.
    pub fn gate(
        kernel: Kernel,
        rows: Extent,
        a: Columns,
        b: Option<Columns>,
        y: Pointer,
        width: usize,
        activation: Activation,
    ) -> Launch {
        let b = b.unwrap_or_default();
        let mut arguments = vec![Argument::Pointer(a.first), int(a.stride), Argument::Pointer(b.first), int(b.stride)];
        arguments.extend(pointers(&[y, rows.count]));
        arguments.extend([int(width), int(activation as usize)]);
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::Rotary`].
    pub fn rotary(kernel: Kernel, rows: Extent, operands: &RotaryOperands) -> Launch {
        let RotaryOperands { x, positions, table, y, heads, head_dim, rotated } = *operands;
        let mut arguments = vec![Argument::Pointer(x.first), int(x.stride)];
        arguments.extend(pointers(&[positions, table]));
        arguments.push(int(rotated));
        arguments.extend(pointers(&[y, rows.count]));
        arguments.extend([int(heads), int(head_dim)]);
        Launch::row_wise(kernel, rows, arguments)
    }

    /// [`Specialisation::Select`]: rows `places` of `x [tokens, width]`.
    pub fn select(kernel: Kernel, rows: Extent, [x, places, y]: [Pointer; 3], width: usize) -> Launch {
        let mut arguments = pointers(&[x, places, y, rows.count]);
        arguments.push(int(width));
        Launch::row_wise(kernel, rows, arguments)
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
