//! Operations that only move elements.

use super::{Array, ArrayMut, MAX_RANK, broadcast, count, strides};
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
    copy_rows(array, &permuted, out);
    Ok(())
}

/// `array` repeated along its axes of length 1, and along those that it lacks, to the shape of `out`.
pub fn expand(array: Array<'_>, out: ArrayMut<'_>) -> Result<(), KernelError> {
    let from = broadcast("expand", array.shape, out.shape)?;
    copy_rows(array, &from, out);
    Ok(())
}

fn copy_rows(array: Array<'_>, from: &super::Strides, out: ArrayMut<'_>) {
    out.for_each_row([from], |out, row| {
        let source = &array.data[row.starts[0]..];
        match row.steps[0] {
            0 => out.fill(source[0]),
            1 => out.copy_from_slice(&source[..row.length]),
            step => out.iter_mut().zip(source.iter().step_by(step)).for_each(|(out, &value)| *out = value),
        }
    });
}

/// `out[..., i, ...] = array[..., indices[..., i, ...], ...]` with the index along `axis`. `indices` has the shape of
/// `out`, whole numbers, none negative; one that is out of range is an error.
pub fn gather_elements(
    array: Array<'_>,
    axis: usize,
    indices: Array<'_>,
    out: ArrayMut<'_>,
) -> Result<(), KernelError> {
    const NAME: &str = "gather_elements";
    let rank = array.shape.len();
    expect_length(NAME, "list of axes", rank, axis.saturating_add(1))?;
    expect_dimension(NAME, "number of axes of out", out.shape.len(), rank)?;
    let (from, own) = (strides(array.shape), broadcast(NAME, indices.shape, out.shape)?);
    for other in (0..rank).filter(|&other| other != axis) {
        expect_length(NAME, "axis", array.shape[other], out.shape[other])?;
    }
    let (limit, stride) = (array.shape[axis], from[axis]);
    let mut others = from;
    others[axis] = 0;
    let mut result = Ok(());
    out.for_each_row([&others, &own], |out, row| {
        for (i, out) in out.iter_mut().enumerate() {
            let [from, at] = [0, 1].map(|operand| row.starts[operand] + i * row.steps[operand]);
            match element_index(indices.data[at], limit) {
                Some(index) => *out = array.data[from + index * stride],
                None => {
                    let (position, index) = (at, indices.data[at] as i64);
                    result = Err(KernelError::IndexOutOfRange { kernel: NAME, what: "index", position, index, limit });
                }
            }
        }
    });
    result
}

/// A float as an index below `limit`.
fn element_index(value: f32, limit: usize) -> Option<usize> {
    (value >= 0.0 && value < limit as f32).then_some(value as usize).filter(|&index| index < limit)
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
    fn arrays_are_expanded() {
        let array = Array::new(&[1.0, 2.0, 3.0], &[3, 1]).unwrap();
        let mut out = [0.0; 12];
        expand(array, ArrayMut::new(&mut out, &[2, 3, 2]).unwrap()).unwrap();
        assert_eq!(out, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        let mut part = [0.0; 4];
        expand(array, ArrayMut::part(&mut part, &[2, 3, 2], 2..4).unwrap()).unwrap();
        assert_eq!(part, [3.0, 3.0, 1.0, 1.0]);
        assert!(expand(array, ArrayMut::new(&mut out, &[4, 3]).unwrap()).is_err());
    }

    #[test]
    fn elements_are_gathered() {
        let array = Array::new(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3]).unwrap();
        let mut out = [0.0; 4];
        let mut gathered = |indices: [f32; 4], axis, shape: &[usize]| {
            let indices = Array::new(&indices, shape).unwrap();
            gather_elements(array, axis, indices, ArrayMut::new(&mut out, shape).unwrap()).map(|()| out)
        };
        assert_eq!(gathered([2.0, 0.0, 1.0, 1.0], 1, &[2, 2]).unwrap(), [2.0, 0.0, 4.0, 4.0]);
        assert_eq!(gathered([1.0, 0.0, 0.0, 1.0], 0, &[2, 2]).unwrap(), [3.0, 1.0, 0.0, 4.0]);
        for wrong in [3.0, -1.0, f32::NAN, f32::INFINITY, 1e30] {
            assert!(gathered([0.0, 0.0, wrong, 0.0], 1, &[2, 2]).is_err(), "{wrong}");
        }
        assert!(gathered([0.0; 4], 1, &[4, 1]).is_err() && gathered([0.0; 4], 2, &[2, 2]).is_err());
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
