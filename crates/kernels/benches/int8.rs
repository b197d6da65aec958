//! Int8 matrix multiplication and quantisation at the shapes of MiniLM and BERT-base layers, on one thread.

#[path = "../tests/suite/support/quantized.rs"]
mod quantized;
mod support;

use centuple_kernels::{
    Activation, ActivationBits, Epilogue, LayerNorm, Matrix, MatrixMut, PackedInt8, Quantization, QuantizedRowsMut,
    pack_int8, packed_int8_len, quantized_columns, row_stride,
};
use criterion::{Criterion, criterion_group, criterion_main};
use quantized::Quantized;
use support::{Buffer, Group, cold_weights, groups};

/// Columns and depth of linear layers of each model.
const LAYERS: [(usize, usize); 7] =
    [(1152, 384), (384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072)];

fn gemm(criterion: &mut Criterion) {
    for (name, bits) in [
        ("gemm_int8", ActivationBits::Seven),
        ("gemm_int8_8bit", ActivationBits::Eight),
        ("gemm_int8_12bit", ActivationBits::Twelve),
    ] {
        groups(criterion, name, |group| {
            for m in [16, 128, 1024] {
                for (n, k) in LAYERS {
                    product(group, (m, n, k), bits);
                }
            }
        });
    }
}

fn product(group: &mut Group<'_>, (m, n, k): (usize, usize, usize), bits: ActivationBits) {
    let x_columns = quantized_columns(k, bits);
    let (x_stride, out_stride) = (row_stride(x_columns), row_stride(n));
    let (x, weight, bias) = (Buffer::new(m * k), Buffer::new(n * k), Buffer::new(n));
    let (mut rows, mut packed) = (Buffer::new(m * x_stride), Buffer::new(packed_int8_len(n, k)));
    let mut out = Buffer::new(m * out_stride);
    let weight = Quantized::new(weight.get(), k, bits);
    pack_int8(&weight.view(), packed.get_mut()).expect("the buffer fits");
    let b = PackedInt8::new(packed.get(), n, k, bits).expect("the buffer fits");
    let words = MatrixMut::new(rows.get_mut(), m, x_columns, x_stride).expect("the buffer fits");
    let mut rows = QuantizedRowsMut::new(words, k, bits).expect("the columns fit");
    let kernels = group.kernels;
    let x = Matrix::contiguous(x.get(), m, k).expect("the buffer fits");
    kernels.quantize_rows(x, None, &mut rows).expect("the shapes fit");
    let mut out = MatrixMut::new(out.get_mut(), m, n, out_stride).expect("the buffer fits");
    let activation = (n == 4 * k).then_some(Activation::Gelu);
    let epilogue = Epilogue { bias: Some(bias.get()), activation, residual: None };
    group.bench_int8_macs(&format!("{m}x{n}x{k}"), m * n * k, || {
        kernels.gemm_int8(rows.as_rows(), b, 0..b.panels(), &epilogue, &mut out).expect("the shapes fit");
    });
}

/// Few tokens by weights that come from memory each time.
fn cold_gemm(criterion: &mut Criterion) {
    let weights = cold_weights();
    groups(criterion, "gemm_int8_cold", |group| {
        for (m, n, k) in [(16, 1536, 384), (16, 3072, 768), (1, 3072, 768)] {
            let x_columns = quantized_columns(k, ActivationBits::Seven);
            let (mut rows, mut out) = (Buffer::new(m * x_columns), Buffer::new(m * n));
            let words = MatrixMut::contiguous(rows.get_mut(), m, x_columns).expect("the buffer fits");
            let rows = QuantizedRowsMut::new(words, k, ActivationBits::Seven).expect("the columns fit");
            let mut out = MatrixMut::contiguous(out.get_mut(), m, n).expect("the buffer fits");
            let (kernels, epilogue) = (group.kernels, Epilogue::default());
            let mut matrices = weights.get().chunks_exact(packed_int8_len(n, k)).cycle();
            group.bench_int8_macs(&format!("{m}x{n}x{k}"), m * n * k, || {
                let words = matrices.next().unwrap_or_default();
                let b = PackedInt8::new(words, n, k, ActivationBits::Seven).expect("the words suffice");
                kernels.gemm_int8(rows.as_rows(), b, 0..b.panels(), &epilogue, &mut out).expect("the shapes fit");
            });
        }
    });
}

fn quantize(criterion: &mut Criterion) {
    for (name, bits) in [("quantize", ActivationBits::Seven), ("quantize_12bit", ActivationBits::Twelve)] {
        groups(criterion, name, |group| {
            for columns in [384, 1536] {
                quantized_rows(group, (128, columns), bits);
            }
        });
    }
}

fn quantized_rows(group: &mut Group<'_>, (rows, columns): (usize, usize), bits: ActivationBits) {
    let (kernels, width) = (group.kernels, quantized_columns(columns, bits));
    let stride = row_stride(width);
    let (x, factor, mut out) = (Buffer::new(rows * columns), Buffer::new(columns), Buffer::new(rows * columns));
    let mut words = Buffer::new(rows * stride);
    let words = MatrixMut::new(words.get_mut(), rows, width, stride).expect("the buffer fits");
    let target = QuantizedRowsMut::new(words, columns, bits).expect("the columns fit");
    let mut quantization = Quantization { factor: Some(factor.get()), rows: target };
    let x = Matrix::contiguous(x.get(), rows, columns).expect("the buffer fits");
    let mut out = MatrixMut::contiguous(out.get_mut(), rows, columns).expect("the buffer fits");
    group.bench_elements(&format!("rows/{columns}"), rows * columns, || {
        let Quantization { factor, rows } = &mut quantization;
        kernels.quantize_rows(x, *factor, rows).expect("the shapes fit");
    });
    let norm = LayerNorm { gamma: factor.get(), beta: Some(factor.get()), epsilon: 1e-5 };
    group.bench_elements(&format!("layer_norm/{columns}"), rows * columns, || {
        kernels.layer_norm_quantize(x, None, &norm, &mut out, &mut quantization).expect("the shapes fit");
    });
}

criterion_group!(benches, gemm, cold_gemm, quantize);
criterion_main!(benches);
