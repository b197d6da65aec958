//! Decoders step by step: what `generate` of transformers goes on with, and that a cache changes no bit.

use centuple::{Compiled, Host, HostOptions, LoadOptions, Precision};
use centuple_runtime::KvPrecision;
use centuple_testkit::{FamilyCase, FamilyGolden, FamilyInput};
use tempfile::TempDir;

use crate::support::steps::{Part, Steps};

/// Largest accepted difference of logits, which go up to 10.
const TOLERANCE: f32 = 1e-4;
const PAGES: usize = 32;

fn compile(family: &FamilyGolden, case: &FamilyCase, precision: Precision) -> Compiled {
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
    let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    let compiled = host.compile_folder(folder.path(), &case.name, &options);
    compiled.unwrap_or_else(|error| panic!("{} {}: {error}", family.name, case.name))
}

/// Calls `check` for each class that generates, by its plan.
fn each(precision: Precision, check: impl FnMut(&FamilyGolden, &FamilyCase, &mut Steps, &str)) -> usize {
    each_with(precision, KvPrecision::F32, check)
}

/// The same with keys and values of a precision.
fn each_with(
    precision: Precision,
    kv_precision: KvPrecision,
    mut check: impl FnMut(&FamilyGolden, &FamilyCase, &mut Steps, &str),
) -> usize {
    let mut checked = 0;
    for family in FamilyGolden::all().expect("fixtures") {
        for case in family.cases.iter().filter(|case| case.refuse.is_none()) {
            let architecture = case.config["architectures"][0].as_str().unwrap_or_default();
            if !["ForCausalLM", "LMHeadModel"].iter().any(|ending| architecture.ends_with(ending)) {
                continue;
            }
            let compiled = compile(&family, case, precision);
            let mut steps = Steps::with_cache_of(kv_precision, &compiled, 2, (150, PAGES));
            check(&family, case, &mut steps, &format!("{} {}", family.name, case.name));
            checked += 1;
        }
    }
    checked
}

fn bits(logits: &[Vec<f32>]) -> Vec<u32> {
    logits.iter().flatten().map(|value| value.to_bits()).collect()
}

#[test]
fn greedy_search_finds_what_transformers_finds() {
    let mut tokens = 0;
    each(Precision::F32, |family, case, steps, place| {
        let prompts: Vec<&[u32]> = case.greedy.iter().map(|&index| family.inputs[index].ids.as_slice()).collect();
        let expected = family.continuations(case);
        let found = steps.greedy(&prompts, expected.first().map_or(0, Vec::len));
        for ((prompt, found), expected) in prompts.iter().zip(&found).zip(&expected) {
            let continued: Vec<u32> = found.iter().map(|(token, _)| *token).collect();
            assert_eq!(&continued, expected, "{place}");
            let alone = steps.greedy(&[prompt], expected.len()).remove(0);
            assert!(found == &alone, "{place}: company matters");
            // All at once, without a cache.
            let whole = [prompt, &continued[..continued.len() - 1]].concat();
            let selected = (prompt.len() as u32 - 1..whole.len() as u32).collect();
            let logits = steps.run(&[Part { ids: &whole, selected, ..Part::default() }]);
            let of_steps: Vec<Vec<f32>> = found.iter().map(|(_, logits)| logits.clone()).collect();
            assert!(bits(&logits) == bits(&of_steps), "{place}: the cache matters");
            tokens += continued.len();
        }
    });
    assert!(tokens > 5000, "only {tokens} tokens were compared");
}

/// The logits of the tokens that an input asks for, from a prompt that is cut into steps of `size` tokens.
fn in_chunks(steps: &mut Steps, input: &FamilyInput, size: usize) -> Vec<Vec<f32>> {
    let pages = vec![7, 2, 9, 4, 1, 30];
    let mut logits = Vec::new();
    for (index, ids) in input.ids.chunks(size).enumerate() {
        let past = index * size;
        let here =
            |&token: &usize| token.checked_sub(past).filter(|&token| token < ids.len()).map(|token| token as u32);
        let selected = input.masked.iter().filter_map(here).collect();
        logits.extend(steps.run(&[Part { ids, past, selected, pages: pages.clone() }]));
    }
    logits
}

