//! From steps to launches, for one size of batches.

use super::arena::Arena;
use super::batch::BatchLayout;
use super::encoder::Target;
use super::{Codes, IdsId, Plan, Product, Quantisation, Rows, Step, ValueId, View, WeightId};
use crate::error::Result;
use crate::launch::{
    AttentionOperands, BatchPointers, Capacity, CodePointers, Columns, DenseOperands, GemmOperands, Launch,
    NormOperands, Pointer,
};
use crate::specialisation::{ATTENTION_WARPS, Kernel, Specialisation, TILES};

/// A plan with the addresses of all that it uses.
pub(crate) struct Addresses<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) arena: &'a Arena,
    pub(crate) arena_at: Pointer,
    pub(crate) weights: &'a [Pointer],
    pub(crate) batch: &'a BatchLayout,
    pub(crate) batch_at: Pointer,
}

/// Tokens from which on an attention block has all of its warps.
const MANY_TOKENS: usize = 64;

/// Warps of an attention block for batches of that size.
pub(crate) fn attention_warps(capacity: Capacity) -> usize {
    ATTENTION_WARPS[usize::from(capacity.tokens > MANY_TOKENS)]
}

/// The tile of a matrix product: the largest one that still gives each multiprocessor a block.
fn tile(tokens: usize, n: usize, target: Target) -> usize {
    let blocks = |tile: &usize| tokens.div_ceil(TILES[*tile].rows) * n.div_ceil(TILES[*tile].columns);
    (1..TILES.len()).rev().find(|tile| blocks(tile) >= target.multiprocessors).unwrap_or(0)
}

impl Addresses<'_> {
    /// The launches of all steps.
    pub(crate) fn launches(&self, target: Target, capacity: Capacity) -> Result<Vec<Launch>> {
        self.plan.steps.iter().map(|step| self.launch(step, target, capacity)).collect()
    }

    fn launch(&self, step: &Step, target: Target, capacity: Capacity) -> Result<Launch> {
        let kernel = |specialisation| Kernel::new(specialisation, self.plan.format, target.architecture);
        let batch = &self.shared();
        match step {
            Step::Norm { x, y, quantisation, .. } => {
                let hidden = self.plan.values[*y].columns;
                let bits = quantisation.map_or(0, |quantisation| quantisation.bits);
                let kernel = kernel(Specialisation::Norm { hidden, bits })?;
                Ok(Launch::norm(kernel, capacity, batch, &self.norm(step, x.map_or(Pointer::NULL, |x| self.value(x)))))
            }
            Step::Quantise { x, quantisation: Quantisation { factor, bits, to } } => {
                let kernel = kernel(Specialisation::Quantise { bits: *bits })?;
                let operands = [self.value(*x), self.weights[*factor]];
                let width = self.plan.values[*x].columns;
                Ok(Launch::quantise(kernel, capacity, batch, operands, self.codes(*to), width))
            }
            Step::Gemm { product, activation, n, .. } => {
                let tile = tile(capacity.tokens, *n, target);
                let codes = matches!(product, Product::Codes { .. });
                let kernel = kernel(Specialisation::Gemm { codes, activation: *activation, tile })?;
                Ok(Launch::gemm(kernel, capacity, batch, &self.gemm(step, product)))
            }
            Step::Attention { q, k, v, y, heads, group, head_dim, scale } => {
                let warps = attention_warps(capacity);
                let kernel = kernel(Specialisation::Attention { head_dim: *head_dim, warps })?;
                let [q, k, v] = [q, k, v].map(|view| self.columns(*view));
                let y = self.columns(View { value: *y, first: 0, columns: heads * head_dim });
                let operands = AttentionOperands { q, k, v, y, heads: *heads, group: *group, scale: *scale };
                Ok(Launch::attention(kernel, capacity, batch, &operands))
            }
            Step::Pool { x, y, pooling, normalise } => {
                let width = self.plan.values[*x].columns;
                let places = [self.value(*x), self.value(*y)];
                Ok(Launch::pool(kernel(Specialisation::Pool(*pooling))?, capacity, batch, places, width, *normalise))
            }
            Step::Dense { x, weight, bias, y, n, k, activation } => {
                let x_value = self.plan.values[*x];
                let operands = DenseOperands {
                    x: self.value(*x),
                    weight: self.weights[*weight],
                    bias: self.weight(*bias),
                    y: self.value(*y),
                    per_sequence: x_value.rows == Rows::Sequences,
                    n: *n,
                    k: *k,
                    activation: *activation,
                };
                let kernel = kernel(Specialisation::Dense { wide: x_value.element_bytes == 4 })?;
                Ok(Launch::dense(kernel, capacity, batch, &operands))
            }
            Step::Widen { x, y } => {
                let places = [self.value(*x), self.value(*y)];
                let width = self.plan.values[*x].columns;
                Ok(Launch::widen(kernel(Specialisation::Widen)?, capacity, batch, places, width))
            }
        }
    }

    fn norm(&self, step: &Step, x: Pointer) -> NormOperands {
        let mut operands = NormOperands { x, ..NormOperands::default() };
        if let Step::Norm { tables, residual, affine, epsilon, y, quantisation, .. } = step {
            for (to, &(table, ids)) in operands.tables.iter_mut().zip(tables) {
                *to = (self.weights[table], self.ids(ids));
            }
            operands.residual = residual.map_or(Pointer::NULL, |residual| self.value(residual));
            if let Some([gamma, beta]) = affine {
                (operands.gamma, operands.beta) = (self.weights[*gamma], self.weights[*beta]);
            }
            operands.epsilon = *epsilon;
            operands.y = self.value(*y);
            if let Some(Quantisation { factor, to, .. }) = quantisation {
                operands.factor = self.weights[*factor];
                operands.codes = self.codes(*to);
            }
        }
        operands
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

    fn shared(&self) -> BatchPointers {
        self.batch.pointers(self.batch_at)
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
        let [codes, scales, zero_points] = [codes, scales, zero_points].map(|value| self.value(value));
        CodePointers { codes, scales, zero_points }
    }

    fn columns(&self, view: View) -> Columns {
        let stride = self.plan.values[view.value].columns;
        Columns { first: self.value(view.value).at(view.first * size_of::<u16>()), stride }
    }
}
