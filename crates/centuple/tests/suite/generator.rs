//! Generation through real plans: what a request gets is what it gets alone, to the last bit, and pages come back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};

use centuple::generation::{
    Finish, Generator, Logits, Parameters, Refusal, Request, RequestId, Scheduler, Step, StepEngine, StepError,
    StepLimits, Ticket, TokenLogprob, Update,
};
use centuple::kernels::KvPrecision;
use centuple::{DeviceSteps, Generating, GenerationOptions, Host, HostOptions, LoadOptions, Precision};
use centuple_testkit::{FamilyCase, FamilyGolden};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

const EOS: u32 = 3;
/// Bytes for more pages than any request of a tiny model needs.
const ROOMY: usize = 8 << 20;

/// A model that generates, of one of its cases.
fn generating(
    family: &FamilyGolden,
    case: &FamilyCase,
    precision: Precision,
    options: &GenerationOptions,
) -> Generating {
    let folder = TempDir::new().expect("a temporary folder");
    family.assemble(case, folder.path()).expect("the fixtures are there");
    let host = Host::new(&HostOptions { threads: Some(2), isa: None }).expect("threads start");
    let load = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    let name = folder.path().to_str().expect("a path of text");
    host.load_generating(name, &load, options).expect("the model loads")
}

/// A tiny model of a family.
fn tiny(family: &str, precision: Precision, options: &GenerationOptions) -> Generating {
    let families = FamilyGolden::all().expect("fixtures");
    let family = families.iter().find(|one| one.name == family).expect("the family");
    let case = family.cases.iter().find(|case| case.name == "causal").expect("the case");
    generating(family, case, precision, options)
}

fn request(prompt: Vec<u32>, parameters: Parameters) -> Request {
    Request { prompt, source: None, parameters, seed: 5, client: Some(1), decoder: None, constraint: None }
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let base = |new: usize| Parameters {
        max_new_tokens: Some(new),
        eos_token_id: vec![EOS],
        logprobs: true,
        top_n_tokens: 2,
        ..Parameters::default()
    };
    let draws = move |new, seed| Parameters { do_sample: true, seed: Some(seed), temperature: 2.0, ..base(new) };
    prop_oneof![
        (1..24_usize).prop_map(base),
        (1..24_usize).prop_map(move |new| Parameters { prompt_lookup_num_tokens: Some(4), ..base(new) }),
        (1..24_usize, 0..9_u64).prop_map(move |(new, seed)| draws(new, seed)),
        (1..16_usize, 0..9_u64).prop_map(move |(new, seed)| Parameters { num_return_sequences: 3, ..draws(new, seed) }),
        (1..16_usize).prop_map(move |new| Parameters { num_beams: 3, num_return_sequences: 2, ..base(new) }),
    ]
}

/// Requests whose prompts often begin alike, each with the step in which it comes.
fn requests() -> impl Strategy<Value = Vec<(usize, Request)>> {
    let prompt = (0..40_u32, proptest::collection::vec(33..127_u32, 1..30))
        .prop_map(|(common, own)| (40..40 + common).chain(own).collect::<Vec<_>>());
    let one =
        (0..12_usize, prompt, parameters()).prop_map(|(step, prompt, parameters)| (step, request(prompt, parameters)));
    proptest::collection::vec(one, 1..10)
}

type Token = (u32, Option<u32>, Vec<(u32, u32)>);

/// What a request got: tokens with the bits of their log-probabilities, and why each answer ended.
type Answers = BTreeMap<u32, (Vec<Token>, Option<Finish>, Option<u32>)>;

fn collect(answers: &mut Answers, update: Update) {
    let answer = answers.entry(update.sequence).or_default();
    let bits = |top: TokenLogprob| (top.token, top.logprob.to_bits());
    answer.0.extend(update.tokens.into_iter().map(|sampled| {
        (sampled.token, sampled.logprob.map(f32::to_bits), sampled.top.into_iter().map(bits).collect())
    }));
    answer.1 = update.finish.or(answer.1.take());
    answer.2 = update.score.map(f32::to_bits).or(answer.2);
}

