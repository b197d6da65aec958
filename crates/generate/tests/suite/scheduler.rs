//! The scheduler: what a request gets is what it would get alone, whatever else runs, and all pages come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use centuple_generate::{
    BeamSearch, Context, Decode, Finish, Logits, Parameters, Place, Processors, Refusal, Request, RequestId, Sampler,
    Scheduler, StepEngine, StepLimits, Update,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::table::{TableEngine, VOCABULARY, logits};

const EOS: u32 = 0;
const SALT: u64 = 11;

/// Each token is a letter, the first ones a space and half of a character each.
struct Letters;

impl Decode for Letters {
    fn decode(&self, ids: &[u32]) -> Result<String, String> {
        let byte = |id: &u32| match id {
            1 => b' ',
            2 => 0xC3,
            3 => 0xA9,
            id => b'a' + (id % 26) as u8,
        };
        Ok(String::from_utf8_lossy(&ids.iter().map(byte).collect::<Vec<_>>()).into_owned())
    }
}

fn limits(pages: usize) -> StepLimits {
    StepLimits {
        page_tokens: 4,
        pages,
        positions: 64,
        source_positions: 24,
        tokens_per_step: 16,
        sequences_per_step: 6,
        vocabulary: VOCABULARY,
    }
}

fn request(parameters: Parameters, prompt: Vec<u32>) -> Request {
    Request {
        prompt,
        source: None,
        parameters,
        seed: 3,
        client: None,
        decoder: Some(Arc::new(Letters)),
        constraint: None,
    }
}

/// What an answer has got so far.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    finish: Option<Finish>,
    score: Option<f32>,
}

type Answers = BTreeMap<(RequestId, u32), Answer>;

fn collect(answers: &mut Answers, updates: Vec<Update>) {
    for update in updates {
        let answer = answers.entry((update.request, update.sequence)).or_default();
        assert!(answer.finish.is_none(), "an answer goes on after its end");
        answer.tokens.extend(update.tokens.iter().map(|sampled| sampled.token));
        answer.text.push_str(&update.text);
        (answer.finish, answer.score) = (update.finish, update.score);
    }
}

