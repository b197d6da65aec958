//! Attention against an f64 loop, and its independence of company.

use centuple_kernels::{AttentionBlock, Kernels, KeyRun, Matrix, MatrixMut, PositionScores, attention_scratch};
use proptest::prelude::*;
use std::ops::Range;

use crate::support::{all_kernels, assert_close, bits, values};

/// Queries, keys and values of one head, as column ranges of one wider buffer.
#[derive(Clone)]
struct Case {
    queries: usize,
    keys: usize,
    head_dim: usize,
    value_dim: usize,
    causal: bool,
    window: Option<usize>,
    position: Position,
    data: Vec<f32>,
    /// `[queries, keys]`, or empty.
    mask: Vec<f32>,
}

/// What positions add.
#[derive(Clone)]
enum Position {
    None,
    Bias(Vec<f32>),
    /// Buckets, then `[queries, columns]` and `[keys, columns]` where they are.
    Disentangled {
        buckets: Vec<u32>,
        columns: usize,
        c2p: Option<Vec<f32>>,
        p2c: Option<Vec<f32>>,
    },
}

fn rows_of(table: &Option<Vec<f32>>, columns: usize) -> Option<Matrix<'_>> {
    table.as_ref().map(|table| Matrix::contiguous(table, table.len() / columns, columns).unwrap())
}

impl Case {
    fn new(queries: usize, keys: usize, head_dim: usize, value_dim: usize, causal: bool) -> Self {
        let data = values(queries.max(keys) * (2 * head_dim + value_dim), 7).iter().map(|x| x * 3.0).collect();
        let (window, position) = (None, Position::None);
        Self { queries, keys, head_dim, value_dim, causal, window, position, data, mask: Vec::new() }
    }

    fn windowed(self, window: usize) -> Self {
        Self { window: Some(window), ..self }
    }

    fn biased(self, largest: usize) -> Self {
        Self { position: Position::Bias(values(2 * largest + 1, 9)), ..self }
    }

    /// Buckets count up near 0 and in steps of three further off.
    fn disentangled(self, largest: usize, near: usize, c2p: bool, p2c: bool) -> Self {
        let bucket = |distance: usize| {
            let away = distance.abs_diff(largest);
            let bucket = if away <= near { away } else { near + (away - near).div_ceil(3) };
            if distance < largest { largest - bucket } else { largest + bucket }
        };
        let buckets = (0..2 * largest + 1).map(|distance| bucket(distance) as u32).collect();
        let columns = 2 * largest + 1;
        let table = |wanted: bool, rows: usize, seed| wanted.then(|| values(rows * columns, seed));
        let (c2p, p2c) = (table(c2p, self.queries, 10), table(p2c, self.keys, 11));
        Self { position: Position::Disentangled { buckets, columns, c2p, p2c }, ..self }
    }

    /// What the positions add to the scaled score.
    fn added(&self, i: usize, j: usize) -> f64 {
        let distance = (self.first_position() + i) as isize - j as isize;
        let at = |length: usize| {
            let largest = (length / 2) as isize;
            (distance.clamp(-largest, largest) + largest) as usize
        };
        match &self.position {
            Position::None => 0.0,
            Position::Bias(table) => f64::from(table[at(table.len())]),
            Position::Disentangled { buckets, columns, c2p, p2c } => {
                let bucket = buckets[at(buckets.len())] as usize;
                let of = |table: &Option<Vec<f32>>, row: usize| {
                    table.as_ref().map_or(0.0, |table| f64::from(table[row * columns + bucket]))
                };
                f64::from(self.scale()) * (of(c2p, i) + of(p2c, j))
            }
        }
    }

    fn masked(mut self) -> Self {
        self.mask = values(self.queries * self.keys, 8);
        for value in self.mask.iter_mut().step_by(3) {
            *value = f32::NEG_INFINITY;
        }
        self
    }

