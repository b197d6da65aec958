//! How likely texts are: each token by the logits of those before it, through the steps of an engine.

use std::collections::VecDeque;

use crate::engine::{Logits, Peak, Step, StepEngine, StepError, StepLimits, StepSpan};
use crate::numbers::log_sum_exp;

/// Logarithms (base e) of the probability of each text's tokens but the first, each given all before it.
///
/// Texts are computed together as far as a step takes them, a long one in several steps; that changes nothing in the
/// results. All pages of the engine are written to.
///
/// # Errors
/// A text has more tokens than the engine takes, or a step fails.
pub fn log_likelihoods(engine: &mut dyn StepEngine, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, StepError> {
    let limits = engine.limits();
    let mut pages: Vec<u32> = (0..limits.pages.try_into().unwrap_or(u32::MAX)).rev().collect();
    let mut found: Vec<Vec<f32>> = vec![Vec::new(); texts.len()];
    let mut waiting: VecDeque<Reading> = (0..texts.len()).map(Reading::of).collect();
    let mut logits = Logits::default();
    while !waiting.is_empty() {
        let parts = parts(&limits, texts, &mut waiting, &mut pages)?;
        if parts.is_empty() {
            break;
        }
        let spans = parts.iter().map(|part| part.span(texts)).collect();
        engine.run(&Step { spans, ..Step::default() }, &mut logits)?;
        let mut peaks = logits.peaks.iter();
        let mut rows = logits.values.chunks_exact(limits.vocabulary.max(1));
        for part in &parts {
            let (text, found) = (texts[part.reading.text], &mut found[part.reading.text]);
            for target in part.targets(text) {
                let row = rows.next().ok_or_else(|| StepError("the engine gave too few logits".to_owned()))?;
                found.push(log_probability(row, peaks.next().copied().flatten(), *target)?);
            }
        }
        for part in parts.into_iter().rev() {
            let (end, Reading { text, pages: mut own, .. }) = (part.end(), part.reading);
            if end == texts[text].len() {
                pages.append(&mut own);
            } else {
                waiting.push_front(Reading { text, past: end, pages: own });
            }
        }
    }
    Ok(found)
}

/// A text and how far it is.
struct Reading {
    text: usize,
    past: usize,
    pages: Vec<u32>,
}

impl Reading {
    fn of(text: usize) -> Reading {
        Reading { text, past: 0, pages: Vec::new() }
    }
}

/// The next tokens of a text.
struct Part {
    reading: Reading,
    tokens: usize,
}

impl Part {
    fn end(&self) -> usize {
        self.reading.past + self.tokens
    }

    /// The tokens that follow those of the part.
    fn targets<'a>(&self, text: &'a [u32]) -> &'a [u32] {
        &text[self.reading.past + 1..(self.end() + 1).min(text.len())]
    }

    fn span(&self, texts: &[&[u32]]) -> StepSpan {
        let text = texts[self.reading.text];
        StepSpan {
            ids: text[self.reading.past..self.end()].to_vec(),
            past: self.reading.past,
            pages: self.reading.pages.clone(),
            selected: (0..).take(self.targets(text).len()).collect(),
            source: None,
        }
    }
}

/// What the next step computes, taken from the front of what waits.
fn parts(
    limits: &StepLimits,
    texts: &[&[u32]],
    waiting: &mut VecDeque<Reading>,
    pages: &mut Vec<u32>,
) -> Result<Vec<Part>, StepError> {
    let (mut parts, mut left) = (Vec::new(), limits.tokens_per_step);
    while left > 0 && parts.len() < limits.sequences_per_step {
        let Some(mut reading) = waiting.pop_front() else { break };
        let length = texts[reading.text].len();
        if length < 2 {
            continue;
        }
        if reading.pages.is_empty() {
            let needed = length.div_ceil(limits.page_tokens.max(1));
            if length > limits.positions || needed > limits.pages {
                let most = limits.positions.min(limits.pages.saturating_mul(limits.page_tokens));
                return Err(StepError(format!("a text has {length} tokens, {most} are the most")));
            }
            if needed > pages.len() {
                waiting.push_front(reading);
                break;
            }
            reading.pages = pages.split_off(pages.len() - needed);
        }
        let tokens = left.min(length - reading.past);
        left -= tokens;
        parts.push(Part { reading, tokens });
    }
    Ok(parts)
}

