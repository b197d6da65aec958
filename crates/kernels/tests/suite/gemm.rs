//! Matrix multiplication against an f64 loop, and its independence of how weights are stored and work is split.

use std::ops::Range;

use centuple_kernels::{
    Activation, Epilogue, Isa, Kernels, Matrix, MatrixMut, PackedHalf, PackedMatrix, pack, pack_half, packed_half_len,
    packed_len,
};
use half::f16;
use proptest::prelude::*;

use crate::support::{all_kernels, assert_close, bits, values};

/// Operands of one product, rows of `a` and of the result with gaps.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<f32>,
    /// Numbers that f16 has.
    weight: Vec<f32>,
    packed: Vec<f32>,
    packed_half: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

/// How the weights are stored.
#[derive(Debug, Clone, Copy)]
enum Stored {
    Float,
    Half,
}

const GAP: usize = 3;

impl Case {
    fn new(m: usize, n: usize, k: usize) -> Self {
        Self::with(m, n, values(n * k, 2).into_iter().map(|weight| f16::from_f32(weight).to_f32()).collect())
    }

    fn with(m: usize, n: usize, weight: Vec<f32>) -> Self {
        let k = weight.len() / n;
        let mut packed = vec![f32::NAN; packed_len(n, k)];
        pack(Matrix::contiguous(&weight, n, k).unwrap(), &mut packed).unwrap();
        let mut packed_half = vec![f32::NAN; packed_half_len(n, k)];
        pack_half(Matrix::contiguous(&weight, n, k).unwrap(), &mut packed_half).unwrap();
        let a = values(m * (k + GAP), 1);
        Self { m, n, k, a, weight, packed, packed_half, bias: values(n, 3), residual: values(m * n, 4) }
    }

    fn a(&self) -> Matrix<'_> {
        Matrix::new(&self.a, self.m, self.k, self.k + GAP).unwrap()
    }

    fn b(&self) -> PackedMatrix<'_> {
        PackedMatrix::new(&self.packed, self.n, self.k).unwrap()
    }

    fn half(&self) -> PackedHalf<'_> {
        PackedHalf::from_words(&self.packed_half, self.n, self.k).unwrap()
    }

    fn epilogue(&self, activation: Option<Activation>) -> Epilogue<'_> {
        let residual = Matrix::contiguous(&self.residual, self.m, self.n).unwrap();
        Epilogue { bias: Some(&self.bias), activation, residual: Some(residual) }
    }

    /// Computes some rows and panels.
    fn part(
        &self,
        (kernels, stored): (Kernels, Stored),
        (rows, panels): (Range<usize>, Range<usize>),
        epilogue: &Epilogue<'_>,
        out: &mut MatrixMut<'_>,
    ) {
        let residual = epilogue.residual.map(|residual| residual.slice_rows(rows.clone()).unwrap());
        let epilogue = Epilogue { residual, ..*epilogue };
        let a = self.a().slice_rows(rows.clone()).unwrap();
        let mut out = out.reborrow().slice_rows(rows).unwrap();
        match stored {
            Stored::Float => kernels.gemm(a, self.b(), panels, &epilogue, &mut out),
            Stored::Half => kernels.gemm_half(a, self.half(), panels, &epilogue, &mut out),
        }
        .unwrap();
    }

    /// The result without gaps, all work in one call.
    fn run_stored(&self, kernels: Kernels, stored: Stored, epilogue: &Epilogue<'_>) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.m * (self.n + GAP)];
        let mut view = MatrixMut::new(&mut out, self.m, self.n, self.n + GAP).unwrap();
        self.part((kernels, stored), (0..self.m, 0..self.b().panels()), epilogue, &mut view);
        let outside = out.chunks(self.n + GAP).flat_map(|row| &row[self.n..]);
        assert!(outside.cloned().all(f32::is_nan), "wrote between the rows");
        out.chunks(self.n + GAP).flat_map(|row| row[..self.n].to_vec()).collect()
    }

    fn run(&self, kernels: Kernels, epilogue: &Epilogue<'_>) -> Vec<f32> {
        self.run_stored(kernels, Stored::Float, epilogue)
    }

    fn expected(&self, bias: bool, relu: bool, residual: bool) -> Vec<f64> {
        let mut out = Vec::new();
        for i in 0..self.m {
            for j in 0..self.n {
                let mut sum = if bias { f64::from(self.bias[j]) } else { 0.0 };
                for l in 0..self.k {
                    let a = f64::from(self.a[i * (self.k + GAP) + l]);
                    sum += a * f64::from(self.weight[j * self.k + l]);
                }
                sum = if relu { sum.max(0.0) } else { sum };
                sum += if residual { f64::from(self.residual[i * self.n + j]) } else { 0.0 };
                out.push(sum);
            }
        }
        out
    }
}

