//! Normalisation, gates, softmax and operations on two matrices against f64.

use centuple_kernels::primitive::{self, Array, ArrayMut, Binary};
use centuple_kernels::{
    Activation, ActivationBits, Gate, Isa, Kernels, LayerNorm, Matrix, MatrixMut, Quantization, QuantizedRowsMut,
    RmsNorm, RowOperand, l2_normalize, quantized_columns,
};

use crate::support::{all_kernels, assert_close, bits, values};

fn layer_norm_f64(v: &[f64], gamma: &[f32], beta: &[f32], epsilon: f64) -> Vec<f64> {
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    let variance = v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / v.len() as f64;
    let scale = 1.0 / (variance + epsilon).sqrt();
    let affine = gamma.iter().zip(beta);
    v.iter().zip(affine).map(|(x, (gamma, beta))| (x - mean) * scale * f64::from(*gamma) + f64::from(*beta)).collect()
}

const COLUMNS: [usize; 12] = [1, 2, 15, 16, 17, 31, 63, 64, 65, 100, 384, 1000];

#[test]
fn layer_norm_matches_f64() {
    for kernels in all_kernels() {
        for columns in COLUMNS {
            let rows = 5;
            // A large mean shows whether the variance cancels.
            let x: Vec<f32> = values(rows * columns, 1).iter().map(|x| x + 30.0).collect();
            let residual = values(rows * columns, 2);
            let (gamma, beta) = (values(columns, 3), values(columns, 4));
            let what = format!("{} {columns}", kernels.isa());
            let matrix = Matrix::contiguous(&x, rows, columns).unwrap();
            let added = Matrix::contiguous(&residual, rows, columns).unwrap();
            let mut out = vec![f32::NAN; rows * columns];
            let mut view = MatrixMut::contiguous(&mut out, rows, columns).unwrap();
            let norm = LayerNorm { gamma: &gamma, beta: Some(&beta), epsilon: 1e-5 };
            kernels.layer_norm(matrix, Some(added), &norm, &mut view).unwrap();
            for row in 0..rows {
                let span = row * columns..(row + 1) * columns;
                let pairs = x[span.clone()].iter().zip(&residual[span.clone()]);
                let sum: Vec<f64> = pairs.map(|(x, r)| f64::from(x + r)).collect();
                let want = layer_norm_f64(&sum, &gamma, &beta, 1e-5);
                assert_close(&out[span], &want, 3e-5, &what);
            }
        }
    }
}

#[test]
fn layer_norm_works_in_place_and_without_beta() {
    for kernels in all_kernels() {
        let x = values(4 * 40, 1);
        let gamma = values(40, 2);
        let norm = LayerNorm { gamma: &gamma, beta: None, epsilon: 1e-12 };
        let matrix = Matrix::new(&x, 3, 37, 40).unwrap();
        let norm = LayerNorm { gamma: &norm.gamma[..37], ..norm };
        let mut out = vec![f32::NAN; 4 * 40];
        let mut view = MatrixMut::new(&mut out, 3, 37, 40).unwrap();
        kernels.layer_norm(matrix, None, &norm, &mut view).unwrap();
        for row in 0..3 {
            let v: Vec<f64> = x[row * 40..row * 40 + 37].iter().map(|x| f64::from(*x)).collect();
            let want = layer_norm_f64(&v, norm.gamma, &[0.0; 37], 1e-12);
            assert_close(&out[row * 40..row * 40 + 37], &want, 1e-5, "no beta");
            assert!(out[row * 40 + 37].is_nan(), "wrote between the rows");
        }
    }
}

#[test]
fn layer_norm_refuses_misfits_and_takes_empty() {
    for kernels in all_kernels() {
        let norm = LayerNorm { gamma: &[1.0; 4], beta: Some(&[0.0; 3]), epsilon: 1e-5 };
        let x = Matrix::contiguous(&[0.0; 8], 2, 4).unwrap();
        let mut out = vec![0.0; 8];
        let mut view = MatrixMut::contiguous(&mut out, 2, 4).unwrap();
        assert!(kernels.layer_norm(x, None, &norm, &mut view).is_err());
        let none = LayerNorm { gamma: &[], beta: None, epsilon: 1e-5 };
        let mut view = MatrixMut::contiguous(&mut [], 3, 0).unwrap();
        let x = Matrix::contiguous(&[], 3, 0).unwrap();
        kernels.layer_norm(x, None, &none, &mut view).unwrap();
    }
}

#[test]
fn softmax_matches_f64() {
    for kernels in all_kernels() {
        for columns in COLUMNS {
            let x: Vec<f32> = values(3 * columns, 5).iter().map(|x| x * 20.0).collect();
            let mut got = x.clone();
            kernels.softmax(&mut MatrixMut::contiguous(&mut got, 3, columns).unwrap());
            for (got, x) in got.chunks(columns).zip(x.chunks(columns)) {
                let powers: Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
                let total: f64 = powers.iter().sum();
                let want: Vec<f64> = powers.iter().map(|power| power / total).collect();
                assert_close(got, &want, 3e-7, &format!("{} {columns}", kernels.isa()));
            }
        }
    }
}