    fn part(&self, rows: usize, columns: Range<usize>) -> Matrix<'_> {
        let all = Matrix::contiguous(&self.data, self.queries.max(self.keys), 2 * self.head_dim + self.value_dim);
        all.unwrap().slice_rows(0..rows).unwrap().slice_columns(columns).unwrap()
    }

    fn q(&self) -> Matrix<'_> {
        self.part(self.queries, 0..self.head_dim)
    }

    fn k(&self) -> Matrix<'_> {
        self.part(self.keys, self.head_dim..2 * self.head_dim)
    }

    fn v(&self) -> Matrix<'_> {
        self.part(self.keys, 2 * self.head_dim..2 * self.head_dim + self.value_dim)
    }

    /// The last query stands at the last key.
    fn first_position(&self) -> usize {
        self.keys.saturating_sub(self.queries)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// The output of some queries, keys cut into runs at `edges`.
    fn run(&self, kernels: Kernels, queries: Range<usize>, edges: &[usize]) -> Vec<f32> {
        let runs: Vec<KeyRun<'_>> = edges
            .windows(2)
            .map(|pair| KeyRun::Rows {
                keys: self.k().slice_rows(pair[0]..pair[1]).unwrap(),
                values: self.v().slice_rows(pair[0]..pair[1]).unwrap(),
            })
            .collect();
        let mask = (!self.mask.is_empty()).then(|| {
            let mask = Matrix::contiguous(&self.mask, self.queries, self.keys).unwrap();
            mask.slice_rows(queries.clone()).unwrap()
        });
        let position = match &self.position {
            Position::None => PositionScores::None,
            Position::Bias(table) => PositionScores::Bias(table),
            Position::Disentangled { buckets, columns, c2p, p2c } => PositionScores::Disentangled {
                buckets,
                content_to_position: rows_of(c2p, *columns).map(|c2p| c2p.slice_rows(queries.clone()).unwrap()),
                position_to_content: rows_of(p2c, *columns),
            },
        };
        let block = AttentionBlock {
            queries: self.q().slice_rows(queries.clone()).unwrap(),
            runs: &runs,
            first_position: self.first_position() + queries.start,
            causal: self.causal,
            window: self.window,
            position,
            scale: self.scale(),
            soft_cap: None,
            mask,
        };
        let length = attention_scratch(self.keys, self.head_dim, self.value_dim);
        let mut scratch = vec![f32::NAN; length];
        let mut out = vec![f32::NAN; queries.len() * self.value_dim];
        let mut view = MatrixMut::contiguous(&mut out, queries.len(), self.value_dim).unwrap();
        kernels.attention(&block, &mut scratch, &mut view).unwrap();
        out
    }

    fn whole(&self, kernels: Kernels) -> Vec<f32> {
        self.run(kernels, 0..self.queries, &[0, self.keys])
    }

    fn expected(&self) -> Vec<f64> {
        let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
        let mut out = Vec::new();
        for i in 0..self.queries {
            let at = self.first_position() + i;
            let near = |j: usize| self.window.is_none_or(|window| j.abs_diff(at) <= window);
            let visible = |j: usize| near(j) && (!self.causal || j <= at);
            let mask = |j: usize| self.mask.get(i * self.keys + j).map_or(0.0, |m| f64::from(*m));
            let scores: Vec<f64> = (0..self.keys)
                .map(|j| {
                    if !visible(j) {
                        return f64::NEG_INFINITY;
                    }
                    let score = dot(self.q().row(i).unwrap(), self.k().row(j).unwrap());
                    score * f64::from(self.scale()) + mask(j) + self.added(i, j)
                })
                .collect();
            let maximum = scores.iter().copied().fold(-1e300, f64::max);
            let powers: Vec<f64> = scores.iter().map(|score| (score - maximum).exp()).collect();
            let total: f64 = powers.iter().sum();
            for d in 0..self.value_dim {
                let weighted: f64 =
                    powers.iter().enumerate().map(|(j, power)| power * f64::from(self.v().row(j).unwrap()[d])).sum();
                out.push(if total == 0.0 { 0.0 } else { weighted / total });
            }
        }
        out
    }
}

#[test]
fn outputs_match_f64() {
    for kernels in all_kernels() {
        for (head_dim, value_dim) in [(32, 32), (64, 64), (80, 80), (1, 1), (7, 19), (128, 16)] {
            for (queries, keys) in [(1, 1), (5, 5), (16, 16), (33, 33), (3, 40), (50, 131)] {
                for causal in [false, true] {
                    let case = Case::new(queries, keys, head_dim, value_dim, causal);
                    let what = format!("{} {queries}x{keys}x{head_dim}x{value_dim} causal {causal}", kernels.isa());
                    assert_close(&case.whole(kernels), &case.expected(), 1e-5, &what);
                    let case = case.masked();
                    assert_close(&case.whole(kernels), &case.expected(), 1e-5, &what);
                }
            }
        }
    }
}

