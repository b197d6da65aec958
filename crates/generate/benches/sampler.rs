//! What choosing a token costs, over vocabularies of 50,000 to 256,000 tokens.

use std::hint::black_box;

use centuple_generate::{Context, Parameters, Place, Processors, Sampler, uniform};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn cases() -> Vec<(&'static str, Parameters)> {
    let sampled = Parameters { do_sample: true, ..Parameters::default() };
    vec![
        ("greedy", Parameters::default()),
        ("greedy, logprobs", Parameters { top_n_tokens: 5, ..Parameters::default() }),
        ("top_k 50", sampled.clone()),
        ("top_k 50, temperature, top_p", Parameters { temperature: 0.7, top_p: 0.9, ..sampled.clone() }),
        ("all tokens", Parameters { top_k: 0, ..sampled.clone() }),
        ("top_p 0.9 of all tokens", Parameters { top_k: 0, top_p: 0.9, ..sampled }),
    ]
}

/// Logits as models give them: most around -5, few high.
fn logits(vocabulary: usize) -> Vec<f32> {
    let normal = |token| (0..6).map(|draw| uniform(1, 0, token, draw)).sum::<f64>() - 3.0;
    (0..vocabulary as u64).map(|token| (normal(token) * 3.0 - 5.0) as f32).collect()
}

fn bench(criterion: &mut Criterion) {
    for vocabulary in [50_257, 151_936, 256_000] {
        let logits = logits(vocabulary);
        let mut group = criterion.benchmark_group(format!("{vocabulary} tokens"));
        for (name, parameters) in cases() {
            let context = Context { prompt: 1, source: &[1], longest: 100, vocabulary };
            let processors = Processors::new(&parameters, context).expect("the parameters are valid");
            let sampler = Sampler::new(&parameters, 1);
            let mut row = logits.clone();
            let mut position = 0;
            group.bench_with_input(BenchmarkId::from_parameter(name), &vocabulary, |bencher, _| {
                bencher.iter_custom(|rounds| {
                    let mut spent = std::time::Duration::ZERO;
                    for _ in 0..rounds {
                        row.copy_from_slice(&logits);
                        position += 1;
                        let start = std::time::Instant::now();
                        let place = Place { ids: &[1, 2, 3], sequence: 0, position };
                        black_box(sampler.sample(&processors, None, place, &mut row, None)).expect("a token");
                        spent += start.elapsed();
                    }
                    spent
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
