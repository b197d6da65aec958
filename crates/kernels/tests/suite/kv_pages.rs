//! Keys and values in pages: rounded once, and then read as rows of the rounded numbers are, to the last bit.

use centuple_kernels::{
    AttentionBlock, Isa, Kernels, KeyRun, KvForm, KvPrecision, Matrix, MatrixMut, PagedKeys, PositionScores,
    TokenAttention, attention_scratch,
};
use proptest::prelude::*;

use crate::support::{all_kernels, bits, values};

/// Queries, keys and values of one head, as column ranges of one buffer.
struct Case {
    keys: usize,
    head_dim: usize,
    data: Vec<f32>,
}

impl Case {
    fn new(keys: usize, head_dim: usize) -> Self {
        Self { keys, head_dim, data: values(keys * 3 * head_dim, 7).iter().map(|x| x * 3.0).collect() }
    }

    fn part(&self, index: usize) -> Matrix<'_> {
        let all = Matrix::contiguous(&self.data, self.keys, 3 * self.head_dim).unwrap();
        all.slice_columns(index * self.head_dim..(index + 1) * self.head_dim).unwrap()
    }

    /// The last ones of as many queries as keys.
    fn q(&self, count: usize) -> Matrix<'_> {
        self.part(0).slice_rows(self.keys - count..self.keys).unwrap()
    }

    fn k(&self) -> Matrix<'_> {
        self.part(1)
    }

    fn v(&self) -> Matrix<'_> {
        self.part(2)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Keys and values of a case in pages, which lie in another order, with other tokens around.
fn paged(case: &Case, form: KvForm, head: usize) -> (Vec<f32>, Vec<u32>) {
    let count = case.keys.div_ceil(KvForm::TOKENS);
    let pages: Vec<u32> = (0..count as u32).rev().map(|page| 2 * page).collect();
    let mut memory = vec![0.0; (2 * count + 1) * form.page_words()];
    for token in 0..case.keys {
        let page = pages[token / KvForm::TOKENS] as usize * form.page_words();
        let words = &mut memory[page..page + form.page_words()];
        let mut page = MatrixMut::contiguous(words, form.heads, form.head_words()).unwrap();
        let wide = |row: &[f32]| {
            let others = (0..form.heads).flat_map(|at| row.iter().map(move |x| if at == head { *x } else { 7.0 }));
            others.collect::<Vec<f32>>()
        };
        let (key, value) = (wide(case.k().row(token).unwrap()), wide(case.v().row(token).unwrap()));
        form.store(&mut page, token % KvForm::TOKENS, &key, &value).unwrap();
    }
    (memory, pages)
}

/// What is left of a row after it was kept.
fn rounded(precision: KvPrecision, row: &[f32]) -> Vec<f32> {
    match precision {
        KvPrecision::F32 => row.to_vec(),
        KvPrecision::F16 => row.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect(),
        KvPrecision::Int8 => {
            let scale = row.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())) / 127.0;
            row.iter().map(|x| (x * (1.0 / scale)).round_ties_even() * scale).collect()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A token and any block of queries get from pages the bits that they get from rows of the rounded numbers.
    #[test]
    fn pages_are_rows_of_rounded_numbers(
        queries in 1usize..40, past in 0usize..150, head_dim in 1usize..100, window in prop::option::of(0usize..60),
        cap in prop::option::of(1.0_f32..9.0), precision in 0usize..3, heads in 1usize..4, shared in 1usize..20,
    ) {
        let precision = [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8][precision];
        let keys = queries + past;
        let mut case = Case::new(keys, head_dim);
        let (memory, pages) = paged(&case, KvForm { precision, heads, head_dim }, heads - 1);
        let form = KvForm { precision, heads, head_dim };
        let paged = PagedKeys::new(&memory, form, heads - 1, &pages, keys).unwrap();
        for row in case.data.chunks_exact_mut(3 * head_dim) {
            for part in row.chunks_exact_mut(head_dim).skip(1) {
                part.copy_from_slice(&rounded(precision, part));
            }
        }
        let case = case;
        let rows = [KeyRun::Rows { keys: case.k(), values: case.v() }];
        let runs: Vec<KeyRun<'_>> = paged.pages().map(KeyRun::Page).collect();
        let block = AttentionBlock {
            queries: case.q(queries), runs: &rows, first_position: past, causal: true, window,
            position: PositionScores::None, scale: case.scale(), soft_cap: cap, mask: None,
        };
        // The queries of one token are the last rows of `data`, as far as there are so many.
        let shared = shared.min(queries);
        let token = TokenAttention {
            queries: case.q(shared),
            keys: paged,
            first_key: window.map_or(0, |window| (keys - 1).saturating_sub(window)),
            next: past.is_multiple_of(2).then_some((paged, past)),
            scale: case.scale(),
            soft_cap: cap,
        };
        let mut scratch = vec![f32::NAN; attention_scratch(keys, head_dim, head_dim)];
        for kernels in all_kernels() {
            let mut run = |block: &AttentionBlock<'_>| {
                let mut out = vec![f32::NAN; block.queries.rows() * head_dim];
                let mut view = MatrixMut::contiguous(&mut out, block.queries.rows(), head_dim).unwrap();
                kernels.attention(block, &mut scratch, &mut view).unwrap();
                bits(&out)
            };
            let expected = run(&block);
            prop_assert_eq!(run(&AttentionBlock { runs: &runs, ..block }), expected);
            // Each query as the last one.
            let expected: Vec<u32> = (queries - shared..queries).flat_map(|query| {
                let queries = case.q(queries).slice_rows(query..query + 1).unwrap();
                run(&AttentionBlock { queries, first_position: keys - 1, ..block })
            }).collect();
            let mut out = vec![f32::NAN; shared * head_dim];
            let mut view = MatrixMut::contiguous(&mut out, shared, head_dim).unwrap();
            kernels.attend_token(&token, &mut scratch, &mut view).unwrap();
            prop_assert_eq!(bits(&out), expected);
        }
    }
}