#[test]
fn a_mask_row_holds_for_all_queries() {
    for kernels in all_kernels() {
        let mut case = Case::new(20, 20, 8, 8, false).masked();
        let row = case.mask[..20].to_vec();
        case.mask = row.repeat(20);
        let want = case.whole(kernels);
        let runs = [KeyRun::Rows { keys: case.k(), values: case.v() }];
        let block = AttentionBlock {
            queries: case.q(),
            runs: &runs,
            first_position: 0,
            causal: false,
            window: None,
            position: PositionScores::None,
            scale: case.scale(),
            soft_cap: None,
            mask: Some(Matrix::contiguous(&row, 1, 20).unwrap()),
        };
        let mut scratch = vec![0.0; attention_scratch(20, 8, 8)];
        let mut out = vec![0.0; 20 * 8];
        let mut view = MatrixMut::contiguous(&mut out, 20, 8).unwrap();
        kernels.attention(&block, &mut scratch, &mut view).unwrap();
        scratch.pop();
        assert!(kernels.attention(&block, &mut scratch, &mut view).is_err());
        assert_eq!(bits(&out), bits(&want));
    }
}

#[test]
fn a_query_without_keys_gets_zeros() {
    for kernels in all_kernels() {
        let case = Case::new(3, 0, 8, 8, false);
        assert_eq!(case.whole(kernels), [0.0; 24]);
        let mut case = Case::new(3, 5, 8, 8, false);
        case.mask = vec![f32::NEG_INFINITY; 15];
        assert_eq!(case.whole(kernels), [0.0; 24]);
    }
}

#[test]
fn nan_stays_with_its_query() {
    for kernels in all_kernels() {
        let mut case = Case::new(20, 20, 8, 8, false);
        let clean = case.whole(kernels);
        case.data[4 * 24] = f32::NAN;
        let got = case.whole(kernels);
        for (i, (got, clean)) in got.chunks(8).zip(clean.chunks(8)).enumerate() {
            if i == 4 {
                assert!(got.iter().all(|x| x.is_nan()));
            } else {
                assert_eq!(bits(got), bits(clean));
            }
        }
    }
}

