//! Primitive operations on arrays: products, broadcasting, formulas.

use centuple_kernels::primitive::{Array, ArrayMut, Binary, Unary, binary, select};
use centuple_kernels::{Activation, Isa, Kernels, packed_len};

use crate::support::all_kernels;

#[test]
fn batches_are_multiplied_and_broadcast() {
    let (m, k, n) = (3, 5, 18);
    let a: Vec<f32> = (0..2 * 4 * m * k).map(|i| (i % 11) as f32 - 5.0).collect();
    let b: Vec<f32> = (0..4 * k * n).map(|i| (i % 7) as f32 - 3.0).collect();
    let (a_shape, out_shape) = ([2, 4, m, k], [2, 4, m, n]);
    for kernels in all_kernels() {
        for (b_shape, b_items) in [(vec![4, k, n], 4), (vec![k, n], 1), (vec![2, 1, k, n], 2)] {
            let a_array = Array::new(&a, &a_shape).unwrap();
            let b_array = Array::new(&b[..b_items * k * n], &b_shape).unwrap();
            let mut scratch = vec![f32::NAN; packed_len(n, k)];
            let mut out = vec![f32::NAN; 2 * 4 * m * n];
            let view = ArrayMut::new(&mut out, &out_shape).unwrap();
            kernels.matmul(a_array, b_array, &mut scratch, view).unwrap();
            let mut part = vec![f32::NAN; 11 * n];
            let view = ArrayMut::part(&mut part, &out_shape, 4..15).unwrap();
            kernels.matmul(a_array, b_array, &mut scratch, view).unwrap();
            assert_eq!(part, out[4 * n..15 * n]);
            for (item, got) in out.chunks(m * n).enumerate() {
                let b_item = match b_items {
                    4 => item % 4,
                    2 => item / 4,
                    _ => 0,
                };
                for (place, got) in got.iter().enumerate() {
                    let (i, j) = (place / n, place % n);
                    let want: f32 = (0..k).map(|l| a[(item * m + i) * k + l] * b[(b_item * k + l) * n + j]).sum();
                    assert_eq!(*got, want);
                }
            }
        }
    }
}

#[test]
fn misfits_are_refused() {
    let kernels = Kernels::new(Isa::Portable).unwrap();
    let a = Array::new(&[0.0; 6], &[2, 3]).unwrap();
    let mut scratch = [0.0; 48];
    let mut out = [0.0; 4];
    let refused = |b_shape: &[usize], out_shape: &[usize], scratch: &mut [f32], out: &mut [f32]| {
        let data = vec![0.0; b_shape.iter().product()];
        let b = Array::new(&data, b_shape).unwrap();
        kernels.matmul(a, b, scratch, ArrayMut::new(out, out_shape).unwrap()).is_err()
    };
    assert!(!refused(&[3, 2], &[2, 2], &mut scratch, &mut out));
    assert!(refused(&[2, 2], &[2, 2], &mut scratch, &mut out));
    assert!(refused(&[3], &[2, 2], &mut scratch, &mut out));
    assert!(refused(&[3, 1], &[2, 2], &mut scratch, &mut out));
    assert!(refused(&[2, 3, 2], &[2, 2], &mut scratch, &mut out));
    assert!(refused(&[3, 2], &[2, 2], &mut scratch[..47], &mut out));
}

#[test]
fn operands_are_broadcast() {
    let a = Array::new(&[1.0, 2.0, 3.0], &[3]).unwrap();
    let b = Array::new(&[10.0, 20.0], &[2, 1]).unwrap();
    let mut out = [0.0; 6];
    binary(Binary::Add, a, b, ArrayMut::new(&mut out, &[2, 3]).unwrap()).unwrap();
    assert_eq!(out, [11.0, 12.0, 13.0, 21.0, 22.0, 23.0]);
    let scalar = Array::new(&[2.0], &[]).unwrap();
    binary(Binary::Less, a, scalar, ArrayMut::new(&mut out[..3], &[3]).unwrap()).unwrap();
    assert_eq!(out[..3], [1.0, 0.0, 0.0]);
    binary(Binary::Pow, scalar, scalar, ArrayMut::new(&mut out[..1], &[]).unwrap()).unwrap();
    assert_eq!(out[0], 4.0);
    assert!(binary(Binary::Add, a, b, ArrayMut::new(&mut out[..3], &[3]).unwrap()).is_err());
}