/// Tokens of the answers by a plain loop: no scheduler, no cache.
fn plainly(request: &Request) -> Vec<Vec<u32>> {
    let Request { prompt, source, parameters, seed, .. } = request;
    let hashed = |hash: u64, id: &u32| (hash ^ u64::from(*id)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    let salt = source.as_ref().map_or(SALT, |source| SALT + source.iter().fold(1, hashed) % 1000);
    let longest = parameters.longest(prompt.len(), Some(64)).expect("the prompt is short");
    let context =
        Context { prompt: prompt.len(), source: source.as_ref().unwrap_or(prompt), longest, vocabulary: VOCABULARY };
    let processors = Processors::new(parameters, context).expect("the tokens exist");
    let sampler = Sampler::new(parameters, *seed);
    if parameters.num_beams > 1 {
        let mut search = BeamSearch::new(parameters, prompt, longest, sampler.seed());
        while !search.is_done() {
            let mut rows: Vec<f32> = search.open().flat_map(|ids| logits(ids, salt)).collect();
            search.advance(&processors, &mut rows, &mut |_| false).expect("there are tokens");
        }
        return search.found().iter().map(|found| found.ids[prompt.len()..].to_vec()).collect();
    }
    let answer = |index| {
        let mut ids = prompt.clone();
        while ids.len() < longest {
            let position = (ids.len() - prompt.len()) as u64;
            let place = Place { ids: &ids, sequence: index, position };
            let sampled = sampler.sample(&processors, None, place, &mut logits(&ids, salt), None).expect("a token");
            ids.push(sampled.token);
            if parameters.eos_token_id.contains(&sampled.token) {
                break;
            }
        }
        ids.split_off(prompt.len())
    };
    (0..parameters.num_return_sequences as u32).map(answer).collect()
}

/// Prompts that often begin alike, so that pages are shared.
fn prompt() -> impl Strategy<Value = Vec<u32>> {
    (0..24_usize, proptest::collection::vec(1..VOCABULARY as u32, 1..10))
        .prop_map(|(common, own)| (1..=common as u32).chain(own).collect())
}

fn base(new: usize) -> Parameters {
    Parameters { max_new_tokens: Some(new), eos_token_id: vec![EOS], ..Parameters::default() }
}

fn draws(new: usize, seed: u64) -> Parameters {
    Parameters { do_sample: true, seed: Some(seed), ..base(new) }
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let lookup = |count| Some(count).filter(|count| *count > 0);
    prop_oneof![
        (1..24_usize, 0..9_usize)
            .prop_map(move |(new, count)| Parameters { prompt_lookup_num_tokens: lookup(count), ..base(new) }),
        (1..24_usize, 0..9_u64, 0..9_usize).prop_map(move |(new, seed, count)| Parameters {
            prompt_lookup_num_tokens: lookup(count),
            top_k: 2,
            ..draws(new, seed)
        }),
        (1..24_usize, 0..9_u64).prop_map(|(new, seed)| draws(new, seed)),
        (1..16_usize, 0..9_u64, 2..4_usize)
            .prop_map(|(new, seed, count)| Parameters { num_return_sequences: count, ..draws(new, seed) }),
        (1..16_usize, 2..4_usize, 1..3_usize).prop_map(|(new, beams, count)| Parameters {
            num_beams: beams,
            num_return_sequences: count,
            ..base(new)
        }),
        (1..16_usize, 2..4_usize, 0..9_u64)
            .prop_map(|(new, beams, seed)| Parameters { num_beams: beams, ..draws(new, seed) }),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    let source = proptest::option::weighted(0.2, proptest::collection::vec(1..VOCABULARY as u32, 1..24));
    (parameters(), prompt(), source, proptest::option::of(0..2_u64))
        .prop_map(|(parameters, prompt, source, client)| Request { source, client, ..request(parameters, prompt) })
}

/// When a request comes (in steps after the one before), and after how many more it is cancelled.
#[derive(Clone, Debug)]
struct Arrival {
    after: usize,
    cancelled: Option<usize>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    (0..6_usize, proptest::option::weighted(0.2, 0..12_usize))
        .prop_map(|(after, cancelled)| Arrival { after, cancelled })
}

struct Outcome {
    answers: Answers,
    scheduler: Scheduler,
    cancelled: Vec<RequestId>,
    taken: Vec<(RequestId, usize)>,
}

/// Runs requests that come and go.
fn run(requests: &[(Request, Arrival)], limits: StepLimits) -> Outcome {
    let mut engine = TableEngine::new(limits, SALT);
    let mut scheduler = Scheduler::new(engine.limits());
    let (mut answers, mut cancelled, mut taken) = (Answers::new(), Vec::new(), Vec::new());
    let (mut due, mut next, mut wait, mut buffer) = (Vec::new(), 0, 0, Logits::default());
    for now in 0.. {
        while let Some((request, arrival)) = requests.get(next).filter(|(_, arrival)| arrival.after <= wait) {
            if let Ok(id) = scheduler.submit(request.clone()) {
                taken.push((id, next));
                due.extend(arrival.cancelled.map(|after| (now + after, id)));
            }
            (next, wait) = (next + 1, 0);
        }
        wait += 1;
        for (_, id) in due.extract_if(.., |(at, _)| *at <= now) {
            if scheduler.cancel(id) {
                cancelled.push(id);
            }
        }
        match scheduler.step(&mut engine, &mut buffer) {
            Some(updates) => collect(&mut answers, updates),
            None => {
                assert!(scheduler.is_idle(), "a request waits and nothing runs");
                if next == requests.len() {
                    break;
                }
            }
        }
        assert!(now < 100_000, "it never ends");
    }
    Outcome { answers, scheduler, cancelled, taken }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_request_gets_what_it_would_get_alone(
        requests in proptest::collection::vec((any_request(), arrival()), 1..14),
        pages in 8..60_usize,
    ) {
        let outcome = run(&requests, limits(pages));
        for (id, index) in &outcome.taken {
            let answers: Vec<&Answer> = outcome.answers.range((*id, 0)..=(*id, u32::MAX)).map(|(_, answer)| answer).collect();
            if outcome.cancelled.contains(id) {
                continue;
            }
            let alone = plainly(&requests[*index].0);
            prop_assert_eq!(answers.iter().map(|answer| answer.tokens.clone()).collect::<Vec<_>>(), alone);
            for answer in answers {
                let ended = answer.tokens.last() == Some(&EOS);
                prop_assert_eq!(answer.finish.clone(), Some(if ended { Finish::EndOfText(EOS) } else { Finish::Length }));
                let text = Letters.decode(&answer.tokens[..answer.tokens.len() - usize::from(ended)]).unwrap();
                if !text.contains('\u{FFFD}') && requests[*index].0.prompt.last() != Some(&2) {
                    prop_assert_eq!(&answer.text, &text);
                }
            }
        }
        let statistics = outcome.scheduler.statistics();
        prop_assert!(outcome.scheduler.is_idle());
        prop_assert_eq!((statistics.pages_used, statistics.running, statistics.waiting), (0, 0, 0));
    }
}

/// It may live on a thread of its own.
#[test]
fn a_scheduler_can_be_sent() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    assert!(sent(Scheduler::new(limits(1))).is_idle());
}

/// Two hundred requests over a cache that holds few of them.
#[test]
fn the_memory_limit_holds() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec((any_request(), arrival()), 200);
    let requests = strategy.new_tree(&mut runner).expect("requests").current();
    let outcome = run(&requests, limits(24));
    let statistics = outcome.scheduler.statistics();
    assert!(statistics.preemptions > 0 && statistics.reused_tokens > 0, "{statistics:?}");
    assert!(statistics.accepted_tokens > 0 && statistics.drafted_tokens > statistics.accepted_tokens, "{statistics:?}");
    assert_eq!(statistics.pages_used, 0);
    assert!(outcome.taken.len() > 100 && !outcome.cancelled.is_empty());
    let done = outcome.taken.iter().filter(|(id, _)| !outcome.cancelled.contains(id));
    assert!(done.clone().all(|(id, _)| outcome.answers[&(*id, 0)].finish.is_some()));
}