#[test]
fn misfits_are_refused() {
    let case = Case::new(4, 6, 8, 5, false);
    let runs = [KeyRun::Rows { keys: case.k(), values: case.v() }];
    let good = AttentionBlock {
        queries: case.q(),
        runs: &runs,
        first_position: 0,
        causal: true,
        window: Some(2),
        position: PositionScores::Bias(&[0.5; 3]),
        scale: 1.0,
        soft_cap: None,
        mask: None,
    };
    let scores = [0.0; 24];
    let disentangled = |buckets: &'static [u32], rows: [usize; 2]| {
        let table = |rows: usize| Some(Matrix::contiguous(&scores[..4 * rows], rows, 4).unwrap());
        PositionScores::Disentangled {
            buckets,
            content_to_position: table(rows[0]),
            position_to_content: table(rows[1]),
        }
    };
    let uneven = [KeyRun::Rows { keys: case.k(), values: case.v().slice_rows(0..5).unwrap() }];
    let wide = [KeyRun::Rows { keys: case.v(), values: case.v() }];
    let mask = [0.0; 12];
    let bad = [
        AttentionBlock { runs: &uneven, ..good },
        AttentionBlock { runs: &wide, ..good },
        AttentionBlock { mask: Some(Matrix::contiguous(&mask, 1, 5).unwrap()), ..good },
        AttentionBlock { mask: Some(Matrix::contiguous(&mask, 2, 6).unwrap()), ..good },
        AttentionBlock { position: PositionScores::Bias(&[0.0; 4]), ..good },
        AttentionBlock { position: PositionScores::Bias(&[]), ..good },
        AttentionBlock { position: disentangled(&[0, 1], [4, 6]), ..good },
        AttentionBlock { position: disentangled(&[0, 4, 1], [4, 6]), ..good },
        AttentionBlock { position: disentangled(&[0, 3, 1], [3, 6]), ..good },
        AttentionBlock { position: disentangled(&[0, 3, 1], [4, 5]), ..good },
    ];
    for kernels in all_kernels() {
        let mut scratch = vec![0.0; attention_scratch(6, 8, 5)];
        let mut out = vec![0.0; 20];
        let mut view = MatrixMut::contiguous(&mut out, 4, 5).unwrap();
        kernels.attention(&good, &mut scratch, &mut view).unwrap();
        for block in &bad {
            assert!(kernels.attention(block, &mut scratch, &mut view).is_err());
        }
        // Positions near the end of the number range must not overflow.
        for position in [PositionScores::Bias(&[0.5; 3]), disentangled(&[0, 3, 1], [4, 6])] {
            for window in [None, Some(3), Some(usize::MAX)] {
                for first_position in [3, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
                    let far = AttentionBlock { first_position, window, position, ..good };
                    kernels.attention(&far, &mut scratch, &mut view).unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Each query alone, with all keys in one run, gives the bits of any block and any runs.
    #[test]
    fn company_and_runs_do_not_change_a_bit(
        queries in 1usize..70, past in 0usize..80, head_dim in 1usize..70, value_dim in 1usize..40,
        causal: bool, masked: bool, cuts in prop::collection::vec(0usize..150, 0..5),
        start in 0usize..70,
    ) {
        let keys = queries + past;
        let mut case = Case::new(queries, keys, head_dim, value_dim, causal);
        if masked {
            case = case.masked();
        }
        let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % (keys + 1)).collect();
        edges.extend([0, keys]);
        edges.sort_unstable();
        let start = start % queries;
        for kernels in all_kernels() {
            let block = case.run(kernels, 0..queries, &edges);
            let tail = case.run(kernels, start..queries, &[0, keys]);
            prop_assert_eq!(bits(&tail), bits(&block[start * value_dim..]));
            for i in [0, start, queries - 1] {
                let alone = case.run(kernels, i..i + 1, &[0, keys]);
                prop_assert_eq!(bits(&alone), bits(&block[i * value_dim..(i + 1) * value_dim]));
            }
        }
    }

    /// The same with windows and position scores.
    #[test]
    fn company_and_runs_do_not_change_a_bit_of_positions(
        queries in 1usize..90, past in 0usize..80, causal: bool, window in prop::option::of(0usize..60),
        largest in 0usize..50, near in 0usize..50, terms in 0usize..5,
        cuts in prop::collection::vec(0usize..150, 0..5), start in 0usize..70,
    ) {
        let (keys, value_dim) = (queries + past, 5);
        let case = Case::new(queries, keys, 9, value_dim, causal);
        let mut case = match terms {
            0 => case,
            1 => case.biased(largest),
            terms => case.disentangled(largest, near, terms != 3, terms != 2),
        };
        case.window = window;
        let mut edges: Vec<usize> = cuts.iter().map(|cut| cut % (keys + 1)).collect();
        edges.extend([0, keys]);
        edges.sort_unstable();
        let start = start % queries;
        let expected = case.expected();
        for kernels in all_kernels() {
            let block = case.run(kernels, 0..queries, &edges);
            assert_close(&block, &expected, 1e-5, "positions");
            let tail = case.run(kernels, start..queries, &[0, keys]);
            prop_assert_eq!(bits(&tail), bits(&block[start * value_dim..]));
            for i in [0, start, queries - 1] {
                let alone = case.run(kernels, i..i + 1, &[0, keys]);
                prop_assert_eq!(bits(&alone), bits(&block[i * value_dim..(i + 1) * value_dim]));
            }
        }
    }

    /// What lies outside of a window cannot be seen.
    #[test]
    fn windows_hide_what_is_beyond(queries in 1usize..150, window in 0usize..40, at in 0usize..150) {
        let at = at % queries;
        let case = Case::new(queries, queries, 8, 8, false).windowed(window);
        let mut other = case.clone();
        for value in &mut other.data[at * 24..(at + 1) * 24] {
            *value = -*value * 2.0;
        }
        for kernels in all_kernels() {
            let (one, other) = (case.whole(kernels), other.whole(kernels));
            for i in (0..queries).filter(|i| i.abs_diff(at) > window) {
                prop_assert_eq!(bits(&one[i * 8..(i + 1) * 8]), bits(&other[i * 8..(i + 1) * 8]));
            }
        }
    }

    /// Chunking a causal prompt does not matter: what later keys hold cannot be seen.
    #[test]
    fn causal_queries_do_not_see_the_future(queries in 2usize..60, seen in 1usize..59) {
        let seen = seen % (queries - 1) + 1;
        let case = Case::new(queries, queries, 16, 16, true);
        let mut other = case.clone();
        for value in &mut other.data[seen * 48..] {
            *value = -*value * 2.0;
        }
        for kernels in all_kernels() {
            let whole = case.whole(kernels);
            prop_assert_eq!(bits(&other.whole(kernels)[..seen * 16]), bits(&whole[..seen * 16]));
        }
    }
}
