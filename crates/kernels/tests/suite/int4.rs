//! Int4 matrix multiplication and quantisation in groups against integer loops, on every instruction set, and their
//! independence of how work is split.

use centuple_kernels::{
    Activation, ActivationBits, Epilogue, Int4Weight, Isa, Kernels, Matrix, MatrixMut, PackedInt4, QuantizedRows,
    QuantizedRowsMut, RowCodes, pack_int4, packed_int4_len, quantized_columns,
};
use proptest::prelude::*;

use crate::support::{all_kernels, bits, values};

/// Words between quantised rows.
const GAP: usize = 3;

/// Rows quantised in groups, with a gap behind each.
fn quantize(kernels: Kernels, x: &[f32], k: usize, factor: Option<&[f32]>, group: usize) -> Vec<f32> {
    let (m, form) = (x.len() / k, RowCodes::Groups(group));
    let columns = quantized_columns(k, form);
    let mut words = vec![f32::NAN; m * (columns + GAP)];
    let view = MatrixMut::new(&mut words, m, columns, columns + GAP).unwrap();
    let mut rows = QuantizedRowsMut::new(view, k, form).unwrap();
    kernels.quantize_rows(Matrix::contiguous(x, m, k).unwrap(), factor, &mut rows).unwrap();
    words
}

fn view(words: &[f32], k: usize, group: usize) -> QuantizedRows<'_> {
    let form = RowCodes::Groups(group);
    let columns = quantized_columns(k, form);
    let words = Matrix::new(words, words.len() / (columns + GAP), columns, columns + GAP).unwrap();
    QuantizedRows::new(words, k, form).unwrap()
}

