//! The kernels' contracts against the reference evaluator, which computes in f64, and against the CPU's kernels: what 16 bits and
//! the order of sums cost. Operands are rounded to 16 bits before all of them.

use std::sync::Arc;

use centuple_cuda::contract::{
    Affine, Attention, Codes, ContentScores, Dense, Epilogue, Gemm, HeadNorm, Heads, Matmul, Norm, Pool, Rotary,
    Scaling, Weight, from_e4m3, gate, grouped_gemm, pool, quantise, wide_norm,
};
use centuple_cuda::{Activation, Format, POOLINGS, Pooling};
use centuple_graph as graph;
use centuple_graph::{Graph, Op, PositionScores};
use centuple_kernels::{Isa, ThreadPool};
use centuple_reference::{Batch, Cache, apply};
use centuple_runtime::{InputData, Session};
use centuple_tensor::{Bindings, Dim, Layout, Span, Symbol, Tensor};
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

/// The f32 results of an op on a batch of sequences: the reference's, and the CPU's.
fn backends(op: &Op, operands: &[Tensor], layout: &Layout) -> [Vec<f32>; 2] {
    [by_reference(op, operands, layout), by_cpu(op, operands, layout)]
}

fn by_reference(op: &Op, operands: &[Tensor], layout: &Layout) -> Vec<f32> {
    let mut cache = Cache::default();
    let mut batch = Batch { bindings: Bindings::default(), layout, cache: &mut cache };
    let operands: Vec<&Tensor> = operands.iter().collect();
    let result = apply(op, &operands, &mut batch).expect("the op fits its operands");
    result.as_f32().expect("floats").to_vec()
}

/// What the CPU's plan of the op alone computes.
fn by_cpu(op: &Op, operands: &[Tensor], layout: &Layout) -> Vec<f32> {
    let (mut graph, mut nodes, mut inputs) = (Graph::new(), Vec::new(), Vec::new());
    let names: Vec<String> = (0..operands.len()).map(|index| index.to_string()).collect();
    for (index, (operand, name)) in operands.iter().zip(&names).enumerate() {
        if !is_batch(op, index, operands.len()) {
            nodes.push(graph.constant(name.as_str(), operand.clone()).expect("a constant"));
            continue;
        }
        let rows = if matches!(op, Op::L2Normalize { .. }) { Symbol::Sequences } else { Symbol::Tokens };
        let columns = operand.shape()[1..].iter().map(|&columns| Dim::from(columns));
        let shape = std::iter::once(Dim::from(rows)).chain(columns).collect();
        nodes.push(graph.input(name, operand.dtype(), shape).expect("an input"));
        let data = match operand.as_i64() {
            Ok(ids) => InputData::I64(ids),
            Err(_) => InputData::F32(operand.as_f32().expect("floats")),
        };
        inputs.push((name.as_str(), data));
    }
    let y = graph.push("y", op.clone(), &nodes).expect("the op fits its operands");
    graph.output("y", y);
    let plan = Arc::new(centuple_runtime::lower(&graph, Isa::best()).expect("the CPU has the op"));
    let pool = Arc::new(ThreadPool::new(1).expect("a thread"));
    let mut session = Session::new(plan, pool, layout.bindings()).expect("the session fits");
    let batch = centuple_runtime::Batch { inputs: &inputs, layout, bindings: layout.bindings(), cache: None };
    session.run(&batch).expect("the CPU runs the op");
    let rows = session.output(0).expect("one output");
    (0..rows.rows()).flat_map(|row| rows.row(row).to_vec()).collect()
}