#[test]
fn softmax_of_extremes() {
    for kernels in all_kernels() {
        let mut rows = [f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0, f32::NAN, 1e30, -1e30];
        kernels.softmax(&mut MatrixMut::contiguous(&mut rows, 3, 2).unwrap());
        assert_eq!(rows[..2], [0.0, 0.0]);
        assert!(rows[2..4].iter().all(|x| x.is_nan()));
        assert_eq!(rows[4..], [1.0, 0.0]);
    }
}

#[test]
fn a_peak_is_found() {
    for kernels in all_kernels() {
        for columns in COLUMNS.into_iter().chain([1024, 5000]) {
            let mut x: Vec<f32> = values(columns, 6).iter().map(|x| x * 20.0).collect();
            let at = [0, columns / 2, columns - 1];
            at.iter().for_each(|&at| x[at] = 30.0);
            for first in [0, 1, 2] {
                let peak = kernels.peak(&x).expect("numbers");
                let sum: f64 = x.iter().map(|x| f64::from(*x).exp()).sum();
                assert_eq!(peak.index, at[first], "{} {columns}", kernels.isa());
                assert!((peak.log_sum - sum.ln()).abs() < 1e-6, "{} {columns}: {}", kernels.isa(), peak.log_sum);
                x[at[first]] = -40.0;
                if at[2] == at[first] {
                    break;
                }
            }
        }
    }
}

#[test]
fn values_without_meaning_have_no_peak() {
    for kernels in all_kernels() {
        assert_eq!(kernels.peak(&[]), None);
        assert_eq!(kernels.peak(&[f32::NEG_INFINITY; 40]), None);
        for bad in [f32::NAN, f32::INFINITY] {
            for at in [0, 17, 2047, 2056] {
                let mut x = values(2057, 7);
                x[at] = bad;
                assert_eq!(kernels.peak(&x), None, "{} {at}", kernels.isa());
            }
        }
        let masked = kernels.peak(&[f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY]).expect("a number");
        assert!(masked.index == 1 && (masked.log_sum - 2.0).abs() < 1e-6);
    }
}

#[test]
fn avx2_and_avx512_agree_bit_for_bit() {
    let (Ok(avx2), Ok(avx512)) = (Kernels::new(Isa::Avx2), Kernels::new(Isa::Avx512)) else {
        println!("skipped: this CPU does not have both instruction sets");
        return;
    };
    for columns in COLUMNS {
        let x = values(4 * columns, 1);
        let gamma = values(columns, 2);
        let norm = LayerNorm { gamma: &gamma, beta: None, epsilon: 1e-5 };
        let results = [avx2, avx512].map(|kernels| {
            let mut out = vec![0.0; 4 * columns];
            let mut view = MatrixMut::contiguous(&mut out, 4, columns).unwrap();
            let matrix = Matrix::contiguous(&x, 4, columns).unwrap();
            kernels.layer_norm(matrix, None, &norm, &mut view).unwrap();
            kernels.softmax(&mut view);
            bits(&out)
        });
        assert_eq!(results[0], results[1], "{columns}");
    }
}

#[test]
fn l2_normalize_divides_by_the_norm() {
    let mut rows = [3.0, 4.0, 0.0, 0.0, 1e-20, 0.0];
    l2_normalize(&mut MatrixMut::contiguous(&mut rows, 3, 2).unwrap(), 1e-12);
    assert_eq!(rows, [0.6, 0.8, 0.0, 0.0, 1e-8, 0.0]);
}

#[test]
fn rms_norm_matches_f64() {
    for kernels in all_kernels() {
        for columns in COLUMNS {
            let rows = 5;
            let (x, residual, gamma) = (values(rows * columns, 1), values(rows * columns, 2), values(columns, 3));
            let matrix = Matrix::contiguous(&x, rows, columns).unwrap();
            let added = Matrix::contiguous(&residual, rows, columns).unwrap();
            let mut out = vec![f32::NAN; rows * columns];
            let mut view = MatrixMut::contiguous(&mut out, rows, columns).unwrap();
            let norm = RmsNorm { gamma: &gamma, epsilon: 1e-6 };
            kernels.rms_norm(matrix, Some(added), &norm, &mut view).unwrap();
            for row in 0..rows {
                let span = row * columns..(row + 1) * columns;
                let pairs = x[span.clone()].iter().zip(&residual[span.clone()]);
                let sum: Vec<f64> = pairs.map(|(x, r)| f64::from(x + r)).collect();
                let square = sum.iter().map(|v| v * v).sum::<f64>() / columns as f64;
                let scale = 1.0 / (square + 1e-6).sqrt();
                let want: Vec<f64> = sum.iter().zip(&gamma).map(|(v, g)| v * scale * f64::from(*g)).collect();
                assert_close(&out[span], &want, 2e-6, &format!("{} {columns}", kernels.isa()));
            }
        }
        let short = RmsNorm { gamma: &[1.0; 3], epsilon: 1e-6 };
        let x = Matrix::contiguous(&[0.0; 8], 2, 4).unwrap();
        let mut out = [0.0; 8];
        assert!(kernels.rms_norm(x, None, &short, &mut MatrixMut::contiguous(&mut out, 2, 4).unwrap()).is_err());
    }
}

