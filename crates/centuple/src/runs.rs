//! How much is run at once: batches are cut so that the memory for their results stays bounded.

use std::ops::Range;

use centuple_runtime::Plan;
use centuple_tasks::Sequence;
use centuple_tensor::Bindings;

/// Most bytes of results that all threads share; a longest sequence may take more.
pub(crate) const ARENA_BYTES: usize = 512 << 20;
/// The same for a thread on its own.
pub(crate) const LANE_ARENA_BYTES: usize = 128 << 20;
/// Sequences that are run at once before fewer tokens are, where not both fit.
const FEW_SEQUENCES: usize = 64;

/// The largest batches of up to `tokens` tokens, a sequence having up to `longest`, whose results fit `bytes`; never less
/// than one longest sequence with all of its tokens selected. Never more than one sequence where a plan pads them: alone it
/// has no padding, and so nothing that depends on its company.
pub(crate) fn capacity(plan: &Plan, tokens: usize, longest: usize, bytes: usize) -> Bindings {
    let selected = longest.min(tokens);
    if plan.is_padded() {
        return Bindings { tokens: selected, sequences: 1, sequence: selected, selected, ..Bindings::default() };
    }
    let mut capacity = Bindings { tokens, sequences: tokens, selected, ..Bindings::default() };
    while !fits(plan, &capacity, bytes) {
        let Bindings { tokens, sequences, .. } = capacity;
        if sequences > FEW_SEQUENCES {
            capacity.sequences = FEW_SEQUENCES.max(sequences / 2);
        } else if tokens > longest {
            capacity.tokens = longest.max(tokens - tokens / 4);
        } else if sequences > 1 {
            capacity.sequences = sequences / 2;
        } else {
            break;
        }
    }
    capacity
}

/// Whether the results of batches of a capacity take at most so many bytes.
pub(crate) fn fits(plan: &Plan, capacity: &Bindings, bytes: usize) -> bool {
    plan.arena_bytes(capacity).is_some_and(|needed| needed <= bytes)
}

/// Cuts a batch, in order, into runs within a capacity. Each sequence alone has to be within it.
pub(crate) fn cut(batch: &[&Sequence], capacity: &Bindings) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut tokens, mut selected) = (0, 0, 0);
    for (index, sequence) in batch.iter().enumerate() {
        let full = tokens + sequence.len() > capacity.tokens
            || selected + sequence.selected.len() > capacity.selected
            || index - start == capacity.sequences;
        if full && index > start {
            runs.push(start..index);
            (start, tokens, selected) = (index, 0, 0);
        }
        tokens += sequence.len();
        selected += sequence.selected.len();
    }
    if start < batch.len() {
        runs.push(start..batch.len());
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use centuple_graph::{Graph, Op, Pooling};
    use centuple_kernels::Isa;
    use centuple_runtime::lower;
    use centuple_tensor::{DType, Symbol, Tensor};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wide_results_bound_a_batch() -> Result<(), Box<dyn std::error::Error>> {
        let mut graph = Graph::new();
        let x = graph.input("x", DType::F32, vec![Symbol::Tokens.into(), 4.into()])?;
        let weight = graph.constant("weight", Tensor::from_f32(&[50_000, 4], &vec![0.5; 200_000])?)?;
        let op = Op::Linear { bias: false, activation: None, residual: false };
        let logits = graph.push("logits", op, &[x, weight])?;
        // Another reader, so that every logit is kept.
        graph.output("logits", logits);
        let largest = graph.push("largest", Op::Pool(Pooling::Max), &[logits])?;
        graph.output("largest", largest);
        let plan = lower(&graph, Isa::Portable)?;
        let wide = capacity(&plan, 16_384, 512, ARENA_BYTES);
        assert!(fits(&plan, &wide, ARENA_BYTES) && wide.sequences == FEW_SEQUENCES, "{wide:?}");
        assert!((1500..2700).contains(&wide.tokens), "{wide:?}");
        let longest = capacity(&plan, 16_384, 512, 1);
        assert_eq!((longest.tokens, longest.sequences, longest.selected), (512, 1, 512));
        Ok(())
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_run_that_fits(
            lengths in proptest::collection::vec((1usize..60, 0usize..60), 0..40),
            tokens in 60usize..200,
            sequences in 1usize..9,
        ) {
            let of = |&(length, selected): &(usize, usize)| Sequence {
                selected: (0..length.min(selected)).collect(),
                ..Sequence::from_ids(vec![0; length])
            };
            let batch: Vec<Sequence> = lengths.iter().map(of).collect();
            let batch: Vec<&Sequence> = batch.iter().collect();
            let capacity = Bindings { tokens, sequences, selected: 60, ..Bindings::default() };
            let runs = cut(&batch, &capacity);
            let members: Vec<usize> = runs.iter().cloned().flatten().collect();
            prop_assert_eq!(members, (0..batch.len()).collect::<Vec<_>>());
            for run in &runs {
                let run = &batch[run.clone()];
                prop_assert!(!run.is_empty() && run.len() <= sequences);
                prop_assert!(run.iter().map(|sequence| sequence.len()).sum::<usize>() <= tokens);
                prop_assert!(run.iter().map(|sequence| sequence.selected.len()).sum::<usize>() <= 60);
            }
            prop_assert_eq!(runs.iter().map(|run| run.start).collect::<BTreeSet<_>>().len(), runs.len());
        }
    }
}
