//! Rows: embedding, residual sum, layer norm, quantisation.

use super::warp_sum;
use crate::specialisation::Format;

/// Operands of `kernels/norm.cu`, in which absent ones are `None` or empty.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Type of the 16-bit operands.
    pub format: Format,
    /// Rows.
    pub tokens: usize,
    /// Width of a row.
    pub hidden: usize,
    /// `[tokens, hidden]`.
    pub x: Option<&'a [u16]>,
    /// Tables `[rows, hidden]` with ids `[tokens]`, at most three.
    pub tables: &'a [(&'a [u16], &'a [i32])],
    /// `[tokens, hidden]`.
    pub residual: Option<&'a [u16]>,
    /// What the sum of these is multiplied by.
    pub scale: f32,
    /// What the rows are normalised with.
    pub affine: Option<Affine<'a>>,
    /// What its codes are.
    pub codes: Option<Coding<'a>>,
}

/// What the codes of rows are.
#[derive(Clone, Copy, Debug)]
pub enum Coding<'a> {
    /// Unsigned integers of rows that are multiplied by factors.
    Integers {
        /// `[hidden]`.
        factor: &'a [f32],
        /// Bits of a code.
        bits: u8,
        /// Least and greatest value, where not each row has its own.
        range: Option<[f32; 2]>,
    },
    /// e4m3 floats.
    E4m3,
}

/// What a norm multiplies its rows by and adds to them.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// `[hidden]`.
    pub gamma: &'a [f32],
    /// `[hidden]`; `None` for a norm by the root mean square.
    pub beta: Option<&'a [f32]>,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Affine<'_> {
    /// Normalises a row, with sums in a kernel's own order.
    fn apply(&self, row: &mut [f32], sum: impl Fn(&[f32]) -> f32, squares: impl Fn(&[f32]) -> f32) {
        let columns = row.len() as f32;
        let mean = if self.beta.is_some() { sum(row) / columns } else { 0.0 };
        row.iter_mut().for_each(|x| *x -= mean);
        let inverse = 1.0 / (squares(row) / columns + self.epsilon).sqrt();
        for (column, x) in row.iter_mut().enumerate() {
            *x = (*x * inverse).mul_add(self.gamma[column], self.beta.map_or(0.0, |beta| beta[column]));
        }
    }
}

/// `kernels/wide_norm.cu`: the norm of `x [rows, width]`.
pub fn wide_norm(x: &[f32], width: usize, affine: &Affine) -> Vec<f32> {
    let mut rows = x.to_vec();
    let lanes = |row: &[f32], add: fn(f32, f32) -> f32| {
        let mut lanes = [0.0f32; 32];
        row.iter().enumerate().for_each(|(column, &x)| lanes[column % 32] = add(lanes[column % 32], x));
        warp_sum(lanes)
    };
    let (sum, squares) =
        (|row: &[f32]| lanes(row, |sum, x| sum + x), |row: &[f32]| lanes(row, |sum, x| x.mul_add(x, sum)));
    rows.chunks_mut(width.max(1)).for_each(|row| affine.apply(row, sum, squares));
    rows
}

/// Quantised rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// `[tokens, width]`.
    pub codes: Vec<u8>,
    /// `[tokens]`.
    pub scales: Vec<f32>,
    /// `[tokens]`; floats have none.
    pub zero_points: Vec<i32>,
}

impl Norm<'_> {
    /// The rows `[tokens, hidden]`, and their codes where they are asked for. Codes are of the f32 rows.
    pub fn run(&self) -> (Vec<u16>, Codes) {
        let (mut rows, mut codes) = (Vec::new(), Codes::default());
        for token in 0..self.tokens {
            let mut row = self.sum(token);
            if let Some(affine) = self.affine {
                let squares = |row: &[f32]| row_sum(&row.iter().map(|x| x * x).collect::<Vec<_>>());
                affine.apply(&mut row, row_sum, squares);
            }
            rows.extend(self.format.narrowed(&row));
            match self.codes {
                Some(Coding::Integers { factor, bits, range }) => codes.push(&row, factor, bits, range),
                Some(Coding::E4m3) => codes.push_e4m3(&row),
                None => {}
            }
        }
        (rows, codes)
    }

    /// The sum of all that make up a row, scaled.
    fn sum(&self, token: usize) -> Vec<f32> {
        let row_of = |matrix: &[u16], row: usize| self.format.widened(&matrix[row * self.hidden..][..self.hidden]);
        let tables = self.tables.iter().map(|(table, ids)| row_of(table, ids[token] as usize));
        let parts = self.x.iter().map(|x| row_of(x, token)).chain(tables);
        let parts = parts.chain(self.residual.iter().map(|residual| row_of(residual, token)));
        let add = |sum: Vec<f32>, part: Vec<f32>| sum.iter().zip(&part).map(|(sum, x)| sum + x).collect();
        parts.fold(vec![0.0; self.hidden], add).into_iter().map(|sum| sum * self.scale).collect()
    }
}

/// The sum of a row whose chunks of eight go to the lanes in turn.
fn row_sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 32];
    for (chunk, values) in row.chunks(8).enumerate() {
        values.iter().for_each(|value| lanes[chunk % 32] += value);
    }
    warp_sum(lanes)
}

impl Codes {
    /// Quantises one more row: the steps of `Op::QuantizedLinear`.
    fn push(&mut self, row: &[f32], factor: &[f32], bits: u8, range: Option<[f32; 2]>) {
        let values: Vec<f32> = row.iter().zip(factor).map(|(x, factor)| x * factor).collect();
        let [low, high] = range.unwrap_or_else(|| [f32::min, f32::max].map(|of| values.iter().copied().fold(0.0, of)));
        let levels = f32::from((1u16 << bits) - 1);
        let scale = (high - low) / levels;
        let usable = scale > 0.0 && scale.is_finite();
        let (scale, inverse) = if usable { (scale, 1.0 / scale) } else { (0.0, 0.0) };
        let zero_point = (-low * inverse).round_ties_even();
        let code = |value: &f32| ((value * inverse).round_ties_even() + zero_point).max(0.0).min(levels) as u8;
        self.codes.extend(values.iter().map(code));
        self.scales.push(scale);
        self.zero_points.push(zero_point as i32);
    }
}

/// `kernels/quantise.cu`: the codes of `x [tokens, width]` times `factor [width]`, within a range where not each row has its own.
pub fn quantise(format: Format, x: &[u16], factor: &[f32], bits: u8, range: Option<[f32; 2]>) -> Codes {
    let mut codes = Codes::default();
    x.chunks(factor.len().max(1)).for_each(|row| codes.push(&format.widened(row), factor, bits, range));
    codes
}
