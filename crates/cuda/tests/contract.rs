//! The kernels' contracts against the reference evaluator, which computes in f64: what 16 bits and the order of sums cost.
//! Operands are rounded to 16 bits before both.

use centuple_cuda::contract::{Attention, Codes, Dense, Gemm, Heads, Norm, Pool, Weight, pool, quantise};
use centuple_cuda::{Activation, Format, HEAD_DIMS, POOLINGS, Pooling};
use centuple_graph as graph;
use centuple_graph::{Op, PositionScores};
use centuple_reference::{Batch, Cache, apply};
use centuple_tensor::{Bindings, Layout, Span, Tensor};
use centuple_testkit::{Random, distance};
use proptest::prelude::*;

/// What the issue allows of a kernel's 16-bit results.
fn tolerance(format: Format) -> f32 {
    match format {
        Format::F16 => 2e-3,
        Format::Bf16 => 1e-2,
    }
}

fn stored(random: &mut Random, format: Format, count: usize, scale: f32) -> Vec<u16> {
    (0..count).map(|_| format.narrow(scale * random.float())).collect()
}

fn floats(random: &mut Random, count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|_| scale * random.float()).collect()
}

fn tensor(format: Format, shape: [usize; 2], bits: &[u16]) -> Tensor {
    wide(&shape, &format.widened(bits))
}

fn wide(shape: &[usize], data: &[f32]) -> Tensor {
    Tensor::from_f32(shape, data).expect("a tensor of that shape")
}

/// The f32 result of an op on a batch of sequences.
fn reference(op: &Op, operands: &[Tensor], layout: &Layout) -> Vec<f32> {
    let mut cache = Cache::default();
    let mut batch = Batch { bindings: Bindings::default(), layout, cache: &mut cache };
    let operands: Vec<&Tensor> = operands.iter().collect();
    let result = apply(op, &operands, &mut batch).expect("the op fits its operands");
    result.as_f32().expect("floats").to_vec()
}

fn check(found: &[f32], expected: &[f32], tolerance: f32) -> Result<(), TestCaseError> {
    let distance = distance(found, expected);
    prop_assert!(distance <= tolerance, "{distance} is more than {tolerance}");
    Ok(())
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::F16), Just(Format::Bf16)]
}

const ACTIVATIONS: [(Activation, Option<graph::Activation>); 7] = [
    (Activation::Identity, None),
    (Activation::Gelu, Some(graph::Activation::Gelu)),
    (Activation::GeluTanh, Some(graph::Activation::GeluTanh)),
    (Activation::Relu, Some(graph::Activation::Relu)),
    (Activation::Tanh, Some(graph::Activation::Tanh)),
    (Activation::Sigmoid, Some(graph::Activation::Sigmoid)),
    (Activation::Silu, Some(graph::Activation::Silu)),
];