#[test]
fn products_match_f64() {
    for kernels in all_kernels() {
        for m in [0, 1, 2, 5, 7, 11, 12, 13, 24, 29, 70] {
            for (n, k) in [(1, 1), (15, 3), (16, 16), (17, 40), (33, 7), (64, 129), (100, 5)] {
                let case = Case::new(m, n, k);
                let what = format!("{} {m}x{n}x{k}", kernels.isa());
                let plain = case.run(kernels, &Epilogue::default());
                assert_close(&plain, &case.expected(false, false, false), 2e-5, &what);
                let full = case.run(kernels, &case.epilogue(Some(Activation::Relu)));
                assert_close(&full, &case.expected(true, true, true), 2e-5, &what);
            }
        }
    }
}

#[test]
fn weights_stored_as_half_give_the_bits_of_float() {
    for kernels in all_kernels() {
        for m in [0, 1, 2, 5, 6, 7, 11, 12, 13, 29] {
            for (n, k) in [(1, 1), (15, 3), (16, 16), (17, 41), (64, 129), (20, 5000)] {
                let case = Case::new(m, n, k);
                let epilogue = case.epilogue(Some(Activation::Gelu));
                let (want, got) = (case.run(kernels, &epilogue), case.run_stored(kernels, Stored::Half, &epilogue));
                assert_eq!(bits(&got), bits(&want), "{} {m}x{n}x{k}", kernels.isa());
            }
        }
    }
}

#[test]
fn every_finite_half_is_a_weight() {
    let halves = (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite());
    let case = Case::with(3, 64, halves.map(f16::to_f32).collect());
    for kernels in all_kernels() {
        let epilogue = Epilogue::default();
        let (want, got) = (case.run(kernels, &epilogue), case.run_stored(kernels, Stored::Half, &epilogue));
        assert_eq!(bits(&got), bits(&want), "{}", kernels.isa());
    }
}

#[test]
fn the_depth_may_be_long_or_zero() {
    for kernels in all_kernels() {
        // Long enough for the rows to be cut into blocks.
        let case = Case::new(45, 20, 5000);
        assert_close(&case.run(kernels, &Epilogue::default()), &case.expected(false, false, false), 1e-3, "long");
        let case = Case::with(3, 20, Vec::new());
        let got = case.run(kernels, &case.epilogue(None));
        assert_close(&got, &case.expected(true, false, true), 1e-6, "zero");
    }
}

#[test]
fn every_activation_equals_the_separate_kernel() {
    for kernels in all_kernels() {
        let case = Case::new(9, 35, 24);
        let epilogue = Epilogue { residual: None, ..case.epilogue(None) };
        for activation in Activation::ALL {
            let mut want = case.run(kernels, &epilogue);
            kernels.activate(activation, &mut want);
            let got = case.run(kernels, &Epilogue { activation: Some(activation), ..epilogue });
            assert_eq!(bits(&got), bits(&want), "{} {activation:?}", kernels.isa());
        }
    }
}

