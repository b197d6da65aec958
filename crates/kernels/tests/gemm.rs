//! Matrix multiplication against an f64 loop, and its independence of how work is split.

mod support;

use centuple_kernels::{Activation, Epilogue, Isa, Kernels, Matrix, MatrixMut, PackedMatrix, pack, packed_len};
use proptest::prelude::*;
use support::{all_kernels, assert_close, bits, values};

/// Operands of one product, rows of `a` and of the result with gaps.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    a: Vec<f32>,
    weight: Vec<f32>,
    packed: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

const GAP: usize = 3;

impl Case {
    fn new(m: usize, n: usize, k: usize) -> Self {
        let weight = values(n * k, 2);
        let mut packed = vec![f32::NAN; packed_len(n, k)];
        pack(Matrix::contiguous(&weight, n, k).unwrap(), &mut packed).unwrap();
        let a = values(m * (k + GAP), 1);
        Self { m, n, k, a, weight, packed, bias: values(n, 3), residual: values(m * n, 4) }
    }

    fn a(&self) -> Matrix<'_> {
        Matrix::new(&self.a, self.m, self.k, self.k + GAP).unwrap()
    }

    fn b(&self) -> PackedMatrix<'_> {
        PackedMatrix::new(&self.packed, self.n, self.k).unwrap()
    }

    fn epilogue(&self, activation: Option<Activation>) -> Epilogue<'_> {
        let residual = Matrix::contiguous(&self.residual, self.m, self.n).unwrap();
        Epilogue { bias: Some(&self.bias), activation, residual: Some(residual) }
    }

    /// The result without gaps, all work in one call.
    fn run(&self, kernels: Kernels, epilogue: &Epilogue<'_>) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.m * (self.n + GAP)];
        let mut view = MatrixMut::new(&mut out, self.m, self.n, self.n + GAP).unwrap();
        kernels.gemm(self.a(), self.b(), 0..self.b().panels(), epilogue, &mut view).unwrap();
        let outside = out.chunks(self.n + GAP).flat_map(|row| &row[self.n..]);
        assert!(outside.cloned().all(f32::is_nan), "wrote between the rows");
        out.chunks(self.n + GAP).flat_map(|row| row[..self.n].to_vec()).collect()
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
fn the_depth_may_be_long_or_zero() {
    for kernels in all_kernels() {
        // Long enough for the rows to be cut into blocks.
        let case = Case::new(45, 20, 5000);
        assert_close(&case.run(kernels, &Epilogue::default()), &case.expected(false, false, false), 1e-3, "long");
        let case = Case::new(3, 20, 0);
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
        for kernels in all_kernels() {
            let whole = case.run(kernels, &epilogue);
            let mut out = vec![f32::NAN; m * n];
            let mut view = MatrixMut::contiguous(&mut out, m, n).unwrap();
            for rows in edges(&row_cuts, m).windows(2).map(|pair| pair[0]..pair[1]) {
                for part in edges(&panel_cuts, panels).windows(2).map(|pair| pair[0]..pair[1]) {
                    let residual = epilogue.residual.map(|r| r.slice_rows(rows.clone()).unwrap());
                    let epilogue = Epilogue { residual, ..epilogue };
                    let a = case.a().slice_rows(rows.clone()).unwrap();
                    let mut out = view.reborrow().slice_rows(rows.clone()).unwrap();
                    kernels.gemm(a, case.b(), part, &epilogue, &mut out).unwrap();
                }
            }
            prop_assert_eq!(bits(&out), bits(&whole));
        }
    }
}
