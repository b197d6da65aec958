//! Matrix multiplication at the shapes of MiniLM and BERT-base layers, on one thread.

mod support;

use centuple_kernels::{
    Activation, Epilogue, Matrix, MatrixMut, PackedHalf, PackedMatrix, packed_half_len, packed_len, row_stride,
};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Buffer, cold_weights, groups};

/// Columns and depth of the four linear layers of an encoder layer of each model.
const LAYERS: [(usize, usize); 8] =
    [(1152, 384), (384, 384), (1536, 384), (384, 1536), (2304, 768), (768, 768), (3072, 768), (768, 3072)];

fn gemm(criterion: &mut Criterion) {
    groups(criterion, "gemm", |group| {
        for m in [1, 16, 128, 1024] {
            for (n, k) in LAYERS {
                let (a_stride, out_stride) = (row_stride(k), row_stride(n));
                let (a, bias) = (Buffer::new(m * a_stride), Buffer::new(n));
                let (weight, mut out) = (Buffer::new(packed_len(n, k)), Buffer::new(m * out_stride));
                let a = Matrix::new(a.get(), m, k, a_stride).expect("the buffer fits");
                let b = PackedMatrix::new(weight.get(), n, k).expect("the buffer fits");
                let mut out = MatrixMut::new(out.get_mut(), m, n, out_stride).expect("the buffer fits");
                let activation = (n == 4 * k).then_some(Activation::Gelu);
                let epilogue = Epilogue { bias: Some(bias.get()), activation, residual: None };
                let kernels = group.kernels;
                group.bench_macs(&format!("{m}x{n}x{k}"), m * n * k, || {
                    kernels.gemm(a, b, 0..b.panels(), &epilogue, &mut out).expect("the shapes fit");
                });
            }
        }
    });
}

/// Few tokens by weights that come from memory each time: those of a different matrix in each iteration.
fn cold_gemm(criterion: &mut Criterion) {
    let words = cold_weights();
    groups(criterion, "gemm_cold", |group| {
        for (m, n, k) in [(16, 384, 384), (16, 1536, 384), (16, 768, 768), (16, 3072, 768), (1, 3072, 768)] {
            let (a, mut out) = (Buffer::new(m * k), Buffer::new(m * n));
            let a = Matrix::contiguous(a.get(), m, k).expect("the buffer fits");
            let mut out = MatrixMut::contiguous(out.get_mut(), m, n).expect("the buffer fits");
            let (kernels, epilogue) = (group.kernels, Epilogue::default());
            let mut matrices = words.get().chunks_exact(packed_len(n, k)).cycle();
            group.bench_macs(&format!("f32/{m}x{n}x{k}"), m * n * k, || {
                let b = PackedMatrix::new(matrices.next().unwrap_or_default(), n, k).expect("the words suffice");
                kernels.gemm(a, b, 0..b.panels(), &epilogue, &mut out).expect("the shapes fit");
            });
            let mut matrices = words.get().chunks_exact(packed_half_len(n, k)).cycle();
            group.bench_macs(&format!("f16/{m}x{n}x{k}"), m * n * k, || {
                let b = PackedHalf::from_words(matrices.next().unwrap_or_default(), n, k).expect("the words suffice");
                kernels.gemm_half(a, b, 0..b.panels(), &epilogue, &mut out).expect("the shapes fit");
            });
        }
    });
}

criterion_group!(benches, gemm, cold_gemm);
criterion_main!(benches);
