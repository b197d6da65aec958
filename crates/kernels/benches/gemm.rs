//! Matrix multiplication at the shapes of MiniLM and BERT-base layers, on one thread.

mod support;

use centuple_kernels::{Activation, Epilogue, Matrix, MatrixMut, PackedMatrix, packed_len, row_stride};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Buffer, groups};

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

criterion_group!(benches, gemm);
criterion_main!(benches);