/// Operands of one product.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    group: usize,
    rows: Vec<f32>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<i8>>,
    packed: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Case {
    fn new((m, n, k): (usize, usize, usize), group: usize, zero_points: bool) -> Self {
        let nibbles = |count, seed| values(count, seed).iter().map(|value| (value * 8.0).floor() as i8).collect();
        let groups = n * k.div_ceil(group);
        Self::with(m, &values(m * k, 1), nibbles(n * k, 2), zero_points.then(|| nibbles(groups, 5)), (k, group))
    }

    fn with(m: usize, x: &[f32], codes: Vec<i8>, zero_points: Option<Vec<i8>>, (k, group): (usize, usize)) -> Self {
        let n = codes.len() / k;
        let scales = values(n * k.div_ceil(group), 6);
        let rows = quantize(Kernels::new(Isa::Portable).unwrap(), x, k, None, group);
        let mut packed = vec![f32::NAN; packed_int4_len(n, k, group, zero_points.is_some())];
        let weight = Int4Weight { codes: &codes, scales: &scales, zero_points: zero_points.as_deref(), n, k, group };
        pack_int4(&weight, &mut packed).unwrap();
        Self {
            m,
            n,
            k,
            group,
            rows,
            codes,
            scales,
            zero_points,
            packed,
            bias: values(n, 3),
            residual: values(m * n, 4),
        }
    }

    fn rows(&self) -> QuantizedRows<'_> {
        view(&self.rows, self.k, self.group)
    }

    fn b(&self) -> PackedInt4<'_> {
        PackedInt4::new(&self.packed, self.n, self.k, self.group, self.zero_points.is_some()).unwrap()
    }

    fn epilogue(&self, activation: Option<Activation>) -> Epilogue<'_> {
        let residual = Matrix::contiguous(&self.residual, self.m, self.n).unwrap();
        Epilogue { bias: Some(&self.bias), activation, residual: Some(residual) }
    }

    fn run(&self, kernels: Kernels, epilogue: &Epilogue<'_>) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.m * self.n];
        let mut view = MatrixMut::contiguous(&mut out, self.m, self.n).unwrap();
        kernels.gemm_int4(self.rows(), self.b(), 0..self.b().panels(), epilogue, &mut view).unwrap();
        out
    }

    /// The definition, sums in i64: any overflow in a kernel shows as a difference.
    fn expected(&self, epilogue: &Epilogue<'_>) -> Vec<f32> {
        let (rows, groups, mut out) = (self.rows(), self.k.div_ceil(self.group), Vec::new());
        for i in 0..self.m {
            let (codes, scales) = (rows.codes(i).unwrap(), rows.scales(i).unwrap());
            for j in 0..self.n {
                let weights = &self.codes[j * self.k..(j + 1) * self.k];
                let mut value = 0.0f32;
                for (number, (codes, weights)) in codes.chunks(self.group).zip(weights.chunks(self.group)).enumerate() {
                    let place = j * groups + number;
                    let zero = self.zero_points.as_ref().map_or(0, |points| i64::from(points[place]));
                    let products = codes.iter().zip(weights).map(|(x, w)| i64::from(*x) * (i64::from(*w) - zero));
                    value += products.sum::<i64>() as f32 * (scales[number] * self.scales[place]);
                }
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
        for (n, k, group) in [
            (1, 1, 8),
            (15, 3, 16),
            (16, 8, 8),
            (17, 40, 16),
            (33, 7, 32),
            (64, 129, 32),
            (130, 72, 64),
            (48, 384, 128),
            (70, 200, 24),
        ] {
            for m in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 25] {
                for zero_points in [false, true] {
                    let case = Case::new((m, n, k), group, zero_points);
                    let what = format!("{} {m}x{n}x{k} by {group}, zero points {zero_points}", kernels.isa());
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
        let case = Case::new((9, 35, 24), 16, false);
        let epilogue = Epilogue { residual: None, ..case.epilogue(None) };
        for activation in Activation::ALL {
            let mut want = case.run(kernels, &epilogue);
            kernels.activate(activation, &mut want);
            let got = case.run(kernels, &Epilogue { activation: Some(activation), ..epilogue });
            let what = format!("{} {activation:?}", kernels.isa());
            assert_eq!(bits(&got), bits(&want), "{what}");
        }
    }
}

/// Codes at either end, all rows at the largest code of either sign.
#[test]
fn the_largest_products_do_not_overflow() {
    let (k, group) = (8192, 8192);
    let rows: [fn(usize) -> i8; 4] = [|_| 7, |_| -8, |i| if i % 2 == 0 { 7 } else { -8 }, |i| (i % 16) as i8 - 8];
    let codes: Vec<i8> = rows.iter().flat_map(|row| (0..k).map(row)).collect();
    let x: Vec<f32> = (0..3 * k).map(|i| if i < k || i < 2 * k && i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    for zero_points in [vec![-8, 7, -8, 7], vec![7, -8, 0, 0]] {
        let case = Case::with(3, &x, codes.clone(), Some(zero_points), (k, group));
        assert_eq!(case.rows().codes(0).unwrap(), vec![127; k]);
        for kernels in all_kernels() {
            let epilogue = Epilogue::default();
            assert_eq!(bits(&case.run(kernels, &epilogue)), bits(&case.expected(&epilogue)), "{}", kernels.isa());
        }
    }
}

#[test]
fn groups_are_quantised_by_their_definition() {
    for kernels in all_kernels() {
        for (k, group) in [(1, 8), (8, 8), (20, 16), (100, 24), (129, 32), (576, 128)] {
            let (x, factor) = (values(3 * k, 7), values(k, 8));
            for factor in [None, Some(&factor[..])] {
                let words = quantize(kernels, &x, k, factor, group);
                let rows = view(&words, k, group);
                for (i, row) in x.chunks(k).enumerate() {
                    let row: Vec<f32> =
                        row.iter().enumerate().map(|(at, v)| factor.map_or(*v, |factor| v * factor[at])).collect();
                    let scale = |group: &[f32]| group.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
                    let scales: Vec<f32> = row.chunks(group).map(scale).collect();
                    let code = |(at, v): (usize, &f32)| (v * (1.0 / scales[at / group])).round_ties_even() as i16;
                    let codes: Vec<i16> = row.iter().enumerate().map(code).collect();
                    assert_eq!(rows.codes(i).unwrap(), codes, "{} {k} by {group}", kernels.isa());
                    assert_eq!(rows.scales(i).unwrap(), scales, "{} {k} by {group}", kernels.isa());
                    assert_eq!((rows.scale(i), rows.zero_point(i)), (Some(scales[0]), Some(0)));
                }
            }
        }
    }
}

#[test]
fn only_the_group_of_what_is_not_finite_is_lost() {
    for kernels in all_kernels() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![0.5; 40];
            x[17] = wrong;
            x[32..].fill(0.0);
            let words = quantize(kernels, &x, 40, None, 16);
            let rows = view(&words, 40, 16);
            let scales = rows.scales(0).unwrap();
            assert!(scales[0] > 0.0 && scales[1].is_nan() && scales[2] == 0.0, "{}: {scales:?}", kernels.isa());
            assert_eq!(rows.codes(0).unwrap(), [vec![127; 16], vec![0; 24]].concat());
        }
    }
}

#[test]
fn misfits_are_refused() {
    let kernels = Kernels::new(Isa::best()).unwrap();
    let case = Case::new((3, 20, 32), 16, false);
    let epilogue = Epilogue::default();
    let mut out = vec![0.0; 60];
    let mut out = MatrixMut::contiguous(&mut out, 3, 20).unwrap();
    assert!(kernels.gemm_int4(case.rows(), case.b(), 0..3, &epilogue, &mut out).is_err());
    let other = PackedInt4::new(&case.packed, 20, 32, 32, false).unwrap();
    let error = kernels.gemm_int4(case.rows(), other, 0..2, &epilogue, &mut out).unwrap_err().to_string();
    assert!(error.contains("group of x is 16, but 32 is needed"), "{error}");
    let words = vec![0.0; 3 * quantized_columns(32, ActivationBits::Eight)];
    let whole = Matrix::contiguous(&words, 3, words.len() / 3).unwrap();
    let whole = QuantizedRows::new(whole, 32, ActivationBits::Eight).unwrap();
    assert!(kernels.gemm_int4(whole, case.b(), 0..2, &epilogue, &mut out).is_err());
    assert!(QuantizedRows::new(Matrix::contiguous(&words, 1, 10).unwrap(), 32, RowCodes::Groups(12)).is_err());
    assert!(QuantizedRows::new(Matrix::contiguous(&words, 1, 10).unwrap(), 32, RowCodes::Groups(0)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any cut into row blocks and panel ranges gives the bits of the whole.
    #[test]
    fn splits_do_not_change_a_bit(
        m in 1usize..40, n in 1usize..150, k in 1usize..200, lines in 1usize..9, zero_points: bool,
        row_cuts in prop::collection::vec(0usize..40, 0..4),
        panel_cuts in prop::collection::vec(0usize..10, 0..3),
    ) {
        let case = Case::new((m, n, k), 8 * lines, zero_points);
        let epilogue = case.epilogue(Some(Activation::Silu));
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
                    kernels.gemm_int4(x, case.b(), part, &epilogue, &mut out).unwrap();
                }
            }
            prop_assert_eq!(bits(&out), bits(&whole));
        }
    }
}