/// Whether an operand comes with the batch, and is no weight.
fn is_batch(op: &Op, index: usize, operands: usize) -> bool {
    if matches!(op, Op::Embedding) {
        return index % 2 == 1;
    }
    let ends_with_residual = matches!(op, Op::Linear { residual: true, .. }) && index + 1 == operands;
    if let Op::Attention(graph::Attention { position: PositionScores::Disentangled { .. }, .. }) = op {
        return index + 1 < operands;
    }
    let has_second = matches!(op, Op::Attention(_) | Op::Rotary { .. } | Op::Gate { .. } | Op::Pool(_))
        || matches!(op, Op::LayerNorm { residual: true, .. } | Op::RmsNorm { residual: true, .. });
    let has_third = matches!(op, Op::Attention(_));
    index == 0 || (index == 1 && has_second) || (index == 2 && has_third) || ends_with_residual
}

/// Whether what was found is near the reference, and near the CPU where that has computed it, too.
fn check(found: &[f32], expected: &[Vec<f32>], tolerance: f32) -> Result<(), TestCaseError> {
    for (by, expected) in ["the reference", "the CPU"].iter().zip(expected) {
        let distance = distance(found, expected);
        prop_assert!(distance <= tolerance, "{distance} from {by} is more than {tolerance}");
    }
    Ok(())
}

fn one_sequence(tokens: usize) -> Layout {
    Layout::of_lengths(&[tokens]).expect("a sequence that is not empty")
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::F16), Just(Format::Bf16)]
}

const ACTIVATIONS: [(Activation, Option<graph::Activation>); 8] = [
    (Activation::Identity, None),
    (Activation::Gelu, Some(graph::Activation::Gelu)),
    (Activation::GeluTanh, Some(graph::Activation::GeluTanh)),
    (Activation::Relu, Some(graph::Activation::Relu)),
    (Activation::Tanh, Some(graph::Activation::Tanh)),
    (Activation::Sigmoid, Some(graph::Activation::Sigmoid)),
    (Activation::Silu, Some(graph::Activation::Silu)),
    (Activation::QuickGelu, Some(graph::Activation::QuickGelu)),
];

/// The id that marks a token.
const MARK: i64 = 3;

