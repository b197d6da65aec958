//! Models with an encoder and a decoder: what transformers writes with them, and that nothing else changes a bit of it.

use std::collections::BTreeMap;

use centuple::evaluate::EvaluateOptions;
use centuple::generation::{
    Encoding, Logits, Parameters, Request, RequestId, Scheduler, Source, Step, StepEngine, StepSpan, Update,
};
use centuple::optimize::Silent;
use centuple::{DeviceSteps, Generating, GenerationOptions, Host, HostOptions, LoadOptions, Precision};
use centuple_testkit::{FamilyCase, FamilyGolden, FamilyInput, Random};
use tempfile::TempDir;

/// Largest accepted difference of logits, which go up to 15.
const TOLERANCE: f32 = 1e-4;
/// Bytes for more pages than any request of a tiny model needs.
const ROOMY: usize = 8 << 20;
const END: u32 = 2;

fn load(family: &FamilyGolden, case: &FamilyCase, precision: Precision, options: &GenerationOptions) -> Generating {
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
    let load = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    let name = folder.path().to_str().expect("a path of text");
    let loaded = host.load_generating(name, &load, options);
    loaded.unwrap_or_else(|error| panic!("{} {}: {error}", family.name, case.name))
}

fn roomy() -> GenerationOptions {
    GenerationOptions { kv_memory: Some(ROOMY), ..GenerationOptions::default() }
}

/// Calls `check` for each case.
fn each(precision: Precision, mut check: impl FnMut(&FamilyGolden, &FamilyCase, DeviceSteps, &str)) {
    let mut checked = 0;
    for family in FamilyGolden::seq2seq().expect("fixtures") {
        for case in &family.cases {
            let engine = load(&family, case, precision, &roomy()).engine;
            check(&family, case, engine, &format!("{} {} in {precision}", family.name, case.name));
            checked += 1;
        }
    }
    assert!(checked >= 16, "only {checked} cases were checked");
}

/// Pages of an input: those of its text, and those of its answer, between other inputs' and not in order.
fn pages(input: usize) -> [Vec<u32>; 2] {
    [0, 1].map(|side| (0..3).rev().map(|page| (page * 16 + input * 2 + side) as u32).collect())
}

fn source(input: usize, ids: &[u32]) -> (Encoding, Source) {
    let [pages, _] = pages(input);
    (Encoding { ids: ids.to_vec(), pages: pages.clone() }, Source { tokens: ids.len(), pages })
}

/// The logits behind every token that is written, of all inputs together; the answers come in steps of `size` tokens.
fn logits(engine: &mut DeviceSteps, inputs: &[(usize, &FamilyInput)], size: usize) -> Vec<Vec<f32>> {
    let vocabulary = engine.limits().vocabulary;
    let mut found = vec![Vec::new(); inputs.len()];
    let longest = inputs.iter().map(|(_, input)| input.written.len()).max().unwrap_or(0);
    let mut rows = Logits::default();
    for past in (0..longest).step_by(size) {
        let mut step = Step::default();
        let mut places = Vec::new();
        for (place, (index, input)) in inputs.iter().enumerate() {
            let ids: Vec<u32> = input.written.iter().skip(past).take(size).copied().collect();
            let (encoding, source) = source(*index, &input.ids);
            if past == 0 {
                step.encodings.push(encoding);
            }
            if !ids.is_empty() {
                let [_, pages] = pages(*index);
                let selected = (0..ids.len() as u32).collect();
                places.push((place, ids.len()));
                step.spans.push(StepSpan { ids, past, pages, selected, source: Some(source) });
            }
        }
        engine.run(&step, &mut rows).expect("the step runs");
        let mut rest = rows.values.as_slice();
        for (place, count) in places {
            let (own, others) = rest.split_at(count * vocabulary);
            found[place].extend_from_slice(own);
            rest = others;
        }
    }
    found
}

fn bits(rows: &[Vec<f32>]) -> Vec<u32> {
    rows.iter().flatten().map(|value| value.to_bits()).collect()
}

