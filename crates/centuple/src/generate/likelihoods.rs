//! The likelihood of texts as what an engine answers, so that a model that generates is judged like any other.

use centuple_generate::log_likelihoods;
use centuple_runtime::Memory;
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};
use centuple_tensor::PAGE_TOKENS;

use super::{GenerationOptions, kept_by};
use crate::device_engine::{DevicePlan, DeviceSteps};
use crate::error::Error;
use crate::host::Host;
use crate::precision::Precision;

/// Texts that are computed together.
const SEQUENCES: usize = 16;
/// Tokens that are computed together.
const TOKENS: usize = 256;

/// Answers a sequence with a row for each of its tokens but the first: the logarithm of the token's probability, given all
/// before it. What sequences select is of no matter.
pub(crate) struct Likelihoods {
    steps: DeviceSteps,
    limits: Limits,
}

impl Likelihoods {
    /// An engine over the plan of a decoder, with a cache for one longest sequence or many short ones, each behind a short text
    /// where it answers one. It keeps what generation keeps by default in that precision.
    ///
    /// # Errors
    /// As for [`DevicePlan::steps`].
    pub(crate) fn new(
        host: &Host,
        plan: DevicePlan,
        limits: Limits,
        precision: Precision,
    ) -> Result<Likelihoods, Error> {
        let texts = if plan.has_encoder() { SEQUENCES } else { 0 };
        let pages =
            limits.max_tokens_per_sequence.div_ceil(PAGE_TOKENS) + TOKENS.div_ceil(PAGE_TOKENS) + SEQUENCES + texts;
        let kv_precision = kept_by(precision);
        let options = GenerationOptions {
            kv_memory: Some(pages.saturating_mul(plan.page_bytes(kv_precision).max(1))),
            kv_precision: Some(kv_precision),
            tokens_per_step: TOKENS,
            sequences_per_step: SEQUENCES,
        };
        let sizes = [limits.max_tokens_per_sequence, limits.vocabulary];
        let steps = plan.steps(host, sizes, &options)?;
        Ok(Likelihoods { steps, limits })
    }

    /// Bytes that the engine takes besides the keys and values.
    pub(crate) fn memory(&self) -> Memory {
        self.steps.memory()
    }

    /// What computes.
    pub(crate) fn steps(&mut self) -> &mut DeviceSteps {
        &mut self.steps
    }
}

impl Engine for Likelihoods {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        batch.iter().try_for_each(|sequence| self.limits.check(sequence))?;
        let texts: Vec<&[u32]> = batch.iter().map(|sequence| sequence.ids.as_slice()).collect();
        let found = log_likelihoods(&mut self.steps, &texts).map_err(EngineError::execution)?;
        Ok(found.into_iter().map(|data| Output { rows: data.len(), columns: 1, data }).collect())
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}
