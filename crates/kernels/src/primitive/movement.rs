//! Operations that only move elements.

use super::{Array, ArrayMut, MAX_RANK, count, for_each_row, strides};
use crate::error::{KernelError, expect_dimension, expect_length};

/// `out[i₀, i₁, ...] = array[...]` where axis `a` of `out` is axis `permutation[a]` of `array`.
pub fn transpose(array: Array<'_>, permutation: &[usize], out: ArrayMut<'_>) -> Result<(), KernelError> {
    const NAME: &str = "transpose";
    let rank = array.shape.len();
    expect_dimension(NAME, "length of permutation", permutation.len(), rank)?;
    expect_dimension(NAME, "number of axes of out", out.shape.len(), rank)?;
    let from = strides(array.shape);
    let mut permuted = [0; MAX_RANK];
    let mut used = [false; MAX_RANK];
    for (position, axis) in permutation.iter().copied().enumerate() {
        if axis >= rank || used[axis] {
            return Err(KernelError::IndexOutOfRange {
                kernel: NAME,
                what: "axis (missing or repeated)",
                position,
                index: axis as i64,
                limit: rank,
            });
        }
        used[axis] = true;
        expect_dimension(NAME, "axis of out", out.shape[position], array.shape[axis])?;
        permuted[position] = from[axis];
    }
    for_each_row(out.shape, [&strides(out.shape), &permuted], |row| {
        let ([start, from], [_, step]) = (row.starts, row.steps);
        for (i, out) in out.data[start..start + row.length].iter_mut().enumerate() {
            *out = array.data[from + i * step];
        }
    });
    Ok(())
}

/// Takes the slices of `array` along `axis` that `indices` name, in their order. Negative indices count
/// from the end; one that is out of range is an error. `out` holds `shape[..axis]`, then the indices,
/// then `shape[axis + 1..]`.
pub fn gather(array: Array<'_>, axis: usize, indices: &[i64], out: &mut [f32]) -> Result<(), KernelError> {
    const NAME: &str = "gather";
    expect_length(NAME, "list of axes", array.shape.len(), axis.saturating_add(1))?;
    let (outer, length) = (count(&array.shape[..axis]), array.shape[axis]);
    let inner = count(&array.shape[axis + 1..]);
    let slices = outer.saturating_mul(indices.len());
    expect_dimension(NAME, "length of out", out.len(), slices.saturating_mul(inner))?;
    for (position, index) in indices.iter().copied().enumerate() {
        let found = if index < 0 { index.saturating_add_unsigned(length as u64) } else { index };
        let from = usize::try_from(found).ok().filter(|found| *found < length).ok_or(KernelError::IndexOutOfRange {
            kernel: NAME,
            what: "index",
            position,
            index,
            limit: length,
        })?;
        let blocks = if inner == 0 { 0 } else { outer };
        for block in 0..blocks {
            let from = (block * length + from) * inner;
            let to = (block * indices.len() + position) * inner;
            out[to..to + inner].copy_from_slice(&array.data[from..from + inner]);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_permutes_axes() {
        let data: Vec<f32> = (0..24u8).map(f32::from).collect();
        let array = Array::new(&data, &[2, 3, 4]).unwrap();
        let mut out = [0.0; 24];
        transpose(array, &[2, 0, 1], ArrayMut::new(&mut out, &[4, 2, 3]).unwrap()).unwrap();
        for i in 0..2 {
            for j in 0..3 {
                for k in 0..4 {
                    assert_eq!(out[(k * 2 + i) * 3 + j], data[(i * 3 + j) * 4 + k]);
                }
            }
        }
        let refused = |permutation: &[usize], shape: &[usize]| {
            let mut out = [0.0; 24];
            transpose(array, permutation, ArrayMut::new(&mut out, shape).unwrap()).is_err()
        };
        assert!(refused(&[0, 0, 1], &[2, 2, 6]));
        assert!(refused(&[0, 1, 3], &[2, 3, 4]));
        assert!(refused(&[0, 1], &[2, 12]));
        assert!(refused(&[2, 1, 0], &[2, 3, 4]));
    }

    #[test]
    fn gather_takes_slices() {
        let array = Array::new(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3]).unwrap();
        let mut out = [0.0; 4];
        gather(array, 1, &[2, -3], &mut out).unwrap();
        assert_eq!(out, [2.0, 0.0, 5.0, 3.0]);
        let mut row = [0.0; 3];
        gather(array, 0, &[1], &mut row).unwrap();
        assert_eq!(row, [3.0, 4.0, 5.0]);
        for index in [3, -4, i64::MAX, i64::MIN] {
            assert!(gather(array, 1, &[0, index], &mut out).is_err());
        }
        assert!(gather(array, 2, &[0], &mut row).is_err());
        assert!(gather(array, 0, &[0], &mut out).is_err());
    }
}