fn greedy(new: usize) -> Parameters {
    Parameters { max_new_tokens: Some(new), ..Parameters::default() }
}

#[test]
fn a_long_prompt_stalls_nobody() {
    let mut engine = TableEngine::new(limits(60), SALT);
    let mut scheduler = Scheduler::new(engine.limits());
    let mut buffer = Logits::default();
    let first = scheduler.submit(request(greedy(30), vec![5, 6])).expect("it fits");
    scheduler.step(&mut engine, &mut buffer);
    let long = scheduler.submit(request(greedy(2), vec![7; 60])).expect("it fits");
    for _ in 0..4 {
        let updates = scheduler.step(&mut engine, &mut buffer).expect("there is work");
        assert!(updates.iter().any(|update| update.request == first && update.tokens.len() == 1));
    }
    // The prompt came in chunks of what was left of each step.
    assert_eq!(engine.steps[1..4], [(16, 2); 3]);
    assert!(!scheduler.cancel(long + 1) && scheduler.cancel(long));
}

#[test]
fn the_oldest_gets_a_token_in_each_step_whatever_comes() {
    let mut engine = TableEngine::new(limits(12), SALT);
    let mut scheduler = Scheduler::new(engine.limits());
    let mut buffer = Logits::default();
    let oldest = scheduler.submit(request(greedy(40), vec![5, 6])).expect("it fits");
    for step in 0..40_u32 {
        scheduler.submit(request(greedy(20), vec![1 + step % 30; 20])).expect("it fits");
        let updates = scheduler.step(&mut engine, &mut buffer).expect("there is work");
        assert_eq!(updates.iter().filter(|update| update.request == oldest).count(), 1, "step {step}");
    }
    let mut ended = 0;
    while let Some(updates) = scheduler.step(&mut engine, &mut buffer) {
        ended += updates.iter().filter(|update| update.finish == Some(Finish::Length)).count();
    }
    assert!(scheduler.statistics().preemptions > 0);
    assert!(ended > 30, "{ended}");
}

#[test]
fn a_known_beginning_is_not_computed_again() {
    let mut engine = TableEngine::new(limits(60), SALT);
    let mut scheduler = Scheduler::new(engine.limits());
    let mut buffer = Logits::default();
    let mut run = |client| {
        let before = engine.steps.iter().map(|(tokens, _)| tokens).sum::<usize>();
        let request = Request { client, ..request(greedy(1), (1..=30).collect()) };
        scheduler.submit(request).expect("it fits");
        while scheduler.step(&mut engine, &mut buffer).is_some() {}
        engine.steps.iter().map(|(tokens, _)| tokens).sum::<usize>() - before
    };
    assert_eq!([run(Some(1)), run(Some(1)), run(Some(2)), run(None), run(None)], [30, 2, 30, 30, 30]);
}

