//! Attention of one head, on one thread.

mod support;

use centuple_kernels::{AttentionBlock, KeyRun, Matrix, MatrixMut, attention_scratch, row_stride};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Buffer, groups};

fn attention(criterion: &mut Criterion) {
    groups(criterion, "attention", |group| {
        for head_dim in [32, 64] {
            for tokens in [16, 128, 512] {
                // Queries, keys and values lie side by side, as one head of twelve.
                let stride = row_stride(12 * 3 * head_dim);
                let qkv = Buffer::new(tokens * stride);
                let mut scratch = Buffer::new(attention_scratch(tokens, head_dim, head_dim));
                let mut out = Buffer::new(tokens * head_dim);
                let part = |index: usize| {
                    let data = &qkv.get()[index * 12 * head_dim..];
                    Matrix::new(data, tokens, head_dim, stride).expect("the buffer fits")
                };
                let runs = [KeyRun { keys: part(1), values: part(2) }];
                let mut out = MatrixMut::contiguous(out.get_mut(), tokens, head_dim).expect("the buffer fits");
                let kernels = group.kernels;
                for causal in [false, true] {
                    let scale = 1.0 / (head_dim as f32).sqrt();
                    let queries = part(0);
                    let block = AttentionBlock { queries, runs: &runs, first_position: 0, causal, scale, mask: None };
                    let pairs = if causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
                    let kind = if causal { "causal" } else { "full" };
                    group.bench_macs(&format!("{tokens}x{head_dim}-{kind}"), 2 * pairs * head_dim, || {
                        kernels.attention(&block, scratch.get_mut(), &mut out).expect("the shapes fit");
                    });
                }
            }
        }
    });
}

criterion_group!(benches, attention);
criterion_main!(benches);
