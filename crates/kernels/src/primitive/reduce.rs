//! Reductions over axes.

use super::{Array, MAX_RANK, Strides, count, for_each_row, rows, strides};
use crate::error::{KernelError, expect_dimension, expect_length};

/// How elements become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    /// The sum.
    Sum,
    /// The arithmetic mean.
    Mean,
    /// The largest; NaN if there is one.
    Max,
}

/// Reduces `array` over `axes` into `out`, which holds the elements of the other axes in their order.
pub fn reduce(reduction: Reduction, array: Array<'_>, axes: &[usize], out: &mut [f32]) -> Result<(), KernelError> {
    const NAME: &str = "reduce";
    let mut kept = [1; MAX_RANK];
    kept[..array.shape.len()].copy_from_slice(array.shape);
    for (position, axis) in axes.iter().copied().enumerate() {
        if axis >= array.shape.len() {
            let (index, limit) = (axis as i64, array.shape.len());
            return Err(KernelError::IndexOutOfRange { kernel: NAME, what: "axis", position, index, limit });
        }
        kept[axis] = 1;
    }
    let kept = &kept[..array.shape.len()];
    expect_dimension(NAME, "length of out", out.len(), count(kept))?;
    let mut to = strides(kept);
    for axis in axes {
        to[*axis] = 0;
    }
    match reduction {
        Reduction::Sum => accumulate(array, &to, 0.0, |a, b| a + b, out),
        Reduction::Mean => {
            accumulate(array, &to, 0.0, |a, b| a + b, out);
            let divisor = array.data.len() as f32 / out.len() as f32;
            for sum in out {
                *sum /= divisor;
            }
        }
        Reduction::Max => {
            let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
            accumulate(array, &to, f64::NEG_INFINITY, larger, out);
        }
    }
    Ok(())
}

/// `out[..., i, ...]`: the sum of the elements `0..=i` of `array` along `axis`.
pub fn cumulative_sum(array: Array<'_>, axis: usize, out: &mut [f32]) -> Result<(), KernelError> {
    const NAME: &str = "cumulative_sum";
    expect_length(NAME, "list of axes", array.shape.len(), axis.saturating_add(1))?;
    expect_dimension(NAME, "length of out", out.len(), array.data.len())?;
    let inner = count(&array.shape[axis + 1..]);
    let block = array.shape[axis].saturating_mul(inner).max(1);
    for (values, out) in array.data.chunks_exact(block).zip(out.chunks_exact_mut(block)) {
        for column in 0..inner {
            let mut sum = 0.0;
            for (value, out) in values[column..].iter().zip(&mut out[column..]).step_by(inner) {
                sum += f64::from(*value);
                *out = sum as f32;
            }
        }
    }
    Ok(())
}

/// Combines all elements that share a place in `out`, each row along the last axis in f64.
fn accumulate(array: Array<'_>, to: &Strides, initial: f64, combine: impl Fn(f64, f64) -> f64, out: &mut [f32]) {
    out.fill(initial as f32);
    for_each_row(array.shape, 0..rows(array.shape), [&strides(array.shape), to], |row| {
        let ([from, start], [_, step]) = (row.starts, row.steps);
        let values = &array.data[from..from + row.length];
        let join = |out: &mut f32, value: f64| *out = combine(f64::from(*out), value) as f32;
        if step == 0 {
            let all = values.iter().fold(initial, |sum, value| combine(sum, f64::from(*value)));
            join(&mut out[start], all);
        } else {
            for (out, value) in out[start..start + row.length].iter_mut().zip(values) {
                join(out, f64::from(*value));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_axes_can_be_reduced() {
        let data: Vec<f32> = (0..24u8).map(f32::from).collect();
        let array = Array::new(&data, &[2, 3, 4]).unwrap();
        let reduced = |reduction, axes: &[usize], length| {
            let mut out = vec![f32::NAN; length];
            reduce(reduction, array, axes, &mut out).unwrap();
            out
        };
        assert_eq!(reduced(Reduction::Sum, &[2], 6), [6.0, 22.0, 38.0, 54.0, 70.0, 86.0]);
        assert_eq!(reduced(Reduction::Mean, &[0, 1], 4), [10.0, 11.0, 12.0, 13.0]);
        assert_eq!(reduced(Reduction::Max, &[1], 8), [8., 9., 10., 11., 20., 21., 22., 23.]);
        assert_eq!(reduced(Reduction::Sum, &[0, 1, 2], 1), [276.0]);
        assert_eq!(reduced(Reduction::Max, &[], 24), data);
        assert!(reduce(Reduction::Sum, array, &[3], &mut [0.0]).is_err());
        assert!(reduce(Reduction::Sum, array, &[2], &mut [0.0; 5]).is_err());
    }

    #[test]
    fn sums_run_along_an_axis() {
        let data = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let array = Array::new(&data, &[2, 3]).unwrap();
        let mut out = [0.0; 6];
        cumulative_sum(array, 1, &mut out).unwrap();
        assert_eq!(out, [1.0, 3.0, 6.0, 4.0, 9.0, 15.0]);
        cumulative_sum(array, 0, &mut out).unwrap();
        assert_eq!(out, [1.0, 2.0, 3.0, 5.0, 7.0, 9.0]);
        assert!(cumulative_sum(array, 2, &mut out).is_err() && cumulative_sum(array, 0, &mut out[..5]).is_err());
        assert!(cumulative_sum(Array::new(&[], &[0, 3]).unwrap(), 0, &mut []).is_ok());
    }

    #[test]
    fn nan_and_empty_axes_follow_the_formula() {
        let mut out = [0.0];
        let array = Array::new(&[1.0, f32::NAN, 2.0], &[3]).unwrap();
        reduce(Reduction::Max, array, &[0], &mut out).unwrap();
        assert!(out[0].is_nan());
        let none = Array::new(&[], &[0]).unwrap();
        reduce(Reduction::Sum, none, &[0], &mut out).unwrap();
        assert_eq!(out, [0.0]);
        reduce(Reduction::Mean, none, &[0], &mut out).unwrap();
        assert!(out[0].is_nan());
        let scalar = Array::new(&[5.0], &[]).unwrap();
        reduce(Reduction::Mean, scalar, &[], &mut out).unwrap();
        assert_eq!(out, [5.0]);
    }
}
