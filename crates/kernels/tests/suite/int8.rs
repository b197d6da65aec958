//! Int8 matrix multiplication against integer loops, on every instruction set, and its independence of
//! how work is split.

use centuple_kernels::{
    Activation, ActivationBits, Epilogue, Int8Weight, Isa, KernelError, Kernels, Matrix, MatrixMut, PackedInt8,
    QuantizedRows, QuantizedRowsMut, check_overflow, pack_int8, packed_int8_len, quantized_columns,
};
use proptest::prelude::*;

use crate::support::quantized::Quantized;
use crate::support::{all_kernels, assert_close, bits, values};

/// Words between quantised rows.
const GAP: usize = 3;

/// Operands of one product.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    x: Vec<f32>,
    rows: Vec<f32>,
    weight: Quantized,
    packed: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Case {
    fn new(m: usize, n: usize, k: usize, bits: ActivationBits) -> Self {
        Self::with(m, values(m * k, 1), Quantized::new(&values(n * k, 2), k, bits))
    }

    fn with(m: usize, x: Vec<f32>, weight: Quantized) -> Self {
        let (n, k) = (weight.n(), weight.k);
        let columns = quantized_columns(k, weight.bits);
        let stride = columns + GAP;
        let mut rows = vec![f32::NAN; m * stride];
        let words = MatrixMut::new(&mut rows, m, columns, stride).unwrap();
        let mut view = QuantizedRowsMut::new(words, k, weight.bits).unwrap();
        let portable = Kernels::new(Isa::Portable).unwrap();
        portable.quantize_rows(Matrix::contiguous(&x, m, k).unwrap(), None, &mut view).unwrap();
        let mut packed = vec![f32::NAN; packed_int8_len(n, k)];
        pack_int8(&weight.view(), &mut packed).unwrap();
        Self { m, n, k, x, rows, weight, packed, bias: values(n, 3), residual: values(m * n, 4) }
    }

    fn rows(&self) -> QuantizedRows<'_> {
        let columns = quantized_columns(self.k, self.weight.bits);
        let words = Matrix::new(&self.rows, self.m, columns, columns + GAP).unwrap();
        QuantizedRows::new(words, self.k, self.weight.bits).unwrap()
    }

    fn b(&self) -> PackedInt8<'_> {
        PackedInt8::new(&self.packed, self.n, self.k, self.weight.bits).unwrap()
    }

    fn epilogue(&self, activation: Option<Activation>) -> Epilogue<'_> {
        let residual = Matrix::contiguous(&self.residual, self.m, self.n).unwrap();
        Epilogue { bias: Some(&self.bias), activation, residual: Some(residual) }
    }

    fn run(&self, kernels: Kernels, epilogue: &Epilogue<'_>) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.m * self.n];
        let mut view = MatrixMut::contiguous(&mut out, self.m, self.n).unwrap();
        kernels.gemm_int8(self.rows(), self.b(), 0..self.b().panels(), epilogue, &mut view).unwrap();
        out
    }

    /// The definition, sums in i64: any overflow in a kernel shows as a difference.
    fn expected(&self, epilogue: &Epilogue<'_>) -> Vec<f32> {
        let (rows, mut out) = (self.rows(), Vec::new());
        for i in 0..self.m {
            let (codes, scale) = (rows.codes(i).unwrap(), rows.scale(i).unwrap());
            let zero_point = i64::from(rows.zero_point(i).unwrap());
            for j in 0..self.n {
                let weights = &self.weight.codes[j * self.k..(j + 1) * self.k];
                let products = codes.iter().zip(weights).map(|(x, w)| (i64::from(*x) - zero_point) * i64::from(*w));
                let mut value = products.sum::<i64>() as f32 * (scale * self.weight.scales[j]);
                value += epilogue.bias.map_or(0.0, |bias| bias[j]);
                out.push(value + epilogue.residual.map_or(0.0, |residual| residual.row(i).unwrap()[j]));
            }
        }
        out
    }
}