#[test]
fn avx2_and_avx512_agree_bit_for_bit() {
    let (Ok(avx2), Ok(avx512)) = (Kernels::new(Isa::Avx2), Kernels::new(Isa::Avx512)) else {
        println!("skipped: this CPU does not have both instruction sets");
        return;
    };
    let case = Case::new(37, 75, 111);
    for activation in Activation::ALL {
        let epilogue = case.epilogue(Some(activation));
        assert_eq!(bits(&case.run(avx2, &epilogue)), bits(&case.run(avx512, &epilogue)));
    }
}

#[test]
fn nan_and_infinity_pass_through() {
    for kernels in all_kernels() {
        let mut case = Case::new(3, 17, 4);
        case.a[0] = f32::NAN;
        case.a[case.k + GAP] = f32::INFINITY;
        let got = case.run(kernels, &Epilogue::default());
        assert!(got[..17].iter().all(|x| x.is_nan()));
        assert!(got[17..34].iter().all(|x| x.is_infinite()));
        assert!(got[34..].iter().all(|x| x.is_finite()));
    }
}

#[test]
fn misfits_are_refused() {
    let kernels = Kernels::new(Isa::best()).unwrap();
    let case = Case::new(3, 20, 5);
    let epilogue = Epilogue::default();
    let mut out = vec![0.0; 60];
    let mut view = MatrixMut::contiguous(&mut out, 3, 20).unwrap();
    let narrow = case.a().slice_columns(0..4).unwrap();
    assert!(kernels.gemm(narrow, case.b(), 0..2, &epilogue, &mut view).is_err());
    assert!(kernels.gemm(case.a(), case.b(), 0..3, &epilogue, &mut view).is_err());
    let short = Epilogue { bias: Some(&[0.0; 19]), ..epilogue };
    assert!(kernels.gemm(case.a(), case.b(), 0..2, &short, &mut view).is_err());
    let few = case.epilogue(None).residual.unwrap().slice_rows(0..2).unwrap();
    let few = Epilogue { residual: Some(few), ..epilogue };
    assert!(kernels.gemm(case.a(), case.b(), 0..2, &few, &mut view).is_err());
    assert!(kernels.gemm_half(narrow, case.half(), 0..2, &epilogue, &mut view).is_err());
    assert!(kernels.gemm_half(case.a(), case.half(), 0..3, &epilogue, &mut view).is_err());
    assert!(kernels.gemm_half(case.a(), case.half(), 0..2, &short, &mut view).is_err());
    let mut less = view.slice_rows(0..2).unwrap();
    assert!(kernels.gemm(case.a(), case.b(), 0..2, &epilogue, &mut less).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any cut into row blocks and panel ranges gives the bits of the whole.
    #[test]
    fn splits_do_not_change_a_bit(
        m in 1usize..80, n in 1usize..100, k in 1usize..200,
        row_cuts in prop::collection::vec(0usize..80, 0..4),
        panel_cuts in prop::collection::vec(0usize..8, 0..3),
    ) {
        let case = Case::new(m, n, k);
        let epilogue = case.epilogue(Some(Activation::Gelu));
        let panels = case.b().panels();
        let edges = |cuts: &[usize], end: usize| {
            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % (end + 1)).collect();
            edges.extend([0, end]);
            edges.sort_unstable();
            edges
        };
        for (kernels, stored) in all_kernels().flat_map(|kernels| [(kernels, Stored::Float), (kernels, Stored::Half)]) {
            let whole = case.run_stored(kernels, stored, &epilogue);
            let mut out = vec![f32::NAN; m * n];
            let mut view = MatrixMut::contiguous(&mut out, m, n).unwrap();
            for rows in edges(&row_cuts, m).windows(2).map(|pair| pair[0]..pair[1]) {
                for part in edges(&panel_cuts, panels).windows(2).map(|pair| pair[0]..pair[1]) {
                    case.part((kernels, stored), (rows.clone(), part), &epilogue, &mut view);
                }
            }
            prop_assert_eq!(bits(&out), bits(&whole), "{} {:?}", kernels.isa(), stored);
        }
    }
}