#[test]
fn logits_are_those_of_transformers_however_a_prompt_is_cut() {
    let checked = each(Precision::F32, |family, case, steps, place| {
        let (expected, width) = family.output(case).expect("the case's output");
        let mut expected = expected.chunks_exact(width);
        for &index in &case.inputs {
            let input = &family.inputs[index];
            let whole = in_chunks(steps, input, input.ids.len());
            for logits in &whole {
                let expected = expected.next().expect("a row for each token that is asked for");
                let farthest = logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(farthest <= TOLERANCE, "{place}: off by {farthest:e}");
            }
            for size in [1, 7, 16] {
                assert!(bits(&in_chunks(steps, input, size)) == bits(&whole), "{place}: chunks of {size} matter");
            }
        }
    });
    assert!(checked > 60, "only {checked} cases were compared");
}

#[test]
fn a_cache_changes_no_bit_in_any_precision() {
    for precision in [Precision::F16, Precision::Int8, Precision::Int4] {
        each(precision, |family, _, steps, place| {
            let input = family.inputs.iter().max_by_key(|input| input.ids.len()).expect("inputs");
            let selected = input.masked.iter().map(|&token| token as u32).collect();
            let whole = steps.run(&[Part { ids: &input.ids, selected, ..Part::default() }]);
            for size in [1, 16] {
                assert!(bits(&in_chunks(steps, input, size)) == bits(&whole), "{place} in {precision}: {size}");
            }
        });
    }
}

/// The root of the mean square.
fn magnitude(values: impl ExactSizeIterator<Item = f32>) -> f64 {
    let count = values.len() as f64;
    (values.map(|value| f64::from(value).powi(2)).sum::<f64>() / count).sqrt()
}

#[test]
fn rounded_keys_and_values_change_logits_little() {
    // What rounding once takes at most: of a number, or of the largest of its head.
    for (kv_precision, rounding) in [(KvPrecision::F16, 1.0 / 2048.0), (KvPrecision::Int8, 1.0 / 254.0)] {
        each_with(Precision::F32, kv_precision, |family, _, steps, place| {
            let input = family.inputs.iter().max_by_key(|input| input.ids.len()).expect("inputs");
            let selected = input.masked.iter().map(|&token| token as u32).collect();
            let exact = steps.run(&[Part { ids: &input.ids, selected, ..Part::default() }]).concat();
            let whole = in_chunks(steps, input, input.ids.len());
            let off = magnitude(whole.concat().iter().zip(&exact).map(|(found, exact)| found - exact));
            let off = off / magnitude(exact.iter().copied()) / rounding;
            println!("{place}, {kv_precision:?}: off by {off:.2} roundings");
            assert!(off > 0.0 && off < 20.0, "{place}, {kv_precision:?}: off by {off} roundings");
            for size in [1, 7, 16] {
                assert!(bits(&in_chunks(steps, input, size)) == bits(&whole), "{place}: chunks of {size} matter");
            }
        });
    }
}

#[test]
fn passes_fuse_decoders_as_they_fuse_encoders() {
    let mut checked = 0;
    for family in FamilyGolden::all().expect("fixtures") {
        let Some(case) = family.cases.iter().find(|case| case.name == "causal") else { continue };
        let compiled = compile(&family, case, Precision::Int8);
        let layers = compiled.description.layers;
        let applied = |pass: &str| {
            let report = compiled.passes.iter().find(|report| report.pass == pass).expect("the pass ran");
            report.applied
        };
        let gated = !matches!(family.name.as_str(), "gpt2" | "gpt_neox" | "opt");
        // The blocks of later Gemmas are normed before they are added.
        let added = if matches!(family.name.as_str(), "gemma2" | "gemma3") { 0 } else { 2 * layers };
        let name = &family.name;
        assert_eq!(applied("qkv_merge"), layers, "{name}");
        assert_eq!(applied(if gated { "gate" } else { "linear_activation" }), layers, "{name}");
        assert_eq!(applied("linear_residual"), added, "{name}");
        let matrices = compiled.graph.nodes().iter().filter(|node| node.op.name() == "Linear");
        assert_eq!(matrices.count(), 0, "{name}: some layers stay in f32");
        checked += 1;
    }
    assert_eq!(checked, 10);
}
