//! Phases, lifetimes and places: which stages run without a barrier, and which bytes each value gets.
//!
//! Within a phase every worker takes blocks of rows and runs all stages on them. That is sound as long as no stage
//! reads a row of another block that the same phase writes. [`check`] proves it for every plan.

use std::collections::HashMap;

use centuple_tensor::Dim;

use crate::error::{Result, RuntimeError};
use crate::plan::{Phase, Place, Plan, Slot, Stage, Value};
use crate::steps::{Step, steps};

/// Groups the stages into phases.
pub(crate) fn phases(stages: &[Stage]) -> Vec<Phase> {
    let mut phases: Vec<Phase> = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        let row_wise = stage.kernel.is_row_wise();
        if let Some(phase) = phases.last_mut() {
            let joins = row_wise && phase.row_wise && phase.rows == stage.rows;
            if joins && !stages[phase.stages.clone()].iter().any(|earlier| conflict(earlier, stage)) {
                phase.stages.end = index + 1;
                continue;
            }
        }
        phases.push(Phase { stages: index..index + 1, rows: stage.rows.clone(), row_wise, steps: Vec::new() });
    }
    phases
}

/// Whether `later` reads rows of other blocks that `earlier` writes.
fn conflict(earlier: &Stage, later: &Stage) -> bool {
    let gathered = later.kernel.gathered_reads();
    let cached = earlier.kernel.cache_write().is_some() && earlier.kernel.cache_write() == later.kernel.cache_read();
    cached || earlier.writes().any(|written| gathered.iter().any(|view| view.value == written.value))
}

/// First and last stage of a value's life.
#[derive(Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
    gathered: bool,
}

/// Gives every value its place, and every phase its steps; `pinned` values live from the first to the last stage in the
/// shared arena.
///
/// Returns the slots of the arena and the floats per row of a worker's private block.
pub(crate) fn place(
    values: &mut [Value],
    stages: &[Stage],
    phases: &mut [Phase],
    pinned: &[usize],
) -> (Vec<Slot>, usize) {
    let phase_of: Vec<usize> =
        phases.iter().enumerate().flat_map(|(index, phase)| phase.stages.clone().map(move |_| index)).collect();
    let lives = lives(values.len(), stages);
    let mut locals: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut shared = Vec::new();
    for (value, memory) in values.iter().enumerate() {
        let Some(life) = lives[value].filter(|_| memory.place == Place::Unplaced) else { continue };
        let phase = phase_of[life.first];
        let stays = phase == phase_of[life.last] && !life.gathered && phases[phase].row_wise;
        if stays && phases[phase].rows == memory.rows && !pinned.contains(&value) {
            locals.entry(phase).or_default().push(value);
        } else {
            shared.push(value);
        }
    }
    for (number, phase) in phases.iter_mut().enumerate() {
        let members = locals.get(&number).map_or(&[][..], Vec::as_slice);
        let only_within = |stage: usize, last: usize| {
            let ends = |value: usize| lives[value].is_some_and(|life| life.first >= stage && life.last <= last);
            let mut writes = stages[stage].writes().peekable();
            writes.peek().is_some() && writes.all(|view| members.contains(&view.value) && ends(view.value))
        };
        phase.steps = steps(stages, phase, only_within);
    }
    // Within a step workers may be at different stages, so what lives in the same one never shares memory.
    let steps: Vec<Step> = phases.iter().flat_map(|phase| phase.steps.clone()).collect();
    let step_of: Vec<usize> =
        steps.iter().enumerate().flat_map(|(index, step)| step.stages().map(move |_| index)).collect();
    let spans: Vec<Option<[usize; 2]>> =
        lives.iter().map(|life| life.map(|life| [step_of[life.first], step_of[life.last]])).collect();
    let local_stride = locals.into_values().map(|members| place_locals(values, &spans, &members)).max().unwrap_or(0);
    for step in &steps {
        for view in stages[step.own.clone()].iter().flat_map(Stage::writes) {
            if let Place::Local { own, .. } = &mut values[view.value].place {
                *own = true;
            }
        }
    }
    // Values that nothing writes or reads (an unused input) still need memory to be copied to.
    let idle = pinned.iter().copied().filter(|&value| lives[value].is_none() && values[value].place == Place::Unplaced);
    let spans: Vec<(usize, [usize; 2])> = shared
        .iter()
        .map(|&value| {
            let whole = [0, phases.len()];
            let span = |life: Life| [phase_of[life.first], phase_of[life.last]];
            (value, if pinned.contains(&value) { whole } else { lives[value].map_or(whole, span) })
        })
        .chain(idle.map(|value| (value, [0, phases.len()])))
        .collect();
    (place_shared(values, spans), local_stride)
}