/// Runs requests that come in their steps until all have ended. Also yields how often one lost its pages.
fn run(engine: &mut dyn StepEngine, requests: &[(usize, Request)]) -> (Vec<Answers>, u64) {
    let mut scheduler = Scheduler::new(engine.limits());
    let mut places: BTreeMap<RequestId, usize> = BTreeMap::new();
    let mut answers = vec![Answers::new(); requests.len()];
    let mut logits = Logits::default();
    for step in 0.. {
        for (place, (_, request)) in requests.iter().enumerate().filter(|(_, (at, _))| *at == step) {
            places.insert(scheduler.submit(request.clone()).expect("it fits"), place);
        }
        for update in scheduler.step(engine, &mut logits).unwrap_or_default() {
            collect(&mut answers[places[&update.request]], update);
        }
        if scheduler.is_idle() && requests.iter().all(|(at, _)| *at <= step) {
            break;
        }
    }
    assert_eq!(scheduler.statistics().pages_used, 0, "pages are left over");
    (answers, scheduler.statistics().preemptions)
}

#[test]
fn beams_are_those_of_transformers() {
    let options = GenerationOptions { kv_memory: Some(ROOMY), ..GenerationOptions::default() };
    let parameters = Parameters {
        max_new_tokens: Some(64),
        num_beams: 4,
        num_return_sequences: 2,
        length_penalty: 0.5,
        ..Parameters::default()
    };
    let mut searches = 0;
    for family in FamilyGolden::all().expect("fixtures") {
        for case in family.cases.iter().filter(|case| !case.beams.is_empty()) {
            let mut engine = generating(&family, case, Precision::F32, &options).engine;
            let asked = |&place: &usize| (0, request(family.inputs[place].ids.clone(), parameters.clone()));
            let requests: Vec<_> = case.beams.iter().map(asked).collect();
            let (found, _) = run(&mut engine, &requests);
            for (found, expected) in found.iter().zip(family.searches(case)) {
                let tokens = |answer: &u32| found[answer].0.iter().map(|token| token.0).collect::<Vec<_>>();
                assert_eq!([tokens(&0), tokens(&1)], expected, "{} {}", family.name, case.name);
                searches += 1;
            }
        }
    }
    assert!(searches >= 60, "only {searches} searches were compared");
}