#[test]
fn rounding_is_bounded_and_keeps_what_is_no_number() {
    let form = |precision| KvForm { precision, heads: 1, head_dim: 3 };
    let kept = |precision, key: [f32; 3]| {
        let form = form(precision);
        let mut memory = vec![0.0; form.page_words()];
        let mut page = MatrixMut::contiguous(&mut memory, 1, form.head_words()).unwrap();
        form.store(&mut page, 0, &[0.0; 3], &key).unwrap();
        // One key gets all the weight.
        let keys = PagedKeys::new(&memory, form, 0, &[0], 1).unwrap();
        let queries = Matrix::contiguous(&[1.0; 3], 1, 3).unwrap();
        let token = TokenAttention { queries, keys, first_key: 0, next: None, scale: 1.0, soft_cap: None };
        let mut scratch = vec![0.0; attention_scratch(1, 3, 3)];
        let mut out = vec![0.0; 3];
        let mut view = MatrixMut::contiguous(&mut out, 1, 3).unwrap();
        Kernels::new(Isa::best()).unwrap().attend_token(&token, &mut scratch, &mut view).unwrap();
        out
    };
    let [f32, f16, int8] = [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8];
    assert_eq!(kept(f32, [1e9, -0.1, 0.0]), [1e9, -0.1, 0.0]);
    assert_eq!(kept(f16, [1e9, -1e9, 0.5]), [65504.0, -65504.0, 0.5]);
    for (found, value) in kept(int8, [127.0, -63.2, 0.0]).iter().zip([127.0, -63.0, 0.0]) {
        assert!((found - value).abs() < 1e-4);
    }
    assert_eq!(kept(int8, [0.0; 3]), [0.0; 3]);
    assert_eq!(kept(int8, [1e-45, 0.0, 0.0]), [0.0; 3]);
    for precision in [f32, f16, int8] {
        assert!(kept(precision, [f32::NAN, 1.0, 1.0])[0].is_nan());
        assert!(!kept(precision, [f32::INFINITY, 1.0, 1.0])[0].is_finite());
    }
    assert_eq!(form(f32).page_words() * 4, 16 * (3 + 16) * 4);
    let wide = |precision| KvForm { precision, heads: 3, head_dim: 64 }.page_words() * 4;
    assert_eq!([wide(f32), wide(f16), wide(int8)], [24576, 12288, 6528]);
}

#[test]
fn pages_that_are_not_there_are_refused() {
    let form = KvForm { precision: KvPrecision::F16, heads: 2, head_dim: 8 };
    let mut memory = vec![0.0; 3 * form.page_words()];
    assert!(PagedKeys::new(&memory, form, 1, &[2, 0], 32).is_ok());
    for (head, pages, tokens) in [(2, &[0, 1][..], 32), (0, &[3], 1), (0, &[0], 17), (0, &[], 1)] {
        assert!(PagedKeys::new(&memory, form, head, pages, tokens).is_err());
    }
    let mut page = MatrixMut::contiguous(&mut memory[..form.page_words()], 2, form.head_words()).unwrap();
    assert!(form.store(&mut page, 15, &[0.0; 16], &[0.0; 16]).is_ok());
    assert!(form.store(&mut page, 16, &[0.0; 16], &[0.0; 16]).is_err());
    assert!(form.store(&mut page, 0, &[0.0; 15], &[0.0; 16]).is_err());
    assert!(form.store(&mut page, 0, &[0.0; 16], &[0.0; 17]).is_err());
}
