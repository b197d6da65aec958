//! From token rows to one row per sequence, as sentence-transformers pools them.

use crate::error::{KernelError, expect_dimension};
use crate::matrix::Matrix;

/// How the rows of a sequence become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The first token of the sequence.
    Cls,
    /// The mean.
    Mean,
    /// The maximum of each column.
    Max,
    /// The sum over the square root of the number of rows.
    MeanSqrtLen,
    /// The mean weighted by position, 1 for the first token of the sequence.
    WeightedMean,
    /// The last token of the sequence.
    LastToken,
    /// The token at this index; the last one where there is none.
    Token(usize),
}

/// Pools `rows`, `[tokens, hidden]`, the tokens of one sequence, into `out`, `[hidden]`.
///
/// Tokens before `from` (a prompt) are left out, but count as positions; [`Pooling::Cls`] and
/// [`Pooling::Token`] take theirs in any case. A sequence whose tokens are all left out pools to zeros; one without
/// tokens is an error.
pub fn pool(pooling: Pooling, rows: Matrix<'_>, from: usize, out: &mut [f32]) -> Result<(), KernelError> {
    const NAME: &str = "pool";
    expect_dimension(NAME, "length of out", out.len(), rows.columns())?;
    let (Some(first), Some(last)) = (rows.row(0), rows.row(rows.rows().wrapping_sub(1))) else {
        return Err(KernelError::Empty { kernel: NAME, what: "sequence" });
    };
    match pooling {
        Pooling::Cls => out.copy_from_slice(first),
        Pooling::LastToken => out.copy_from_slice(last),
        Pooling::Token(index) => out.copy_from_slice(rows.row(index).unwrap_or(last)),
        Pooling::Max => {
            out.fill(0.0);
            maximum(rows.slice_rows(from.min(rows.rows())..rows.rows())?, true, out);
        }
        Pooling::Mean => weighted_sum(rows, from, out, |_| 1.0, |total| total),
        Pooling::MeanSqrtLen => weighted_sum(rows, from, out, |_| 1.0, f32::sqrt),
        Pooling::WeightedMean => {
            weighted_sum(rows, from, out, |position| (position + 1) as f32, |total| total);
        }
    }
    Ok(())
}

/// Sum of the rows times their weights, over `divisor` of the sum of the weights.
fn weighted_sum(
    rows: Matrix<'_>,
    from: usize,
    out: &mut [f32],
    weight: impl Fn(usize) -> f32,
    divisor: impl Fn(f32) -> f32,
) {
    out.fill(0.0);
    let mut total = 0.0;
    for position in from..rows.rows() {
        let weight = weight(position);
        total += weight;
        for (sum, value) in out.iter_mut().zip(rows.row(position).unwrap_or(&[])) {
            *sum += value * weight;
        }
    }
    if total > 0.0 {
        let divisor = divisor(total);
        for sum in out {
            *sum /= divisor;
        }
    }
}

/// Raises each element of `largest` to the largest of its column, or starts with the first row where it is `fresh`. NaN
/// stays. Without rows nothing is done.
pub fn maximum(rows: Matrix<'_>, fresh: bool, largest: &mut [f32]) {
    for position in 0..rows.rows() {
        for (maximum, value) in largest.iter_mut().zip(rows.row(position).unwrap_or(&[])) {
            if *value > *maximum || value.is_nan() || (fresh && position == 0) {
                *maximum = *value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pooling_gives_its_formula() {
        let data = [1.0, 8.0, 2.0, -6.0, 9.0, 4.0];
        let rows = Matrix::contiguous(&data, 3, 2).unwrap();
        let pooled = |pooling, from| {
            let mut out = [f32::NAN; 2];
            pool(pooling, rows, from, &mut out).unwrap();
            out
        };
        assert_eq!(pooled(Pooling::Cls, 1), [1.0, 8.0]);
        assert_eq!(pooled(Pooling::LastToken, 0), [9.0, 4.0]);
        assert_eq!(pooled(Pooling::Token(1), 2), [2.0, -6.0]);
        assert_eq!(pooled(Pooling::Token(3), 0), [9.0, 4.0]);
        assert_eq!(pooled(Pooling::Mean, 0), [4.0, 2.0]);
        assert_eq!(pooled(Pooling::Mean, 1), [5.5, -1.0]);
        assert_eq!(pooled(Pooling::Max, 0), [9.0, 8.0]);
        assert_eq!(pooled(Pooling::Max, 1), [9.0, 4.0]);
        assert_eq!(pooled(Pooling::MeanSqrtLen, 2), [9.0, 4.0]);
        assert_eq!(pooled(Pooling::WeightedMean, 1), [31.0 / 5.0, 0.0]);
        for pooling in [Pooling::Mean, Pooling::Max, Pooling::MeanSqrtLen, Pooling::WeightedMean] {
            assert_eq!(pooled(pooling, 7), [0.0, 0.0]);
        }
    }

    #[test]
    fn no_tokens_is_an_error() {
        let none = Matrix::contiguous(&[], 0, 2).unwrap();
        assert!(pool(Pooling::Mean, none, 0, &mut [0.0; 2]).is_err());
        let one = Matrix::contiguous(&[1.0, 2.0], 1, 2).unwrap();
        assert!(pool(Pooling::Mean, one, 0, &mut [0.0; 3]).is_err());
    }
}
