//! Rounding weights layer after layer: each by the inputs that it gets from those that are rounded before it, so that it makes
//! good what they have done.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use centuple_graph::{Graph, Node, NodeId, Op};
use centuple_kernels::{Epilogue, Kernels, Matrix, MatrixMut, PANEL, PackedMatrix, ThreadPool, pack_right, packed_len};
use centuple_passes::{
    Channels, LayerPrecision, Moments, Observations, Quantization, Quantizer, RoundedWeights, Segment,
    layer_precisions, observed_values, segment_value, segments,
};
use centuple_runtime::{Batch, InputData, RuntimeError, Session, lower};
use centuple_tensor::{Bindings, Layout};
use centuple_text::{Encoding, Tokenizer};

use crate::calibrate;
use crate::error::Error;
use crate::host::Host;

/// Texts of many kinds and lengths, one a line.
const TEXTS: &str = include_str!("rounding.txt");
/// Most of their tokens that weights are rounded by.
const TOKENS: usize = 40_000;
/// Most bytes of the widest rows that are kept of them at a time.
const ROOM: usize = 2 << 30;
/// Tokens that are run together.
const BATCH: usize = 1024;

/// Rounds the weights that are to be in groups, by the shipped texts. The graph is packed and stands for itself (behind no encoder);
/// `observations` are those of its layers.
///
/// # Errors
/// A text cannot be tokenised, or the graph cannot be run.
pub(crate) fn round(
    host: &Host,
    graph: &Graph,
    tokenizer: &Tokenizer,
    observations: &Observations,
    quantization: &Quantization,
) -> Result<RoundedWeights, Error> {
    let widest = observations.values().map(|channels| channels.mean.len()).max().unwrap_or(0);
    // Before and after layers are rounded, of a layer and the next.
    let tokens = TOKENS.min(ROOM / (4 * size_of::<f32>() * widest.max(1)));
    let mut texts = batches(graph, &calibrate::encodings(tokenizer, TEXTS.lines(), tokens)?)?;
    let segments = segments(graph, &observed_values(graph)).map_err(|error| Error::Graph(Box::new(error)))?;
    let mut rounded = RoundedWeights::default();
    // A segment doesn't show what its inputs come out of.
    let precisions = layer_precisions(graph, quantization);
    let in_groups = |node: &Node| matches!(precisions.get(&node.name), Some(LayerPrecision::Groups(_)));
    let quantization = &Quantization { layers: precisions.clone(), ..quantization.clone() };
    for Segment { graph, given, yields, spent } in segments {
        let mut drifted = Observations::new();
        for (whole, part) in given {
            let reads = |node: &&Node| matches!(node.op, Op::Linear { .. }) && node.inputs.first() == Some(&part);
            let mut readers = graph.nodes().iter().filter(reads).peekable();
            let Some(channels) = observations.get(&whole).filter(|_| readers.peek().is_some()) else { continue };
            let channels =
                if readers.any(in_groups) { drift(host, &texts, whole, channels)? } else { channels.clone() };
            drifted.insert(part, channels);
        }
        let mut quantizer = Quantizer::new(&graph, &drifted).with_rounded(rounded);
        let (after, _) = quantizer.quantize(quantization)?;
        rounded = quantizer.into_rounded();
        if !yields.is_empty() {
            run(host, &graph, &yields, &mut texts, |texts| &mut texts.before)?;
            run(host, &after, &yields, &mut texts, |texts| &mut texts.after)?;
        }
        for texts in &mut texts {
            spent.iter().for_each(|value| {
                texts.before.remove(value);
                texts.after.remove(value);
            });
        }
    }
    Ok(rounded)
}

/// Rows of values, `[tokens, columns]` each.
type Values = HashMap<NodeId, Vec<f32>>;

/// Texts that are run together, and how far they have come: by the weights as they were, and as they are rounded.
struct Texts {
    layout: Layout,
    ids: Vec<i64>,
    types: Vec<i64>,
    before: Values,
    after: Values,
}

fn batches(graph: &Graph, texts: &[Arc<Encoding>]) -> Result<Vec<Texts>, Error> {
    let selects = graph.nodes().iter().any(|node| node.op == Op::Select);
    let mut batches = Vec::new();
    let mut rest = texts;
    while !rest.is_empty() {
        let mut left = BATCH;
        let count = rest.iter().take_while(|text| calibrate::fits(&mut left, text.ids.len())).count().max(1);
        let (batch, others) = rest.split_at(count);
        rest = others;
        let ids =
            |of: fn(&Encoding) -> &Vec<u32>| batch.iter().flat_map(|text| of(text)).map(|&id| id.into()).collect();
        batches.push(Texts {
            layout: calibrate::layout(batch, selects, &mut std::iter::empty())?,
            ids: ids(|text| &text.ids),
            types: ids(|text| &text.type_ids),
            before: Values::new(),
            after: Values::new(),
        });
    }
    Ok(batches)
}

