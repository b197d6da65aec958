//! Attention within each sequence.

use crate::specialisation::{Format, KEYS};

/// Columns of a matrix `[tokens, stride]` from `first` on: heads behind each other.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The matrix.
    pub matrix: &'a [u16],
    /// The first column of head 0.
    pub first: usize,
    /// Columns of the matrix.
    pub stride: usize,
}

/// What contents and distance add to the products of queries and keys.
#[derive(Clone, Copy, Debug)]
pub struct ContentScores<'a> {
    /// `[tokens, heads · buckets]` by the query's token.
    pub by_query: Option<&'a [u16]>,
    /// `[tokens, heads · buckets]` by the key's token.
    pub by_key: Option<&'a [u16]>,
    /// Buckets of a head.
    pub buckets: usize,
    /// `[2 · farthest + 1]`: the bucket of the distance from key to query.
    pub bucket_of: &'a [i32],
}

/// Operands of `kernels/attention.cu`.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Type of the operands.
    pub format: Format,
    /// Queries.
    pub q: Heads<'a>,
    /// Keys.
    pub k: Heads<'a>,
    /// Values.
    pub v: Heads<'a>,
    /// Query heads.
    pub heads: usize,
    /// Query heads that share a key head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Scores `s` become `cap · tanh(s / cap)`.
    pub soft_cap: Option<f32>,
    /// Whether a query sees no key behind its own.
    pub causal: bool,
    /// How many keys a query sees on either side of its own.
    pub window: Option<usize>,
    /// `[heads, 2 · farthest + 1]`: what the distance from key to query adds to a score, times log2(e).
    pub distances: Option<&'a [f32]>,
    /// Scores of content and position.
    pub content: Option<ContentScores<'a>>,
    /// Tokens of each sequence.
    pub lengths: &'a [usize],
}

impl Attention<'_> {
    /// The result, `[tokens, heads · head_dim]`.
    pub fn run(&self) -> Vec<u16> {
        let mut results = Vec::new();
        let mut begin = 0;
        for &length in self.lengths {
            for query in begin..begin + length {
                for head in 0..self.heads {
                    results.extend(self.row(head, query, begin..begin + length));
                }
            }
            begin += length;
        }
        results
    }

    fn head(&self, of: Heads, head: usize, token: usize) -> Vec<f32> {
        let start = token * of.stride + of.first + head * self.head_dim;
        self.format.widened(&of.matrix[start..start + self.head_dim])
    }

    /// Whether a query sees a key of its sequence.
    fn sees(&self, query: usize, key: usize) -> bool {
        !(self.causal && key > query) && self.window.is_none_or(|window| query.abs_diff(key) <= window)
    }

    /// What the distance from a key to a query adds to a score.
    fn distance(&self, head: usize, query: usize, key: usize) -> f32 {
        let Some(table) = self.distances else { return 0.0 };
        let columns = table.len() / self.heads;
        table[head * columns + place(columns, query, key)]
    }

    /// The product of a query and a key with what contents and distance add to it.
    fn product(&self, head: usize, [query, key]: [usize; 2], product: f32) -> f32 {
        let Some(content) = self.content else { return product };
        let bucket = content.bucket_of[place(content.bucket_of.len(), query, key)] as usize;
        let term = |rows: &[u16], token: usize| {
            self.format.widen(rows[(token * self.heads + head) * content.buckets + bucket])
        };
        let product = content.by_query.map_or(product, |rows| product + term(rows, query));
        content.by_key.map_or(product, |rows| product + term(rows, key))
    }

    /// One head of one query, with the keys of `tokens` in steps of [`KEYS`].
    fn row(&self, head: usize, query: usize, tokens: std::ops::Range<usize>) -> Vec<u16> {
        let scale = self.scale * std::f32::consts::LOG2_E;
        let (position, query) = (query, self.head(self.q, head, query));
        let mut outputs = vec![0.0f32; self.head_dim];
        let mut largest = f32::NEG_INFINITY;
        // Four lanes share a query: each has the total of its own columns of eight.
        let mut totals = [0.0f32; 4];
        let keys: Vec<usize> = tokens.collect();
        for block in keys.chunks(KEYS) {
            let score = |&at: &usize| {
                if !self.sees(position, at) {
                    return f32::NEG_INFINITY;
                }
                let key = self.head(self.k, head / self.group, at);
                let product = query.iter().zip(&key).fold(0.0, |sum, (q, k)| sum + q * k);
                let score = self.product(head, [position, at], product) * scale;
                let cap = self.soft_cap.map(|cap| cap * std::f32::consts::LOG2_E);
                cap.map_or(score, |cap| capped(score, cap)) + self.distance(head, position, at)
            };
            let scores: Vec<f32> = block.iter().map(score).collect();
            let before = largest;
            let next = scores.iter().copied().fold(largest, f32::max);
            largest = next;
            // Where the query has seen no key yet, all of its weights are 0.
            let base = if next == f32::NEG_INFINITY { 0.0 } else { next };
            let correction = (before - base).exp2();
            totals.iter_mut().for_each(|total| *total *= correction);
            outputs.iter_mut().for_each(|output| *output *= correction);
            for (place, (&score, &key)) in scores.iter().zip(block).enumerate() {
                let weight = (score - base).exp2();
                totals[place % 8 / 2] += weight;
                let weight = self.format.widen(self.format.narrow(weight));
                let value = self.head(self.v, head / self.group, key);
                outputs.iter_mut().zip(&value).for_each(|(output, value)| *output += weight * value);
            }
        }
        let inverse = 1.0 / ((totals[0] + totals[1]) + (totals[2] + totals[3]));
        outputs.iter().map(|output| self.format.narrow(output * inverse)).collect()
    }
}

/// Where a table of distances has the one from a key to a query.
fn place(distances: usize, query: usize, key: usize) -> usize {
    (query + distances / 2).saturating_sub(key).min(distances - 1)
}

/// `cap · tanh(score / cap)`, as the kernel computes it.
fn capped(score: f32, cap: f32) -> f32 {
    cap - 2.0 * cap / (1.0 + (score / cap * (2.0 * std::f32::consts::LOG2_E)).exp2())
}
