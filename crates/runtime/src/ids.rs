//! The integers of a running batch: those that were given, and those that follow from them and from the layout.

use std::borrow::Cow;
use std::ops::Range;

use centuple_tensor::{Layout, Span};

use crate::plan::{DerivedIds, IdRule, Ids, Plan};

/// Integers, once for each of their uses.
#[derive(Clone, Debug, Default)]
struct IdBuffer {
    /// As they are.
    values: Vec<i64>,
    /// As rows of a table; what is negative or beyond 32 bits becomes a row that no table has.
    rows: Vec<u32>,
}

impl IdBuffer {
    /// Takes new integers, without allocating once the largest batch was seen.
    fn set(&mut self, values: impl Iterator<Item = i64>) {
        self.values.clear();
        self.values.extend(values);
        self.rows.clear();
        self.rows.extend(self.values.iter().map(|&id| u32::try_from(id).unwrap_or(u32::MAX)));
    }
}

/// All integers of one batch.
#[derive(Debug)]
pub(crate) struct BatchIds {
    inputs: Vec<IdBuffer>,
    positions: IdBuffer,
    derived: Vec<IdBuffer>,
    /// Packed rows of the selected tokens.
    selected: Vec<usize>,
}

impl BatchIds {
    /// Room for the integers that a plan uses.
    pub(crate) fn new(plan: &Plan) -> BatchIds {
        BatchIds {
            inputs: vec![IdBuffer::default(); plan.inputs.len()],
            positions: IdBuffer::default(),
            derived: vec![IdBuffer::default(); plan.derived.len()],
            selected: Vec::new(),
        }
    }

    /// Takes the integers of one input.
    pub(crate) fn set_input(&mut self, input: usize, values: &[i64]) {
        self.inputs[input].set(values.iter().copied());
    }

    /// Computes what follows from the inputs, which have been set, and the layout.
    pub(crate) fn derive(&mut self, plan: &Plan, layout: &Layout) {
        let positions = layout.spans().iter().flat_map(|span| span.past..span.past + span.tokens);
        self.positions.set(positions.map(|position| i64::try_from(position).unwrap_or(i64::MAX)));
        self.selected.clear();
        self.selected.extend(layout.selected());
        for (index, DerivedIds { from, rule }) in plan.derived.iter().enumerate() {
            let (earlier, rest) = self.derived.split_at_mut(index);
            let id = |token: usize| match from {
                Ids::Input(input) => self.inputs[*input].values[token],
                Ids::Positions { offset } => self.positions.values[token].saturating_add(*offset),
                Ids::Derived(derived) => earlier[*derived].values[token],
            };
            if let Some(target) = rest.first_mut() {
                target.set(layout.spans().iter().flat_map(|span| rule.of_span(span, id)));
            }
        }
    }

    /// Some tokens' ids as rows of a table.
    pub(crate) fn rows(&self, ids: &Ids, tokens: &Range<usize>) -> Cow<'_, [u32]> {
        fn of<'a>(buffer: &'a IdBuffer, tokens: &Range<usize>) -> &'a [u32] {
            buffer.rows.get(tokens.clone()).unwrap_or_default()
        }
        match ids {
            Ids::Input(input) => Cow::Borrowed(of(&self.inputs[*input], tokens)),
            Ids::Derived(derived) => Cow::Borrowed(of(&self.derived[*derived], tokens)),
            Ids::Positions { offset: 0 } => Cow::Borrowed(of(&self.positions, tokens)),
            Ids::Positions { offset } => {
                let shift = |&row: &u32| u32::try_from(i64::from(row) + offset).unwrap_or(u32::MAX);
                of(&self.positions, tokens).iter().map(shift).collect()
            }
        }
    }

    /// All integers behind ids.
    pub(crate) fn integers(&self, ids: &Ids) -> Cow<'_, [i64]> {
        match ids {
            Ids::Input(input) => Cow::Borrowed(&self.inputs[*input].values),
            Ids::Derived(derived) => Cow::Borrowed(&self.derived[*derived].values),
            Ids::Positions { offset } => self.positions.values.iter().map(|position| position + offset).collect(),
        }
    }

    /// Packed rows of the selected tokens.
    pub(crate) fn selected(&self) -> &[usize] {
        &self.selected
    }
}

impl IdRule {
    /// What becomes of the ids of one sequence.
    fn of_span<'a>(&'a self, span: &Span, id: impl Fn(usize) -> i64 + 'a) -> impl Iterator<Item = i64> + 'a {
        let (start, end) = (span.start, span.start + span.tokens);
        let mut next = i64::try_from(span.past).unwrap_or(i64::MAX);
        (start..end).map(move |token| match *self {
            IdRule::Ranks { offset, padding } if id(token) == padding => offset.saturating_sub(1),
            IdRule::Ranks { offset, .. } => {
                next = next.saturating_add(1);
                offset.saturating_add(next - 1)
            }
            IdRule::Shifted { first } if token == start => first.unwrap_or_else(|| id(end - 1)),
            IdRule::Shifted { .. } => id(token - 1),
        })
    }
}
