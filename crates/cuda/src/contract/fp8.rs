//! 8-bit floats: their codes, matrix products of them, and what follows those.

use super::Codes;
use crate::specialisation::{Activation, Format};

/// The largest e4m3 float.
pub(crate) const LARGEST: f32 = 448.0;
/// Its code, which all have that are larger.
const LARGEST_CODE: u32 = 0x7e;
const NAN_CODE: u8 = 0x7f;

/// The code of the nearest e4m3 float (Micikevicius et al. 2022, arXiv:2209.05433), halves to even; what is larger than 448 becomes
/// 448.
pub fn to_e4m3(x: f32) -> u8 {
    if x.is_nan() {
        return NAN_CODE;
    }
    let (sign, size) = (u8::from(x.is_sign_negative()) << 7, x.abs());
    let code = if size < 2f32.powi(-6) {
        // Steps of 2^-9, the eighth of which is the first normal float.
        (size * 512.0).round_ties_even() as u32
    } else {
        let bits = size.min(2.0 * LARGEST).to_bits();
        // The upper 3 bits of the mantissa, and an exponent that is 120 less.
        ((bits + 0x7_ffff + (bits >> 20 & 1)) >> 20) - (120 << 3)
    };
    sign | code.min(LARGEST_CODE) as u8
}

/// The e4m3 float of a code.
pub fn from_e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { size } else { -size }
}

impl Codes {
    /// Adds the e4m3 codes of one more row, the largest of which is 448.
    pub(super) fn push_e4m3(&mut self, row: &[f32]) {
        let scale = row.iter().fold(0.0f32, |largest, x| largest.max(x.abs())) / LARGEST;
        let usable = scale >= f32::MIN_POSITIVE && scale.is_finite();
        let (scale, inverse) = if usable { (scale, 1.0 / scale) } else { (0.0, 0.0) };
        self.codes.extend(row.iter().map(|x| to_e4m3(x * inverse)));
        self.scales.push(scale);
    }

    /// The e4m3 codes of f32 rows; they have no zero points.
    pub fn e4m3(rows: &[f32], width: usize) -> Codes {
        let mut codes = Codes::default();
        rows.chunks(width.max(1)).for_each(|row| codes.push_e4m3(row));
        codes
    }
}

/// What a library multiplies: e4m3 codes of rows and of a weight, with sums in f32.
#[derive(Clone, Copy, Debug)]
pub struct Matmul<'a> {
    /// Type of the results.
    pub format: Format,
    /// `[rows, k]`.
    pub x: &'a [u8],
    /// `[n, k]`.
    pub weight: &'a [u8],
    /// Depth.
    pub k: usize,
    /// Columns of the result.
    pub n: usize,
    /// Factor on all sums.
    pub factor: f32,
    /// What rows and columns are multiplied by, and what is added to the columns.
    pub scaling: Option<Scaling<'a>>,
}

/// Scales of codes, with which results are those of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// `[rows]`.
    pub x: &'a [f32],
    /// `[n]`.
    pub weight: &'a [f32],
    /// `[n]`.
    pub bias: Option<&'a [u16]>,
}

impl Matmul<'_> {
    /// The result, `[rows, n]`.
    pub fn run(&self) -> Vec<u16> {
        let decoded = |codes: &[u8]| codes.iter().map(|&code| from_e4m3(code)).collect::<Vec<_>>();
        let (x, weight) = (decoded(self.x), decoded(self.weight));
        let mut results = Vec::new();
        for (row, x) in x.chunks(self.k).enumerate() {
            for (column, w) in weight.chunks(self.k).enumerate() {
                let sum = x.iter().zip(w).fold(0.0f32, |sum, (x, w)| sum + x * w) * self.factor;
                let scaled = self.scaling.map_or(sum, |Scaling { x, weight, bias }| {
                    let bias = bias.map_or(0.0, |bias| self.format.widen(bias[column]));
                    sum * (x[row] * weight[column]) + bias
                });
                results.push(self.format.narrow(scaled));
            }
        }
        results
    }
}

/// Operands of `kernels/epilogue.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Type of the 16-bit operands.
    pub format: Format,
    /// `[tokens, n]`: sums, times a factor that the weight's scales take back.
    pub sums: &'a [u16],
    /// `[tokens]`.
    pub x_scales: &'a [f32],
    /// `[n]`.
    pub weight_scales: &'a [f32],
    /// `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Applied before the residual is added.
    pub activation: Activation,
    /// `[tokens, n]`.
    pub residual: Option<&'a [u16]>,
}

impl Epilogue<'_> {
    /// The result before it is stored, `[tokens, n]`.
    pub fn run(&self) -> Vec<f32> {
        let n = self.weight_scales.len();
        let finish = |(place, &sum): (usize, &u16)| {
            let (row, column) = (place / n, place % n);
            let value = self.format.widen(sum) * (self.x_scales[row] * self.weight_scales[column]);
            let value = self.activation.of(self.bias.map_or(value, |bias| value + bias[column]));
            self.residual.map_or(value, |residual| value + self.format.widen(residual[place]))
        };
        self.sums.iter().enumerate().map(finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_nearest_floats() {
        let finite = |code: &u8| !from_e4m3(*code).is_nan();
        let codes: Vec<u8> = (0..=255).filter(finite).collect();
        assert_eq!(codes.len(), 254);
        for &code in &codes {
            assert_eq!(to_e4m3(from_e4m3(code)), code);
        }
        let known = [(0x00, 0.0), (0x01, 0.001_953_125), (0x08, 0.015_625), (0x38, 1.0), (0x7e, 448.0), (0xb9, -1.125)];
        for (code, value) in known {
            assert_eq!(from_e4m3(code), value, "{code:#x}");
        }
        assert!(from_e4m3(0x7f).is_nan() && from_e4m3(0xff).is_nan() && to_e4m3(f32::NAN) == 0x7f);
        // Between two neighbours, the nearer one, and of two that are as near the even one.
        for pair in codes[..127].windows(2) {
            let [low, high] = [pair[0], pair[1]].map(from_e4m3);
            let (half, even) = ((low + high) / 2.0, pair[usize::from(pair[0] % 2 == 1)]);
            assert_eq!([to_e4m3(half), to_e4m3(half.next_down()), to_e4m3(half.next_up())], [even, pair[0], pair[1]]);
            assert_eq!(to_e4m3(-half), even | 0x80);
        }
        assert_eq!([449.0, 1e9, f32::INFINITY].map(to_e4m3), [0x7e; 3]);
    }

    #[test]
    fn rows_without_a_range_have_no_scale() {
        for row in [[0.0, 0.0], [1e-41, 0.0]] {
            let codes = Codes::e4m3(&row, 2);
            assert_eq!((codes.codes, codes.scales), (vec![0, 0], vec![0.0]));
        }
    }
}