fn pooling_of(pooling: Pooling) -> graph::Pooling {
    match pooling {
        Pooling::Cls => graph::Pooling::Cls,
        Pooling::LastToken => graph::Pooling::LastToken,
        Pooling::Mean => graph::Pooling::Mean,
        Pooling::MeanSqrtLength => graph::Pooling::MeanSqrtLength,
        Pooling::Max => graph::Pooling::Max,
        Pooling::WeightedMean => graph::Pooling::WeightedMean,
        Pooling::Token => graph::Pooling::LastEqual(MARK),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn norms_are_layer_norm_and_rms_norm(
        format in formats(),
        [tokens, eighths] in [1usize..6, 1usize..60],
        by_square in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (mut random, hidden) = (Random::new(seed), eighths * 8);
        let x = stored(&mut random, format, tokens * hidden, 2.0);
        let residual = stored(&mut random, format, tokens * hidden, 2.0);
        let (gamma, beta) = (floats(&mut random, hidden, 1.5), floats(&mut random, hidden, 0.5));
        let affine = Affine { gamma: &gamma, beta: (!by_square).then_some(&beta[..]), epsilon: 1e-5 };
        let norm = Norm {
            format,
            tokens,
            hidden,
            x: Some(&x),
            tables: &[],
            residual: Some(&residual),
            scale: 1.0,
            affine: Some(affine),
            codes: None,
        };
        let (found, _) = norm.run();
        let op = |residual| match by_square {
            false => Op::LayerNorm { epsilon: 1e-5, residual },
            true => Op::RmsNorm { epsilon: 1e-5, residual },
        };
        let rows = [tokens, hidden];
        let mut operands = vec![tensor(format, rows, &x), tensor(format, rows, &residual), wide(&[hidden], &gamma)];
        operands.extend((!by_square).then(|| wide(&[hidden], &beta)));
        check(&format.widened(&found), &backends(&op(true), &operands, &one_sequence(tokens)), tolerance(format))?;
        operands.remove(1);
        let found = wide_norm(&format.widened(&x), hidden, &affine);
        check(&found, &backends(&op(false), &operands, &one_sequence(tokens)), 1e-5)?;
    }

    #[test]
    fn norm_is_embedding(format in formats(), tokens in 1usize..9, tables in 1usize..4, seed in any::<u64>()) {
        let (mut random, hidden, rows) = (Random::new(seed), 64, 10);
        let scale = 1.0 + 3.0 * random.float().abs();
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
            scale,
            affine: None,
            codes: None,
        };
        let mut operands = Vec::new();
        for (table, ids) in &held {
            operands.push(tensor(format, [rows, hidden], table));
            let ids: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
            operands.push(Tensor::from_i64(&[tokens], &ids).expect("ids"));
        }
        let expected = backends(&Op::Embedding, &operands, &one_sequence(tokens));
        let expected = expected.map(|sums| sums.iter().map(|sum| scale * sum).collect::<Vec<_>>());
        check(&format.widened(&norm.run().0), &expected, tolerance(format))?;
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
        check(&dense, &backends(&op, &operands, &one_sequence(tokens)), 1e-4)?;
        operands.extend(with_residual.then(|| tensor(format, [tokens, n], &residual)));
        let op = Op::Linear { bias: biased, activation: of_graph, residual: with_residual };
        check(&format.widened(&gemm.run()), &backends(&op, &operands, &one_sequence(tokens)), tolerance(format))?;
    }

    /// Codes are those of the reference, so only the result's rounding differs.
    #[test]
    fn codes_are_a_quantised_linear(
        format in formats(),
        [tokens, sixteenths, n] in [1usize..7, 1usize..20, 1usize..5],
        bits in prop_oneof![Just(7u8), Just(8)],
        range in proptest::option::of(Just([-1.0f32, 1.5])),
        seed in any::<u64>(),
    ) {
        let (mut random, k, n) = (Random::new(seed), sixteenths * 16, n * 8);
        let x = stored(&mut random, format, tokens * k, 2.0);
        let factor = floats(&mut random, k, 1.0);
        let codes: Codes = quantise(format, &x, &factor, bits, range);
        let scales = floats(&mut random, n, 0.01);
        // The CPU sums some products in 16 bits, which have no room for the largest codes.
        for (largest, on_cpu) in [(127, false), (64, true)] {
            let count = 2 * largest as usize + 1;
            let weight: Vec<i8> = (0..n * k).map(|_| (random.below(count) as i32 - largest) as i8).collect();
            let weight_of = Weight::Codes { x: &codes, weight: &weight, scales: &scales };
            let gemm =
                Gemm { format, k, n, weight: weight_of, bias: None, activation: Activation::Identity, residual: None };
            let op = Op::QuantizedLinear { bits, range, bias: false, activation: None, residual: false };
            let weight = Tensor::from_i8(&[n, k], &weight).expect("codes");
            let operands = [tensor(format, [tokens, k], &x), weight, wide(&[n], &scales), wide(&[k], &factor)];
            let layout = one_sequence(tokens);
            let mut expected = vec![by_reference(&op, &operands, &layout)];
            expected.extend(on_cpu.then(|| by_cpu(&op, &operands, &layout)));
            let ulp = if format == Format::F16 { 5e-4 } else { 4e-3 };
            check(&format.widened(&gemm.run()), &expected, ulp)?;
        }
    }

    /// The reference multiplies what the codes mean, so only sums and the result's rounding differ; those of the sums are rounded
    /// to 16 bits before their scales and after.
    #[test]
    fn e4m3_codes_are_a_linear(
        format in formats(),
        [tokens, sixteenths, n] in [1usize..7, 1usize..20, 1usize..3],
        of_activation in 0..ACTIVATIONS.len(),
        [biased, with_residual] in any::<[bool; 2]>(),
        seed in any::<u64>(),
    ) {
        let (mut random, k, n) = (Random::new(seed), sixteenths * 16, n * 16);
        let (activation, of_graph) = ACTIVATIONS[of_activation];
        let x = Codes::e4m3(&floats(&mut random, tokens * k, 2.0), k);
        let weight = Codes::e4m3(&floats(&mut random, n * k, 1.0 / (k as f32).sqrt()), k);
        // f16 has room for bf16's bias.
        let narrow_bias = stored(&mut random, Format::Bf16, n, 1.0);
        let bias = Format::Bf16.widened(&narrow_bias);
        let residual = stored(&mut random, format, tokens * n, 1.0);
        let factor = 2f32.powi(-13);
        let mut product = Matmul { format, x: &x.codes, weight: &weight.codes, k, n, factor, scaling: None };
        let sums = product.run();
        let weight_scales: Vec<f32> = weight.scales.iter().map(|scale| scale / factor).collect();
        let epilogue = Epilogue {
            format,
            sums: &sums,
            x_scales: &x.scales,
            weight_scales: &weight_scales,
            bias: biased.then_some(&bias[..]),
            activation,
            residual: with_residual.then_some(&residual[..]),
        };
        let floats = |codes: &Codes, rows: usize| {
            let float = |(place, &code): (usize, &u8)| from_e4m3(code) * codes.scales[place / k];
            wide(&[rows, k], &codes.codes.iter().enumerate().map(float).collect::<Vec<_>>())
        };
        let mut operands = vec![floats(&x, tokens), floats(&weight, n)];
        operands.extend(biased.then(|| wide(&[n], &bias)));
        let op = Op::Linear { bias: biased, activation: None, residual: false };
        let narrowed = format.narrowed(&bias);
        product.scaling =
            Some(Scaling { x: &x.scales, weight: &weight_scales, bias: biased.then_some(&narrowed[..]) });
        let expected = backends(&op, &operands, &one_sequence(tokens));
        check(&format.widened(&product.run()), &expected, tolerance(format))?;
        operands.extend(with_residual.then(|| tensor(format, [tokens, n], &residual)));
        let op = Op::Linear { bias: biased, activation: of_graph, residual: with_residual };
        let expected = backends(&op, &operands, &one_sequence(tokens));
        check(&format.widened(&format.narrowed(&epilogue.run())), &expected, tolerance(format))?;
    }

    #[test]
    fn attention_is_attention(
        format in formats(),
        head_eighths in 1usize..20,
        lengths in proptest::collection::vec(1usize..90, 1..4),
        [kv_heads, group] in [1usize..3, 1usize..3],
        causal in any::<bool>(),
        window in proptest::option::of(0usize..70),
        farthest in proptest::option::of(0usize..90),
        capped in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (mut random, head_dim, heads) = (Random::new(seed), 8 * head_eighths, kv_heads * group);
        let tokens: usize = lengths.iter().sum();
        let widths = [heads, kv_heads, kv_heads].map(|heads| heads * head_dim);
        let [q, k, v] = widths.map(|width| stored(&mut random, format, tokens * width, 2.0));
        let scale = 1.0 / (head_dim as f32).sqrt();
        let matrices = [&q, &k, &v];
        // Never together.
        let soft_cap = (capped && farthest.is_none()).then_some(1.5);
        let scores = farthest.map(|farthest| floats(&mut random, heads * (2 * farthest + 1), 2.0));
        let scaled: Option<Vec<f32>> =
            scores.as_ref().map(|scores| scores.iter().map(|score| score * std::f32::consts::LOG2_E).collect());
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
            soft_cap,
            causal,
            window,
            distances: scaled.as_deref(),
            content: None,
            lengths: &lengths,
        };
        let op = Op::Attention(graph::Attention {
            heads,
            kv_heads,
            head_dim,
            scale,
            soft_cap,
            causal,
            window,
            position: if scores.is_some() { PositionScores::Bias } else { PositionScores::None },
            cache: None,
        });
        let parts = 0..matrices.len();
        let mut operands: Vec<Tensor> =
            parts.map(|part| tensor(format, [tokens, widths[part]], matrices[part])).collect();
        operands.extend(scores.map(|scores| wide(&[heads, scores.len() / heads], &scores)));
        let layout = Layout::of_lengths(&lengths).expect("no sequence is empty");
        check(&format.widened(&contract.run()), &backends(&op, &operands, &layout), tolerance(format))?;
    }

    #[test]
    fn content_scores_are_disentangled_attention(
        format in formats(),
        lengths in proptest::collection::vec(1usize..90, 1..4),
        [heads, head_eighths, buckets, farthest] in [1usize..4, 1usize..9, 1usize..30, 0usize..90],
        terms in prop_oneof![Just([true, false]), Just([false, true]), Just([true, true])],
        seed in any::<u64>(),
    ) {
        let (mut random, head_dim) = (Random::new(seed), 8 * head_eighths);
        let (tokens, width) = (lengths.iter().sum::<usize>(), heads * head_dim);
        let [q, k, v] = [(); 3].map(|()| stored(&mut random, format, tokens * width, 2.0));
        let relative = terms.map(|there| there.then(|| stored(&mut random, format, heads * buckets * head_dim, 2.0)));
        let contents = [&q, &k];
        let shape = [heads, buckets, head_dim];
        let terms_of: Vec<Option<Vec<u16>>> = relative
            .iter()
            .zip(contents)
            .map(|(relative, content)| relative.as_ref().map(|rows| grouped_gemm(format, content, rows, shape)))
            .collect();
        let bucket_of: Vec<i32> = (0..2 * farthest + 1).map(|_| random.below(buckets) as i32).collect();
        let scale = 1.0 / (3.0 * head_dim as f32).sqrt();
        let heads_of = |matrix| Heads { matrix, first: 0, stride: width };
        let (by_query, by_key) = (terms_of[0].as_deref(), terms_of[1].as_deref());
        let contract = Attention {
            format,
            q: heads_of(&q),
            k: heads_of(&k),
            v: heads_of(&v),
            heads,
            group: 1,
            head_dim,
            scale,
            soft_cap: None,
            causal: false,
            window: None,
            distances: None,
            content: Some(ContentScores { by_query, by_key, buckets, bucket_of: &bucket_of }),
            lengths: &lengths,
        };
        let layout = Layout::of_lengths(&lengths).expect("no sequence is empty");
        let mut operands: Vec<Tensor> = [&q, &k, &v].map(|matrix| tensor(format, [tokens, width], matrix)).to_vec();
        for (number, (relative, found)) in relative.iter().zip(&terms_of).enumerate() {
            let (Some(relative), Some(found)) = (relative, found) else { continue };
            let weight = wide(&shape, &format.widened(relative));
            let products = [operands[number].clone(), weight];
            let expected = backends(&Op::GroupedLinear { groups: heads }, &products, &layout);
            check(&format.widened(found), &expected, tolerance(format))?;
            operands.push(tensor(format, [tokens, heads * buckets], found));
        }
        let buckets: Vec<i64> = bucket_of.iter().map(|&bucket| bucket.into()).collect();
        operands.push(Tensor::from_i64(&[buckets.len()], &buckets).expect("buckets"));
        let [content_to_position, position_to_content] = terms;
        let op = Op::Attention(graph::Attention {
            heads,
            kv_heads: heads,
            head_dim,
            scale,
            soft_cap: None,
            causal: false,
            window: None,
            position: PositionScores::Disentangled { content_to_position, position_to_content },
            cache: None,
        });
        check(&format.widened(&contract.run()), &backends(&op, &operands, &layout), tolerance(format))?;
    }

    #[test]
    fn rotary_head_norm_and_gate_are_the_ops(
        format in formats(),
        [tokens, heads, quarters] in [1usize..6, 1usize..4, 1usize..9],
        interleaved in any::<bool>(),
        of_activation in 1..ACTIVATIONS.len(),
        seed in any::<u64>(),
    ) {
        let (mut random, head_dim, rotated) = (Random::new(seed), 32, 4 * quarters);
        let columns = heads * head_dim;
        let [x, gate_rows] = [(); 2].map(|()| stored(&mut random, format, tokens * columns, 2.0));
        let table = floats(&mut random, 9 * rotated, 1.0);
        let positions: Vec<i32> = (0..tokens).map(|_| random.below(9) as i32).collect();
        let heads_of = Heads { matrix: &x, first: 0, stride: columns };
        let (at, table_at) = (&positions[..], &table[..]);
        let rotary =
            Rotary { format, x: heads_of, positions: at, table: table_at, rotated, interleaved, heads, head_dim };
        let ids: Vec<i64> = positions.iter().map(|&position| position.into()).collect();
        let rows = tensor(format, [tokens, columns], &x);
        let places = Tensor::from_i64(&[tokens], &ids).expect("ids");
        let operands = [rows.clone(), places, wide(&[9, rotated], &table)];
        let expected = backends(&Op::Rotary { heads, head_dim, interleaved }, &operands, &one_sequence(tokens));
        check(&format.widened(&rotary.run()), &expected, tolerance(format))?;

        let gamma = floats(&mut random, head_dim, 1.5);
        let found = HeadNorm { format, x: heads_of, gamma: &gamma, epsilon: 1e-6, heads }.run();
        let operands = [rows.clone(), wide(&[head_dim], &gamma)];
        let expected = backends(&Op::HeadNorm { heads, epsilon: 1e-6 }, &operands, &one_sequence(tokens));
        check(&format.widened(&found), &expected, tolerance(format))?;

        let (activation, of_graph) = ACTIVATIONS[of_activation];
        let Some(of_graph) = of_graph else { return Ok(()) };
        let found = gate(format, &x, None, activation);
        let expected = backends(&Op::Activation(of_graph), std::slice::from_ref(&rows), &one_sequence(tokens));
        check(&format.widened(&found), &expected, tolerance(format))?;
        let found = gate(format, &x, Some(&gate_rows), activation);
        let operands = [rows, tensor(format, [tokens, columns], &gate_rows)];
        let expected = backends(&Op::Gate { activation: of_graph }, &operands, &one_sequence(tokens));
        check(&format.widened(&found), &expected, tolerance(format))?;
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
        let (lengths, mut pool_from): (Vec<usize>, Vec<usize>) = lengths.into_iter().unzip();
        let tokens: usize = lengths.iter().sum();
        let mut ids = vec![0; tokens];
        if pooling == Pooling::Token {
            let mut begin = 0;
            for (token, length) in pool_from.iter_mut().zip(&lengths) {
                *token = (*token).min(length - 1);
                ids[begin + *token] = MARK;
                begin += length;
            }
        }
        let x = stored(&mut Random::new(seed), format, tokens * width, 2.0);
        let normalise = normalised.then_some(1e-12);
        let found =
            pool(&Pool { format, pooling, x: &x, width, lengths: &lengths, pool_from: &pool_from, normalise });
        let span = |(&tokens, &pool_from): (&usize, &usize)| Span { tokens, pool_from, ..Span::default() };
        let layout = Layout::new(lengths.iter().zip(&pool_from).map(span).collect()).expect("no sequence is empty");
        let mut operands = vec![tensor(format, [tokens, width], &x)];
        operands.extend((pooling == Pooling::Token).then(|| Tensor::from_i64(&[tokens], &ids).expect("ids")));
        let mut expected = backends(&Op::Pool(pooling_of(pooling)), &operands, &layout);
        if normalised {
            let pooled = wide(&[lengths.len(), width], &expected[0]);
            expected = backends(&Op::L2Normalize { epsilon: 1e-12 }, &[pooled], &layout);
        }
        check(&found, &expected, 1e-5)?;
    }
}
