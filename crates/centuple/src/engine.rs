//! The engine behind the tasks: packs sequences, runs the plan, hands out each sequence's rows.

use std::sync::Arc;

use centuple_runtime::{Batch, InputData, Memory, Session};
use centuple_tasks::{Engine, EngineError, Limits, Output, Sequence};
use centuple_tensor::{Layout, Span};

/// Runs packed batches through a compiled plan.
pub struct PlanEngine {
    session: Session,
    limits: Limits,
    per_token: bool,
    ids: Vec<i64>,
    type_ids: Vec<i64>,
}

impl PlanEngine {
    /// An engine over a session of a packed encoder; `per_token` says whether its output has a row for each token.
    pub(crate) fn new(session: Session, limits: Limits, per_token: bool) -> PlanEngine {
        PlanEngine { session, limits, per_token, ids: Vec::new(), type_ids: Vec::new() }
    }

    /// Bytes that the engine takes.
    pub fn memory(&self) -> Memory {
        self.session.memory()
    }

    /// Number of threads that run a batch.
    pub fn threads(&self) -> usize {
        self.session.threads()
    }

    /// Multiply-accumulates of a batch: those of the weight matrices and of attention.
    pub fn macs(&self, batch: &[&Sequence]) -> u64 {
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.len()).collect();
        Layout::of_lengths(&lengths).map_or(0, |layout| self.session.plan().macs(&layout))
    }

    fn check(&self, batch: &[&Sequence]) -> Result<(), EngineError> {
        batch.iter().try_for_each(|sequence| self.limits.check(sequence))?;
        let (tokens, maximum) = (batch.iter().map(|sequence| sequence.len()).sum(), self.limits.max_tokens_per_batch);
        if tokens > maximum {
            return Err(EngineError::BatchTooLarge { tokens, maximum });
        }
        Ok(())
    }
}

impl Engine for PlanEngine {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        self.check(batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.ids.clear();
        self.type_ids.clear();
        for sequence in batch {
            self.ids.extend(sequence.ids.iter().map(|&id| i64::from(id)));
            self.type_ids.extend(sequence.type_ids.iter().map(|&id| i64::from(id)));
        }
        let span =
            |sequence: &&Sequence| Span { tokens: sequence.len(), pool_from: sequence.pool_from, ..Span::default() };
        let layout = Layout::new(batch.iter().map(span).collect()).map_err(failed)?;
        let inputs = [("input_ids", InputData::I64(&self.ids)), ("token_type_ids", InputData::I64(&self.type_ids))];
        let bindings = layout.bindings();
        let batch = Batch { inputs: &inputs, layout: &layout, bindings, cache: None };
        self.session.run(&batch).map_err(failed)?;
        let rows = self.session.output(0).ok_or_else(|| EngineError::Contract("the plan has no output".to_owned()))?;
        let of = |index: usize, span: &Span| {
            let range = if self.per_token { span.start..span.start + span.tokens } else { index..index + 1 };
            let mut data = Vec::with_capacity(range.len() * rows.columns());
            range.clone().for_each(|row| data.extend_from_slice(rows.row(row)));
            Output { rows: range.len(), columns: rows.columns(), data }
        };
        Ok(layout.spans().iter().enumerate().map(|(index, span)| of(index, span)).collect())
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Execution(Arc::new(error))
}
