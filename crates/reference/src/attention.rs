//! Attention on packed tokens.

use centuple_graph::{Attention, CrossAttention, PositionScores};
use centuple_tensor::{PAGE_TOKENS, Span, Tensor};

use crate::packed::width;
use crate::{Batch, ReferenceError, Result};

/// Keys and values of earlier steps: per cache slot and page, `PAGE_TOKENS` rows of keys and of values.
#[derive(Default)]
pub struct Cache {
    slots: Vec<Vec<[Vec<f32>; 2]>>,
}

impl Cache {
    /// A cache of `slots` slots with `pages` pages; rows get their width at the first write.
    pub fn new(slots: usize, pages: usize) -> Cache {
        Cache { slots: vec![vec![[Vec::new(), Vec::new()]; pages]; slots] }
    }

    fn row(&mut self, slot: usize, pages: &[u32], position: usize) -> Result<(&mut [Vec<f32>; 2], usize)> {
        let page = pages.get(position / PAGE_TOKENS).copied().unwrap_or(u32::MAX);
        let rows = self.slots.get_mut(slot).and_then(|pages| pages.get_mut(page as usize));
        rows.map(|rows| (rows, position % PAGE_TOKENS)).ok_or(ReferenceError::Page { slot, page })
    }
}

pub(crate) fn attention(operands: &[&Tensor], attention: &Attention, batch: &mut Batch) -> Result<Tensor> {
    let mut out = vec![0.0f32; operands[0].len()];
    let columns = width(operands[0]);
    for span in batch.layout.spans() {
        let (keys, values) = keys_and_values(operands, attention, span, batch.cache)?;
        let past = keys.len() - span.tokens;
        for token in 0..span.tokens {
            let row = (span.start + token) * columns;
            let position = past + token;
            let sees = |key: &usize| {
                let near = attention.window.is_none_or(|window| position.abs_diff(*key) <= window);
                near && (!attention.causal || *key <= position)
            };
            let visible: Vec<usize> = (0..keys.len()).filter(sees).collect();
            for head in 0..attention.heads {
                let at = row + head * attention.head_dim;
                let query = &operands[0].as_f32()?[at..at + attention.head_dim];
                let of_head = head / (attention.heads / attention.kv_heads) * attention.head_dim;
                let part = |row: &Vec<f32>| row[of_head..of_head + attention.head_dim].to_vec();
                let mut scored = Vec::with_capacity(visible.len());
                for &key in &visible {
                    let pair = Pair { head, query: span.start + token, first_key: span.start, position, key };
                    let score = score(query, &part(&keys[key]), &pair, operands, attention)?;
                    scored.push((score, part(&values[key])));
                }
                out[at..at + attention.head_dim].copy_from_slice(&soft_mean(&scored, attention.head_dim));
            }
        }
    }
    Ok(Tensor::from_f32(operands[0].shape(), &out)?)
}

pub(crate) fn cross_attention(q: &Tensor, attention: &CrossAttention, batch: &mut Batch) -> Result<Tensor> {
    let CrossAttention { heads, head_dim, scale, slot } = *attention;
    let mut out = vec![0.0f32; q.len()];
    let columns = width(q);
    for span in batch.layout.spans() {
        let Some(source) = &span.source else { continue };
        for (token, head) in (0..span.tokens).flat_map(|token| (0..heads).map(move |head| (token, head))) {
            let at = (span.start + token) * columns + head * head_dim;
            let query = &q.as_f32()?[at..at + head_dim];
            let mut scored = Vec::with_capacity(source.tokens);
            for position in 0..source.tokens {
                let (page, row) = batch.cache.row(slot, &source.pages, position)?;
                let from = row * columns + head * head_dim;
                page.iter_mut().for_each(|side| side.resize(PAGE_TOKENS * columns, 0.0));
                let key = &page[0][from..from + head_dim];
                let dot: f64 = query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                scored.push((dot * f64::from(scale), page[1][from..from + head_dim].to_vec()));
            }
            out[at..at + head_dim].copy_from_slice(&soft_mean(&scored, head_dim));
        }
    }
    Ok(Tensor::from_f32(q.shape(), &out)?)
}

