//! Places of values in one arena: two that live at once never share a byte.

use super::{Plan, Value};
use crate::launch::{Capacity, Rows};

/// Places begin at multiples of this.
const ALIGNMENT: usize = 256;

/// Where each value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arena {
    /// First byte of each value.
    pub(crate) places: Vec<usize>,
    /// Bytes of all.
    pub(crate) bytes: usize,
}

/// First and last step of a value's life, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    first: usize,
    last: usize,
    bytes: usize,
}

impl Value {
    /// Bytes for a batch of that size.
    pub(crate) fn bytes(&self, capacity: Capacity) -> usize {
        let rows = match self.rows {
            Rows::Tokens | Rows::Selected => capacity.tokens,
            Rows::Sequences => capacity.sequences,
        };
        rows * self.columns * self.element_bytes
    }
}

/// Places for the largest batch; smaller ones use the same.
pub(crate) fn place(plan: &Plan, capacity: Capacity) -> Arena {
    place_lives(&lives(plan, capacity))
}

fn lives(plan: &Plan, capacity: Capacity) -> Vec<Life> {
    let mut lives: Vec<Option<Life>> = vec![None; plan.values.len()];
    for (step, kernel) in plan.steps.iter().enumerate() {
        for value in kernel.writes().into_iter().chain(kernel.reads()) {
            let bytes = plan.values[value].bytes(capacity).next_multiple_of(ALIGNMENT);
            lives[value].get_or_insert(Life { first: step, last: step, bytes }).last = step;
        }
    }
    for output in &plan.outputs {
        if let Some(life) = &mut lives[output.value] {
            life.last = plan.steps.len();
        }
    }
    lives.into_iter().map(|life| life.unwrap_or(Life { first: 0, last: 0, bytes: 0 })).collect()
}

/// First fit, the largest value first.
fn place_lives(lives: &[Life]) -> Arena {
    let mut order: Vec<usize> = (0..lives.len()).collect();
    order.sort_by_key(|&value| std::cmp::Reverse(lives[value].bytes));
    let mut places = vec![0; lives.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut bytes = 0;
    for value in order {
        let life = lives[value];
        let mut neighbours: Vec<[usize; 2]> = placed
            .iter()
            .filter(|&&other| lives[other].first <= life.last && life.first <= lives[other].last)
            .map(|&other| [places[other], places[other] + lives[other].bytes])
            .collect();
        neighbours.sort_unstable();
        let mut start = 0;
        for [from, to] in neighbours {
            if start + life.bytes <= from {
                break;
            }
            start = start.max(to);
        }
        places[value] = start;
        bytes = bytes.max(start + life.bytes);
        placed.push(value);
    }
    Arena { places, bytes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_lives_at_once_lies_apart(
            lives in proptest::collection::vec((0usize..20, 0usize..6, 1usize..9), 1..30),
        ) {
            let lives: Vec<Life> = lives
                .into_iter()
                .map(|(first, length, size)| Life { first, last: first + length, bytes: size * ALIGNMENT })
                .collect();
            let arena = place_lives(&lives);
            for (a, one) in lives.iter().enumerate() {
                prop_assert!(arena.places[a].is_multiple_of(ALIGNMENT) && arena.places[a] + one.bytes <= arena.bytes);
                for (b, other) in lives.iter().enumerate().skip(a + 1) {
                    let at_once = one.first <= other.last && other.first <= one.last;
                    let apart = arena.places[a] + one.bytes <= arena.places[b]
                        || arena.places[b] + other.bytes <= arena.places[a];
                    prop_assert!(!at_once || apart, "{a} and {b}");
                }
            }
            let most = (0..26).map(|step| {
                lives.iter().filter(|life| life.first <= step && step <= life.last).map(|life| life.bytes).sum::<usize>()
            });
            prop_assert!(arena.bytes <= 2 * most.max().unwrap_or(0), "no more than twice what is needed at once");
        }
    }
}
