//! Steps: what workers do between two meetings where few rows are split by columns.
//!
//! A norm or a quantisation of one row takes less time than telling the others that it is done. So each worker computes
//! for itself, in memory of its own, what leads from one matrix product to the next and is read by nothing else.

use std::ops::Range;

use centuple_kernels::{self as kernels, panels};

use crate::compute::panels_of;
use crate::error::{Result, RuntimeError};
use crate::plan::{Kernel, PackedCodes, PackedNibbles, Phase, Place, Plan, Stage, Value};

/// Stages of a phase between two meetings of the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What every worker that begins a piece of the rest computes for itself.
    pub(crate) own: Range<usize>,
    /// Columns or heads of one stage, or rows of several.
    pub(crate) split: Range<usize>,
}

impl Step {
    pub(crate) fn stages(&self) -> Range<usize> {
        self.own.start.min(self.split.start)..self.split.end
    }
}

/// Cuts a phase into steps. `only_within(stage, last)` says whether what a stage writes is private to the phase and not read
/// after the stage `last`.
pub(crate) fn steps(stages: &[Stage], phase: &Phase, only_within: impl Fn(usize, usize) -> bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rows_from = phase.stages.start;
    for (index, stage) in stages.iter().enumerate().take(phase.stages.end).skip(phase.stages.start) {
        if !stage.kernel.is_split() {
            continue;
        }
        let own = (rows_from..index).rev().take_while(|&row| is_linear(stage) && only_within(row, index)).last();
        let own = own.unwrap_or(index);
        if rows_from < own {
            steps.push(Step { own: own..own, split: rows_from..own });
        }
        steps.push(Step { own: own..index, split: index..index + 1 });
        rows_from = index + 1;
    }
    if rows_from < phase.stages.end {
        steps.push(Step { own: rows_from..rows_from, split: rows_from..phase.stages.end });
    }
    steps
}

fn is_linear(stage: &Stage) -> bool {
    matches!(stage.kernel, Kernel::Linear { .. } | Kernel::QuantizedLinear { .. } | Kernel::GroupQuantizedLinear { .. })
}

/// Proves that nobody reads what a worker keeps for itself but the step in which it does, and that each step covers what the
/// one before it has left.
///
/// # Errors
/// The stage that does not keep to it.
pub(crate) fn check(plan: &Plan) -> Result<()> {
    let hazard = |stage: &Stage, hazard: &str| {
        Err(RuntimeError::Hazard { stage: stage.name.clone(), hazard: hazard.to_owned() })
    };
    let own = |value: &Value| matches!(value.place, Place::Local { own: true, .. });
    let mut step_of = vec![None; plan.values.len()];
    let mut next = 0;
    for (number, step) in plan.phases.iter().flat_map(|phase| &phase.steps).enumerate() {
        for (index, stage) in plan.stages.iter().enumerate().take(step.split.end).skip(step.stages().start) {
            if index != next {
                return hazard(stage, "is not in the step that follows");
            }
            next += 1;
            let reads = stage.kernel.row_reads().into_iter().chain(stage.kernel.gathered_reads());
            for view in reads.filter(|view| own(&plan.values[view.value])) {
                if step_of[view.value] != Some(number) {
                    return hazard(stage, "reads what workers have kept for themselves");
                }
            }
            for view in stage.writes() {
                let kept = own(&plan.values[view.value]);
                if kept != step.own.contains(&index) {
                    return hazard(stage, "writes to memory that is not its own");
                }
                if kept {
                    step_of[view.value] = Some(number);
                }
            }
        }
    }
    match plan.stages.get(next) {
        Some(stage) => hazard(stage, "is in no step"),
        None => Ok(()),
    }
}

/// The weights that a worker is going to read next, which it asks for while it waits for the others.
#[derive(Default)]
pub(crate) struct Ahead {
    /// The stage that reads them.
    stage: usize,
    /// Floats among the weights that have not been asked for.
    rest: Range<usize>,
}

/// Most bytes that are asked for ahead: a part of the second-level cache.
const AHEAD: usize = 256 << 10;
/// Floats that are asked for between two looks at the others.
const BURST: usize = 8 * LINE;
/// Floats of a cache line.
const LINE: usize = 64 / size_of::<f32>();

impl Ahead {
    /// What the worker reads in the first linear layer from a stage on, if each of `threads` takes its own part.
    pub(crate) fn look(&mut self, plan: &Plan, from: usize, worker: usize, threads: usize) {
        let later = plan.stages.iter().enumerate().skip(from);
        let Some((stage, (words, offset, n))) = later.filter_map(|(at, stage)| Some((at, weights(stage)?))).next()
        else {
            return;
        };
        if self.stage == stage {
            return;
        }
        let items = panels(n).div_ceil(2).min(threads);
        let part = if worker < items { panels_of(n, worker, items) } else { 0..0 };
        let panel = words / panels(n).max(1);
        let end = part.end.min(part.start + AHEAD / size_of::<f32>() / panel.max(1));
        *self = Ahead { stage, rest: offset + part.start * panel..offset + end * panel };
    }

    /// Asks for some more of it.
    pub(crate) fn fetch(&mut self, plan: &Plan) {
        let end = self.rest.end.min(self.rest.start.saturating_add(BURST));
        if let Some(words) = plan.weights.get(self.rest.start..end).filter(|words| !words.is_empty()) {
            kernels::prefetch(words);
            self.rest.start = end;
        }
    }
}

/// Words, first word and columns of a linear layer's weights.
fn weights(stage: &Stage) -> Option<(usize, usize, usize)> {
    if let Kernel::Linear { weight, .. } = &stage.kernel {
        let words = if weight.half { kernels::packed_half_len } else { kernels::packed_len };
        return Some((words(weight.n, weight.k), weight.offset, weight.n));
    }
    if let Kernel::QuantizedLinear { weight: PackedCodes { offset, n, k, .. }, .. } = stage.kernel {
        return Some((kernels::packed_int8_len(n, k), offset, n));
    }
    if let Kernel::GroupQuantizedLinear { weight: PackedNibbles { offset, n, k, group, .. }, .. } = stage.kernel {
        // Zero points lie behind all panels.
        return Some((kernels::packed_int4_len(n, k, group, false), offset, n));
    }
    None
}
