//! Engines that lack a stage of computing, so that measurements show what it brings. Answers stay the same.

use centuple::generation::{Logits, Step, StepEngine, StepError, StepLimits, StepSpan};
use centuple::tasks::{Engine, EngineError, Limits, Output, Sequence};

/// Computes each sequence as if it were padded to the longest one of its batch.
///
/// What is missing is computed as a sequence of its own and thrown away. So every row-wise op has as much to do as with
/// padding, and attention less, as padded queries then look at no other tokens than padding.
pub(super) struct Padded<E>(pub(super) E);

impl<E: Engine> Padded<E> {
    /// How many of the first sequences fit into a batch with their padding; at least one.
    fn fitting(&self, sequences: &[&Sequence]) -> usize {
        let (mut longest, most) = (0, self.0.limits().max_tokens_per_batch);
        let fits = |(index, sequence): &(usize, &&Sequence)| {
            longest = longest.max(sequence.len());
            longest * (index + 1) <= most
        };
        sequences.iter().enumerate().take_while(fits).count().max(1)
    }
}

impl<E: Engine> Engine for Padded<E> {
    fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
        let (mut outputs, mut left) = (Vec::with_capacity(batch.len()), batch);
        while !left.is_empty() {
            let (now, later) = left.split_at(self.fitting(left));
            let longest = now.iter().map(|sequence| sequence.len()).max().unwrap_or(0);
            let shorter = now.iter().filter(|sequence| sequence.len() < longest);
            let padding: Vec<Sequence> =
                shorter.map(|sequence| Sequence::from_ids(vec![0; longest - sequence.len()])).collect();
            let padded: Vec<&Sequence> = now.iter().copied().chain(&padding).collect();
            outputs.extend(self.0.run(&padded)?.into_iter().take(now.len()));
            left = later;
        }
        Ok(outputs)
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }
}

/// Computes all tokens of a sequence again for each new one.
pub(super) struct Recomputing<E> {
    engine: E,
    /// The token at each place of each page.
    ids: Vec<u32>,
}

impl<E: StepEngine> Recomputing<E> {
    pub(super) fn new(engine: E) -> Recomputing<E> {
        let StepLimits { pages, page_tokens, .. } = engine.limits();
        Recomputing { engine, ids: vec![0; pages * page_tokens] }
    }

    /// Where the token at a position of a sequence is remembered.
    fn place(&mut self, pages: &[u32], position: usize) -> Result<&mut u32, StepError> {
        let tokens = self.engine.limits().page_tokens;
        let page = pages.get(position / tokens).copied();
        let place = page.and_then(|page| self.ids.get_mut(page as usize * tokens + position % tokens));
        place.ok_or_else(|| StepError(format!("position {position} is in no page")))
    }

    fn remember_copies(&mut self, step: &Step) -> Result<(), StepError> {
        for copy in &step.copies {
            for position in 0..self.engine.limits().page_tokens {
                let id = *self.place(&[copy.from], position)?;
                *self.place(&[copy.to], position)? = id;
            }
        }
        Ok(())
    }

    /// The same span with nothing in the past, in pieces that the engine takes.
    fn recomputed(&mut self, span: &StepSpan) -> Result<Vec<StepSpan>, StepError> {
        for (index, id) in span.ids.iter().enumerate() {
            *self.place(&span.pages, span.past + index)? = *id;
        }
        let all = span.past + span.ids.len();
        let ids = (0..all).map(|position| self.place(&span.pages, position).map(|id| *id));
        let ids = ids.collect::<Result<Vec<u32>, StepError>>()?;
        let most = self.engine.limits().tokens_per_step;
        let piece = |(index, ids): (usize, &[u32])| {
            let past = index * most;
            let selected = span.selected.iter().filter_map(|&token| (span.past + token as usize).checked_sub(past));
            let selected = selected.filter(|token| *token < ids.len()).map(|token| token as u32).collect();
            StepSpan { ids: ids.to_vec(), past, pages: span.pages.clone(), selected, source: span.source.clone() }
        };
        Ok(ids.chunks(most).enumerate().map(piece).collect())
    }
}