#[test]
fn every_binary_operation_gives_its_formula() {
    let (a, b) = ([6.0, f32::NAN, 3.0], [2.0, 1.0, 3.0]);
    let table = [
        (Binary::Add, 8.0, 6.0),
        (Binary::Sub, 4.0, 0.0),
        (Binary::Mul, 12.0, 9.0),
        (Binary::Div, 3.0, 1.0),
        (Binary::Pow, 36.0, 27.0),
        (Binary::Min, 2.0, 3.0),
        (Binary::Max, 6.0, 3.0),
        (Binary::Equal, 0.0, 1.0),
        (Binary::Less, 0.0, 0.0),
    ];
    for (op, first, last) in table {
        let (a, b) = (Array::new(&a, &[3]).unwrap(), Array::new(&b, &[3]).unwrap());
        let mut out = [0.0; 3];
        binary(op, a, b, ArrayMut::new(&mut out, &[3]).unwrap()).unwrap();
        assert_eq!((out[0], out[2]), (first, last), "{op:?}");
        let comparison = matches!(op, Binary::Equal | Binary::Less);
        assert_eq!(out[1].is_nan(), !comparison, "{op:?}");
    }
}

#[test]
fn select_chooses_by_condition() {
    let condition = Array::new(&[1.0, 0.0], &[2]).unwrap();
    let a = Array::new(&[1.0, 2.0], &[2]).unwrap();
    let b = Array::new(&[7.0, 8.0], &[2, 1]).unwrap();
    let mut out = [0.0; 4];
    select(condition, a, b, ArrayMut::new(&mut out, &[2, 2]).unwrap()).unwrap();
    assert_eq!(out, [1.0, 7.0, 1.0, 8.0]);
}

#[test]
fn every_unary_operation_gives_its_formula() {
    type Formula = fn(f32) -> f32;
    let table: [(Unary, Formula); 16] = [
        (Unary::Neg, |x| -x),
        (Unary::Abs, f32::abs),
        (Unary::Exp, f32::exp),
        (Unary::Log, f32::ln),
        (Unary::Log1p, f32::ln_1p),
        (Unary::Sqrt, f32::sqrt),
        (Unary::Reciprocal, |x| 1.0 / x),
        (Unary::Sin, f32::sin),
        (Unary::Cos, f32::cos),
        (Unary::Floor, |x| (x - 0.5).round()),
        (Unary::Ceil, |x| (x + 0.499).round()),
        (Unary::Round, |x| if x == 2.5 { 2.0 } else { x.round() }),
        (Unary::Trunc, |x| x as i32 as f32),
        (Unary::Sign, |_| 1.0),
        (Unary::IsNan, |_| 0.0),
        (Unary::Activation(Activation::Tanh), f32::tanh),
    ];
    for kernels in all_kernels() {
        for (op, formula) in table {
            let mut values = [0.3, 1.7, 2.5];
            kernels.unary(op, &mut values);
            for (value, x) in values.iter().zip([0.3, 1.7, 2.5]) {
                let want = formula(x);
                assert!((value - want).abs() <= 4e-7 * want.abs(), "{op:?}({x}) = {value}");
            }
        }
        let mut values = [0.5];
        kernels.unary(Unary::Erf, &mut values);
        assert!((values[0] - 0.520_499_9).abs() < 2e-7);
    }
}

#[test]
fn rounding_and_signs() {
    let kernels = Kernels::new(Isa::Portable).unwrap();
    let of = |op| {
        let mut values = [-2.5, -0.2, 0.0, 1.5, f32::NAN];
        kernels.unary(op, &mut values);
        values
    };
    for (op, want) in [
        (Unary::Floor, [-3.0, -1.0, 0.0, 1.0]),
        (Unary::Ceil, [-2.0, 0.0, 0.0, 2.0]),
        (Unary::Round, [-2.0, 0.0, 0.0, 2.0]),
        (Unary::Trunc, [-2.0, 0.0, 0.0, 1.0]),
    ] {
        assert_eq!(of(op)[..4], want, "{op:?}");
        assert!(of(op)[4].is_nan(), "{op:?}");
    }
    assert_eq!(of(Unary::Sign), [-1.0, -1.0, 0.0, 1.0, 0.0]);
    assert_eq!(of(Unary::IsNan), [0.0, 0.0, 0.0, 0.0, 1.0]);
}
