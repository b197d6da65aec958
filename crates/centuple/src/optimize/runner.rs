//! What computes a model for its judge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use centuple_generate::{Logits, Step, StepEngine, StepSpan};
use centuple_runtime::{Memory, Plan};
use centuple_tasks::{Engine, EngineError, Head, Limits, Model, Output, Sequence};

use crate::engine::PlanEngine;
use crate::error::Error;
use crate::generate::Likelihoods;
use crate::host::Host;
use crate::load::Precision;
use crate::timing::{random_sequences, time};

/// Batches that are timed: sequences and tokens of each.
const SHAPES: [(usize, usize); 4] = [(1, 16), (1, 64), (1, 128), (8, 128)];
/// The same for models that generate. One token follows after [`PAST`] others.
const GENERATING: [(usize, usize); 4] = [(1, 1), (1, 16), (1, 64), (1, 128)];
const PAST: usize = 128;
const WARM_UP: Duration = Duration::from_millis(100);
const TIMING: Duration = Duration::from_millis(400);

/// A batch (sequences and tokens of each) and its median milliseconds.
pub(crate) type Time = ((usize, usize), f64);

/// An engine whose outputs a judge understands.
pub(crate) enum Runner {
    /// The model's outputs.
    Outputs(Box<PlanEngine>),
    /// How likely the model finds the sequences.
    Likelihoods(Box<Likelihoods>),
}

impl Runner {
    /// An engine over a plan of `model`; one that generates keeps keys and values as generation does in that precision.
    ///
    /// # Errors
    /// The memory isn't granted.
    pub(crate) fn new(host: &Host, plan: &Arc<Plan>, model: &Model, precision: Precision) -> Result<Runner, Error> {
        Ok(match model.card.head {
            Head::CausalLm { .. } => {
                Runner::Likelihoods(Box::new(Likelihoods::new(host, plan, model.limits, precision)?))
            }
            Head::SentenceEmbedding(_)
            | Head::TokenFeatures { .. }
            | Head::SparseEmbedding { .. }
            | Head::LateInteraction { .. }
            | Head::Classification { .. }
            | Head::TokenClassification { .. }
            | Head::QuestionAnswering
            | Head::Seq2SeqLm { .. }
            | Head::MaskedLm { .. } => Runner::Outputs(Box::new(PlanEngine::new(host, plan, model.limits)?)),
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
}

/// Median milliseconds of a step that tells the next token of each sequence, after so many others.
fn time_step(engine: &mut Likelihoods, sequences: &[Sequence], past: usize) -> Result<f64, EngineError> {
    let steps = engine.steps();
    let pages = steps.limits().page_tokens.max(1);
    let mut first = 0;
    let span = |sequence: &Sequence| {
        let tokens = sequence.ids.len();
        let count = (past + tokens).div_ceil(pages) as u32;
        let pages = (first..first + count).collect();
        first += count;
        StepSpan { ids: sequence.ids.clone(), past, pages, selected: vec![tokens as u32 - 1], source: None }
    };
    let step = Step { spans: sequences.iter().map(span).collect(), ..Step::default() };
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