#[test]
fn logits_are_those_of_transformers() {
    let mut farthest: f32 = 0.0;
    each(Precision::F32, |family, case, mut engine, place| {
        let inputs: Vec<(usize, &FamilyInput)> = family.inputs.iter().enumerate().collect();
        let found = logits(&mut engine, &inputs, usize::MAX).concat();
        let (expected, _) = family.output(case).expect("the case's output");
        assert_eq!(found.len(), expected.len(), "{place}");
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= TOLERANCE, "{place}: off by {apart:e}");
        farthest = farthest.max(apart);
    });
    println!("off by at most {farthest:e}");
}

#[test]
fn company_and_cuts_change_no_bit_in_any_precision() {
    for precision in [Precision::F32, Precision::F16, Precision::Int8] {
        each(precision, |family, _, mut engine, place| {
            let inputs: Vec<(usize, &FamilyInput)> = family.inputs.iter().enumerate().collect();
            let together = logits(&mut engine, &inputs, usize::MAX);
            for size in [1, 7, 16] {
                assert!(
                    bits(&logits(&mut engine, &inputs, size)) == bits(&together),
                    "{place}: steps of {size} matter"
                );
            }
            for (&input, together) in inputs.iter().zip(&together) {
                let alone = logits(&mut engine, &[input], 5);
                assert!(bits(&alone) == bits(std::slice::from_ref(together)), "{place}: company matters");
            }
        });
    }
}

fn request(text: &[u32], start: u32, parameters: Parameters) -> Request {
    let (prompt, source) = (vec![start], Some(text.to_vec()));
    Request { prompt, source, parameters, seed: 5, client: Some(1), decoder: None, constraint: None }
}

/// What each request got, by its answers.
type Answers = Vec<BTreeMap<u32, Vec<u32>>>;

/// Runs requests together. Also yields how often one lost its pages.
fn run(engine: &mut dyn StepEngine, requests: &[Request]) -> (Answers, u64) {
    let mut scheduler = Scheduler::new(engine.limits());
    let submitted: Vec<RequestId> =
        requests.iter().map(|request| scheduler.submit(request.clone()).expect("it fits")).collect();
    let mut answers = vec![BTreeMap::<u32, Vec<u32>>::new(); requests.len()];
    let mut logits = Logits::default();
    while !scheduler.is_idle() {
        for update in scheduler.step(engine, &mut logits).expect("the step runs") {
            let Update { request, sequence, tokens, .. } = update;
            let place = submitted.iter().position(|one| *one == request).expect("a request of ours");
            answers[place].entry(sequence).or_default().extend(tokens.iter().map(|token| token.token));
        }
    }
    assert_eq!(scheduler.statistics().pages_used, 0, "pages are left over");
    (answers, scheduler.statistics().preemptions)
}