/// A query and a key of one head.
struct Pair {
    head: usize,
    /// Packed row of the query.
    query: usize,
    /// Packed row of the first new key of the sequence.
    first_key: usize,
    /// Position of the query in its sequence.
    position: usize,
    /// Position of the key.
    key: usize,
}

/// The score of one key.
fn score(query: &[f32], key: &[f32], pair: &Pair, operands: &[&Tensor], attention: &Attention) -> Result<f64> {
    let dot: f64 = query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
    let scale = f64::from(attention.scale);
    let distance = pair.position as i64 - pair.key as i64;
    let at = |distances: usize| {
        let largest = (distances / 2) as i64;
        (distance.clamp(-largest, largest) + largest) as usize
    };
    match attention.position {
        PositionScores::None => Ok(match attention.soft_cap.map(f64::from) {
            Some(cap) => (dot * scale / cap).tanh() * cap,
            None => dot * scale,
        }),
        PositionScores::Bias => {
            let distances = width(operands[3]);
            let bias = operands[3].as_f32()?[pair.head * distances + at(distances)];
            Ok(dot * scale + f64::from(bias))
        }
        PositionScores::Disentangled { content_to_position, position_to_content } => {
            let buckets = operands[operands.len() - 1].as_i64()?;
            let (columns, bucket) = (width(operands[3]), buckets[at(buckets.len())]);
            let count = columns / attention.heads;
            let inside = usize::try_from(bucket).ok().filter(|&bucket| bucket < count);
            let bucket = inside.ok_or(ReferenceError::Index { index: bucket, rows: count })?;
            let element = |operand: usize, row: usize| -> Result<f64> {
                Ok(f64::from(operands[operand].as_f32()?[row * columns + pair.head * count + bucket]))
            };
            let mut sum = dot;
            if content_to_position {
                sum += element(3, pair.query)?;
            }
            if position_to_content {
                sum += element(3 + usize::from(content_to_position), pair.first_key + pair.key)?;
            }
            Ok(sum * scale)
        }
    }
}

/// The mean of the values, weighted by the softmax of their scores; zeros if there are none.
fn soft_mean(scored: &[(f64, Vec<f32>)], columns: usize) -> Vec<f32> {
    let largest = scored.iter().map(|(score, _)| *score).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scored.iter().map(|(score, _)| (score - largest).exp()).sum();
    let mut out = vec![0.0f64; columns];
    for (score, value) in scored {
        for (sum, &v) in out.iter_mut().zip(value) {
            *sum += (score - largest).exp() / total * f64::from(v);
        }
    }
    out.into_iter().map(|value| value as f32).collect()
}

type Rows = Vec<Vec<f32>>;

/// All keys and values that a sequence sees; new ones are written to the cache where there is one.
fn keys_and_values(
    operands: &[&Tensor],
    attention: &Attention,
    span: &Span,
    cache: &mut Cache,
) -> Result<(Rows, Rows)> {
    let columns = width(operands[1]);
    let new = |operand: usize, token: usize| -> Result<Vec<f32>> {
        let row = (span.start + token) * columns;
        Ok(operands[operand].as_f32()?[row..row + columns].to_vec())
    };
    let (mut keys, mut values) = (Rows::new(), Rows::new());
    // A sequence that comes without pages is computed from its beginning.
    let slot = attention.cache.filter(|_| !span.pages.is_empty());
    let past = if slot.is_some() { span.past } else { 0 };
    for position in 0..past + span.tokens {
        let Some(slot) = slot else {
            keys.push(new(1, position)?);
            values.push(new(2, position)?);
            continue;
        };
        let (page, row) = cache.row(slot, &span.pages, position)?;
        for (operand, side) in page.iter_mut().enumerate() {
            side.resize(PAGE_TOKENS * columns, 0.0);
            if position >= past {
                side[row * columns..(row + 1) * columns].copy_from_slice(&new(operand + 1, position - past)?);
            }
        }
        keys.push(page[0][row * columns..(row + 1) * columns].to_vec());
        values.push(page[1][row * columns..(row + 1) * columns].to_vec());
    }
    Ok((keys, values))
}
