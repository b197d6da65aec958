//! From steps to launches, for one size of batches.

use super::arena::Arena;
use super::batch::BatchLayout;
use super::{
    Affine, Codes, Content, IdsId, Plan, Product, Quantisation, SlotId, Step, ValueId, View, WeightId, unsupported,
};
use crate::architecture::Architecture;
use crate::device::Operation;
use crate::error::Result;
use crate::launch::{
    AttentionOperands, BatchPointers, Capacity, CodePointers, Columns, ContentScores, DenseOperands, Distances,
    EpilogueOperands, GemmOperands, GroupedGemmOperands, HeadNormOperands, IntegerOperands, Launch, NormOperands,
    Pointer, RotaryOperands, Rows, WideNormOperands,
};
use crate::matmul::{Matmul, Scaling, sum_factor};
use crate::specialisation::{
    ATTENTION_WARPS, Activation, CONTENT_HEAD_DIM, Kernel, Specialisation, Tile, head_tile, norm_room,
};

/// The GPU that launches are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What kernels are compiled for.
    pub architecture: Architecture,
    /// Multiprocessors, by which tiles are chosen. They change no bit of a result.
    pub multiprocessors: usize,
}

/// A plan with the addresses of all that it uses.
pub(crate) struct Addresses<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) arena: &'a Arena,
    pub(crate) arena_at: Pointer,
    pub(crate) weights: &'a [Pointer],
    /// Keys and values of each slot.
    pub(crate) slots: &'a [[Pointer; 2]],
    pub(crate) batch: &'a BatchLayout,
    pub(crate) batch_at: Pointer,
}

/// Tokens from which on an attention block has all of its warps.
const MANY_TOKENS: usize = 64;

/// Where a library's matrix products multiply by the scales of rows and columns.
const SCALING: Architecture = Architecture::of(9, 0);

/// Warps of an attention block for batches of that size.
pub(crate) fn attention_warps(capacity: Capacity) -> usize {
    ATTENTION_WARPS[usize::from(capacity.tokens > MANY_TOKENS)]
}

/// The tile of a matrix product, or of several: the largest one that still gives each multiprocessor a block.
fn tile(tokens: usize, n: usize, products: usize, target: Target) -> usize {
    let blocks = |tile: &Tile| tokens.div_ceil(tile.rows) * n.div_ceil(tile.columns) * products;
    Tile::all(target.architecture).iter().rposition(|tile| blocks(tile) >= target.multiprocessors).unwrap_or(0)
}