#[test]
fn what_can_never_fit_is_refused_with_the_reason() {
    let mut scheduler = Scheduler::new(limits(8));
    let mut refused = |request: Request| scheduler.submit(request).expect_err("it can't fit");
    let long = refused(request(greedy(60), vec![1; 10]));
    assert_eq!(long, Refusal::TooLong { prompt: 10, new: 60, maximum: 64 });
    let memory = refused(request(greedy(30), vec![1; 10]));
    assert_eq!(memory, Refusal::Memory { needed: 10, pages: 8, page_tokens: 4 });
    assert!(memory.to_string().contains("lower max_new_tokens"));
    let beams = Parameters { num_beams: 4, ..greedy(8) };
    assert_eq!(refused(request(beams, vec![1; 10])), Refusal::Memory { needed: 14, pages: 8, page_tokens: 4 });
    let wide = Parameters { num_beams: 7, ..greedy(1) };
    assert_eq!(refused(request(wide, vec![1])), Refusal::Sequences { sequences: 7, maximum: 6 });
    assert_eq!(refused(request(greedy(1), Vec::new())), Refusal::EmptyPrompt);
    assert_eq!(refused(request(greedy(1), vec![40])), Refusal::Vocabulary { id: 40, vocabulary: 40 });
    let source = Request { source: Some(vec![1; 25]), ..request(greedy(1), vec![1]) };
    assert_eq!(refused(source), Refusal::SourceTooLong { tokens: 25, maximum: 24 });
    let biased = Parameters { logit_bias: [(77, 1.0)].into(), ..greedy(1) };
    assert!(refused(request(biased, vec![1])).to_string().contains("logit_bias names token 77"));
    assert!(matches!(refused(request(Parameters { top_p: 2.0, ..greedy(1) }, vec![1])), Refusal::Parameters(_)));
    assert!(scheduler.is_idle());
}

#[test]
fn stop_strings_end_answers_and_beams() {
    let free = |parameters: Parameters| {
        let requests = [(request(parameters, vec![5, 6, 7]), Arrival { after: 0, cancelled: None })];
        run(&requests, limits(60)).answers.remove(&(1, 0)).expect("an answer")
    };
    for beams in [1, 3] {
        let parameters = Parameters { num_beams: beams, ..greedy(16) };
        let whole = free(parameters.clone());
        let letters: Vec<char> = whole.text.chars().collect();
        let stop =
            letters.windows(3).skip(3).find(|letters| letters.iter().all(char::is_ascii)).expect("three letters");
        let stop: String = stop.iter().collect();
        let stopped = free(Parameters { stop_strings: vec![stop.clone()], ..parameters });
        assert_eq!(stopped.finish, Some(Finish::Stop(stop.clone())));
        assert!(!stopped.text.contains(&stop));
        if beams == 1 {
            let end = whole.text.find(&stop).expect("it is there");
            assert_eq!(stopped.text, whole.text[..end]);
        }
    }
}

#[test]
fn a_failed_step_ends_its_requests() {
    let mut engine = TableEngine::new(limits(60), SALT);
    engine.fails_after = Some(2);
    let mut scheduler = Scheduler::new(engine.limits());
    let mut answers = Answers::new();
    let two = Parameters { num_return_sequences: 2, do_sample: true, ..greedy(9) };
    for parameters in [greedy(9), two, Parameters { num_beams: 2, ..greedy(9) }] {
        scheduler.submit(request(parameters, vec![1, 2])).expect("it fits");
    }
    while let Some(updates) = scheduler.step(&mut engine, &mut Logits::default()) {
        collect(&mut answers, updates);
    }
    let failed = Some(Finish::Failed("the engine is broken".to_owned()));
    assert_eq!(answers.keys().copied().collect::<Vec<_>>(), [(1, 0), (2, 0), (2, 1), (3, 0)]);
    assert!(answers.values().all(|answer| answer.finish == failed));
    assert_eq!(scheduler.statistics().pages_used, 0);
}

#[test]
fn logits_that_are_no_numbers_end_a_request() {
    let mut scheduler = Scheduler::new(limits(60));
    let (bad, good) = (request(greedy(4), vec![1, 2]), request(greedy(4), vec![3]));
    scheduler.submit(bad).expect("it fits");
    scheduler.submit(good).expect("it fits");
    let step = scheduler.plan().expect("there is work");
    assert_eq!(step.rows(), 2);
    let mut rows = vec![f32::NAN; VOCABULARY];
    rows.extend(logits(&[3], SALT));
    let updates = scheduler.complete(&mut rows.into());
    assert!(matches!(&updates[0].finish, Some(Finish::Failed(reason)) if reason.contains("not numbers")));
    assert_eq!((updates[1].finish.clone(), updates[1].tokens.len()), (None, 1));
    assert_eq!(scheduler.statistics().running, 1);
    // Too few logits break the contract, and end the request too.
    scheduler.plan();
    assert!(matches!(&scheduler.complete(&mut Logits::default())[0].finish, Some(Finish::Failed(_))));
    assert_eq!(scheduler.statistics().pages_used, 0);
}