fn lives(values: usize, stages: &[Stage]) -> Vec<Option<Life>> {
    let mut lives: Vec<Option<Life>> = vec![None; values];
    for (index, stage) in stages.iter().enumerate() {
        let gathered = stage.kernel.gathered_reads().into_iter().map(|view| (view, true));
        let rows = stage.kernel.row_reads().into_iter().chain(stage.writes()).map(|view| (view, false));
        for (view, gathered) in rows.chain(gathered) {
            let life = lives[view.value].get_or_insert(Life { first: index, last: index, gathered });
            life.last = index;
            life.gathered |= gathered;
        }
    }
    lives
}

/// Places values of one phase in a worker's block: first fit by the steps that they live from and to. Returns the floats per
/// row.
fn place_locals(values: &mut [Value], lives: &[Option<[usize; 2]>], members: &[usize]) -> usize {
    let mut placed: Vec<(usize, usize, [usize; 2])> = Vec::new();
    let mut width = 0;
    for &value in members {
        let Some(life) = lives[value] else { continue };
        let mut column = 0;
        let mut neighbours: Vec<(usize, usize)> = placed
            .iter()
            .filter(|(_, _, [first, last])| *first <= life[1] && life[0] <= *last)
            .map(|&(start, end, _)| (start, end))
            .collect();
        neighbours.sort_unstable();
        for (start, end) in neighbours {
            if column + values[value].stride <= start {
                break;
            }
            column = column.max(end);
        }
        let end = column + values[value].stride;
        values[value].place = Place::Local { column, own: false };
        placed.push((column, end, life));
        width = width.max(end);
    }
    width
}

/// Places values in slots of the arena; a slot is taken again, by rows of the same form, in a later phase.
fn place_shared(values: &mut [Value], mut spans: Vec<(usize, [usize; 2])>) -> Vec<Slot> {
    spans.sort_by_key(|&(_, [first, _])| first);
    let mut slots: Vec<Slot> = Vec::new();
    let mut busy_until: Vec<usize> = Vec::new();
    for (value, [first, last]) in spans {
        let wanted = Slot { rows: values[value].rows.clone(), stride: values[value].stride };
        let free = slots.iter().zip(&busy_until).position(|(slot, &until)| *slot == wanted && until < first);
        let slot = free.unwrap_or_else(|| {
            slots.push(wanted);
            busy_until.push(0);
            slots.len() - 1
        });
        busy_until[slot] = last;
        values[value].place = Place::Shared { slot };
    }
    slots
}

/// Proves that workers which are at different blocks of a phase never touch the same element, one of them writing.
///
/// # Errors
/// A stage gathers what its own phase writes, a slot is shared by two live values, or a value has no place.
pub(crate) fn check(plan: &Plan) -> Result<()> {
    for phase in &plan.phases {
        let stages = &plan.stages[phase.stages.clone()];
        let written: Vec<usize> = stages.iter().flat_map(Stage::writes).map(|view| view.value).collect();
        for (index, stage) in stages.iter().enumerate() {
            let hazard = |hazard: &str| RuntimeError::Hazard { stage: stage.name.clone(), hazard: hazard.to_owned() };
            let clash = |a: usize, b: usize| a != b && same_memory(&plan.values[a], &plan.values[b]);
            for view in stage.kernel.gathered_reads() {
                let place = plan.values[view.value].place;
                if phase.row_wise && matches!(place, Place::Local { .. } | Place::Unplaced) {
                    return Err(hazard("gathers rows that are private to a worker"));
                }
                if phase.row_wise && written.iter().any(|&other| other == view.value || clash(other, view.value)) {
                    return Err(hazard("gathers rows that its phase writes"));
                }
            }
            for view in stage.kernel.row_reads().into_iter().chain(stage.writes()) {
                let value = &plan.values[view.value];
                if value.place == Place::Unplaced {
                    return Err(hazard("uses a value without a place"));
                }
                if phase.row_wise
                    && !matches!(value.place, Place::Weights { .. })
                    && !same_rows(value, view.columns, &phase.rows)
                {
                    return Err(hazard("reads rows of another domain"));
                }
            }
            if stages[index + 1..].iter().any(|later| later.rows != stage.rows || conflict(stage, later)) {
                return Err(hazard("writes what a later stage of its phase gathers"));
            }
        }
    }
    Ok(())
}

/// Whether two values lie in the same slot.
fn same_memory(a: &Value, b: &Value) -> bool {
    matches!((a.place, b.place), (Place::Shared { slot: x }, Place::Shared { slot: y }) if x == y)
}

/// Whether a value has one row for each of `rows`.
fn same_rows(value: &Value, columns: usize, rows: &Dim) -> bool {
    value.rows == *rows || value.rows.clone() * Dim::from(value.columns) == rows.clone() * Dim::from(columns)
}