/// Computes a segment for all texts, from the values that `side` has to those that it yields.
fn run(
    host: &Host,
    segment: &Graph,
    yields: &[NodeId],
    texts: &mut [Texts],
    side: impl Fn(&mut Texts) -> &mut Values,
) -> Result<(), Error> {
    let most = |of: fn(&Bindings) -> usize| texts.iter().map(|texts| of(&texts.layout.bindings())).max().unwrap_or(0);
    let tokens = most(|bindings| bindings.tokens);
    let capacity = Bindings {
        tokens,
        sequences: most(|bindings| bindings.sequences),
        selected: most(|bindings| bindings.selected),
        sequence: tokens,
        ..Bindings::default()
    };
    let mut session = Session::new(Arc::new(lower(segment, host.isa)?), Arc::clone(&host.pool), capacity)?;
    let names: Vec<(String, NodeId)> = segment
        .inputs()
        .filter_map(|(_, node)| {
            let value = texts.first()?.before.keys().find(|value| segment_value(**value) == node.name)?;
            Some((node.name.clone(), *value))
        })
        .collect();
    for texts in texts {
        let values = std::mem::take(side(texts));
        let mut inputs =
            vec![("input_ids", InputData::I64(&texts.ids)), ("token_type_ids", InputData::I64(&texts.types))];
        let rows = names.iter().filter_map(|(name, value)| Some((name.as_str(), InputData::F32(values.get(value)?))));
        inputs.extend(rows);
        let bindings = texts.layout.bindings();
        session.run(&Batch { inputs: &inputs, layout: &texts.layout, bindings, cache: None })?;
        drop(inputs);
        let mut values = values;
        for (index, value) in yields.iter().enumerate() {
            let rows = session.output(index).ok_or_else(|| RuntimeError::Unbound(segment_value(*value)))?;
            let rows = (0..rows.rows()).flat_map(|row| rows.row(row)).copied().collect();
            values.insert(*value, rows);
        }
        *side(texts) = values;
    }
    Ok(())
}

/// What is known of a value's channels, with what rounding before it has made of them.
fn drift(host: &Host, texts: &[Texts], value: NodeId, channels: &Channels) -> Result<Channels, Error> {
    let kernels = Kernels::new(host.isa).map_err(RuntimeError::Kernel)?;
    let width = channels.mean.len();
    let [mut products, mut crossed] = [Vec::new(), Vec::new()];
    for block in Moments::blocks(width) {
        let start = products.len();
        let end = start + block.len() * block.len();
        [&mut products, &mut crossed].into_iter().for_each(|sums| sums.resize(end, 0.0));
        for texts in texts {
            let (Some(before), Some(after)) = (texts.before.get(&value), texts.after.get(&value)) else { continue };
            let of_block = |values: &[f32]| -> Vec<f32> {
                values.chunks_exact(width).flat_map(|row| &row[block.clone()]).copied().collect()
            };
            let (before, after) = (of_block(before), of_block(after));
            add_products(&host.pool, kernels, &after, &after, Part::Upper, &mut products[start..])?;
            add_products(&host.pool, kernels, &before, &after, Part::Whole, &mut crossed[start..])?;
        }
        mirror(&mut products[start..], block.len());
    }
    Ok(Channels { moments: Moments::of_drifted(width, products, crossed), ..channels.clone() })
}

/// Rows of products that are one piece of work; whole panels.
const PIECE: usize = 64;
const _: () = assert!(PIECE.is_multiple_of(PANEL));

/// What is computed of a matrix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it.
    Whole,
    /// The upper triangle at least.
    Upper,
}

/// Makes a square matrix of its upper triangle.
fn mirror(matrix: &mut [f32], n: usize) {
    for row in 0..n {
        for column in 0..row {
            matrix[row * n + column] = matrix[column * n + row];
        }
    }
}

/// Adds `Xᵀ Y`, or a part of it, to `sums`, `[n, n]`, for rows `[rows, n]`.
fn add_products(
    pool: &ThreadPool,
    kernels: Kernels,
    x: &[f32],
    y: &[f32],
    part: Part,
    sums: &mut [f32],
) -> Result<(), RuntimeError> {
    let n = sums.len().isqrt();
    let rows = x.len() / n.max(1);
    let mut packed = vec![0.0; packed_len(n, rows)];
    pack_right(Matrix::contiguous(y, rows, n)?, &mut packed)?;
    let packed = PackedMatrix::new(&packed, n, rows)?;
    let pieces: Vec<_> = sums.chunks_mut(PIECE * n.max(1)).map(Mutex::new).collect();
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    pool.run(&|_| {
        let mut columns = Vec::new();
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            let Some(Ok(mut sums)) = pieces.get(piece).map(Mutex::lock) else { break };
            let count = sums.len() / n;
            let first = piece * PIECE;
            columns.resize(count * rows, 0.0);
            for (place, row) in x.chunks_exact(n).enumerate() {
                let columns = columns.iter_mut().skip(place).step_by(rows);
                columns.zip(&row[first..first + count]).for_each(|(to, value)| *to = *value);
            }
            let panels = if part == Part::Upper { first / PANEL } else { 0 }..packed.panels();
            let outcome = multiply(kernels, &columns, packed, panels, &mut sums);
            if let (Err(error), Ok(mut failure)) = (outcome, failure.lock()) {
                *failure = Some(error);
            }
        }
    })?;
    failure.into_inner().ok().flatten().map_or(Ok(()), Err)
}

/// Adds the panels of `a · b` to `sums`.
fn multiply(
    kernels: Kernels,
    a: &[f32],
    b: PackedMatrix<'_>,
    panels: Range<usize>,
    sums: &mut [f32],
) -> Result<(), RuntimeError> {
    let (count, n) = (a.len() / b.k().max(1), b.n());
    let old = sums.to_vec();
    let epilogue = Epilogue { residual: Some(Matrix::contiguous(&old, count, n)?), ..Epilogue::default() };
    let mut out = MatrixMut::contiguous(sums, count, n)?;
    kernels.gemm(Matrix::contiguous(a, count, b.k())?, b, panels, &epilogue, &mut out)?;
    Ok(())
}
