//! LayerNorm, softmax and activations, on one thread.

mod support;

use centuple_kernels::{Activation, LayerNorm, Matrix, MatrixMut, row_stride};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Buffer, groups};

const ROWS: usize = 128;

fn layer_norm(criterion: &mut Criterion) {
    groups(criterion, "layer_norm", |group| {
        for columns in [384, 768] {
            let stride = row_stride(columns);
            let (x, gamma) = (Buffer::new(ROWS * stride), Buffer::new(columns));
            let mut out = Buffer::new(ROWS * stride);
            let x = Matrix::new(x.get(), ROWS, columns, stride).expect("the buffer fits");
            let mut out = MatrixMut::new(out.get_mut(), ROWS, columns, stride).expect("the buffer fits");
            let norm = LayerNorm { gamma: gamma.get(), beta: Some(gamma.get()), epsilon: 1e-12 };
            let kernels = group.kernels;
            group.bench_elements(&format!("{ROWS}x{columns}"), ROWS * columns, || {
                kernels.layer_norm(x, None, &norm, &mut out).expect("the shapes fit");
            });
            group.bench_elements(&format!("{ROWS}x{columns}-residual"), ROWS * columns, || {
                kernels.layer_norm(x, Some(x), &norm, &mut out).expect("the shapes fit");
            });
        }
    });
}

fn softmax(criterion: &mut Criterion) {
    groups(criterion, "softmax", |group| {
        let mut values = Buffer::new(ROWS * 128);
        let mut rows = MatrixMut::contiguous(values.get_mut(), ROWS, 128).expect("the buffer fits");
        let kernels = group.kernels;
        group.bench_elements(&format!("{ROWS}x128"), ROWS * 128, || kernels.softmax(&mut rows));
    });
}

fn activations(criterion: &mut Criterion) {
    groups(criterion, "activation", |group| {
        let mut values = Buffer::new(4096);
        let kernels = group.kernels;
        for activation in Activation::ALL {
            group.bench_elements(&format!("{activation:?}"), 4096, || {
                kernels.activate(activation, values.get_mut());
            });
        }
    });
}

criterion_group!(benches, layer_norm, softmax, activations);
criterion_main!(benches);
