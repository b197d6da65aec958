//! Attention of one head, on one thread; and rotations.

mod support;

use centuple_kernels::{
    AttentionBlock, KeyRun, Matrix, MatrixMut, PositionScores, Rotary, attention_scratch, row_stride,
};
use criterion::{Criterion, criterion_group, criterion_main};
use support::{Buffer, Group, groups};

/// A problem's name and what distinguishes it.
struct Variant<'a> {
    name: &'a str,
    tokens: usize,
    head_dim: usize,
    causal: bool,
    window: Option<usize>,
    position: PositionScores<'a>,
}

impl Variant<'_> {
    fn bench(&self, group: &mut Group<'_>) {
        let Self { name, tokens, head_dim, causal, window, position } = *self;
        // Queries, keys and values lie side by side, as one head of twelve.
        let stride = row_stride(12 * 3 * head_dim);
        let qkv = Buffer::new(tokens * stride);
        let mut scratch = Buffer::new(attention_scratch(tokens, head_dim, head_dim));
        let mut out = Buffer::new(tokens * head_dim);
        let part = |index: usize| {
            let data = &qkv.get()[index * 12 * head_dim..];
            Matrix::new(data, tokens, head_dim, stride).expect("the buffer fits")
        };
        let runs = [KeyRun::Rows { keys: part(1), values: part(2) }];
        let mut out = MatrixMut::contiguous(out.get_mut(), tokens, head_dim).expect("the buffer fits");
        let kernels = group.kernels;
        let (queries, scale) = (part(0), 1.0 / (head_dim as f32).sqrt());
        let block = AttentionBlock {
            queries,
            runs: &runs,
            first_position: 0,
            causal,
            window,
            position,
            scale,
            soft_cap: None,
            mask: None,
        };
        let seen = |i: usize| {
            let before = window.map_or(i, |window| window.min(i));
            let behind = if causal { 0 } else { window.unwrap_or(tokens).min(tokens - 1 - i) };
            before + 1 + behind
        };
        let pairs: usize = (0..tokens).map(seen).sum();
        group.bench_macs(&format!("{tokens}x{head_dim}-{name}"), 2 * pairs * head_dim, || {
            kernels.attention(&block, scratch.get_mut(), &mut out).expect("the shapes fit");
        });
    }
}

fn attention(criterion: &mut Criterion) {
    groups(criterion, "attention", |group| {
        let (window, position) = (None, PositionScores::None);
        for head_dim in [32, 64] {
            for tokens in [16, 128, 512] {
                for (name, causal) in [("full", false), ("causal", true)] {
                    Variant { name, tokens, head_dim, causal, window, position }.bench(group);
                }
            }
        }
        for (name, window) in [("full", None), ("window 64", Some(64))] {
            Variant { name, tokens: 2048, head_dim: 64, causal: false, window, position }.bench(group);
        }
    });
}

/// Scores by distance beside none; the distances of the tables are those of T5 and DeBERTa v3.
fn positions(criterion: &mut Criterion) {
    groups(criterion, "positions", |group| {
        let bias = Buffer::new(255);
        for tokens in [128, 512] {
            let scores = Buffer::new(2 * tokens * 512);
            let table = |index: usize| Matrix::new(&scores.get()[index * tokens * 512..], tokens, 512, 512).ok();
            let buckets: Vec<u32> = (-511..=511).map(logarithmic_bucket).collect();
            let (content_to_position, position_to_content) = (table(0), table(1));
            let disentangled =
                PositionScores::Disentangled { buckets: &buckets, content_to_position, position_to_content };
            for (name, position) in [
                ("none", PositionScores::None),
                ("bias", PositionScores::Bias(bias.get())),
                ("disentangled", disentangled),
            ] {
                Variant { name, tokens, head_dim: 64, causal: false, window: None, position }.bench(group);
            }
        }
    });
}

/// One of 512 buckets: each distance up to 128 has its own.
fn logarithmic_bucket(distance: i32) -> u32 {
    let away = f64::from(distance.abs());
    let bucket =
        if away <= 128.0 { away } else { ((away / 128.0).ln() / (511.0f64 / 128.0).ln() * 127.0).ceil() + 128.0 };
    (bucket.copysign(f64::from(distance)) + 256.0).clamp(0.0, 511.0) as u32
}

fn rotary(criterion: &mut Criterion) {
    groups(criterion, "rotary", |group| {
        let (tokens, width, head_dim) = (128, 768, 64);
        let (x, angles, mut out) =
            (Buffer::new(tokens * width), Buffer::new(tokens * head_dim), Buffer::new(tokens * width));
        let x = Matrix::contiguous(x.get(), tokens, width).expect("the buffer fits");
        let table = Matrix::contiguous(angles.get(), tokens, head_dim).expect("the buffer fits");
        let mut out = MatrixMut::contiguous(out.get_mut(), tokens, width).expect("the buffer fits");
        let positions: Vec<u32> = (0..tokens as u32).collect();
        let kernels = group.kernels;
        for (name, interleaved) in [("halves", false), ("interleaved", true)] {
            let rotary = Rotary { head_dim, interleaved, table, positions: &positions };
            group.bench_elements(&format!("{tokens}x{width}-{name}"), tokens * width, || {
                kernels.rotary(x, &rotary, &mut out).expect("the shapes fit");
            });
        }
    });
}

criterion_group!(benches, attention, positions, rotary);
criterion_main!(benches);