impl<E: StepEngine> StepEngine for Recomputing<E> {
    fn limits(&self) -> StepLimits {
        self.engine.limits()
    }

    fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
        logits.clear();
        let mut rows = Logits::default();
        self.remember_copies(step)?;
        self.engine.run(&Step { spans: Vec::new(), ..step.clone() }, &mut rows)?;
        for span in &step.spans {
            for piece in self.recomputed(span)? {
                self.engine.run(&Step { spans: vec![piece], ..Step::default() }, &mut rows)?;
                logits.append(&mut rows);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use centuple::generation::PageCopy;

    use super::*;

    /// Gives each sequence its first id, and remembers the lengths of each batch.
    #[derive(Default)]
    struct Lengths(Vec<Vec<usize>>);

    impl Engine for Lengths {
        fn run(&mut self, batch: &[&Sequence]) -> Result<Vec<Output>, EngineError> {
            self.0.push(batch.iter().map(|sequence| sequence.len()).collect());
            let output = |sequence: &&Sequence| Output { rows: 1, columns: 1, data: vec![sequence.ids[0] as f32] };
            Ok(batch.iter().map(output).collect())
        }

        fn limits(&self) -> Limits {
            Limits { max_tokens_per_sequence: 10, max_tokens_per_batch: 20, vocabulary: 99 }
        }
    }

    #[test]
    fn batches_are_filled_up_to_their_longest_sequence() -> Result<(), EngineError> {
        let sequences = [3, 5, 5, 8, 1].map(|length| Sequence::from_ids(vec![length; length as usize]));
        let mut engine = Padded(Lengths::default());
        let outputs = engine.run(&sequences.iter().collect::<Vec<_>>())?;
        let firsts: Vec<f32> = outputs.iter().map(|output| output.data[0]).collect();
        assert_eq!(firsts, [3.0, 5.0, 5.0, 8.0, 1.0]);
        assert_eq!(engine.0.0, [vec![3, 5, 5, 2], vec![8, 1, 7]]);
        Ok(())
    }

    /// Gives for each selected token its id and its position, and remembers the spans.
    #[derive(Default)]
    struct Spans(Vec<StepSpan>);

    impl StepEngine for Spans {
        fn limits(&self) -> StepLimits {
            StepLimits {
                page_tokens: 2,
                pages: 8,
                positions: 16,
                source_positions: 0,
                tokens_per_step: 3,
                sequences_per_step: 4,
                vocabulary: 2,
            }
        }

        fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
            logits.clear();
            for span in &step.spans {
                let row = |&token: &u32| [span.ids[token as usize] as f32, (span.past + token as usize) as f32];
                logits.values.extend(span.selected.iter().flat_map(row));
            }
            self.0.extend(step.spans.iter().cloned());
            Ok(())
        }
    }

    fn step(past: usize, ids: &[u32], pages: &[u32], selected: &[u32]) -> Step {
        let span = StepSpan { ids: ids.into(), past, pages: pages.into(), selected: selected.into(), source: None };
        Step { spans: vec![span], ..Step::default() }
    }

    #[test]
    fn each_token_is_computed_with_all_before_it() -> Result<(), StepError> {
        let (mut engine, mut logits) = (Recomputing::new(Spans::default()), Logits::from(vec![9.0]));
        engine.run(&step(0, &[10, 11, 12, 13], &[5, 1], &[2, 3]), &mut logits)?;
        assert_eq!(logits.values, [12.0, 2.0, 13.0, 3.0]);
        engine.engine.0.clear();
        let copies = vec![PageCopy { from: 1, to: 4 }];
        engine.run(&Step { copies, ..step(3, &[14], &[5, 4], &[0]) }, &mut logits)?;
        assert_eq!(logits.values, [14.0, 3.0]);
        let seen: Vec<_> = engine.engine.0.iter().map(|span| (span.past, span.ids.clone())).collect();
        assert_eq!(seen, [(0, vec![10, 11, 12]), (3, vec![14])]);
        assert!(engine.run(&step(5, &[1], &[5, 4], &[]), &mut logits).is_err());
        Ok(())
    }
}
