//! What computes a model for its judge.

use std::time::{Duration, Instant};

use centuple_generate::{Encoding, Logits, Source, Step, StepEngine, StepSpan};
use centuple_runtime::Memory;
use centuple_tasks::{Engine, EngineError, Head, Limits, Model, Output, Sequence};

use crate::device_engine::{DeviceEngine, DevicePlan};
use crate::error::Error;
use crate::fastest::Latency;
use crate::generate::Likelihoods;
use crate::host::Host;
use crate::precision::Precision;
use crate::timing::{random_sequences, time};

/// Batches that are timed: sequences and tokens of each.
const SHAPES: [(usize, usize); 4] = [(1, 16), (1, 64), (1, 128), (8, 128)];
/// The same for models that generate. One token follows after [`PAST`] others.
const GENERATING: [(usize, usize); 4] = [(1, 1), (1, 16), (1, 64), (1, 128)];
const PAST: usize = 128;
/// Tokens of a short sequence.
const SHORT: usize = 16;
/// Tokens of a sequence of a full batch.
const USUAL: usize = 128;
/// Timed runs of a full batch.
const FULL_RUNS: usize = 3;
const WARM_UP: Duration = Duration::from_millis(100);
const TIMING: Duration = Duration::from_millis(400);

/// A batch (sequences and tokens of each) and its median milliseconds.
pub(crate) type Time = ((usize, usize), f64);

/// An engine whose outputs a judge understands.
pub(crate) enum Runner {
    /// The model's outputs.
    Outputs(Box<DeviceEngine>),
    /// How likely the model finds the sequences.
    Likelihoods(Box<Likelihoods>),
}

impl Runner {
    /// An engine over a plan of `model`; one that generates keeps keys and values as generation does in that precision.
    ///
    /// # Errors
    /// The memory isn't granted, or what the device needs isn't there.
    pub(crate) fn new(host: &Host, plan: DevicePlan, model: &Model, precision: Precision) -> Result<Runner, Error> {
        Ok(match model.card.head {
            Head::CausalLm { .. } | Head::Seq2SeqLm { .. } => {
                Runner::Likelihoods(Box::new(Likelihoods::new(host, plan, model.limits, precision)?))
            }
            Head::SentenceEmbedding(_)
            | Head::TokenFeatures { .. }
            | Head::SparseEmbedding { .. }
            | Head::LateInteraction { .. }
            | Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::MaskedLm { .. } => Runner::Outputs(Box::new(plan.engine(host, model.limits)?)),
        })
    }

    /// Bytes that the engine takes.
    pub(crate) fn memory(&self) -> Memory {
        match self {
            Runner::Outputs(engine) => engine.memory(),
            Runner::Likelihoods(engine) => engine.memory(),
        }
    }

    /// The batches that are timed.
    pub(crate) fn shapes(&self) -> Vec<(usize, usize)> {
        let (shapes, past) = match self {
            Runner::Outputs(_) => (SHAPES, 0),
            Runner::Likelihoods(_) => (GENERATING, PAST),
        };
        let most = self.limits().max_tokens_per_sequence;
        let fits = |(_, tokens): &(usize, usize)| if *tokens == 1 { past < most } else { *tokens <= most };
        shapes.into_iter().filter(fits).collect()
    }

    /// Median milliseconds of a batch.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) fn time(&mut self, (count, tokens): (usize, usize)) -> Result<Time, EngineError> {
        let sequences = random_sequences(count, tokens, self.limits().vocabulary);
        let median = match self {
            Runner::Outputs(engine) => {
                let batch: Vec<&Sequence> = sequences.iter().collect();
                time(engine.as_mut(), &batch, WARM_UP, TIMING, None)?.median_ms
            }
            Runner::Likelihoods(engine) => {
                let past = if tokens == 1 { PAST } else { 0 };
                time_step(engine, &sequences, past)?
            }
        };
        Ok(((count, tokens), median))
    }

    /// What one sequence waits, and what those of a full batch do.
    ///
    /// # Errors
    /// The engine fails.
    pub(crate) fn latency(&mut self) -> Result<Latency, EngineError> {
        let Limits { max_tokens_per_sequence: longest, max_tokens_per_batch: most, vocabulary } = self.limits();
        let of = |count, tokens: usize| random_sequences(count, tokens.min(longest), vocabulary);
        Ok(match self {
            Runner::Outputs(engine) => {
                let usual = USUAL.min(longest);
                let (one, many) = (of(1, SHORT), of((most / usual.max(1)).max(1), usual));
                let (one, many): (Vec<&Sequence>, Vec<&Sequence>) = (one.iter().collect(), many.iter().collect());
                let engine = engine.as_mut();
                Latency {
                    alone: time(engine, &one, WARM_UP, TIMING, None)?.median_ms,
                    queued: time(engine, &many, Duration::ZERO, TIMING, Some(FULL_RUNS))?.median_ms,
                }
            }
            Runner::Likelihoods(engine) => {
                let past = PAST.min(longest.saturating_sub(1));
                let count = engine.steps().limits().sequences_per_step;
                Latency { alone: time_step(engine, &of(1, 1), past)?, queued: time_step(engine, &of(count, 1), 0)? }
            }
        })
    }
}

/// Median milliseconds of a step that tells the next token of each sequence, after so many others; where the model answers texts, it
/// reads a short one for each of them first.
fn time_step(engine: &mut Likelihoods, sequences: &[Sequence], past: usize) -> Result<f64, EngineError> {
    let steps = engine.steps();
    let pages = steps.limits().page_tokens.max(1);
    let mut first = 0;
    let mut take = |tokens: usize| -> Vec<u32> {
        let count = tokens.div_ceil(pages) as u32;
        first += count;
        (first - count..first).collect()
    };
    let text = SHORT.min(steps.limits().source_positions);
    let mut step = Step::default();
    for sequence in sequences {
        let tokens = sequence.ids.len();
        let source = (text > 0).then(|| Source { tokens: text, pages: take(text) });
        let read =
            source.as_ref().map(|source| Encoding { ids: vec![sequence.ids[0]; text], pages: source.pages.clone() });
        step.encodings.extend(read);
        let (pages, selected) = (take(past + tokens), vec![tokens as u32 - 1]);
        step.spans.push(StepSpan { ids: sequence.ids.clone(), past, pages, selected, source });
    }
    let mut logits = Logits::default();
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 3 || begin.elapsed() < WARM_UP + TIMING {
        let start = Instant::now();
        steps.run(&step, &mut logits).map_err(EngineError::execution)?;
        if begin.elapsed() > WARM_UP {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
}

impl Engine for Runner {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        match self {
            Runner::Outputs(engine) => engine.run(batch),
            Runner::Likelihoods(engine) => engine.run(batch),
        }
    }

    fn limits(&self) -> Limits {
        match self {
            Runner::Outputs(engine) => engine.limits(),
            Runner::Likelihoods(engine) => engine.limits(),
        }
    }
}