fn pooling_of(pooling: Pooling) -> graph::Pooling {
    match pooling {
        Pooling::Cls => graph::Pooling::Cls,
        Pooling::LastToken => graph::Pooling::LastToken,
        Pooling::Mean => graph::Pooling::Mean,
        Pooling::MeanSqrtLength => graph::Pooling::MeanSqrtLength,
        Pooling::Max => graph::Pooling::Max,
        Pooling::WeightedMean => graph::Pooling::WeightedMean,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn norm_is_layer_norm(format in formats(), tokens in 1usize..6, eighths in 1usize..60, seed in any::<u64>()) {
        let (mut random, hidden) = (Random::new(seed), eighths * 8);
        let x = stored(&mut random, format, tokens * hidden, 2.0);
        let residual = stored(&mut random, format, tokens * hidden, 2.0);
        let (gamma, beta) = (floats(&mut random, hidden, 1.5), floats(&mut random, hidden, 0.5));
        let norm = Norm {
            format,
            tokens,
            hidden,
            x: Some(&x),
            tables: &[],
            residual: Some(&residual),
            affine: Some([&gamma, &beta]),
            epsilon: 1e-5,
            codes: None,
        };
        let (found, _) = norm.run();
        let op = Op::LayerNorm { epsilon: 1e-5, residual: true };
        let rows = [tokens, hidden];
        let operands =
            [tensor(format, rows, &x), tensor(format, rows, &residual), wide(&[hidden], &gamma), wide(&[hidden], &beta)];
        check(&format.widened(&found), &reference(&op, &operands, &Layout::default()), tolerance(format))?;
    }

    #[test]
    fn norm_is_embedding(format in formats(), tokens in 1usize..9, tables in 1usize..4, seed in any::<u64>()) {
        let (mut random, hidden, rows) = (Random::new(seed), 64, 10);
        let held: Vec<(Vec<u16>, Vec<i32>)> = (0..tables)
            .map(|_| {
                let table = stored(&mut random, format, rows * hidden, 1.0);
                (table, (0..tokens).map(|_| random.below(rows) as i32).collect())
            })
            .collect();
        let borrowed: Vec<(&[u16], &[i32])> = held.iter().map(|(table, ids)| (&table[..], &ids[..])).collect();
        let norm = Norm {
            format,
            tokens,
            hidden,
            x: None,
            tables: &borrowed,
            residual: None,
            affine: None,
            epsilon: 0.0,
            codes: None,
        };
        let mut operands = Vec::new();
        for (table, ids) in &held {
            operands.push(tensor(format, [rows, hidden], table));
            let ids: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
            operands.push(Tensor::from_i64(&[tokens], &ids).expect("ids"));
        }
        check(&format.widened(&norm.run().0), &reference(&Op::Embedding, &operands, &Layout::default()), tolerance(format))?;
    }

    #[test]
    fn gemm_is_linear(
        format in formats(),
        [tokens, eighths, n] in [1usize..7, 1usize..30, 1usize..5],
        of_activation in 0..ACTIVATIONS.len(),
        [biased, with_residual] in any::<[bool; 2]>(),
        seed in any::<u64>(),
    ) {
        let (mut random, k, n) = (Random::new(seed), eighths * 8, n * 8);
        let (activation, of_graph) = ACTIVATIONS[of_activation];
        let x = stored(&mut random, format, tokens * k, 1.0);
        let weight = stored(&mut random, format, n * k, 1.0 / (k as f32).sqrt());
        let (bias, residual) = (floats(&mut random, n, 1.0), stored(&mut random, format, tokens * n, 1.0));
        let gemm = Gemm {
            format,
            k,
            n,
            weight: Weight::Floats { x: &x, weight: &weight },
            bias: biased.then_some(&bias[..]),
            activation,
            residual: with_residual.then_some(&residual[..]),
        };
        let mut operands = vec![tensor(format, [tokens, k], &x), tensor(format, [n, k], &weight)];
        operands.extend(biased.then(|| wide(&[n], &bias)));
        let op = Op::Linear { bias: biased, activation: of_graph, residual: false };
        let dense = Dense { format, x: &format.widened(&x), weight: &weight, bias: gemm.bias, k, n, activation }.run();
        check(&dense, &reference(&op, &operands, &Layout::default()), 1e-4)?;
        operands.extend(with_residual.then(|| tensor(format, [tokens, n], &residual)));
        let op = Op::Linear { bias: biased, activation: of_graph, residual: with_residual };
        check(&format.widened(&gemm.run()), &reference(&op, &operands, &Layout::default()), tolerance(format))?;
    }

    /// Codes are those of the reference, so only the result's rounding differs.
    #[test]
    fn codes_are_a_quantised_linear(
        format in formats(),
        [tokens, sixteenths, n] in [1usize..7, 1usize..20, 1usize..5],
        bits in prop_oneof![Just(7u8), Just(8)],
        seed in any::<u64>(),
    ) {
        let (mut random, k, n) = (Random::new(seed), sixteenths * 16, n * 8);
        let x = stored(&mut random, format, tokens * k, 2.0);
        let factor = floats(&mut random, k, 1.0);
        let codes: Codes = quantise(format, &x, &factor, bits);
        let weight: Vec<i8> = (0..n * k).map(|_| (random.below(255) as i32 - 127) as i8).collect();
        let scales = floats(&mut random, n, 0.01);
        let weight_of = Weight::Codes { x: &codes, weight: &weight, scales: &scales };
        let found =
            Gemm { format, k, n, weight: weight_of, bias: None, activation: Activation::Identity, residual: None }.run();
        let op = Op::QuantizedLinear { bits, bias: false, activation: None, residual: false };
        let weight = Tensor::from_i8(&[n, k], &weight).expect("codes");
        let operands = [tensor(format, [tokens, k], &x), weight, wide(&[n], &scales), wide(&[k], &factor)];
        let ulp = if format == Format::F16 { 5e-4 } else { 4e-3 };
        check(&format.widened(&found), &reference(&op, &operands, &Layout::default()), ulp)?;
    }

    #[test]
    fn attention_is_attention(
        format in formats(),
        of_dim in 0..HEAD_DIMS.len(),
        lengths in proptest::collection::vec(1usize..90, 1..4),
        [kv_heads, group] in [1usize..3, 1usize..3],
        seed in any::<u64>(),
    ) {
        let (mut random, head_dim, heads) = (Random::new(seed), HEAD_DIMS[of_dim], kv_heads * group);
        let tokens: usize = lengths.iter().sum();
        let widths = [heads, kv_heads, kv_heads].map(|heads| heads * head_dim);
        let [q, k, v] = widths.map(|width| stored(&mut random, format, tokens * width, 2.0));
        let scale = 1.0 / (head_dim as f32).sqrt();
        let matrices = [&q, &k, &v];
        let views: [Heads; 3] =
            std::array::from_fn(|part| Heads { matrix: matrices[part], first: 0, stride: widths[part] });
        let contract = Attention {
            format,
            q: views[0],
            k: views[1],
            v: views[2],
            heads,
            group,
            head_dim,
            scale,
            lengths: &lengths,
        };
        let op = Op::Attention(graph::Attention {
            heads,
            kv_heads,
            head_dim,
            scale,
            soft_cap: None,
            causal: false,
            window: None,
            position: PositionScores::None,
            cache: None,
        });
        let operands: [Tensor; 3] =
            std::array::from_fn(|part| tensor(format, [tokens, widths[part]], matrices[part]));
        let layout = Layout::of_lengths(&lengths).expect("no sequence is empty");
        check(&format.widened(&contract.run()), &reference(&op, &operands, &layout), tolerance(format))?;
    }

    #[test]
    fn pool_is_pooling(
        format in formats(),
        of_pooling in 0..POOLINGS.len(),
        lengths in proptest::collection::vec((1usize..20, 0usize..6), 1..4),
        normalised in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (width, pooling) = (72, POOLINGS[of_pooling]);
        let (lengths, pool_from): (Vec<usize>, Vec<usize>) = lengths.into_iter().unzip();
        let tokens: usize = lengths.iter().sum();
        let x = stored(&mut Random::new(seed), format, tokens * width, 2.0);
        let normalise = normalised.then_some(1e-12);
        let found =
            pool(&Pool { format, pooling, x: &x, width, lengths: &lengths, pool_from: &pool_from, normalise });
        let span = |(&tokens, &pool_from): (&usize, &usize)| Span { tokens, pool_from, ..Span::default() };
        let layout = Layout::new(lengths.iter().zip(&pool_from).map(span).collect()).expect("no sequence is empty");
        let mut expected = reference(&Op::Pool(pooling_of(pooling)), &[tensor(format, [tokens, width], &x)], &layout);
        if normalised {
            let pooled = wide(&[lengths.len(), width], &expected);
            expected = reference(&Op::L2Normalize { epsilon: 1e-12 }, &[pooled], &layout);
        }
        check(&found, &expected, 1e-5)?;
    }
}