/// The logarithm of a token's probability.
fn log_probability(logits: &[f32], peak: Option<Peak>, token: u32) -> Result<f32, StepError> {
    let whole = peak.map_or_else(|| log_sum_exp(logits), |peak| Ok(peak.log_sum));
    let whole = whole.map_err(|error| StepError(error.to_string()))?;
    let logit = logits.get(token as usize).ok_or_else(|| StepError(format!("there is no token {token}")))?;
    Ok((f64::from(*logit) - whole) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token's logits depend on it and on its position alone; the page of each position has to stay.
    struct Toy {
        limits: StepLimits,
        cache: Vec<u32>,
    }

    const VOCABULARY: usize = 11;

    fn logit(last: u32, position: usize, token: usize) -> f32 {
        ((last as usize * 7 + position * 3 + token * token) % 13) as f32 / 3.0
    }

    impl StepEngine for Toy {
        fn limits(&self) -> StepLimits {
            self.limits
        }

        fn run(&mut self, step: &Step, logits: &mut Logits) -> Result<(), StepError> {
            logits.clear();
            assert!(step.tokens() <= self.limits.tokens_per_step && !step.spans.is_empty());
            for span in &step.spans {
                for (at, &id) in (span.past..).zip(&span.ids) {
                    let page = span.pages[at / self.limits.page_tokens] as usize;
                    self.cache[page * self.limits.page_tokens + at % self.limits.page_tokens] = id;
                }
            }
            for span in &step.spans {
                for &selected in &span.selected {
                    let at = span.past + selected as usize;
                    let page = span.pages[at / self.limits.page_tokens] as usize;
                    let last = self.cache[page * self.limits.page_tokens + at % self.limits.page_tokens];
                    logits.values.extend((0..VOCABULARY).map(|token| logit(last, at, token)));
                }
            }
            Ok(())
        }
    }

    fn toy(tokens_per_step: usize, pages: usize) -> Toy {
        let limits = StepLimits {
            page_tokens: 4,
            pages,
            positions: 40,
            source_positions: 0,
            tokens_per_step,
            sequences_per_step: 3,
            vocabulary: VOCABULARY,
        };
        Toy { limits, cache: vec![u32::MAX; 4 * pages] }
    }

    fn expected(text: &[u32]) -> Vec<f32> {
        let one = |at: usize| {
            let row: Vec<f64> = (0..VOCABULARY).map(|token| f64::from(logit(text[at], at, token))).collect();
            let whole = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            (row[text[at + 1] as usize] - whole) as f32
        };
        (0..text.len().saturating_sub(1)).map(one).collect()
    }

    #[test]
    fn steps_and_pages_change_nothing() -> Result<(), StepError> {
        let texts: Vec<Vec<u32>> = [5, 0, 1, 23, 2, 9, 40, 3]
            .map(|length: u32| (0..length).map(|at| (at * at + length) % VOCABULARY as u32).collect())
            .to_vec();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        for (tokens, pages) in [(1, 10), (7, 10), (16, 12), (100, 30)] {
            let found = log_likelihoods(&mut toy(tokens, pages), &texts)?;
            for (text, found) in texts.iter().zip(found) {
                let expected = expected(text);
                assert_eq!(found.len(), expected.len());
                assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn texts_that_are_too_long_are_refused() {
        for (length, pages) in [(41, 30), (17, 4)] {
            let text = vec![1; length];
            let error = log_likelihoods(&mut toy(8, pages), &[&text]).expect_err("too long");
            assert!(error.to_string().contains(&format!("{length} tokens")), "{error}");
        }
    }
}