/// The activation alone gives the same bits, and both operands may be columns of one matrix.
#[test]
fn a_gate_is_an_activation_times_a_column() {
    for kernels in all_kernels() {
        for activation in Activation::ALL {
            for columns in COLUMNS {
                let both = values(3 * 2 * columns, 7);
                let matrix = Matrix::contiguous(&both, 3, 2 * columns).unwrap();
                let a = matrix.slice_columns(0..columns).unwrap();
                let b = matrix.slice_columns(columns..2 * columns).unwrap();
                let mut out = vec![f32::NAN; 3 * columns];
                let mut view = MatrixMut::contiguous(&mut out, 3, columns).unwrap();
                kernels.gate(&Gate { a, b, activation }, &mut view).unwrap();
                for row in 0..3 {
                    let mut want = a.row(row).unwrap().to_vec();
                    kernels.activate(activation, &mut want);
                    want.iter_mut().zip(b.row(row).unwrap()).for_each(|(want, b)| *want *= b);
                    let found = &out[row * columns..(row + 1) * columns];
                    assert_eq!(bits(found), bits(&want), "{} {activation:?} {columns}", kernels.isa());
                }
            }
        }
    }
}

/// Quantised while hot, or by a pass of its own: the same words.
#[test]
fn fused_quantisation_changes_no_bit() {
    for kernels in all_kernels() {
        for (columns, kind) in [(40, ActivationBits::Seven), (100, ActivationBits::Eight), (24, ActivationBits::Twelve)]
        {
            let (rows, words) = (6, quantized_columns(columns, kind));
            let (x, y, gamma) = (values(rows * columns, 1), values(rows * columns, 2), values(columns, 3));
            let [x, y] = [&x, &y].map(|data| Matrix::contiguous(data, rows, columns).unwrap());
            let gate = Gate { a: x, b: y, activation: Activation::Gelu };
            let norm = RmsNorm { gamma: &gamma, epsilon: 1e-6 };
            for fused in [0, 1] {
                let (mut out, mut found, mut want) =
                    (vec![0.0; rows * columns], vec![0.0; rows * words], vec![0.0; rows * words]);
                let mut out = MatrixMut::contiguous(&mut out, rows, columns).unwrap();
                let target = MatrixMut::contiguous(&mut found, rows, words).unwrap();
                let mut quantization =
                    Quantization { factor: Some(&gamma), rows: QuantizedRowsMut::new(target, columns, kind).unwrap() };
                if fused == 0 {
                    kernels.gate_quantize(&gate, &mut out, &mut quantization).unwrap();
                } else {
                    kernels.rms_norm_quantize(x, Some(y), &norm, &mut out, &mut quantization).unwrap();
                }
                let target = MatrixMut::contiguous(&mut want, rows, words).unwrap();
                let mut target = QuantizedRowsMut::new(target, columns, kind).unwrap();
                kernels.quantize_rows(out.as_matrix(), Some(&gamma), &mut target).unwrap();
                assert_eq!(bits(&found), bits(&want), "{} {columns}", kernels.isa());
            }
        }
    }
}

#[test]
fn combining_rows_gives_the_bits_of_the_primitive() {
    let operations = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Pow,
        Binary::Min,
        Binary::Max,
        Binary::Equal,
        Binary::Less,
    ];
    for kernels in all_kernels() {
        for (columns, operation) in COLUMNS.into_iter().flat_map(|columns| operations.map(|op| (columns, op))) {
            let (x, y) = (values(3 * columns, 1), values(3 * columns, 2));
            let number = [0.25];
            let matrix = |data| RowOperand::Rows(Matrix::contiguous(data, 3, columns).unwrap());
            let (whole, row) = ([3, columns], [columns]);
            for (b, array) in [
                (matrix(&y), Array::new(&y, &whole).unwrap()),
                (RowOperand::Row(&y[..columns]), Array::new(&y[..columns], &row).unwrap()),
                (RowOperand::Number(number[0]), Array::new(&number, &[]).unwrap()),
            ] {
                let (mut out, mut want) = (vec![f32::NAN; 3 * columns], vec![0.0; 3 * columns]);
                let mut view = MatrixMut::contiguous(&mut out, 3, columns).unwrap();
                kernels.combine(operation, matrix(&x), b, &mut view).unwrap();
                let x = Array::new(&x, &whole).unwrap();
                primitive::binary(operation, x, array, ArrayMut::new(&mut want, &whole).unwrap()).unwrap();
                // Of a NaN only that it is one is promised.
                let same = out.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan());
                assert!(same, "{} {operation:?} {columns}", kernels.isa());
            }
        }
        let mut out = [0.0; 4];
        let mut view = MatrixMut::contiguous(&mut out, 2, 2).unwrap();
        assert!(kernels.combine(Binary::Add, RowOperand::Row(&[1.0]), RowOperand::Number(1.0), &mut view).is_err());
    }
}