/// The parameters of the searches that are recorded, by kind, and how many answers each gives.
fn searches() -> [(&'static str, Parameters, usize); 3] {
    let base = Parameters { max_new_tokens: Some(64), ..Parameters::default() };
    let written: serde_json::Value = serde_json::json!({
        "num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 40, "length_penalty": 0.8, "early_stopping": true,
        "no_repeat_ngram_size": 2, "forced_bos_token_id": 7, "forced_eos_token_id": END, "eos_token_id": END,
    });
    let written = Parameters::from_generation_config(written.as_object().expect("an object")).expect("parameters");
    [("greedy", base.clone(), 1), ("beams", Parameters { num_beams: 4, ..base }, 1), ("written", written, 2)]
}

#[test]
fn searches_find_what_transformers_finds() {
    let mut tokens = 0;
    each(Precision::F32, |family, case, mut engine, place| {
        let asked = [&case.greedy, &case.beams, &case.written];
        for ((kind, parameters, answers), asked) in searches().into_iter().zip(asked) {
            let expected = family.answers(case, kind, answers);
            assert_eq!(expected.len(), asked.len(), "{place} {kind}");
            let text = |&index: &usize| {
                let FamilyInput { ids, written, .. } = &family.inputs[index];
                request(ids, written[0], parameters.clone())
            };
            let (found, _) = run(&mut engine, &asked.iter().map(text).collect::<Vec<_>>());
            for (found, expected) in found.iter().zip(&expected) {
                let found: Vec<Vec<u32>> = found.values().cloned().collect();
                assert_eq!(&found, expected, "{place} {kind}");
                tokens += found.iter().map(Vec::len).sum::<usize>();
            }
        }
    });
    assert!(tokens > 5000, "only {tokens} tokens were compared");
}

#[test]
fn preemption_and_many_requests_change_no_token() {
    let mut random = Random::new(41);
    let families = FamilyGolden::seq2seq().expect("fixtures");
    for (family, precision) in families.iter().zip([Precision::F32, Precision::Int8].into_iter().cycle()) {
        let case = &family.cases[0];
        let mut alone = load(family, case, precision, &roomy()).engine;
        let page = alone.cache_bytes() / alone.limits().pages;
        let tight = GenerationOptions {
            kv_memory: Some(page * 14),
            tokens_per_step: 16,
            sequences_per_step: 8,
            ..GenerationOptions::default()
        };
        let mut together = load(family, case, precision, &tight).engine;
        let mut preempted = 0;
        for _ in 0..4 {
            let request = |_| {
                let text: Vec<u32> = (0..1 + random.below(40)).map(|_| 10 + random.below(110) as u32).collect();
                let beams = [1, 1, 3][random.below(3)];
                let new = Some(1 + random.below(30));
                let parameters = Parameters { max_new_tokens: new, num_beams: beams, ..Parameters::default() };
                request(&text, 2, parameters)
            };
            let requests: Vec<Request> = (0..8).map(request).collect();
            let (found, preemptions) = run(&mut together, &requests);
            preempted += preemptions;
            for (request, found) in requests.iter().zip(found) {
                let expected = run(&mut alone, std::slice::from_ref(request)).0.remove(0);
                assert_eq!(found, expected, "{} in {precision}", family.name);
            }
        }
        assert!(preempted > 0, "{}: no request ever lost its pages", family.name);
    }
}

#[test]
fn what_the_engine_cannot_do_is_an_error() {
    let families = FamilyGolden::seq2seq().expect("fixtures");
    let mut engine = load(&families[0], &families[0].cases[0], Precision::F32, &roomy()).engine;
    let span = StepSpan { ids: vec![5], pages: vec![0], selected: vec![0], ..StepSpan::default() };
    let error = engine.run(&Step { spans: vec![span.clone()], ..Step::default() }, &mut Logits::default());
    assert!(error.expect_err("no text").0.contains("text"));
    let beyond = Some(Source { tokens: 3, pages: vec![u32::MAX] });
    let step = Step { spans: vec![StepSpan { source: beyond, ..span }], ..Step::default() };
    assert!(engine.run(&step, &mut Logits::default()).is_err());
    let wrong = Encoding { ids: vec![5; 40], pages: vec![1] };
    assert!(engine.run(&Step { encodings: vec![wrong], ..Step::default() }, &mut Logits::default()).is_err());
}

#[test]
fn no_layer_of_either_graph_stays_in_f32() {
    for family in FamilyGolden::seq2seq().expect("fixtures") {
        let folder = TempDir::new().expect("a temporary folder");
        family.assemble(&family.cases[0], folder.path()).expect("the fixtures are there");
        let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
        let load = LoadOptions { precision: Some(Precision::Int8), ..LoadOptions::default() };
        let compiled = host.compile_folder(folder.path(), "tiny", &load).expect("the model compiles");
        let encoder = compiled.encoder.as_ref().expect("an encoder");
        for graph in [&compiled.graph, &encoder.graph] {
            let left = graph.nodes().iter().filter(|node| node.op.name() == "Linear").map(|node| &node.name);
            assert_eq!(left.collect::<Vec<_>>(), Vec::<&String>::new(), "{}", family.name);
        }
        // What only generates is no engine of whole sequences, and no artefact.
        assert!(host.start(&compiled).is_err() && compiled.save(folder.path(), &folder.path().join("saved")).is_err());
        let examples = folder.path().join("examples.jsonl");
        std::fs::write(&examples, "{\"inputs\": \"a\"}\n{\"inputs\": \"b\"}\n").expect("a file");
        let evaluated = host.evaluate(&folder.path().display().to_string(), &EvaluateOptions::of(examples), &Silent);
        let error = evaluated.expect_err("there is nothing to compare").to_string();
        assert!(error.contains("text2text-generation"), "{error}");
    }
}