#[test]
fn every_instruction_set_computes_the_same_integers() {
    for kernels in all_kernels() {
        for activation_bits in ActivationBits::ALL {
            for m in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25, 70] {
                for (n, k) in [(1, 1), (15, 3), (16, 8), (17, 40), (33, 7), (64, 129), (100, 5), (48, 384)] {
                    let case = Case::new(m, n, k, activation_bits);
                    let what = format!("{} {activation_bits:?} {m}x{n}x{k}", kernels.isa());
                    for epilogue in [Epilogue::default(), case.epilogue(None)] {
                        assert_eq!(bits(&case.run(kernels, &epilogue)), bits(&case.expected(&epilogue)), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn activations_equal_the_separate_kernel() {
    for kernels in all_kernels() {
        let case = Case::new(9, 35, 24, ActivationBits::Seven);
        let epilogue = Epilogue { residual: None, ..case.epilogue(None) };
        for activation in Activation::ALL {
            let mut want = case.run(kernels, &epilogue);
            kernels.activate(activation, &mut want);
            let got = case.run(kernels, &Epilogue { activation: Some(activation), ..epilogue });
            let what = format!("{} {activation:?}", kernels.isa());
            if activation == Activation::Gelu {
                // By a shorter polynomial, since its result becomes codes.
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() <= 1.5e-5 + 1e-6 * want.abs(), "{what}: {got} for {want}");
                }
            } else {
                assert_eq!(bits(&got), bits(&want), "{what}");
            }
        }
    }
}

#[test]
fn the_product_is_near_that_of_f32() {
    for activation_bits in ActivationBits::ALL {
        let (m, n, k) = (5, 20, 300);
        let (x, weight) = (values(m * k, 1), values(n * k, 2));
        let quantized = Quantized::new(&weight, k, activation_bits);
        let largest_scale = f64::from(quantized.scales.iter().fold(0.0f32, |largest, scale| largest.max(*scale)));
        let case = Case::with(m, x, quantized);
        let got = case.run(Kernels::new(Isa::best()).unwrap(), &Epilogue::default());
        let dot = |i: usize, j: usize| -> f64 {
            let rows = case.x[i * k..][..k].iter().zip(&weight[j * k..][..k]);
            rows.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        let want: Vec<f64> = (0..m * n).map(|at| dot(at / n, at % n)).collect();
        // Half a step of each operand against values up to 1, errors adding up like a random walk.
        let step = 1.0 / f64::from(activation_bits.levels()) + 0.5 * largest_scale;
        assert_close(&got, &want, 4.0 * step * (k as f64).sqrt(), &format!("{activation_bits:?}"));
    }
}

/// Codes of a column as large as the proof allows, all rows of activations at 0 or at the largest code.
fn extreme(weight: Quantized) -> Case {
    let k = weight.k;
    check_overflow(&weight.codes, k, weight.bits).unwrap();
    // One row of ones and one of the pattern of signs, each at full range.
    let ones = vec![1.0; k];
    let alternating = (0..k).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 });
    Case::with(3, ones.iter().copied().chain(alternating).chain(vec![-1.0; k]).collect(), weight)
}

#[test]
fn adversarial_weights_do_not_overflow() {
    let k = 48;
    let rows: [fn(usize) -> f32; 6] = [
        |_| 1.0,
        |_| -1.0,
        |i| if i % 2 == 0 { 1.0 } else { -1.0 },
        |i| if i % 4 < 2 { 1.0 } else { -1.0 },
        |i| if i == 13 { 1.0 } else { 0.99 },
        |i| if i % 8 == 3 { -1.0 } else { 0.3 },
    ];
    let weight: Vec<f32> = rows.iter().flat_map(|row| (0..k).map(row)).collect();
    for activation_bits in ActivationBits::ALL {
        let case = extreme(Quantized::new(&weight, k, activation_bits));
        let safe = match activation_bits {
            ActivationBits::Seven | ActivationBits::Eight => 64, // Half of what 8 bits hold.
            ActivationBits::Twelve => 127,
        };
        assert_eq!(case.weight.codes[..k], vec![safe; k], "{activation_bits:?}");
        assert_eq!(case.rows().codes(0).unwrap(), vec![activation_bits.levels().cast_signed(); k]);
        for kernels in all_kernels() {
            let epilogue = Epilogue::default();
            assert_eq!(bits(&case.run(kernels, &epilogue)), bits(&case.expected(&epilogue)), "{}", kernels.isa());
        }
    }
}

#[test]
fn the_deepest_sums_of_12_bits_do_not_overflow() {
    let k = 4096;
    let rows: [fn(usize) -> i8; 4] = [|_| 127, |_| -128, |i| if i % 2 == 0 { 127 } else { -128 }, |i| (i % 255) as i8];
    let codes = rows.iter().flat_map(|row| (0..k).map(row)).collect();
    let bits_of_12 = ActivationBits::Twelve;
    let case = extreme(Quantized { codes, scales: vec![1.0; rows.len()], k, bits: bits_of_12 });
    assert_eq!(case.rows().codes(0).unwrap(), vec![4095; k]);
    assert_eq!(case.rows().zero_point(2), Some(4095));
    for kernels in all_kernels() {
        let epilogue = Epilogue::default();
        assert_eq!(bits(&case.run(kernels, &epilogue)), bits(&case.expected(&epilogue)), "{}", kernels.isa());
    }
    let deeper = Quantized::new(&vec![0.0; k + 1], k + 1, bits_of_12);
    let error = pack_int8(&deeper.view(), &mut vec![0.0; packed_int8_len(1, k + 1)]).unwrap_err().to_string();
    assert!(error.contains("k with 12-bit activations is 4097, but at most 4096"), "{error}");
    assert!(PackedInt8::new(&case.packed, 1, k + 1, bits_of_12).is_err());
}

/// With weights that are their codes, only the activations are off: 12 bits by a sixteenth of what 8 are.
#[test]
fn twelve_bits_are_far_nearer_than_eight() {
    let (m, n, k) = (20, 30, 384);
    let codes: Vec<i8> = values(n * k, 2).iter().map(|value| (value * 64.0) as i8).collect();
    let error = |bits: ActivationBits| {
        let weight = Quantized { codes: codes.clone(), scales: vec![1.0; n], k, bits };
        let case = Case::with(m, values(m * k, 1), weight);
        let got = case.run(Kernels::new(Isa::best()).unwrap(), &Epilogue::default());
        let exact = |at: usize| -> f64 {
            let (x, w) = (&case.x[at / n * k..][..k], &codes[at % n * k..][..k]);
            x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
        };
        (got.iter().enumerate().map(|(at, got)| (f64::from(*got) - exact(at)).powi(2)).sum::<f64>()).sqrt()
    };
    let (twelve, eight) = (error(ActivationBits::Twelve), error(ActivationBits::Eight));
    assert!(twelve < eight / 12.0, "{twelve} against {eight}");
}

#[test]
fn packing_refuses_what_could_overflow() {
    for activation_bits in [ActivationBits::Seven, ActivationBits::Eight] {
        let (n, k) = (2, 8);
        let mut codes = [0; 16];
        let mut packed = vec![0.0; packed_int8_len(n, k)];
        let weight = Int8Weight { codes: &codes, scales: &[1.0, 1.0], n, k, bits: activation_bits };
        pack_int8(&weight, &mut packed).unwrap();
        assert!(pack_int8(&Int8Weight { codes: &codes[..15], ..weight }, &mut packed).is_err());
        assert!(pack_int8(&Int8Weight { scales: &[1.0], ..weight }, &mut packed).is_err());
        assert!(pack_int8(&weight, &mut packed[1..]).is_err());
        codes[8..].fill(127);
        let weight = Int8Weight { codes: &codes, scales: &[1.0, 1.0], n, k, bits: activation_bits };
        let error = pack_int8(&weight, &mut packed).unwrap_err();
        assert!(matches!(error, KernelError::Overflow { column: 1, depth: 0, .. }), "{error}");
    }
}

#[test]
fn misfits_are_refused() {
    let kernels = Kernels::new(Isa::best()).unwrap();
    let case = Case::new(3, 20, 5, ActivationBits::Seven);
    let epilogue = Epilogue::default();
    let mut out = vec![0.0; 60];
    let mut view = MatrixMut::contiguous(&mut out, 3, 20).unwrap();
    assert!(kernels.gemm_int8(case.rows(), case.b(), 0..3, &epilogue, &mut view).is_err());
    let other = PackedInt8::new(&case.packed, 20, 5, ActivationBits::Eight).unwrap();
    let error = kernels.gemm_int8(case.rows(), other, 0..2, &epilogue, &mut view).unwrap_err();
    assert!(error.to_string().contains("bits of x is 7, but 8 is needed"), "{error}");
    let deeper = PackedInt8::new(&case.packed, 20, 6, ActivationBits::Seven).unwrap();
    assert!(kernels.gemm_int8(case.rows(), deeper, 0..2, &epilogue, &mut view).is_err());
    let short = Epilogue { bias: Some(&[0.0; 19]), ..epilogue };
    assert!(kernels.gemm_int8(case.rows(), case.b(), 0..2, &short, &mut view).is_err());
    assert!(PackedInt8::new(&case.packed[1..], 20, 5, ActivationBits::Seven).is_err());
    assert!(PackedInt8::new(&[], 1, usize::MAX, ActivationBits::Seven).is_err());
    assert!(QuantizedRows::new(Matrix::contiguous(&out, 3, 20).unwrap(), 20, ActivationBits::Seven).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any cut into row blocks and panel ranges gives the bits of the whole.
    #[test]
    fn splits_do_not_change_a_bit(
        m in 1usize..80, n in 1usize..100, k in 1usize..200, activation_bits in prop::sample::select(&ActivationBits::ALL),
        row_cuts in prop::collection::vec(0usize..80, 0..4),
        panel_cuts in prop::collection::vec(0usize..8, 0..3),
    ) {
        let case = Case::new(m, n, k, activation_bits);
        let epilogue = case.epilogue(Some(Activation::Gelu));
        let edges = |cuts: &[usize], end: usize| {
            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % (end + 1)).collect();
            edges.extend([0, end]);
            edges.sort_unstable();
            edges
        };
        for kernels in all_kernels() {
            let whole = case.run(kernels, &epilogue);
            let mut out = vec![f32::NAN; m * n];
            let mut view = MatrixMut::contiguous(&mut out, m, n).unwrap();
            for rows in edges(&row_cuts, m).windows(2).map(|pair| pair[0]..pair[1]) {
                for part in edges(&panel_cuts, case.b().panels()).windows(2).map(|pair| pair[0]..pair[1]) {
                    let residual = epilogue.residual.map(|r| r.slice_rows(rows.clone()).unwrap());
                    let epilogue = Epilogue { residual, ..epilogue };
                    let x = case.rows().slice_rows(rows.clone()).unwrap();
                    let mut out = view.reborrow().slice_rows(rows.clone()).unwrap();
                    kernels.gemm_int8(x, case.b(), part, &epilogue, &mut out).unwrap();
                }
            }
            prop_assert_eq!(bits(&out), bits(&whole));
        }
    }

    /// Whatever the weights, their codes pass the proof, and at full range kernels agree with i64 sums.
    #[test]
    fn any_weights_are_safe_at_full_range(
        weight in prop::collection::vec(prop_oneof![-1.0f32..1.0, Just(1.0), Just(-1.0), Just(0.0)], 1..300),
        activation_bits in prop::sample::select(&ActivationBits::ALL),
    ) {
        let case = extreme(Quantized::new(&weight, weight.len(), activation_bits));
        for kernels in all_kernels() {
            let epilogue = Epilogue::default();
            prop_assert_eq!(bits(&case.run(kernels, &epilogue)), bits(&case.expected(&epilogue)));
        }
    }
}