impl Addresses<'_> {
    /// What all steps do.
    pub(crate) fn operations(&self, target: Target, capacity: Capacity) -> Result<Vec<Operation>> {
        let mut operations = Vec::with_capacity(self.plan.steps.len());
        for step in &self.plan.steps {
            if let Some(matmul) = self.matmul(step, target, capacity) {
                operations.push(Operation::Matmul(matmul));
                if matmul.scaling.is_some() {
                    continue;
                }
            }
            operations.push(Operation::Launch(self.launch(step, target, capacity)?));
        }
        Ok(operations)
    }

    fn launch(&self, step: &Step, target: Target, capacity: Capacity) -> Result<Launch> {
        let kernel = |specialisation| Kernel::new(specialisation, self.plan.format, target.architecture);
        let batch = &self.batch.pointers(self.batch_at);
        // Rows and columns of the step's result, where it has one.
        let result = step.writes().first().map(|&value| self.plan.values[value]);
        let (rows, width) = result.map_or((Rows::Tokens, 0), |value| (value.rows, value.columns));
        let rows = batch.extent(rows, capacity);
        match step {
            Step::Norm { x, tables, residual, scale, norm, y, quantisation } => {
                let codes = quantisation.map(|quantisation| quantisation.codes);
                let operands = NormOperands {
                    hidden: width,
                    scale: *scale,
                    tables: std::array::from_fn(|index| {
                        tables
                            .get(index)
                            .map_or_else(Default::default, |&(table, ids)| (self.weights[table], self.ids(ids)))
                    }),
                    ..self.norm(*x, *residual, *norm, *y, *quantisation)
                };
                let specialisation = Specialisation::Norm { room: norm_room(width)?, codes };
                Ok(Launch::norm(kernel(specialisation)?, rows, &operands))
            }
            Step::Quantise { x, quantisation } => {
                let kernel = kernel(Specialisation::Quantise { codes: quantisation.codes })?;
                let (integers, to) = (self.integers(*quantisation), self.codes(quantisation.to));
                Ok(Launch::quantise(kernel, rows, self.value(*x), integers, to, width))
            }
            Step::Gemm { product, activation, n, wide, .. } => {
                let tile = tile(rows.most, *n, 1, target);
                let codes = matches!(product, Product::Codes { .. });
                let kernel = kernel(Specialisation::Gemm { codes, activation: *activation, tile, wide: *wide })?;
                Ok(Launch::gemm(kernel, rows, &self.gemm(step, product)))
            }
            Step::GroupedGemm { x, weight, groups, n, k, y } => {
                let tile = tile(rows.most, *n, *groups, target);
                let operands = GroupedGemmOperands {
                    x: self.columns(*x),
                    weight: self.weights[*weight],
                    y: self.value(*y),
                    groups: *groups,
                    n: *n,
                    k: *k,
                };
                Ok(Launch::grouped_gemm(kernel(Specialisation::GroupedGemm { tile })?, rows, &operands))
            }
            Step::Fp8 { x, scales, bias, activation, residual, y, n, to, .. } => {
                let operands = EpilogueOperands {
                    y: self.value(*y),
                    x_scales: self.value(x.scales),
                    weight_scales: self.weights[*scales],
                    bias: self.weight(*bias),
                    residual: residual.map_or(Pointer::NULL, |residual| self.value(residual)),
                    codes: to.map_or_else(CodePointers::default, |to| self.codes(to)),
                    n: *n,
                };
                let codes = to.is_some();
                Ok(Launch::epilogue(
                    kernel(Specialisation::Epilogue { activation: *activation, codes })?,
                    rows,
                    &operands,
                ))
            }
            Step::Attention {
                q,
                k,
                v,
                heads,
                group,
                head_dim,
                scale,
                soft_cap,
                causal,
                window,
                distances,
                content,
                cache,
                y,
            } => {
                let warps = attention_warps(capacity);
                let tile = if content.is_some() { CONTENT_HEAD_DIM } else { head_tile(*head_dim).unwrap_or(*head_dim) };
                let scores = content.map_or(0, |content| heads * content.buckets);
                if capacity.tokens.saturating_mul(scores) > i32::MAX as usize {
                    return unsupported(format!(
                        "batches of {} tokens with {scores} scores of content",
                        capacity.tokens
                    ));
                }
                let (with_content, paged) = (content.is_some(), cache.is_some());
                let specialisation = Specialisation::Attention { head_dim: tile, content: with_content, paged, warps };
                let kernel = kernel(specialisation)?;
                let [q, mut k, mut v] = [q, k, v].map(|view| self.columns(*view));
                if let Some(slot) = *cache {
                    [k, v] = self.cached(slot);
                }
                let y = Columns { first: self.value(*y), stride: width };
                let distances = distances.map_or_else(Distances::default, |(table, farthest)| Distances {
                    table: self.weights[table],
                    farthest,
                });
                let operands = AttentionOperands {
                    q,
                    k,
                    v,
                    y,
                    heads: *heads,
                    group: *group,
                    head_dim: *head_dim,
                    scale: *scale,
                    soft_cap: *soft_cap,
                    causal: *causal,
                    window: *window,
                    distances,
                    content: content.map_or_else(ContentScores::default, |content| self.content(content)),
                };
                Ok(Launch::attention(kernel, capacity, batch, &operands))
            }
            Step::CrossAttention { q, y, heads, head_dim, scale, slot } => {
                let tile = head_tile(*head_dim).unwrap_or(*head_dim);
                let warps = attention_warps(capacity);
                let kernel = kernel(Specialisation::Attention { head_dim: tile, content: false, paged: true, warps })?;
                let [k, v] = self.cached(*slot);
                let operands = AttentionOperands {
                    q: self.columns(*q),
                    k,
                    v,
                    y: Columns { first: self.value(*y), stride: width },
                    heads: *heads,
                    group: 1,
                    head_dim: *head_dim,
                    scale: *scale,
                    ..AttentionOperands::default()
                };
                let batch = BatchPointers { cache: batch.sources, ..*batch };
                Ok(Launch::attention(kernel, capacity, &batch, &operands))
            }
            Step::Append { k, v, slot } => {
                let (kernel, columns) = (kernel(Specialisation::Append)?, [*k, *v].map(|view| self.columns(view)));
                Ok(Launch::append(kernel, capacity, batch, columns, self.slots[*slot], self.plan.slots[*slot]))
            }
            Step::Rotary { x, positions, table, rotated, interleaved, y, heads, head_dim } => {
                let operands = RotaryOperands {
                    x: self.columns(*x),
                    positions: self.ids(*positions),
                    table: self.weights[*table],
                    y: self.value(*y),
                    heads: *heads,
                    head_dim: *head_dim,
                    rotated: *rotated,
                };
                Ok(Launch::rotary(kernel(Specialisation::Rotary { interleaved: *interleaved })?, rows, &operands))
            }
            Step::HeadNorm { x, gamma, epsilon, y, heads, head_dim } => {
                let operands = HeadNormOperands {
                    x: self.columns(*x),
                    gamma: self.weights[*gamma],
                    y: self.value(*y),
                    heads: *heads,
                    head_dim: *head_dim,
                    epsilon: *epsilon,
                };
                Ok(Launch::head_norm(kernel(Specialisation::HeadNorm)?, rows, &operands))
            }
            Step::Gate { a, b, activation, y } => {
                let (a, b) = (self.columns(*a), b.map(|b| self.columns(b)));
                Ok(Launch::gate(kernel(Specialisation::Gate)?, rows, a, b, self.value(*y), width, *activation))
            }
            Step::Select { x, y } => {
                let places = [self.value(*x), batch.selected, self.value(*y)];
                Ok(Launch::select(kernel(Specialisation::Select)?, rows, places, width))
            }
            Step::Pool { x, y, pooling, mark, normalise } => {
                let from = mark.map_or(batch.pool_from, |mark| self.batch.mark(self.batch_at, mark));
                let places = [self.value(*x), from, self.value(*y)];
                Ok(Launch::pool(kernel(Specialisation::Pool(*pooling))?, capacity, batch, places, width, *normalise))
            }
            Step::Dense { x, weight, bias, y, n, k, activation } => {
                let operands = DenseOperands {
                    x: self.value(*x),
                    weight: self.weights[*weight],
                    bias: self.weight(*bias),
                    y: self.value(*y),
                    n: *n,
                    k: *k,
                    activation: *activation,
                };
                Ok(Launch::dense(kernel(Specialisation::Dense)?, rows, &operands))
            }
            Step::Widen { x, y } => {
                let places = [self.value(*x), self.value(*y)];
                Ok(Launch::widen(kernel(Specialisation::Widen)?, rows, places, width))
            }
            Step::WideNorm { x, norm: Affine { gamma, beta, epsilon }, y } => {
                let operands = WideNormOperands {
                    x: self.value(*x),
                    gamma: self.weights[*gamma],
                    beta: self.weight(*beta),
                    y: self.value(*y),
                    width,
                    epsilon: *epsilon,
                };
                Ok(Launch::wide_norm(kernel(Specialisation::WideNorm)?, rows, &operands))
            }
        }
    }

    /// The matrix product that a library computes for a step. It does all of the step where it can scale, and nothing but a bias
    /// follows.
    fn matmul(&self, step: &Step, target: Target, capacity: Capacity) -> Option<Matmul> {
        let Step::Fp8 { x, weight, scales, narrow_bias, activation, residual, y, n, k, to, .. } = step else {
            return None;
        };
        let ends = *activation == Activation::Identity && residual.is_none() && to.is_none();
        let scaling = (ends && target.architecture.major == SCALING.major).then(|| Scaling {
            x: self.value(x.scales),
            weight: self.weights[*scales],
            bias: self.weight(*narrow_bias),
        });
        Some(Matmul {
            format: self.plan.format,
            x: self.value(x.codes),
            weight: self.weights[*weight],
            y: self.value(*y),
            rows: self.batch.pointers(self.batch_at).extent(self.plan.values[*y].rows, capacity).most,
            n: *n,
            k: *k,
            factor: sum_factor(*k),
            scaling,
        })
    }

    /// Keys and values of a slot.
    fn cached(&self, slot: SlotId) -> [Columns; 2] {
        self.slots[slot].map(|first| Columns { first, stride: self.plan.slots[slot] })
    }

    /// All operands but the tables.
    fn norm(
        &self,
        x: Option<ValueId>,
        residual: Option<ValueId>,
        norm: Option<Affine>,
        y: ValueId,
        quantisation: Option<Quantisation>,
    ) -> NormOperands {
        let value = |value: Option<ValueId>| value.map_or(Pointer::NULL, |value| self.value(value));
        let mut operands =
            NormOperands { x: value(x), residual: value(residual), y: self.value(y), ..NormOperands::default() };
        if let Some(Affine { gamma, beta, epsilon }) = norm {
            (operands.gamma, operands.beta, operands.epsilon) = (self.weights[gamma], self.weight(beta), epsilon);
        }
        if let Some(quantisation) = quantisation {
            (operands.integers, operands.codes) = (self.integers(quantisation), self.codes(quantisation.to));
        }
        operands
    }

    fn integers(&self, Quantisation { factor, range, .. }: Quantisation) -> IntegerOperands {
        IntegerOperands { factor: self.weight(factor), range: range.unwrap_or_default() }
    }

    fn gemm(&self, step: &Step, product: &Product) -> GemmOperands {
        let mut operands = match *product {
            Product::Floats { x, weight } => {
                GemmOperands { x: self.value(x), weight: self.weights[weight], ..GemmOperands::default() }
            }
            Product::Codes { x, weight, scales, sums } => GemmOperands {
                codes: self.codes(x),
                weight: self.weights[weight],
                weight_scales: self.weights[scales],
                weight_sums: self.weights[sums],
                ..GemmOperands::default()
            },
        };
        if let Step::Gemm { bias, residual, y, n, k, .. } = step {
            operands.bias = self.weight(*bias);
            operands.residual = residual.map_or(Pointer::NULL, |residual| self.value(residual));
            (operands.y, operands.n, operands.k) = (self.value(*y), *n, *k);
        }
        operands
    }

    fn content(&self, content: Content) -> ContentScores {
        let Content { by_query, by_key, buckets, bucket_of, farthest } = content;
        let value = |value: Option<ValueId>| value.map_or(Pointer::NULL, |value| self.value(value));
        let (by_query, by_key, bucket_of) = (value(by_query), value(by_key), self.weights[bucket_of]);
        ContentScores { by_query, by_key, buckets, bucket_of, farthest }
    }

    fn ids(&self, ids: IdsId) -> Pointer {
        self.batch.ids(self.batch_at, ids)
    }

    fn weight(&self, weight: Option<WeightId>) -> Pointer {
        weight.map_or(Pointer::NULL, |weight| self.weights[weight])
    }

    fn value(&self, value: ValueId) -> Pointer {
        self.arena_at.at(self.arena.places[value])
    }

    fn codes(&self, codes: Codes) -> CodePointers {
        let Codes { codes, scales, zero_points } = codes;
        let [codes, scales] = [codes, scales].map(|value| self.value(value));
        CodePointers { codes, scales, zero_points: zero_points.map_or(Pointer::NULL, |value| self.value(value)) }
    }

    fn columns(&self, view: View) -> Columns {
        let stride = self.plan.values[view.value].columns;
        Columns { first: self.value(view.value).at(view.first * size_of::<u16>()), stride }
    }
}