#[test]
fn company_chunks_and_preemption_change_no_bit() {
    for (family, precision, kv_precision) in [
        ("llama", Precision::F32, KvPrecision::F32),
        ("gpt2", Precision::F32, KvPrecision::F16),
        ("mistral", Precision::Int8, KvPrecision::Int8),
        ("qwen2", Precision::Int4, KvPrecision::F32),
    ] {
        let kv_precision = Some(kv_precision);
        let roomy = GenerationOptions { kv_memory: Some(ROOMY), kv_precision, ..GenerationOptions::default() };
        let alone = tiny(family, precision, &roomy).engine;
        // Pages for the largest request, and steps that cut most prompts.
        let page = alone.cache_bytes() / alone.limits().pages;
        let kv_memory = Some(page * 11);
        let tight = GenerationOptions { kv_memory, kv_precision, tokens_per_step: 16, sequences_per_step: 8 };
        let together = tiny(family, precision, &tight).engine;
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
        let (together, alone) = (RefCell::new(together), RefCell::new(alone));
        let preempted = Cell::new(0);
        let outcome = runner.run(&requests(), |requests| {
            let (found, preemptions) = run(&mut *together.borrow_mut(), &requests);
            preempted.set(preempted.get() + preemptions);
            for ((_, request), found) in requests.iter().zip(found) {
                let expected = run(&mut *alone.borrow_mut(), &[(0, request.clone())]).0.remove(0);
                prop_assert!(!expected.is_empty() && expected.values().all(|answer| answer.1.is_some()));
                prop_assert_eq!(found, expected);
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{family} {precision}: {error}"));
        assert!(preempted.get() > 0, "no request ever lost its pages");
    }
}

#[test]
fn narrower_keys_and_values_hold_more_tokens() {
    let pages = |kv_precision| {
        let kv_precision = Some(kv_precision);
        let options = GenerationOptions { kv_memory: Some(1 << 20), kv_precision, ..GenerationOptions::default() };
        let engine = tiny("llama", Precision::F32, &options).engine;
        assert!(engine.cache_bytes() <= 1 << 20);
        engine.limits().pages
    };
    let [f32, f16, int8] = [KvPrecision::F32, KvPrecision::F16, KvPrecision::Int8].map(pages);
    assert!(f16 == 2 * f32 || f16 == 2 * f32 + 1, "{f16} instead of {f32}");
    // The scales of a head of 8 elements weigh more than those of 64.
    assert!(int8 > f16 + f32 / 2, "{int8} instead of {f32}");
}

#[test]
fn keys_and_values_are_as_narrow_as_the_weights_but_no_less_than_f16() {
    for precision in [Precision::F32, Precision::F16, Precision::Int8, Precision::Int4] {
        let bytes = |kv_precision| {
            let options = GenerationOptions { kv_memory: Some(1 << 20), kv_precision, ..GenerationOptions::default() };
            let engine = tiny("llama", precision, &options).engine;
            engine.cache_bytes() / engine.limits().pages
        };
        let expected = if precision == Precision::F32 { KvPrecision::F32 } else { KvPrecision::F16 };
        assert_eq!(bytes(None), bytes(Some(expected)), "{precision}");
    }
}

/// An engine whose steps wait for leave, until the test has dropped its end.
struct Held(DeviceSteps, Receiver<()>);

impl StepEngine for Held {
    fn limits(&self) -> StepLimits {
        self.0.limits()
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        let _ = self.1.recv();
        self.0.run(step, logits)
    }
}

/// A generator over the tiny Llama with so many pages, and what lets its steps run.
fn held(pages: usize) -> (Generator, Sender<()>) {
    let options = GenerationOptions { kv_memory: Some(ROOMY), ..GenerationOptions::default() };
    let engine = tiny("llama", Precision::F32, &options).engine;
    let page = engine.cache_bytes() / engine.limits().pages;
    let kv_memory = Some(page * pages);
    let options = GenerationOptions { kv_memory, tokens_per_step: 32, sequences_per_step: 8, ..options };
    let (leave, wait) = channel();
    let engine = Held(tiny("llama", Precision::F32, &options).engine, wait);
    (Generator::start(Box::new(engine)).expect("a thread"), leave)
}

/// The same, with leave for all steps.
fn generator(pages: usize) -> Generator {
    held(pages).0
}

fn submit(generator: &Generator, request: Request) -> (Ticket, Receiver<Update>) {
    let (sender, updates) = channel();
    let ticket = generator.submit(request, move |update| sender.send(update).is_ok()).expect("it fits");
    (ticket, updates)
}

fn greedy(prompt: Vec<u32>, new: usize) -> Request {
    request(prompt, Parameters { max_new_tokens: Some(new), logprobs: true, ..Parameters::default() })
}

#[test]
fn requests_of_a_generator_run_beside_each_other() {
    let generator = generator(40);
    let requests: Vec<Request> = (0..12).map(|n| greedy((40 + n..60 + 2 * n).collect(), 20)).collect();
    let running: Vec<_> = requests.iter().map(|request| submit(&generator, request.clone())).collect();
    for ((ticket, updates), request) in running.into_iter().zip(requests) {
        let mut together = Answers::new();
        updates.iter().for_each(|update| collect(&mut together, update));
        drop(ticket);
        assert_eq!(together[&0].1, Some(Finish::Length));
        let (_ticket, updates) = submit(&generator, request);
        let mut alone = Answers::new();
        updates.iter().for_each(|update| collect(&mut alone, update));
        assert_eq!(together, alone);
    }
    assert_eq!(generator.statistics().pages_used, 0);
}

#[test]
fn who_goes_away_frees_the_pages() {
    let (generator, leave) = held(16);
    let (ticket, updates) = submit(&generator, greedy(vec![50; 20], 100));
    leave.send(()).expect("the engine is there");
    updates.recv().expect("a first token");
    assert_eq!((generator.statistics().pages_used, generator.statistics().running), (2, 1));
    drop(ticket);
    assert_eq!((generator.statistics().pages_used, generator.statistics().running), (0, 0));
    drop(leave);
    // Who has dropped the receiver is noticed with the next token.
    let (_ticket, updates) = submit(&generator, greedy(vec![60; 20], 100));
    drop(updates);
    let (_other, updates) = submit(&generator, greedy(vec![70; 20], 100));
    assert_eq!(updates.iter().flat_map(|update| update.tokens).count(), 100);
    assert_eq!((generator.statistics().pages_used, generator.statistics().running), (0, 0));
}

#[test]
fn what_could_never_fit_is_refused_at_once() {
    let generator = generator(3);
    let refused = generator.submit(greedy(vec![50; 40], 60), |_| true).err();
    assert!(matches!(refused, Some(Refusal::Memory { needed: 7, pages: 3, .. })), "{refused:?}");
    let refused = generator.submit(greedy(vec![50; 100], 60), |_| true).err();
    assert!(matches!(refused, Some(Refusal::TooLong { .. })), "{refused:?}");
    let (_ticket, updates) = submit(&generator, greedy(vec![50; 30], 10));
    assert_eq!(updates.iter().flat_map(|update| update.tokens).count(), 10);
}
